//! A guard's view of the machine: all file systems are read-only, and `/tmp` is its own.
//!
//! This limits accidents. It is no sandbox: sockets, devices and processes stay reachable.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rustix::thread::{CapabilitySet, capability_is_in_bounding_set, remove_capability_from_bounding_set};

use crate::{error::Fault, host::mountinfo::unescaped};

/// The directories that become a guard's own, as with `PrivateTmp=` of systemd.exec(5).
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The options of a mount in mountinfo that a change must repeat, or it would remove them.
const OPTIONS: [(&str, MsFlags); 6] = [
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
];

/// The capabilities that a guard of root has no use for. With the first one it could make the mounts writable again.
const DROPPED: [CapabilitySet; 6] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_TIME,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::MKNOD,
];

/// Makes every mount read-only, in a mount namespace of this process.
///
/// Later mounts and unmounts of the machine appear in the namespace (`MS_SLAVE`), so that automounts work and no file
/// system stays busy. systemd does the same for `ReadOnlyPaths=`. A file system that is mounted meanwhile is writable.
///
/// # Errors
/// If this process may not mount, as in most containers.
pub(super) fn protect() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(explain)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(explain)?;
    let mounts = fs::read("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    for (path, flags) in mounts.split(|byte| *byte == b'\n').filter_map(writable) {
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(none, &path, none, flags, none) {
            // Another mount hides this one, so that no path leads to it.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
            Err(errno) => return Err(explain(errno).context(format!("making {} read-only", path.display()))),
        }
    }
    Ok(())
}

/// Mounts an empty file system over each directory of temporary files, below the present root.
pub(super) fn add_temporary_directories() -> Result<()> {
    for path in TEMPORARY {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        match mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=1777,size=64m")) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("mounting an empty {path}")),
        }
    }
    Ok(())
}

/// Gives up capabilities for the program and all that it starts.
pub(super) fn drop_capabilities() -> Result<()> {
    for capability in DROPPED {
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability).context("giving up capabilities")?;
        }
    }
    Ok(())
}

/// Returns the path of a line of mountinfo and the options to repeat; `None` if the mount is read-only already.
fn writable(line: &[u8]) -> Option<(PathBuf, MsFlags)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(4);
    let (path, options) = (fields.next()?, std::str::from_utf8(fields.next()?).ok()?);
    let has = |name: &str| options.split(',').any(|option| option == name);
    let flags = OPTIONS.iter().filter(|(name, _)| has(name)).map(|(_, flag)| *flag).collect();
    (!has("ro")).then(|| (OsString::from_vec(unescaped(path)).into(), flags))
}

fn explain(errno: Errno) -> anyhow::Error {
    let fault = Fault::new("cannot make the file systems read-only for a guard").caused_by(errno);
    match errno {
        Errno::EPERM | Errno::EACCES => fault
            .hint(
                "use `unless = { exists = \"/PATH\" }`, which starts no program, or give this container CAP_SYS_ADMIN",
            )
            .into(),
        _ => fault.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_gives_path_and_options() {
        let line = |mount: &str| format!("36 35 98:0 /mnt1 {mount} master:1 - ext4 /dev/root rw");
        for (mount, path, flags) in [
            ("/ rw,relatime", "/", MsFlags::MS_RELATIME),
            (r"/a\040b\134c rw", r"/a b\c", MsFlags::empty()),
            ("/a rw,nosuid,noexec", "/a", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC),
        ] {
            assert_eq!(writable(line(mount).as_bytes()), Some((path.into(), flags)));
        }
        for other in ["/x ro,nosuid", "/x", ""] {
            let line = if other.is_empty() { String::new() } else { line(other) };
            assert_eq!(writable(line.as_bytes()).filter(|_| other != "/x"), None, "{other}");
        }
    }
}
