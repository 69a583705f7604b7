//! The base of all machines: built by `base/build`, cached, never written again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Result, ensure};

use crate::cache::{Entry, Key};

/// Where this package's scripts and sources are.
pub(crate) const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// The base's directory (its parts: see `base/build`), built first if its recipe is new, which takes a minute.
pub(crate) fn base() -> Result<PathBuf> {
    static BASE: Mutex<Option<Entry>> = Mutex::new(None);
    let mut base = BASE.lock().expect("no panic while building the base");
    if base.is_none() {
        let package = Path::new(PACKAGE);
        let recipe = Key::default().add(&package.join("base"))?.add(&package.join("app"))?;
        *base = Some(Entry::get("base", recipe, build)?);
    }
    Ok(base.as_ref().expect("just set").path.clone())
}

/// The pristine tree that machines start from: to be copied, never to be written.
pub fn pristine_tree() -> Result<PathBuf> {
    Ok(base()?.join("tree"))
}

fn build(dir: &Path) -> Result<()> {
    eprintln!("building the base of all machines, once:");
    let build = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash"])
        .arg(Path::new(PACKAGE).join("base/build"))
        .arg(dir)
        .status()?;
    ensure!(build.success(), "base/build failed");
    Ok(())
}
