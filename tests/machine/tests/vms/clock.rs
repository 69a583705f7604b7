//! A machine whose clock is wrong, as after a battery's death: the cause is named, and deadlines don't follow the clock.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use machine::{Vm, VmOptions};

const WAIT: &str = r#"[[step]]
name = "wait"
[[step.resource]]
kind = "http_check"
url = "http://127.0.0.1:9/"
deadline = "20s"
"#;

#[test]
fn a_clock_of_1970_is_named_and_does_not_affect_deadlines() -> Result<()> {
    let vm = Vm::boot(VmOptions { clock: "1970-01-01T00:00:00", ..VmOptions::default() })?;
    vm.fetch_agent()?;
    // systemd has set a clock that is before its own build to that.
    vm.sh("date --set 1970-01-02")?;
    let fetch = vm.agent(&["fetch", "https://origin.test/file"])?;
    let said = format!("{}{}", fetch.stdout, fetch.stderr);
    ensure!(fetch.code == 1 && said.contains("check this machine's clock"), "exit code {}\n{said}", fetch.code);

    vm.world().publish("origin.test/wait.toml", WAIT);
    vm.sh("curl -fsS -o /root/wait.toml http://origin.test/wait.toml")?;
    let start = Instant::now();
    let run = vm.start_process(&["glovo-bootstrap", "run", "--steps", "/root/wait.toml"])?;
    vm.sh("until pgrep -x glovo-bootstrap > /dev/null; do sleep 0.1; done; date --set 2036-01-01")?;
    let output = loop {
        match vm.ended(&run)? {
            Some(output) => break output,
            None => ensure!(start.elapsed() < Duration::from_secs(120), "its deadline went back in time"),
        }
    };
    ensure!(start.elapsed() >= Duration::from_secs(20), "its deadline jumped with the clock: {output:?}");
    ensure!(output.code != 0, "{output:?}");
    Ok(())
}
