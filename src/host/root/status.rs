//! The status of a file: its type, owner, mode, size and identity.

use std::time::{Duration, SystemTime};

use nix::sys::stat::{FileStat, SFlag};

/// The owner, group and permission bits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// A file that a [`Root`](super::Root) has opened.
pub type OpenFile = std::fs::File;

/// The type of a file. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket or a FIFO.
    Special,
}

/// The status of the file at a path.
#[derive(Debug, Clone, Copy)]
pub struct FileStatus {
    /// Its type.
    pub file_type: FileType,
    /// Its owner, group and permission bits.
    pub ownership: Ownership,
    /// Length in bytes.
    pub size: u64,
    /// The number of its names.
    pub links: u64,
    /// The time of its last change: of content, owner, mode or name.
    pub changed: SystemTime,
    /// Values that differ if the content may have changed: device, inode, size, modification and change time.
    pub identity: [i64; 7],
}

impl FileStatus {
    /// Returns its number on its file system.
    pub fn inode(&self) -> u64 {
        self.identity[1].cast_unsigned()
    }

    #[allow(clippy::useless_conversion, reason = "aarch64 counts links in 32 bits")]
    pub(super) fn new(stat: &FileStat) -> Self {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Self {
            file_type: match kind {
                SFlag::S_IFREG => FileType::Regular,
                SFlag::S_IFDIR => FileType::Directory,
                SFlag::S_IFLNK => FileType::Link,
                _ => FileType::Special,
            },
            ownership: Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 },
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            links: u64::from(stat.st_nlink),
            changed: SystemTime::UNIX_EPOCH
                + Duration::new(
                    u64::try_from(stat.st_ctime).unwrap_or_default(),
                    u32::try_from(stat.st_ctime_nsec).unwrap_or_default(),
                ),
            identity: [
                stat.st_dev.cast_signed(),
                stat.st_ino.cast_signed(),
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            ],
        }
    }
}
