//! What outlives a run, in `/var/lib/glovo-bootstrap`: the report, and what kinds must remember.

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use serde::{Serialize, de::DeserializeOwned};

use super::root::{Ownership, Root};
use crate::value::AbsPath;

/// The directory, readable by root only: reports quote commands and paths.
pub const DIRECTORY: &str = "/var/lib/glovo-bootstrap";
/// More than any state file has; a larger one is not ours.
const LIMIT: u64 = 16 << 20;

/// The path of a state file, such as `report.json`.
pub fn path(name: &str) -> Result<AbsPath> {
    AbsPath::from(DIRECTORY).join(name)
}

/// Reads a state file. One that is missing, cut short or of another version is `None`: state only
/// saves work, and what it would have said is found out again from the machine.
pub fn read<T: DeserializeOwned>(root: &Root, name: &str) -> Option<T> {
    let bytes = root.read(&path(name).ok()?, LIMIT).ok()??;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(name, %error, "a state file can't be read; it is set aside by the next write");
            None
        }
    }
}

/// Writes a state file, atomically and durably, mode 0600.
pub fn write<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).context("writing JSON")?;
    bytes.push(b'\n');
    let path = path(name)?;
    if let Some(directory) = path.parent() {
        root.make_directories(&directory, 0o700)?;
    }
    root.write(&path, Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 }, &bytes)
}
