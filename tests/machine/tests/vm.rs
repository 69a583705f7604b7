//! From power on to a serving machine, on a machine with a kernel, firmware and a disk of its own: nothing is told to
//! cloud-init that EC2 would not tell it.
//!
//! All else that needs a virtual machine is in `vms/`, and takes longer.

use anyhow::{Result, ensure};
use machine::{UserData, Vm, VmOptions};

#[test]
fn a_stock_image_detects_ec2_and_bootstraps_itself() -> Result<()> {
    let vm = Vm::boot(VmOptions { user_data: Some(UserData::Bootstrap), ..VmOptions::default() })?;
    println!("from power on, seconds:");
    for (phase, seconds) in vm.phases()?.into_iter().chain(vm.steps_of_run()?) {
        println!("{seconds:8.1}  {phase}");
    }
    let status = vm.exec(&["cloud-init", "status", "--long"])?;
    ensure!(status.code == 0 && status.stdout.starts_with("status: done"), "{}\n{}", status.stdout, vm.console());
    ensure!(vm.sh("cloud-id")?.trim() == "aws", "cloud-init has found another cloud");
    let tokens = vm.world().requests().into_iter().filter(|request| {
        request.line() == "PUT 169.254.169.254/latest/api/token" && request.agent.starts_with("Cloud-Init")
    });
    ensure!(tokens.count() > 0, "cloud-init did not ask for a token");

    vm.wait_until_serving()?;
    let curl = vm.world().command("curl").args(["-si", "http://172.31.0.10/any/path"]).output()?;
    let answer = String::from_utf8(curl.stdout)?.to_lowercase();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    for (who, text) in [("client", head), ("application", body)] {
        ensure!(text.contains("x-glovo-systems-engineer-candidate: 1"), "the {who} did not see the header:\n{text}");
    }
    ensure!(vm.sh("swapon --show=NAME --noheadings")?.trim() == "/swapfile");
    let console = vm.console();
    ensure!(console.contains("verify"), "the console does not show the run:\n{console}");
    let again = vm.bootstrap(&["run"])?.success()?;
    ensure!(again.contains("converged: 0 changes"), "{again}");
    Ok(())
}
