//! What the firmware says decides whether root believes what answers at EC2's address.

use anyhow::{Result, ensure};
use machine::{Vm, VmOptions};

#[test]
fn a_machine_outside_ec2_does_not_ask_a_metadata_service() -> Result<()> {
    let vm = Vm::boot(VmOptions { memory: 512, ec2: false, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    let fetch = ["glovo-bootstrap", "fetch", "--output-dir", "/root", "s3://glovo-config/nginx/default"];
    let refused = vm.exec(&fetch)?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        refused.code == 1 && said.contains("the firmware (DMI) does not say EC2"),
        "exit code {}\n{said}",
        refused.code
    );
    let asked = || vm.world().requests().iter().any(|request| request.host == "169.254.169.254");
    ensure!(!asked(), "it was asked all the same");

    vm.exec(&[&["env", "AWS_REGION=eu-central-1", "GLOVO_BOOTSTRAP_TRUST_METADATA=1"][..], &fetch].concat())?
        .success()?;
    ensure!(asked() && vm.sh("grep -c proxy_pass /root/default")?.trim() != "0");
    Ok(())
}
