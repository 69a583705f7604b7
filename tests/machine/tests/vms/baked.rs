//! An image on which the agent has run already: its machine does what can only be done there, and that is quick.

use std::path::PathBuf;
use std::{env, fs, process};

use anyhow::{Result, ensure};
use machine::{Machine, Options, Release, UserData, Vm, VmOptions, root_disk, stock_tree};

const IMAGE: &str = "/image";

/// A root disk that is gone when dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_baked_image_serves_without_fetching_anything_again() -> Result<()> {
    let disk = Disk(env::temp_dir().join(format!("baked-{}", process::id())));
    let baking = Machine::boot(Options::default())?;
    let copy = process::Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([stock_tree(Release::default())?, baking.path(IMAGE)])
        .status()?;
    ensure!(copy.success(), "copying the stock tree: {copy}");
    baking.sh(&format!("cp /usr/local/bin/glovo-bootstrap {IMAGE}/usr/local/bin/"))?;
    baking.bootstrap(&["bake", "--seal", "--root", IMAGE])?.success()?;
    root_disk(&baking.path(IMAGE), &disk.0, "ext4")?;
    let variables: String = baking.variables()?.iter().map(|variable| format!(" --set {variable}")).collect();
    drop(baking);

    let script = format!("#!/bin/sh\nexec /usr/local/bin/glovo-bootstrap run{variables} --set swap_path=/swapfile\n");
    let vm = Vm::boot(VmOptions {
        disk: Some(disk.0.clone()),
        user_data: Some(UserData::Text(script)),
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
