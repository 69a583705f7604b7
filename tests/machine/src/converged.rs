//! A machine on which the agent has run, kept as a layer over the base: tests of drift start from it in seconds.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::base::{PACKAGE, Release, base};
use crate::cache::{Entry, Key};
use crate::{Machine, Options, agent};

/// The layer for the base of a release, this agent and these steps, made by a bootstrap if there is none yet: the directory `changes`, and the disk `ext4.img`.
pub(crate) fn layer(release: Release) -> Result<Entry> {
    let package = Path::new(PACKAGE);
    let key = Key::default()
        .add(&base(release)?.join("tls"))?
        .add(agent()?)?
        .add(&package.join("src/agent.rs"))?
        .add(&package.join("../../steps"))?;
    Entry::get(&format!("{}-converged", release.codename()), key, |dir| make(dir, release))
}

fn make(dir: &Path, release: Release) -> Result<()> {
    let mut machine = Machine::boot(Options { release, ..Options::default() })?;
    machine.bootstrap(&["run"])?.success().context("the bootstrap that all drift tests start from")?;
    machine.power_off()?;
    let copy = Command::new("cp")
        .args(["--archive", "--sparse=always"])
        .args([machine.changes(), machine.image("ext4")])
        .arg(dir)
        .status()?;
    ensure!(copy.success(), "the changes of a converged machine could not be copied");
    Ok(())
}

/// Gives the swap file of the machine that made the layer the name it has on this one.
pub(crate) fn rename_swap(machine: &Machine) -> Result<()> {
    let disk = machine.disk("ext4");
    for file in fs::read_dir(&disk)? {
        let file = file?.path();
        if let Some(old) = file.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("swap-")) {
            let fstab = fs::read_to_string(machine.path("/etc/fstab"))?;
            let new = machine.swap_path();
            fs::write(machine.path("/etc/fstab"), fstab.replace(&format!("/mnt/ext4/{old}"), &new))?;
            fs::rename(&file, disk.join(new.trim_start_matches("/mnt/ext4/")))?;
        }
    }
    Ok(())
}
