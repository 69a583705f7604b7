//! An image on which the agent has run already: its machine does what can only be done there, and that is quick.

use anyhow::{Result, ensure};
use machine::{Baked, Release, Vm, VmOptions, root_disk, stock_tree};

#[test]
fn a_baked_image_serves_without_fetching_anything_again() -> Result<()> {
    let baked = Baked::new(&stock_tree(Release::default())?, &[], root_disk)?;
    let vm = Vm::boot(VmOptions {
        disk: Some(baked.disk.clone()),
        user_data: Some(baked.user_data()?),
        ..VmOptions::default()
    })?;
    vm.wait_until_serving()?;
    println!("a baked image, from power on, seconds:");
    for (phase, seconds) in vm.phases()?.into_iter().chain(vm.steps_of_run()?) {
        println!("{seconds:8.1}  {phase}");
    }
    vm.exec(&["cloud-init", "status"])?.success()?;
    application_is_kept_from_the_metadata_service(&vm)?;
    let fetched =
        vm.world().requests().into_iter().filter(|request| !["DNS", "PUT"].contains(&request.method.as_str()));
    let fetched: Vec<_> =
        fetched.filter(|request| request.host != "169.254.169.254").map(|request| request.line()).collect();
    ensure!(fetched.is_empty(), "fetched again: {fetched:?}");
    Ok(())
}

/// What belongs to the application's control group may do what the application may.
fn application_is_kept_from_the_metadata_service(vm: &Vm) -> Result<()> {
    let asks = |url: &str| {
        let procs = "/sys/fs/cgroup$(systemctl show --value --property ControlGroup glovo-app)/cgroup.procs";
        let script = format!("echo $$ > {procs}; exec curl --silent --max-time 5 --output /dev/null {url}");
        vm.exec(&["sh", "-euc", &script])
    };
    let metadata = "http://169.254.169.254/latest/meta-data/";
    vm.exec(&["curl", "--silent", "--max-time", "5", "--output", "/dev/null", metadata])?.success()?;
    asks("http://127.0.0.1/")?.success()?;
    ensure!(asks(metadata)?.code != 0, "the application can ask for the role");
    Ok(())
}
