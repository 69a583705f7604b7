//! A machine on which the agent has run, kept as a layer over the base: tests of drift start from it in seconds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::base::{PACKAGE, base};
use crate::cache::{Entry, Key};
use crate::{Machine, Options, agent, bootstrap};

/// The layer for this agent, made by a bootstrap if there is none yet: the directory `changes`, and the disk `ext4.img`.
pub(crate) fn layer() -> Result<Entry> {
    let of_base = base()?.join("tls");
    let key = Key::default().add(&of_base)?.add(agent()?)?.add(&Path::new(PACKAGE).join("../../steps"))?;
    Entry::get("converged", key, make)
}

fn make(dir: &Path) -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    let bootstrap = bootstrap()?;
    let arguments: Vec<&str> = bootstrap.iter().map(String::as_str).collect();
    machine.agent(&arguments)?.success().context("the bootstrap that all drift tests start from")?;
    machine.power_off()?;
    let copy = Command::new("cp")
        .args(["--archive", "--sparse=always"])
        .args([machine.changes(), machine.disk("ext4")])
        .arg(dir)
        .status()?;
    ensure!(copy.success(), "the changes of a converged machine could not be copied");
    Ok(())
}
