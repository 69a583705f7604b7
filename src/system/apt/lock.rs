//! The locks of dpkg and apt.
//!
//! apt's own `DPkg::Lock::Timeout` covers the first two only (apt.conf(5)) and does not say who is in the way.

use anyhow::Result;

use crate::system::{System, file_lock};

/// In the order in which apt takes them.
const LOCKS: [&str; 4] =
    ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"];

/// Waits until nobody holds a lock of dpkg's or apt's.
///
/// # Errors
/// Transient, naming the holder, once a deadline has passed.
pub(super) fn wait(system: &System) -> Result<()> {
    file_lock::wait(system, "dpkg's and apt's locks", |root| {
        LOCKS.iter().find_map(|path| file_lock::find(root, &(*path).into()).transpose()).transpose()
    })
}
