//! What virtual machines boot from: built by `vm/build` on a release's base, cached, never written again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::base::{PACKAGE, Release, base, in_own_mounts};
use crate::cache::{Entry, Key};

/// The directory of a release's kernel and root disks (its parts: see `vm/build`), built first if its recipe is new.
pub(super) fn images(release: Release) -> Result<Entry> {
    let base = base(release)?;
    let recipe = Path::new(PACKAGE).join("vm");
    // A base has keys of its own each time it is built.
    let key = Key::default().add(&base.join("tls"))?;
    let key = ["build", "image", "tree"].iter().try_fold(key, |key, part| key.add(&recipe.join(part)))?;
    Entry::get(&format!("{}-vm", release.codename()), key, |dir| {
        eprintln!("building the root disks of virtual machines with Debian {}, once:", release.codename());
        in_own_mounts(Command::new(recipe.join("build")).arg(dir).arg(&base))
    })
}

/// The directory of a release's kernel and root disk whose files have the labels of SELinux's policy (see `vm/enforcing`).
pub(super) fn enforcing(release: Release) -> Result<Entry> {
    let stock = images(release)?;
    let recipe = Path::new(PACKAGE).join("vm");
    let key = Key::default().add(&base(release)?.join("tls"))?;
    let parts = ["build", "image", "tree", "enforcing"];
    let key = parts.iter().try_fold(key, |key, part| key.add(&recipe.join(part)))?;
    Entry::get(&format!("{}-enforcing", release.codename()), key, |dir| {
        eprintln!("building the root disk of virtual machines with SELinux and Debian {}, once:", release.codename());
        in_own_mounts(Command::new(recipe.join("enforcing")).arg(dir).arg(&stock.path))
    })
}

/// The tree of a stock machine: to be copied, never to be written.
pub fn stock_tree(release: Release) -> Result<PathBuf> {
    Ok(images(release)?.path.join("tree"))
}

/// Makes a root disk of a tree, for [`crate::VmOptions::disk`].
pub fn root_disk(tree: &Path, file: &Path, filesystem: &str) -> Result<()> {
    in_own_mounts(Command::new(Path::new(PACKAGE).join("vm/image")).arg(tree).arg(file).arg(filesystem))
}
