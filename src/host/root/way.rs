//! Who decides about a path, from its root on: one rule for what a manifest declares and for what a walk finds.
//!
//! A path begins as root's. It may become one user's, once, and then stays it: below, every directory must be that
//! user's, no link is followed, and what is written must be that user's as well. Nowhere may another user be able to put
//! something else in a directory's place.

use std::{fmt, os::fd::AsFd, path::Path, sync::Arc};

use nix::unistd::geteuid;

use super::{FileType, Ownership, Status, acl};
use crate::{error::Fault, host::accounts::Accounts};

/// Ubuntu gives this one to a group that only the logging daemon is in, which can replace all logs as it is.
const SHARED_BY_UBUNTU: &str = "/var/log";

/// A user, known by id or, where it is still to be made, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Numeric user id.
    Id(u32),
    /// Login name.
    Name(String),
}

impl Owner {
    /// Whether it is root, or the user that runs this.
    fn is_ours(&self) -> bool {
        match self {
            Self::Id(uid) => *uid == 0 || *uid == geteuid().as_raw(),
            Self::Name(name) => name == "root",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(0) => f.write_str("root"),
            Self::Id(uid) => write!(f, "uid {uid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Who may put something else into a directory, or write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writers {
    /// Its owner and root.
    Owner,
    /// Other members of its group.
    Group,
    /// Users or groups that its access control list names, acl(5).
    Named,
    /// Every user.
    Anybody,
}

impl Writers {
    /// Who may write to what has this mode; `is_shared` says whether there are others than its owner in its group.
    pub fn of(mode: u32, is_sticky_respected: bool, is_shared: impl FnOnce() -> bool) -> Self {
        match mode {
            // In a sticky directory each may replace only what is its own.
            _ if is_sticky_respected && mode & 0o1000 != 0 => Self::Owner,
            _ if mode & 0o002 != 0 => Self::Anybody,
            _ if mode & 0o020 != 0 && is_shared() => Self::Group,
            _ => Self::Owner,
        }
    }

    /// Who may write to what is open and has this status.
    pub(crate) fn found<E>(
        fd: impl AsFd,
        status: &Status,
        path: &Path,
        accounts: impl FnOnce() -> Result<Arc<Accounts>, E>,
    ) -> Result<Self, E> {
        let Ownership { uid, gid, mode } = status.ownership;
        if status.file_type == FileType::Link || mode & 0o022 == 0 {
            return Ok(Self::Owner);
        }
        let is_directory = status.file_type == FileType::Directory;
        // Where there is such a list, the group's bits are what it grants at most.
        if mode & 0o020 != 0 && !(is_directory && mode & 0o1000 != 0) && acl::grants_writing(fd, uid) {
            return Ok(Self::Named);
        }
        if mode & 0o002 != 0 || gid == 0 || path == Path::new(SHARED_BY_UBUNTU) {
            return Ok(Self::of(mode, is_directory, || false));
        }
        let accounts = accounts()?;
        Ok(Self::of(mode, is_directory, || !accounts.is_private(gid, uid)))
    }
}

/// A directory or link on the way.
#[derive(Debug)]
pub struct Part<'a> {
    /// Its path.
    pub path: &'a str,
    /// Whose it is.
    pub owner: Owner,
    /// Who may replace what is in it.
    pub writers: Writers,
    /// Whether it is a link.
    pub is_link: bool,
}

/// How far a path has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Whose it is, and from which directory on; root's until then.
    user: Option<(Owner, String)>,
}

impl Way {
    /// That of a path which has just become a user's.
    pub(crate) fn of(user: Owner, top: &str) -> Self {
        Self { user: Some((user, top.to_owned())) }
    }

    /// The user whose it has become.
    pub fn user(&self) -> Option<&Owner> {
        self.user.as_ref().map(|(user, _)| user)
    }

    /// Goes on through a directory or link.
    ///
    /// # Errors
    /// If that breaks the rule.
    pub fn pass(&mut self, part: &Part<'_>) -> Result<(), Fault> {
        let Part { path, owner, writers, is_link } = part;
        match &self.user {
            Some((user, top)) if owner != user => {
                let message = format!("{path} belongs to {owner}, but is below {top}, which belongs to {user}");
                return Err(Fault::new(message).hint(format!("give both to one user: chown {path} or {top}")));
            }
            Some((user, _)) if *is_link => {
                let message =
                    format!("{path} is a symbolic link of {user}: links below a user's directory are not followed");
                return Err(Fault::new(message).hint("declare the path that the link leads to"));
            }
            None if !owner.is_ours() && *is_link => {
                let message = format!("{path} is a symbolic link that belongs to {owner}, not to root");
                return Err(Fault::new(message).hint("declare the path that the link leads to"));
            }
            None if !owner.is_ours() => self.user = Some((owner.clone(), (*path).to_owned())),
            _ => {}
        }
        let who = match writers {
            Writers::Owner => return Ok(()),
            Writers::Group => "its group",
            Writers::Named => "a user or group that is named in its access control list",
            Writers::Anybody => "every user",
        };
        let message = format!("{who} may write to {path} and so replace what is in it");
        Err(Fault::new(message).hint("make it writable for its owner only, or declare another path"))
    }

    /// Whether something of this user may be written at the end of the way; without one, it is root's or the user's.
    ///
    /// # Errors
    /// If it must be another user's.
    pub fn admit(&self, path: &str, owner: Option<&Owner>) -> Result<(), Fault> {
        match (&self.user, owner) {
            (Some((user, top)), Some(owner)) if owner != user => {
                let message = format!("{path} can not be {owner}'s: {top} belongs to {user}, not to root");
                Err(Fault::new(message).hint("declare the owner of that directory as its `owner`, too"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(parts: &[(u32, Writers, bool)], owner: u32) -> Result<Option<Owner>, String> {
        let mut way = Way::default();
        for (uid, writers, is_link) in parts {
            let part = Part { path: "/p", owner: Owner::Id(*uid), writers: *writers, is_link: *is_link };
            way.pass(&part).map_err(|fault| fault.to_string())?;
        }
        way.admit("/p/f", Some(&Owner::Id(owner))).map_err(|fault| fault.to_string())?;
        Ok(way.user().cloned())
    }

    #[test]
    fn a_path_goes_from_root_to_one_user_and_stays_there() {
        use Writers::{Anybody, Group, Owner as Own};
        assert_eq!(walk(&[(0, Own, false), (0, Own, true)], 0), Ok(None));
        assert_eq!(walk(&[(0, Own, false)], 7), Ok(None), "root gives files away in directories of its own");
        assert_eq!(walk(&[(0, Own, false), (7, Own, false), (7, Own, false)], 7), Ok(Some(Owner::Id(7))));
        for (parts, owner, words) in [
            (&[(7, Own, false)][..], 0, "/p/f can not be root's: /p belongs to uid 7, not to root"),
            (&[(7, Own, false)], 8, "/p/f can not be uid 8's"),
            (&[(7, Own, false), (0, Own, false)], 7, "belongs to root, but is below /p, which belongs to uid 7"),
            (&[(7, Own, false), (8, Own, false)], 7, "belongs to uid 8, but is below /p"),
            (&[(7, Own, false), (7, Own, true)], 7, "are not followed"),
            (&[(7, Own, true)], 7, "a symbolic link that belongs to uid 7, not to root"),
            (&[(0, Anybody, false)], 0, "every user may write to /p"),
            (&[(0, Group, false)], 0, "its group may write to /p"),
            (&[(7, Group, false)], 7, "its group may write to /p"),
        ] {
            let refused = walk(parts, owner).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn who_may_write_is_told_by_mode_and_group() {
        for (mode, is_shared, writers) in [
            (0o755, true, Writers::Owner),
            (0o775, false, Writers::Owner),
            (0o775, true, Writers::Group),
            (0o777, false, Writers::Anybody),
            (0o1777, true, Writers::Owner),
        ] {
            assert_eq!(Writers::of(mode, true, || is_shared), writers, "{mode:o}");
        }
        assert_eq!(Writers::of(0o1666, false, || false), Writers::Anybody, "a file is not sticky");
    }
}
