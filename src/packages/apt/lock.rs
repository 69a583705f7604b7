//! The locks of dpkg and apt.
//!
//! apt's own `DPkg::Lock::Timeout` covers only the first two (apt.conf(5)) and does not name the holder.

use anyhow::Result;

use crate::{
    host::{
        file_lock::{self, Held},
        root::Root,
    },
    system::System,
};

/// The lock files, in the order in which apt takes them.
const LOCKS: [&str; 4] =
    ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"];

/// Waits until all locks of dpkg and apt are free.
///
/// # Errors
/// At a deadline: a temporary failure that names the holder.
pub(crate) fn wait(system: &System) -> Result<()> {
    file_lock::wait(&system.host, "dpkg's and apt's locks", find)
}

/// Returns the first lock that is held.
fn find(root: &Root) -> Result<Option<Held>> {
    LOCKS.iter().find_map(|path| file_lock::find(root, &(*path).into()).transpose()).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{file_lock::tests::Lock, scratch::Scratch};

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let tree = Scratch::of(&LOCKS.map(|path| (path, "")));
        let root = tree.root();
        for path in LOCKS {
            assert_eq!(find(&root).unwrap(), None);
            let _lock = Lock::take(&tree.at(path));
            assert_eq!(find(&root).unwrap().unwrap().path, path.into());
        }
    }
}
