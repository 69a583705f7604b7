//! The bases of all machines, one for each release of Debian and one in the shape of Amazon Linux: built by `base/build`
//! and `amazon/build`, cached, never written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Result, ensure};

use crate::cache::{Entry, Key};

/// Where this package's scripts and sources are.
pub(crate) const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// What is installed on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
    /// Amazon Linux 2023 in shape, made of Debian 12's packages: dnf is its only package manager.
    Amazon,
}

impl Default for Release {
    /// Returns Debian 12, or the release that `GLOVO_MACHINE_RELEASE` names: so a file of tests runs on another one.
    fn default() -> Release {
        let Ok(name) = std::env::var("GLOVO_MACHINE_RELEASE") else { return Release::Bookworm };
        let releases = [Release::Bullseye, Release::Bookworm, Release::Trixie, Release::Amazon];
        let named = releases.into_iter().find(|release| release.codename() == name);
        named.unwrap_or_else(|| panic!("GLOVO_MACHINE_RELEASE: no release is called {name}"))
    }
}

impl Release {
    /// Returns its codename, as Debian's archives and `/etc/os-release` write it.
    pub fn codename(self) -> &'static str {
        match self {
            Release::Bullseye => "bullseye",
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
            Release::Amazon => "amazon",
        }
    }
}

/// Returns the directory of a release's base (its parts: see `base/build`). If its recipe is new, it is built first,
/// which takes a minute.
pub(crate) fn base(release: Release) -> Result<PathBuf> {
    static BASES: Mutex<BTreeMap<Release, Entry>> = Mutex::new(BTreeMap::new());
    // Made before the lock is taken, because it is a base as well.
    let below = if release == Release::Amazon { Some(base(Release::Bookworm)?) } else { None };
    let mut bases = BASES.lock().expect("no panic while building a base");
    if let Some(base) = bases.get(&release) {
        return Ok(base.path.clone());
    }
    let base = match below {
        None => debian(release)?,
        Some(below) => amazon(&below)?,
    };
    let path = base.path.clone();
    _ = bases.insert(release, base);
    Ok(path)
}

fn debian(release: Release) -> Result<Entry> {
    let package = Path::new(PACKAGE);
    let recipe = Key::default().add(&package.join("base"))?.add(&package.join("app"))?;
    Entry::get(&format!("{}-base", release.codename()), recipe, |dir| {
        eprintln!("building the base of all machines with Debian {}, once:", release.codename());
        in_own_mounts(Command::new(package.join("base/build")).arg(dir).arg(release.codename()))
    })
}

/// Returns Debian's base with dnf in place of apt.
fn amazon(debian: &Path) -> Result<Entry> {
    let recipe = Path::new(PACKAGE).join("amazon");
    // A base has keys of its own each time it is built.
    let key = Key::default().add(&debian.join("tls"))?.add(&recipe)?;
    Entry::get("amazon-base", key, |dir| {
        eprintln!("building the base of all machines with dnf, once:");
        in_own_mounts(Command::new(recipe.join("build")).arg(dir).arg(debian))
    })
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
