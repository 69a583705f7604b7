//! This program, started once more as a process that this one supervises. A file without a name carries its messages.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::Read,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    process::{Child, Command},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// Starts this program again with these arguments, in the same environment and directory. Returns the process and the file
/// of its messages, whose descriptor's number the process finds in this environment variable.
pub fn start(arguments: &[OsString], variable: &str) -> Result<(Child, File)> {
    // Only the run inherits the file: the file gets close-on-exec before any other program starts.
    let messages = memfd_create("messages", MFdFlags::empty()).context("making a file for the run's messages")?;
    // This program itself, even if its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        _ = command.arg0(name);
    }
    _ = command.args(arguments);
    _ = command.env(variable, messages.as_raw_fd().to_string());
    let child = command.spawn().context("starting the run in a process of its own")?;
    _ = fcntl(&messages, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("setting close-on-exec")?;
    // If memory runs out, the kernel should kill the run, not the supervisor that reports it.
    _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    Ok((child, File::from(messages)))
}

/// Opens the file of messages that this process has inherited under a number. A file with a name is refused: the environment
/// must not make this program append to a file.
pub fn inherited_messages(number: u16) -> Option<File> {
    // Opening it again makes a descriptor that this process may close. O_NONBLOCK: never wait for a FIFO.
    let path = format!("/proc/self/fd/{number}");
    let messages = OpenOptions::new().append(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    let metadata = messages.metadata().ok()?;
    (metadata.is_file() && metadata.nlink() == 0).then_some(messages)
}

/// Returns all messages so far. A truncated one may be at the end.
pub fn messages_so_far(messages: &File) -> String {
    let mut text = String::new();
    let path = format!("/proc/self/fd/{}", messages.as_raw_fd());
    // Opening it again reads it from the beginning.
    _ = File::open(path).and_then(|mut messages| messages.read_to_string(&mut text));
    text
}
