//! What a reboot and a power cut leave. The long series of power cuts is a program: src/bin/power-cuts.rs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use machine::{Fault, Vm, VmOptions};
use serde_json::Value;

const STEPS: &str = r#"
[[step]]
name = "first"
[[step.resource]]
kind = "file"
path = "/srv/first"
content = "first\n"
[[step]]
name = "second"
[[step.resource]]
kind = "package"
names = ["glovo-test-hello"]
[[step.resource]]
kind = "file"
path = "/srv/second"
source = "http://origin.test/second"
verify = "none"
"#;

#[test]
fn a_reboot_during_a_run_is_told_and_the_next_run_finishes() -> Result<()> {
    let mut vm = Vm::boot(VmOptions { memory: 512, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    vm.world().publish("origin.test/steps.toml", STEPS);
    vm.world().publish("origin.test/second", "second\n");
    vm.sh("curl -fsS -o /root/steps.toml http://origin.test/steps.toml")?;
    // The run can't go beyond this: so it is in its middle, wherever exactly.
    vm.world().fault("^GET origin.test/second$", 1, Fault::Stall(3));
    let run = ["glovo-bootstrap", "run", "--steps", "/root/steps.toml"];
    vm.start_process(&run)?;
    let start = Instant::now();
    while vm.exec(&["test", "-e", "/usr/share/glovo-test-hello/greeting"])?.code != 0 {
        ensure!(start.elapsed() < Duration::from_secs(300), "the run does not come to its package");
        sleep(Duration::from_millis(100));
    }
    vm.reboot()?;

    // As told by a SIGTERM, or as found after what did not even bring that.
    let status = vm.agent(&["status", "--json"])?;
    let report: Value = serde_json::from_str(&status.stdout)?;
    ensure!(report["steps"][0]["outcome"] == "changed" && report["steps"][1]["outcome"] != "changed", "{report:#}");
    ensure!(status.code != 0, "{report:#}");
    vm.exec(&run)?.success()?;
    assert_eq!(vm.sh("cat /srv/first /srv/second")?, "first\nsecond\n");
    Ok(())
}

#[test]
fn a_power_cut_takes_what_was_not_flushed_and_nothing_else() -> Result<()> {
    let mut vm = Vm::boot(VmOptions { memory: 512, ..VmOptions::default() })?;
    // Files whose blocks are written in place: no journal orders their content. No other process may flush.
    vm.sh("mount -o remount,commit=300 /; head -c 1M /dev/zero > /root/kept; cp /root/kept /root/lost
        head -c 1M /dev/urandom > /run/data; sync")?;
    vm.snapshot("before")?;
    let overwrite = "dd if=/run/data bs=64k oflag=direct status=none conv=notrunc";
    let data = vm.sh(&format!("{overwrite},fsync of=/root/kept; sha256sum < /run/data"))?;
    vm.sh(&format!("{overwrite} of=/root/lost; cmp /run/data /root/lost"))?;
    vm.cut_power();
    vm.power_on()?;
    vm.wait_until_booted()?;
    assert_eq!(vm.sh("sha256sum < /root/kept")?, data);
    assert_ne!(vm.sh("sha256sum < /root/lost")?, data, "this disk has no cache whose loss would be seen");
    Ok(())
}
