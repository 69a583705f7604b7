//! The state files of runs in `/var/lib/glovo-bootstrap`: the report and the records of kinds.

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use serde::{Serialize, de::DeserializeOwned};

use super::root::{FileStatus, FileType, Ownership, Root, Staged, TEMPORARY_SUFFIX};
use crate::value::AbsPath;

/// The directory. Only root can list it, and what it holds is root's alone but for [`write_public`]'s files: reports quote
/// commands and paths.
pub const DIRECTORY: &str = "/var/lib/glovo-bootstrap";
/// The directory of the reports of earlier runs, below that one.
pub const RUNS: &str = "runs";
/// The sizes of the reserve for the report of a run that fills the disk. The first one that fits is used.
const RESERVE_BYTES: [usize; 3] = [256 << 10, 64 << 10, 16 << 10];
const RESERVE_NAME: &str = "reserve";
/// Limits the size of a state file. This program writes no larger ones.
const MAX_BYTES: u64 = 16 << 20;

/// Returns the path of a state file, such as `report.json`.
pub fn path(name: &str) -> Result<AbsPath> {
    AbsPath::from(DIRECTORY).join(name)
}

/// Reads a state file; `None` if it does not exist.
///
/// # Errors
/// If it cannot be read, is too large or incomplete, or has another version.
pub fn load<T: DeserializeOwned>(root: &Root, name: &str) -> Result<Option<T>> {
    let path = path(name)?;
    let Some(bytes) = root.read(&path, MAX_BYTES)? else { return Ok(None) };
    serde_json::from_slice(&bytes).with_context(|| path.to_string()).map(Some)
}

/// Reads a state file that only saves work.
///
/// Returns `None` also if it cannot be read. Then the caller reads the machine instead.
pub fn read<T: DeserializeOwned>(root: &Root, name: &str) -> Option<T> {
    load(root, name).unwrap_or_else(|error| {
        tracing::warn!("a state file cannot be read and is ignored: {error:#}");
        None
    })
}

/// Returns whether the directory exists: some run has begun.
pub fn exists(root: &Root) -> Result<bool> {
    Ok(root.status(&DIRECTORY.into())?.is_some())
}

/// Makes the directory, with mode 0711 also if it exists: users reach the public files, but cannot list the directory.
pub fn make_directory(root: &Root) -> Result<()> {
    let directory = AbsPath::from(DIRECTORY);
    root.make_directories(&directory, 0o711)?;
    match root.status(&directory)? {
        Some(FileStatus { file_type: FileType::Directory, ownership: found, .. })
            if found.mode != 0o711 && found.uid == geteuid().as_raw() =>
        {
            root.own_directory(&directory, Ownership { mode: 0o711, ..found })
        }
        _ => Ok(()),
    }
}

/// Writes a file for every user of the machine, mode 0644. It appears whole; a crash may lose it.
pub fn write_public<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<()> {
    make_directory(root)?;
    let mut staged = root.stage(&path(name)?, Ownership { mode: 0o644, ..ownership() })?;
    staged.write_all(&serde_json::to_vec_pretty(value).context("writing JSON")?)?;
    staged.rename()
}

/// Writes a file of root's alone into a directory below the state directory. It appears whole; a crash may lose it.
pub fn write_beside<T: Serialize>(root: &Root, directory: &str, name: &str, value: &T) -> Result<()> {
    make_directory(root)?;
    let directory = path(directory)?;
    root.make_directories(&directory, 0o700)?;
    let mut staged = root.stage(&directory.join(name)?, ownership())?;
    staged.write_all(&serde_json::to_vec(value).context("writing JSON")?)?;
    staged.rename()
}

/// Removes the temporary files that killed runs left in the directory. Called with the machine's lock held.
pub fn sweep(root: &Root) -> Result<()> {
    sweep_directory(root, &AbsPath::from(DIRECTORY))?;
    sweep_directory(root, &path(RUNS)?)
}

fn sweep_directory(root: &Root, directory: &AbsPath) -> Result<()> {
    if root.status(directory)?.is_none() {
        return Ok(());
    }
    for name in root.list(directory)?.iter().filter(|name| name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX)) {
        root.remove(&directory.join(name)?)?;
    }
    Ok(())
}

/// Writes a state file, atomically and durably, with mode 0600. A directory at its path is renamed first.
pub fn write<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<()> {
    stage(root, name, value)?.publish()
}

/// Writes a state file as [`write()`] does, without a flush. After a crash, the file may be the earlier one, or empty.
pub fn write_unflushed<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<()> {
    stage(root, name, value)?.rename()
}

fn stage<T: Serialize>(root: &Root, name: &str, value: &T) -> Result<Staged> {
    // On one line: it is read and written by each run, and shown by `status`.
    let mut bytes = serde_json::to_vec(value).context("writing JSON")?;
    bytes.push(b'\n');
    let path = path(name)?;
    make_directory(root)?;
    if root.status(&path)?.is_some_and(|status| status.file_type == FileType::Directory) {
        _ = root.set_aside(&path)?;
    }
    let mut staged = root.stage(&path, ownership())?;
    staged.write_all(&bytes)?;
    Ok(staged)
}

/// Reserves space on the disk for the report, if it is not reserved yet. A full disk is no error here.
pub fn reserve(root: &Root) {
    let make = |bytes: usize| -> Result<()> {
        let mut staged = root.stage(&path(RESERVE_NAME)?, ownership())?;
        staged.write_all(&vec![0; bytes])?;
        staged.rename()
    };
    let is_there = path(RESERVE_NAME).and_then(|path| root.status(&path)).is_ok_and(|status| status.is_some());
    if !is_there && !RESERVE_BYTES.iter().any(|bytes| make(*bytes).is_ok()) {
        tracing::debug!("no space is reserved for the report");
    }
}

/// Frees the reserved space. Returns whether there was any.
pub fn release(root: &Root) -> Result<bool> {
    let path = path(RESERVE_NAME)?;
    let is_there = root.status(&path)?.is_some();
    root.remove(&path).map(|()| is_there)
}

/// Returns the owner of state files: root, or the user that runs this program, and mode 0600.
fn ownership() -> Ownership {
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 }
}
