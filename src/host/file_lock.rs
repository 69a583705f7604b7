//! Locks of files by `fcntl(2)`, their holders, and waits for them. The kernel releases a lock when its holder ends.

use std::{os::fd::AsFd, path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use super::{Host, calls::repeat, root::Root};
use crate::value::AbsPath;

/// Limits the wait for a lock. On a machine's first boot, unattended-upgrades takes less.
const WAIT_TIMEOUT: Duration = Duration::from_mins(15);
/// The time between two checks of a lock.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A lock that a process holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// The locked file.
    pub path: AbsPath,
    /// The process that holds it, in words.
    pub holder: String,
}

/// Waits until `find` finds no lock that is held. A long wait is told.
///
/// # Errors
/// At a deadline: a temporary failure that names the holder.
pub fn wait(host: &Host, what: &str, find: impl Fn(&Root) -> Result<Option<Held>>) -> Result<()> {
    host.stop.deadlines.within(Some(WAIT_TIMEOUT), &format!("waiting for {what}"), || {
        let mut wait = host.begin_wait();
        while let Some(Held { path, holder }) = find(host.root())? {
            wait.show(&format!("waiting for {holder} to release {path}"), None);
            host.stop.wait(POLL_INTERVAL).with_context(|| format!("{path} is held by {holder}"))?;
        }
        Ok(())
    })
}

/// Returns the lock of a file if another process holds it.
pub fn find(root: &Root, path: &AbsPath) -> Result<Option<Held>> {
    let Some((file, _)) = root.open_file(path)? else { return Ok(None) };
    let mut lock = whole_file()?;
    _ = repeat(|| fcntl(&file, FcntlArg::F_GETLK(&mut lock)))
        .with_context(|| format!("finding the process that holds {path}"))?;
    let is_held = i32::from(lock.l_type) != libc::F_UNLCK;
    Ok(is_held.then(|| Held { path: path.clone(), holder: describe(lock.l_pid) }))
}

/// Locks a whole file until it is closed. Returns false if another process holds the lock.
pub(crate) fn try_lock(file: &impl AsFd) -> Result<bool> {
    let lock = whole_file()?;
    match repeat(|| fcntl(file, FcntlArg::F_OFD_SETLK(&lock))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns a write lock of the whole file, as package managers and lckpwdf(3) take it.
fn whole_file() -> Result<libc::flock> {
    let (l_type, l_whence) = (libc::F_WRLCK.try_into()?, libc::SEEK_SET.try_into()?);
    Ok(libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 })
}

/// Returns a holder in words, such as `pid 812 (/usr/bin/python3 /usr/bin/unattended-upgrade)`.
///
/// The kernel returns 0 for a process outside this pid namespace, and -1 for a lock of a descriptor; fcntl(2).
fn describe(pid: libc::pid_t) -> String {
    match command_line(pid) {
        Some(command) => format!("pid {pid} ({command})"),
        None if pid > 0 => format!("pid {pid}"),
        None => "a process outside this container".into(),
    }
}

/// Returns a process in words; `None` if it does not exist.
pub fn process(pid: libc::pid_t) -> Option<String> {
    is_alive(pid).then(|| describe(pid))
}

fn is_alive(pid: libc::pid_t) -> bool {
    let path = format!("/proc/{pid}").parse();
    path.is_ok_and(|path| host().is_some_and(|host| host.status(&path).is_ok_and(|status| status.is_some())))
}

fn command_line(pid: libc::pid_t) -> Option<String> {
    let bytes = host()?.read(&format!("/proc/{pid}/cmdline").parse().ok()?, 1 << 20).ok()??;
    let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line: String = words.join(" ").trim().chars().filter(|c| !c.is_control()).take(120).collect();
    (!line.is_empty()).then_some(line)
}

/// Returns the host's root, whose `/proc` shows the processes; an image's has none.
fn host() -> Option<Root> {
    Root::open(Path::new("/")).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;

    use nix::{fcntl::OFlag, sys::stat::Mode};

    use super::*;
    use crate::host::scratch::Scratch;

    /// A lock of an open file. Unlike a lock of this process, it also blocks this process.
    pub struct Lock(OwnedFd);

    impl Lock {
        pub fn take(path: &Path) -> Self {
            let file = nix::fcntl::open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            assert!(try_lock(&file).unwrap());
            Self(file)
        }
    }

    impl Drop for Lock {
        /// Closing is not enough: a child that another test starts at the same time has the open file too.
        fn drop(&mut self) {
            let unlock = libc::flock { l_type: libc::F_UNLCK.try_into().unwrap(), ..whole_file().unwrap() };
            _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&unlock)).unwrap();
        }
    }

    #[test]
    fn a_holder_is_named_with_its_command() {
        let pid = std::process::id().cast_signed();
        let name = describe(pid);
        assert!(name.starts_with(&format!("pid {pid} (")) && name.contains("glovo_bootstrap"), "{name}");
        assert_eq!(process(pid), Some(name));
        assert_eq!(describe(0), "a process outside this container");
        assert_eq!((describe(i32::MAX), process(i32::MAX)), (format!("pid {}", i32::MAX), None));
    }

    #[test]
    fn a_lock_is_found_while_it_is_held() {
        let tree = Scratch::of(&[("/lock", "")]);
        let (root, path) = (tree.root(), AbsPath::from("/lock"));
        assert_eq!(find(&root, &path).unwrap(), None);
        let lock = Lock::take(&tree.at("/lock"));
        assert_eq!(find(&root, &path).unwrap().unwrap().path, path);
        drop(lock);
        assert_eq!(find(&root, &path).unwrap(), None);
        assert_eq!(find(&root, &"/none".into()).unwrap(), None);
    }
}
