//! First boots of virtual machines from a stock image side by side: user-data that runs the agent, and the same steps as a
//! bash script.
//!
//!     cargo run --release -p machine --bin bench-vm
//!
//! Prints where the time from power on went. Every instruction is emulated: the ratios tell more than the seconds.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use machine::{UserData, Vm, VmOptions};

const SCRIPT: &str = "origin.test/bootstrap.sh";

fn main() -> Result<()> {
    let bash = format!("#!/bin/bash\nset -euo pipefail\ncurl -fsS --retry 5 http://{SCRIPT} | bash\n");
    for (name, user_data) in [("agent", UserData::Bootstrap), ("bash", UserData::Text(bash))] {
        let mut vm = Vm::new(VmOptions { user_data: Some(user_data), ..VmOptions::default() })?;
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/bootstrap.sh"))?;
        let variables: String = vm.variables()?.iter().map(|variable| format!("export {variable}\n")).collect();
        vm.world().publish(SCRIPT, format!("export app_version=1.0.0\n{variables}{text}"));
        let start = Instant::now();
        vm.power_on()?;
        vm.wait_until_booted()?;
        let booted = start.elapsed();
        _ = vm.exec(&["cloud-init", "status", "--long"])?.success()?;
        vm.wait_until_serving()?;
        println!("{name}: {:.1} s from power on until all is started", booted.as_secs_f32());
        let steps = if name == "agent" { vm.steps_of_run()? } else { Vec::new() };
        for (phase, seconds) in vm.phases()?.into_iter().chain(steps) {
            println!("{seconds:8.1}  {phase}");
        }
    }
    Ok(())
}
