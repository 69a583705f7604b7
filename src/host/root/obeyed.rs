//! The check that root may obey a file: no other user can have written or replaced it.

use std::{os::fd::AsFd, path::Path, sync::Arc};

use anyhow::Result;
use nix::unistd::geteuid;

use super::{FileStatus, FileType, Ownership, way::Writers};
use crate::{environment, error::Fault, host::accounts::Accounts, value::quoted};

/// Fails if another user could replace or write a file. Trusted are root, the caller and the user with the id `also`.
pub(crate) fn check(
    fd: impl AsFd,
    status: &FileStatus,
    path: &Path,
    load: &dyn Fn() -> Result<Arc<Accounts>>,
    also: Option<u32>,
) -> Result<()> {
    let Ownership { uid, mode, .. } = status.ownership;
    let (real, path) = (path, path.display());
    let ours = if geteuid().is_root() { "root" } else { "you or root" };
    let hint = |command: &str| match status.file_type {
        FileType::Regular => format!("read it, and if it is right: {command} {}", quoted(&path.to_string())),
        _ => format!("move the file to a directory that belongs to {ours} and that no other user can write to"),
    };
    if !(is_ours(uid) || Some(uid) == also) {
        let message = format!("{path} belongs to uid {uid}, not to {ours}");
        return Err(Fault::new(message).hint(hint("chown root:")).into());
    }
    if Writers::found(fd, status, real, load)? != Writers::Owner {
        let message = format!("other users may write to {path} (mode {mode:04o})");
        return Err(Fault::new(message).hint(hint("chmod go-w")).into());
    }
    Ok(())
}

/// Returns whether a user is root or the caller.
fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Returns the id of the user that called sudo to become root.
pub(crate) fn sudo_uid() -> Option<u32> {
    geteuid().is_root().then(|| environment::value(environment::SUDO_UID)?.parse().ok()).flatten()
}
