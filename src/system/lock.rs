//! One run per machine, by a lock that the kernel gives back whatever happens to its holder.

use std::{fs::File, io::Read, os::unix::fs::FileExt};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{root::Root, state};
use crate::{
    error::{Class, Fault},
    report::command_line,
};

/// The machine's lock, held until dropped.
#[derive(Debug)]
pub struct MachineLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl MachineLock {
    /// Takes the lock, and writes pid and command line into its file for the others to read.
    ///
    /// # Errors
    /// [`Class::Locked`] if another run holds it.
    pub fn take(root: &Root) -> Result<Self> {
        let file = open(root)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, Errno::EWOULDBLOCK)) => return Err(held(file).into()),
            Err((_, errno)) => return Err(errno).context("locking the machine"),
        };
        // Only for people: a lock without a name is still a lock. Always as long as the one before, because
        // truncating a file makes the file system wait for its journal.
        let holder = format!("{} {}", std::process::id(), command_line());
        _ = lock.write_all_at(format!("{holder:<1023.1023}\n").as_bytes(), 0);
        Ok(Self(lock))
    }

    /// Who holds the lock now: `pid command`, or `None`.
    pub fn holder(root: &Root) -> Result<Option<String>> {
        let path = state::path("lock")?;
        if root.status(&path)?.is_none() {
            return Ok(None);
        }
        match Flock::lock(open(root)?, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err((file, _)) => Ok(Some(content(file))),
        }
    }
}

fn open(root: &Root) -> Result<File> {
    root.make_directories(&state::DIRECTORY.into(), 0o700)?;
    // The directory is root's alone, so nobody else can open the file and hold the lock against us.
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
        .hint("wait for it: glovo-bootstrap status --wait")
}
