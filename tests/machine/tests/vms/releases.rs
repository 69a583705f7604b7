//! The other Debians, on the smallest machine there is.

use anyhow::{Context, Result, ensure};
use machine::{Release, Vm, VmOptions};

/// Shell: a whole bootstrap, and how much memory the agent held at most, in KiB.
const RUN: &str = r#"
    glovo-bootstrap run "$@" > /root/said 2>&1 & agent=$!
    while held=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$agent/status 2> /dev/null) && [ "$held" ]; do
        most=$held; sleep 0.2
    done
    wait $agent || { code=$?; cat /root/said; exit $code; }
    echo $most"#;

fn bootstraps(release: Release) -> Result<()> {
    let vm = Vm::boot(VmOptions { release, memory: 512, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    assert_eq!(vm.sh(". /etc/os-release; echo $VERSION_CODENAME")?.trim(), release.codename());
    let variables = vm.variables()?;
    let set = variables.iter().flat_map(|variable| ["--set", variable]);
    let run = vm.exec(&["sh", "-euc", RUN, "sh"].into_iter().chain(set).collect::<Vec<_>>())?.success()?;
    let held: u64 = run.trim().parse().with_context(|| run)?;
    vm.wait_until_serving()?;
    println!("{} with 512 MiB: the agent held {:.1} MiB at most", release.codename(), held as f64 / 1024.0);
    for (step, seconds) in vm.steps_of_run()? {
        println!("{seconds:8.1}  {step}");
    }
    ensure!(vm.bootstrap(&["run"])?.success()?.contains("converged: 0 changes"));
    Ok(())
}

#[test]
fn debian_11_with_512_mib_bootstraps() -> Result<()> {
    bootstraps(Release::Bullseye)
}

#[test]
fn debian_13_with_512_mib_bootstraps() -> Result<()> {
    bootstraps(Release::Trixie)
}
