//! The locks of dpkg and apt, and who holds them.
//!
//! apt's own `DPkg::Lock::Timeout` covers the first two only (apt.conf(5)) and does not say who is in the way.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::{
    system::{System, root::Root},
    value::AbsPath,
};

/// In the order in which apt takes them.
const LOCKS: [&str; 4] =
    ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"];
/// Longer than unattended-upgrades takes on a machine's first boot.
const PATIENCE: Duration = Duration::from_mins(15);
/// How often a lock is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Waits until nobody holds a lock of dpkg's or apt's.
///
/// # Errors
/// Transient, naming the holder, once a deadline has passed.
pub(super) fn wait(system: &System) -> Result<()> {
    system.deadlines().within(Some(PATIENCE), "waiting for dpkg's and apt's locks", || {
        while let Some((path, holder)) = find(system.root())? {
            system.progress(&format!("waiting for {holder} to release {path}"));
            system.wait(PERIOD).with_context(|| format!("{path} is held by {holder}"))?;
        }
        Ok(())
    })
}

/// The first lock that is held, and its holder.
fn find(root: &Root) -> Result<Option<(AbsPath, String)>> {
    for path in LOCKS.map(AbsPath::from) {
        let Some((file, _)) = root.open_file(&path)? else { continue };
        let mut lock = whole_file()?;
        _ = fcntl(&file, FcntlArg::F_GETLK(&mut lock)).with_context(|| format!("asking who holds {path}"))?;
        if i32::from(lock.l_type) != libc::F_UNLCK {
            return Ok(Some((path, describe(lock.l_pid))));
        }
    }
    Ok(None)
}

/// The whole file, for writing: what dpkg and apt ask for.
fn whole_file() -> Result<libc::flock> {
    let (l_type, l_whence) = (libc::F_WRLCK.try_into()?, libc::SEEK_SET.try_into()?);
    Ok(libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 })
}

/// `pid 812 (/usr/bin/python3 /usr/bin/unattended-upgrade)`. The kernel says 0 of a process that our pid
/// namespace doesn't have, and -1 of a lock that belongs to a descriptor; fcntl(2).
fn describe(pid: libc::pid_t) -> String {
    if pid <= 0 {
        return "a process that can't be seen from here".into();
    }
    match command_line(pid) {
        Some(command) => format!("pid {pid} ({command})"),
        None => format!("pid {pid}"),
    }
}

/// Of the host's `/proc`: processes are never an image's.
fn command_line(pid: libc::pid_t) -> Option<String> {
    let path = format!("/proc/{pid}/cmdline").parse().ok()?;
    let bytes = Root::open(Path::new("/")).ok()?.read(&path, 1 << 20).ok()??;
    let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line: String = words.join(" ").trim().chars().filter(|c| !c.is_control()).take(120).collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use std::fs;

    use nix::{fcntl::OFlag, sys::stat::Mode};

    use super::*;

    #[test]
    fn a_holder_is_named_with_its_command() {
        let pid = std::process::id().cast_signed();
        let name = describe(pid);
        assert!(name.starts_with(&format!("pid {pid} (")) && name.contains("glovo_bootstrap"), "{name}");
        assert_eq!(describe(0), "a process that can't be seen from here");
        assert_eq!(describe(i32::MAX), format!("pid {}", i32::MAX));
    }

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let tree = std::env::temp_dir().join(format!("glovo-bootstrap-lock-{}", std::process::id()));
        for path in LOCKS {
            let path = tree.join(&path[1..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::open(&tree).unwrap();
        for path in LOCKS.map(AbsPath::from) {
            assert_eq!(find(&root).unwrap(), None);
            // A process never finds a lock of its own in its way, but one that belongs to a descriptor.
            let file = nix::fcntl::open(&tree.join(&path.as_str()[1..]), OFlag::O_RDWR, Mode::empty()).unwrap();
            _ = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file().unwrap())).unwrap();
            assert_eq!(find(&root).unwrap().unwrap().0, path);
        }
        fs::remove_dir_all(&tree).unwrap();
    }
}
