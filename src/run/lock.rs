//! The machine's lock: one run at a time. The kernel releases the lock when its holder ends, even after a crash.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};

use super::report::command_line;
use crate::{
    error::{Class, Fault},
    host::{root::Root, state},
};

/// The machine's lock, held until dropped.
#[derive(Debug)]
pub struct MachineLock(#[expect(dead_code, reason = "held, not read")] File);

impl MachineLock {
    /// Takes the lock, and writes pid and command line into its file for other processes to show.
    ///
    /// # Errors
    /// [`Class::Locked`] if another run holds it.
    pub fn take(root: &Root) -> Result<Self> {
        let file = open(root)?;
        if !is_locked(|| file.try_lock())? {
            return Err(held(file).into());
        }
        // The text is only informative, so a failed write does no harm. Its length is fixed: truncating the file would
        // make the file system wait for its journal.
        let holder = format!("{} {}", std::process::id(), command_line());
        _ = file.write_all_at(format!("{holder:<1023.1023}\n").as_bytes(), 0);
        Ok(Self(file))
    }

    /// Returns the lock's holder as `pid command`; `None` if it is free.
    pub fn holder(root: &Root) -> Result<Option<String>> {
        let path = state::path("lock")?;
        if root.status(&path)?.is_none() {
            return Ok(None);
        }
        let file = open(root)?;
        Ok(if is_locked(|| file.try_lock_shared())? { None } else { Some(content(file)) })
    }
}

/// Locks a file until it is closed; returns `false` if another process holds the lock.
///
/// There is no function to unlock it, because unlocking could fail at the end of a run.
fn is_locked(lock: impl Fn() -> std::result::Result<(), TryLockError>) -> Result<bool> {
    loop {
        match lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error).context("locking the machine"),
        }
    }
}

fn open(root: &Root) -> Result<File> {
    state::make_directory(root)?;
    // The file is root's alone, so no other user can open it and hold the lock.
    root.open_own(&state::path("lock")?)
}

fn content(mut file: File) -> String {
    let mut text = String::new();
    _ = file.read_to_string(&mut text);
    let text = text.trim();
    if text.is_empty() { "an unknown process".into() } else { text.into() }
}

fn held(file: File) -> Fault {
    let holder = content(file);
    let (pid, command) = holder.split_once(' ').unwrap_or((&holder, "unknown command"));
    Fault::new(format!("another run holds this machine: pid {pid}, {command}"))
        .class(Class::Locked)
        .hint("to wait for that run: glovo-bootstrap status --wait")
}
