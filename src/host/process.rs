//! The attributes that this process inherits and those that it passes to its children.

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::Once,
};

use nix::{
    dir::Dir,
    fcntl::{AT_FDCWD, OFlag},
    libc::MCL_ONFAULT,
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl::set_dumpable,
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::close,
};

/// Protects this process's memory from debuggers and core files, and closes inherited descriptors except `kept`.
///
/// Must be called before any file is opened.
pub fn isolate(kept: Option<RawFd>) {
    close_inherited(kept);
    // A kernel that does not support it must not stop the run.
    _ = set_dumpable(false);
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Keeps this process's memory out of swap from now on, because it holds secrets.
///
/// Without the right to it (`CAP_IPC_LOCK`, which root has), the memory stays as it is.
pub fn keep_in_memory() {
    static IS_KEPT: Once = Once::new();
    IS_KEPT.call_once(lock_memory);
}

fn lock_memory() {
    // Only pages that are used, mlock(2).
    let on_fault = MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    if let Err(error) = mlockall(flags) {
        tracing::debug!("this process's memory may be swapped: {error}");
    }
}

/// Returns the number of descriptors that this process may have open (`ulimit -n`).
///
/// This program does not raise it: children inherit it, and programs that use select(2) fail above 1024.
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| usize::try_from(soft).ok()).unwrap_or(256)
}

/// Sets the usual umask for this process and its children.
pub fn use_usual_umask() {
    _ = umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Closes the inherited descriptors except the standard streams and `kept`, so that children do not inherit them.
fn close_inherited(kept: Option<RawFd>) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut directory) = Dir::openat(AT_FDCWD, "/proc/self/fd", flags, Mode::empty()) else { return };
    let own = directory.as_raw_fd();
    let numbers = directory.iter().flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
    let inherited: Vec<RawFd> =
        numbers.filter(|number| *number > 2 && *number != own && Some(*number) != kept).collect();
    for number in inherited {
        _ = close(number);
    }
}
