//! The write permissions of access control lists, acl(5).

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::getxattr;

/// The extended attribute of a list: `struct posix_acl_xattr_header` and `posix_acl_xattr_entry`, `linux/posix_acl_xattr.h`.
const NAME: &str = "system.posix_acl_access";
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Tags of entries with a name: `ACL_USER` and `ACL_GROUP`, `linux/posix_acl.h`.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const WRITE: u16 = 0x02;
/// The largest value of an extended attribute: `XATTR_SIZE_MAX`.
const MAX_BYTES: usize = 64 << 10;

/// Returns whether the list of an open file lets a group or a user other than root and the owner write.
///
/// Returns false on a file system without such lists.
pub(crate) fn grants_writing(fd: impl AsFd, owner: u32) -> bool {
    let mut list = vec![0; MAX_BYTES];
    // A descriptor of O_PATH gives no access to attributes, but its path in /proc does.
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let Ok(length) = getxattr(path, NAME, &mut list) else { return false };
    let entries = list.get(HEADER_BYTES..length).unwrap_or_default();
    entries.chunks_exact(ENTRY_BYTES).any(|entry| {
        let short = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let is_other = match short(0) {
            USER => id != 0 && id != owner,
            GROUP => id != 0,
            _ => false,
        };
        is_other && short(2) & WRITE != 0
    })
}
