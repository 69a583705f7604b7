//! Files for secrets that have no path, and that the kernel never writes to swap.

use std::fs::File;

use nix::{
    fcntl::OFlag,
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
    },
};
use rustix::{
    io::Result,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
        fsopen,
    },
};

use super::calls::{fchmod, openat};

/// Makes an empty file in memory.
///
/// It is on a file system of its own, which is mounted nowhere and ends with the file. Without the right to make one
/// (`CAP_SYS_ADMIN`), the file is an ordinary one in memory, which may be swapped.
pub(crate) fn file(purpose: &str) -> nix::Result<File> {
    match on_file_system("tmpfs", &["noswap"], purpose).or_else(|_| on_file_system("ramfs", &[], purpose)) {
        Ok(file) => Ok(file),
        Err(error) => {
            tracing::debug!("a file in memory may be swapped: {error}");
            memfd_create(purpose, MFdFlags::MFD_CLOEXEC).map(File::from)
        }
    }
}

/// Makes a file on a new file system of this type. `noswap` is known to Linux since 6.4, tmpfs(5); a ramfs is never swapped.
fn on_file_system(kind: &str, flags: &[&str], name: &str) -> Result<File> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    flags.iter().try_for_each(|flag| fsconfig_set_flag(&context, *flag))?;
    fsconfig_create(&context)?;
    let restricted =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, restricted)?;
    let errno = |error: nix::Error| rustix::io::Errno::from_raw_os_error(error as i32);
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = openat(&mounted, name, flags, Mode::S_IRUSR).map_err(errno)?;
    // A program of another user may open its standard input again, as /dev/stdin. No path leads other processes to it.
    fchmod(&file, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH).map_err(errno)?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use nix::sys::statfs::fstatfs;

    use super::*;

    #[test]
    fn a_file_is_on_either_file_system_and_can_be_read_again() {
        for (kind, flags, magic) in [("tmpfs", &["noswap"][..], 0x0102_1994), ("ramfs", &[], 0x8584_58f6_i64)] {
            let mut file = match on_file_system(kind, flags, "stdin") {
                // Linux before 6.4.
                Err(rustix::io::Errno::INVAL) if kind == "tmpfs" => continue,
                made => made.unwrap(),
            };
            assert_eq!(fstatfs(&file).unwrap().filesystem_type().0, magic);
            file.write_all(b"secret").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            _ = file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "secret");
        }
    }
}
