//! The common parts of the kinds of package repositories: one kind a family.

use anyhow::Result;
use nix::unistd::{getegid, geteuid};

use super::Finding;
use crate::{
    error::Fault,
    host::root::{Ownership, Root},
    packages::{
        self,
        manager::Family,
        signing_key::{Key, MAX_KEY_BYTES, PinnedKey},
    },
    system::System,
    value::AbsPath,
};

/// Fails on a machine with another package manager than that of a kind.
pub(super) fn check_family(system: &System, of_kind: Family, kind: &str) -> Result<()> {
    let (family, of_kind) = (packages::of(&system.host)?.name(), of_kind.name());
    if family == of_kind {
        return Ok(());
    }
    let message = format!("this machine installs packages with {family}, but {kind} is about {of_kind}");
    Err(Fault::new(message).hint("limit it to other machines with `where`").into())
}

/// Returns the faults of a declared key.
pub(super) fn check_key(pinned: PinnedKey<'_>) -> Option<Finding> {
    match pinned.key {
        Key::Inline(key) => {
            let error = pinned.read(key.as_bytes()).err()?;
            Some(Finding::new("key", format!("{error:#}")))
        }
        Key::At(_) if pinned.sha256.is_none() && pinned.fingerprints.is_none() => {
            let message = "a key from a path or URL needs `key_sha256` or `key_fingerprint`";
            let hint = "print one of them: sha256sum KEYFILE, or gpg --show-keys KEYFILE";
            Some(Finding::new("key", message).hint(hint))
        }
        Key::At(_) => None,
    }
}

/// Temporary files for the package manager to verify. They are removed when this is dropped.
///
/// They are in `/run`, where a reboot removes those of a killed run.
pub(super) struct Trial<'a, const N: usize> {
    root: &'a Root,
    pub(super) paths: [AbsPath; N],
}

impl<'a, const N: usize> Trial<'a, N> {
    /// Returns the paths of temporary files with these endings.
    pub(super) fn of(root: &'a Root, name: &str, endings: [&str; N]) -> Result<Self> {
        let mut paths = endings.map(|_| AbsPath::from("/run"));
        for (path, ending) in paths.iter_mut().zip(endings) {
            *path = path.join(&format!("glovo-bootstrap-{name}.{ending}"))?;
        }
        Ok(Self { root, paths })
    }
}

impl<const N: usize> Drop for Trial<'_, N> {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = self.root.purge(path) {
                tracing::warn!(%path, %error, "a temporary file was not removed");
            }
        }
    }
}

/// Returns root's ownership with a mode.
pub(super) fn owned_by_root(mode: u32) -> Ownership {
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode }
}

/// Reads a file with the right owner and mode; `None` otherwise. Another user could change it, or the package manager
/// could not read it.
pub(super) fn read_owned(root: &Root, path: &AbsPath, mode: u32) -> Result<Option<Vec<u8>>> {
    // On a machine, another user may plan what root runs.
    let wanted = if root.is_host() { Ownership { uid: 0, gid: 0, mode } } else { owned_by_root(mode) };
    match root.status(path)? {
        Some(status) if status.ownership == wanted => root.read(path, MAX_KEY_BYTES),
        _ => Ok(None),
    }
}
