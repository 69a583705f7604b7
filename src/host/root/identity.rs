//! Work with a user's rights. Root uses it below the user's directories, so that it cannot do more than the user.

use std::thread;

use nix::{
    errno::Errno,
    sys::prctl::set_dumpable,
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups};

use crate::host::accounts::Accounts;

/// The group of a user that has no account.
const NO_GROUP: u32 = 65534;

/// A user with all its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of its primary group.
    pub gid: u32,
    groups: Vec<u32>,
}

impl UserIdentity {
    /// Returns the user with an id. A user without an account is in no group.
    pub fn of(uid: u32, accounts: &Accounts) -> Self {
        let Some(user) = accounts.user_by_id(uid) else { return Self { uid, gid: NO_GROUP, groups: vec![] } };
        Self { uid, gid: user.gid, groups: accounts.groups_of(&user.name) }
    }

    /// Returns the numeric ids of its supplementary groups.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Returns whether it is in a group, and so may give files to the group.
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Does some work on a new thread that has only this user's rights to files.
    ///
    /// The thread has the user's file system ids and groups, and no capabilities. They belong to a single thread
    /// (credentials(7)) and end with it.
    ///
    /// # Errors
    /// If the thread cannot be started or cannot get these rights.
    pub(crate) fn act<T: Send>(&self, work: impl FnOnce() -> T + Send) -> nix::Result<T> {
        thread::scope(|scope| {
            let acting = || self.assume().map(|()| work());
            let thread = thread::Builder::new().spawn_scoped(scope, acting).map_err(|_| Errno::EAGAIN)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn assume(&self) -> nix::Result<()> {
        let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        let groups: Vec<_> = self.groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups).map_err(errno)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        _ = (setfsgid(gid), setfsuid(uid));
        // These calls report no failure. A second call returns the value in force.
        if (setfsgid(gid), setfsuid(uid)) != (gid, uid) {
            return Err(Errno::EPERM);
        }
        let mut sets = capabilities(None).map_err(errno)?;
        sets.effective = CapabilitySet::empty();
        set_capabilities(None, sets).map_err(errno)?;
        // The change of ids may have made the process dumpable again.
        set_dumpable(false)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own files")]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_thread_has_the_rights_of_its_user_and_no_others() {
        let accounts = Accounts::parse("app:x:4711:4712::/:\n", "app:x:4712:\nweb:x:4713:app\n");
        let identity = UserIdentity::of(4711, &accounts);
        assert!(identity.is_in(4712) && identity.is_in(4713) && !identity.is_in(0));
        let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("identity-XXXXXX")).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str, uid, gid, mode| {
            let path = directory.join(name);
            fs::write(&path, name).unwrap();
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        file("own", 4711, 0, 0o600);
        file("of-its-group", 0, 4712, 0o640);
        file("of-another-group", 0, 4713, 0o640);
        file("of-root", 0, 0, 0o600);
        file("of-roots-group", 0, 0, 0o660);
        let readable = |name: &str| identity.act(|| fs::read(directory.join(name)).is_ok()).unwrap();
        assert!(readable("own") && readable("of-its-group") && readable("of-another-group"));
        assert!(!readable("of-root") && !readable("of-roots-group"));
        assert!(!identity.act(|| fs::write(directory.join("new"), "").is_ok()).unwrap());
        assert!(!identity.act(|| std::os::unix::fs::chown(directory.join("own"), Some(0), None).is_ok()).unwrap());
        assert!(fs::read(directory.join("of-root")).is_ok(), "this thread is still root's");
        fs::remove_dir_all(directory).unwrap();
    }
}
