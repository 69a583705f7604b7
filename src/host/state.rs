//! What outlives a run, in `/var/lib/glovo-bootstrap`: the report, and what kinds must remember.

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use serde::{Serialize, de::DeserializeOwned};

use super::root::{FileType, Ownership, Root};
use crate::value::AbsPath;

/// The directory, readable by root only: reports quote commands and paths.
pub const DIRECTORY: &str = "/var/lib/glovo-bootstrap";
/// Room that is kept for the last report of a run that fills the disk, the largest that there is room for.
const RESERVES: [usize; 3] = [256 << 10, 64 << 10, 16 << 10];
const RESERVE: &str = "reserve";
/// More than any state file has; a larger one is not ours.
const MAX_BYTES: u64 = 16 << 20;

/// The path of a state file, such as `report.json`.
pub fn path(name: &str) -> Result<AbsPath> {
    AbsPath::from(DIRECTORY).join(name)
}

/// Reads a state file, or `None` where there is none.
///
/// # Errors
/// If it can't be read, is too large, cut short or of another version.
pub fn load<T: DeserializeOwned>(root: &Root, name: &str) -> Result<Option<T>> {
    let path = path(name)?;
    let Some(bytes) = root.read(&path, MAX_BYTES)? else { return Ok(None) };
    serde_json::from_slice(&bytes).with_context(|| path.to_string()).map(Some)
}

/// Reads a state file that only saves work: one that can't be read is `None`, and what it would have said is found out
/// again from the machine.
pub fn read<T: DeserializeOwned>(root: &Root, name: &str) -> Option<T> {
    load(root, name).unwrap_or_else(|error| {
        tracing::warn!("a state file can't be read, and is not used: {error:#}");
        None
    })
}

/// Writes a state file, atomically and durably, mode 0600. A directory in its place is set aside.
pub fn write<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<()> {
    // On one line: it is read and written by each run, and shown by `status`.
    let mut bytes = serde_json::to_vec(value).context("writing JSON")?;
    bytes.push(b'\n');
    let path = path(name)?;
    if let Some(directory) = path.parent() {
        root.make_directories(&directory, 0o700)?;
    }
    if root.status(&path)?.is_some_and(|status| status.file_type == FileType::Directory) {
        _ = root.set_aside(&path)?;
    }
    root.write(&path, ownership(), &bytes)
}

/// Keeps some room on the disk, unless that is done. A disk that has none is for others to complain about.
pub fn reserve(root: &Root) {
    let make = |bytes: usize| -> Result<()> {
        let mut staged = root.stage(&path(RESERVE)?, ownership())?;
        staged.write_all(&vec![0; bytes])?;
        staged.rename()
    };
    let is_there = path(RESERVE).and_then(|path| root.status(&path)).is_ok_and(|status| status.is_some());
    if !is_there && !RESERVES.iter().any(|bytes| make(*bytes).is_ok()) {
        tracing::debug!("no room is kept for the report");
    }
}

/// Gives the room back to the disk; returns whether there was any.
pub fn release(root: &Root) -> Result<bool> {
    let path = path(RESERVE)?;
    let is_there = root.status(&path)?.is_some();
    root.remove(&path).map(|()| is_there)
}

/// Root's alone, or that of the user who tries the program out.
fn ownership() -> Ownership {
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 }
}
