//! The bases of all machines, one for each Debian release: built by `base/build`, cached, never written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Result, ensure};

use crate::cache::{Entry, Key};

/// Where this package's scripts and sources are.
pub(crate) const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// A Debian release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    #[default]
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Release {
    /// Its codename, as archives and `/etc/os-release` write it.
    pub fn codename(self) -> &'static str {
        match self {
            Release::Bullseye => "bullseye",
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }
}

/// The directory of a release's base (its parts: see `base/build`), built first if its recipe is new, which takes a minute.
pub(crate) fn base(release: Release) -> Result<PathBuf> {
    static BASES: Mutex<BTreeMap<Release, Entry>> = Mutex::new(BTreeMap::new());
    let mut bases = BASES.lock().expect("no panic while building a base");
    if let Some(base) = bases.get(&release) {
        return Ok(base.path.clone());
    }
    let package = Path::new(PACKAGE);
    let recipe = Key::default().add(&package.join("base"))?.add(&package.join("app"))?;
    let base = Entry::get(&format!("{}-base", release.codename()), recipe, |dir| {
        eprintln!("building the base of all machines with Debian {}, once:", release.codename());
        in_own_mounts(Command::new(package.join("base/build")).arg(dir).arg(release.codename()))
    })?;
    let path = base.path.clone();
    _ = bases.insert(release, base);
    Ok(path)
}

/// The pristine tree that machines start from: to be copied, never to be written.
pub fn pristine_tree() -> Result<PathBuf> {
    Ok(base(Release::default())?.join("tree"))
}

/// Runs a script of this package that mounts: in a mount namespace of its own, so that nothing stays mounted.
pub(crate) fn in_own_mounts(script: &Command) -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]).arg(script.get_program()).args(script.get_args());
    ensure!(unshare.status()?.success(), "{} failed", script.get_program().display());
    Ok(())
}
