//! What this process takes over from the one that started it, and what it leaves to its children.

use std::os::fd::{AsRawFd, RawFd};

use nix::{
    dir::Dir,
    fcntl::{AT_FDCWD, OFlag},
    sys::{
        prctl::set_dumpable,
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::close,
};

/// Keeps what this process holds to itself: its memory, which no debugger of its user may read and no core file will
/// hold, and its descriptors but `kept`. To be called first of all, before a file is opened.
pub fn isolate(kept: Option<RawFd>) {
    close_inherited(kept);
    // A kernel that can't is no reason not to serve.
    _ = set_dumpable(false);
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// How many descriptors this process may have open (`ulimit -n`).
///
/// Nothing raises it: programs that use select(2) break where it is above 1024, and children would inherit it.
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| usize::try_from(soft).ok()).unwrap_or(256)
}

/// Gives to programs that this process starts the usual umask, whatever its own caller has.
pub fn use_usual_umask() {
    _ = umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Closes what was inherited beside the standard streams and `kept`: programs that this process starts would have it
/// too.
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
