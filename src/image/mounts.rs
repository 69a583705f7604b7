//! Mounts that prepare an image's tree for programs that run in it.

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::{host::root::Root, value::AbsPath};

/// Mounts `/proc`, `/sys`, `/dev` and the host's resolver configuration into an image's tree.
///
/// Maintainer scripts need the mounts: Java's fails without `/proc`. The mounts are in a mount namespace of this
/// process, so the host does not see them. The kernel removes them when this process ends. Does nothing for the host's
/// own root.
///
/// The caller has started no thread yet, because a mount namespace belongs to a thread.
pub fn prepare(root: &Root) -> Result<()> {
    if root.is_host() || !geteuid().is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace for the image")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("making the mounts private to this process")?;
    for directory in ["/proc", "/sys", "/dev"] {
        bind(root, directory, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    }
    bind(root, "/etc/resolv.conf", MsFlags::MS_BIND)?;
    // An opened directory is that of the earlier mount.
    root.forget();
    Ok(())
}

/// Mounts a path of the host over the same path of the tree, if the tree has that path.
fn bind(root: &Root, path: &'static str, flags: MsFlags) -> Result<()> {
    let resolved = root.resolve(&AbsPath::from(path))?;
    if root.status(&resolved)?.is_none() {
        return Ok(());
    }
    let target = root.path().join(resolved.as_str().trim_start_matches('/'));
    mount(Some(path), &target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("binding {path} into the image"))
}
