//! What virtual machines boot from: built by `vm/build` on a release's base, cached, never written again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

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

/// The tree of a machine that has what an instance of EC2 has: to be copied, never to be written.
pub fn complete_tree(release: Release) -> Result<PathBuf> {
    let stock = images(release)?;
    let recipe = Path::new(PACKAGE).join("vm");
    let key = Key::default().add(&base(release)?.join("tls"))?;
    let key = ["build", "tree", "complete"].iter().try_fold(key, |key, part| key.add(&recipe.join(part)))?;
    let entry = Entry::get(&format!("{}-complete", release.codename()), key, |dir| {
        eprintln!("building the tree of complete machines with Debian {}, once:", release.codename());
        in_own_mounts(Command::new(recipe.join("complete")).arg(dir).arg(&stock.path))
    })?;
    Ok(entry.path.join("tree"))
}

/// The tree of a stock machine: to be copied, never to be written.
pub fn stock_tree(release: Release) -> Result<PathBuf> {
    Ok(images(release)?.path.join("tree"))
}

/// Makes a root disk of a tree, for [`crate::VmOptions::disk`].
pub fn root_disk(tree: &Path, file: &Path, filesystem: &str) -> Result<()> {
    in_own_mounts(Command::new(Path::new(PACKAGE).join("vm/image")).arg(tree).arg(file).arg(filesystem))
}

/// Makes a disk with a root partition and unused space behind it, for [`crate::VmOptions::disk`]. The kernel's parameters
/// must have `root=/dev/vda1`.
pub fn partitioned_disk(tree: &Path, file: &Path, filesystem: &str) -> Result<()> {
    let part = file.with_extension("part");
    let image = Path::new(PACKAGE).join("vm/image");
    in_own_mounts(Command::new(image).arg(tree).arg(&part).arg(filesystem).arg("/dev/vda1"))?;
    let bytes = fs::metadata(&part)?.len();
    // The table of an MBR: one entry of type Linux, by its first sector and its length.
    let mut table = [0; 512];
    table[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
    table[458..462].copy_from_slice(&u32::try_from(bytes / 512)?.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(file, table)?;
    let copied = Command::new("dd")
        .arg(format!("if={}", part.display()))
        .arg(format!("of={}", file.display()))
        .args(["bs=1M", "seek=1", "conv=sparse,notrunc", "status=none"])
        .status()?;
    ensure!(copied.success(), "copying the partition: {copied}");
    fs::remove_file(&part)?;
    fs::File::options().write(true).open(file)?.set_len(bytes + (1 << 30))?;
    Ok(())
}
