//! First boots of virtual machines side by side. From a stock image: user-data that runs the agent, and the same steps as a
//! bash script. From a baked image: with cloud-init, and with `bake --first-boot agent`.
//!
//!     cargo run --release -p machine --bin bench-vm            all four
//!     cargo run --release -p machine --bin bench-vm -- baked   the two of the baked image
//!
//! Prints where the time from power on went. Every instruction is emulated: the ratios tell more than the seconds.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use machine::{Baked, Release, UserData, Vm, VmOptions, complete_tree, partitioned_disk};

const SCRIPT: &str = "origin.test/bootstrap.sh";
/// The units of a first boot by the agent.
const UNITS: [&str; 4] = ["set-up", "host-keys", "growth", "user-data"];
/// Prints where a boot's time went, and what the application waited for.
const WHERE: &str = "systemd-analyze --no-pager; systemd-analyze blame --no-pager | head -n 12
    systemd-analyze critical-chain --no-pager glovo-app.service";

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() != Some("baked") {
        stock()?;
    }
    baked()
}

/// Boots a baked image with cloud-init and without, and prints the time until the application answers. At last the machine
/// boots once more without any unit of a first boot: no first boot can be quicker.
fn baked() -> Result<()> {
    let mut seconds = vec![];
    for (name, options) in [("cloud-init", &["--host-keys"][..]), ("agent", &["--first-boot", "agent"])] {
        let baked = Baked::new(&complete_tree(Release::default())?, options, partitioned_disk)?;
        let mut vm = baked.vm()?;
        let serving = serve(&mut vm)?;
        vm.wait_until_booted()?;
        println!("baked, first boot by {name}: {serving:.1} s from power on until it serves");
        println!("{}", vm.sh(WHERE)?.trim_end());
        for (phase, seconds) in vm.steps_of_run()? {
            println!("{seconds:8.1}  {phase}");
        }
        seconds.push(serving);
        if name == "agent" {
            _ =
                vm.sh(&format!("systemctl disable {}", UNITS.map(|unit| format!("glovo-bootstrap-{unit}")).join(" ")))?;
            vm.power_off()?;
            let floor = serve(&mut vm)?;
            vm.wait_until_booted()?;
            println!("without a first boot: {floor:.1} s\n{}", vm.sh(WHERE)?.trim_end());
            seconds.push(floor);
        }
    }
    println!("without a first boot / cloud-init: {:.2}", seconds[2] / seconds[0]);
    println!("agent / cloud-init: {:.2}", seconds[1] / seconds[0]);
    Ok(())
}

/// Switches a machine on, and returns the seconds until its application answers.
fn serve(vm: &mut Vm) -> Result<f64> {
    let start = Instant::now();
    vm.power_on()?;
    vm.wait_until_serving()?;
    Ok(start.elapsed().as_secs_f64())
}

fn stock() -> Result<()> {
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
