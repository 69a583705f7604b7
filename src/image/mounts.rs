//! An image's tree made ready for programs to run in it.

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::{host::root::Root, value::AbsPath};

/// Mounts `/proc`, `/sys` and `/dev` of the host into an image's tree, because maintainer scripts
/// need them (Java's refuses to go on without `/proc`), and the host's resolver configuration over
/// the tree's. They are in a mount namespace of this process: the host sees none of it, and the kernel
/// removes it when this process ends, in whatever way. Does nothing for the host's own root.
///
/// Called before any thread is started, since a namespace belongs to a thread.
pub fn prepare(root: &Root) -> Result<()> {
    if root.is_host() || !geteuid().is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace for the image")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keeping mounts to ourselves")?;
    for directory in ["/proc", "/sys", "/dev"] {
        bind(root, directory, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    }
    bind(root, "/etc/resolv.conf", MsFlags::MS_BIND)
}

/// Binds a path of the host over the same path of the tree, if it is there.
fn bind(root: &Root, path: &'static str, flags: MsFlags) -> Result<()> {
    let resolved = root.resolve(&AbsPath::from(path))?;
    if root.status(&resolved)?.is_none() {
        return Ok(());
    }
    let target = root.path().join(resolved.as_str().trim_start_matches('/'));
    mount(Some(path), &target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("binding {path} into the image"))
}
