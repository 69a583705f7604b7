//! The rule for the owners of the directories of a path. It holds for declared paths and for those that a walk finds.
//!
//! A path begins as root's. Once, it may become one user's. Below that directory, every directory and every written file
//! must be that user's, and no link is followed. No other user may be able to replace a directory on the way.

use std::{fmt, os::fd::AsFd, path::Path, sync::Arc};

use nix::unistd::geteuid;

use super::{FileStatus, FileType, Ownership, acl};
use crate::{error::Fault, host::accounts::Accounts};

/// Ubuntu lets a group write to this directory. Only the logging daemon is in it, which can replace all logs anyway.
const SHARED_BY_UBUNTU: &str = "/var/log";

/// A user, by id or, if it does not exist yet, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Numeric user id.
    Id(u32),
    /// Login name.
    Name(String),
}

impl Owner {
    /// Returns the owner that a manifest declares by name or by number.
    pub fn declared(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }

    /// Returns whether it is root or the user that runs this program.
    pub(crate) fn is_ours(&self) -> bool {
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

/// The users that may write to a directory or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writers {
    /// Its owner and root.
    Owner,
    /// Other members of its group.
    Group,
    /// Users or groups in its access control list, acl(5).
    Named,
    /// Every user.
    Everyone,
}

impl Writers {
    /// Returns the writers by a mode. `is_shared` returns whether other users than the owner are in the group.
    pub fn of(mode: u32, is_sticky_respected: bool, is_shared: impl FnOnce() -> bool) -> Self {
        match mode {
            // In a sticky directory, users may replace only their own files.
            _ if is_sticky_respected && mode & 0o1000 != 0 => Self::Owner,
            _ if mode & 0o002 != 0 => Self::Everyone,
            _ if mode & 0o020 != 0 && is_shared() => Self::Group,
            _ => Self::Owner,
        }
    }

    /// Returns the writers of an open file or directory.
    pub(crate) fn found<E>(
        fd: impl AsFd,
        status: &FileStatus,
        path: &Path,
        accounts: impl FnOnce() -> Result<Arc<Accounts>, E>,
    ) -> Result<Self, E> {
        let Ownership { uid, gid, mode } = status.ownership;
        if status.file_type == FileType::Link || mode & 0o022 == 0 {
            return Ok(Self::Owner);
        }
        let is_directory = status.file_type == FileType::Directory;
        // With such a list, the group's bits are the most that it grants.
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

/// A directory or link of a path.
#[derive(Debug)]
pub struct PathPart<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its owner.
    pub owner: Owner,
    /// The users that may replace its content.
    pub writers: Writers,
    /// Whether it is a link.
    pub is_link: bool,
}

/// The owner of a path so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The user, and the user's first directory; `None` if all directories are root's.
    user: Option<(Owner, String)>,
}

impl Way {
    /// Returns the way of a path that becomes a user's at a directory.
    pub(crate) fn of(user: Owner, top: &str) -> Self {
        Self { user: Some((user, top.to_owned())) }
    }

    /// Returns the user that owns the end of the way; `None` for root.
    pub fn user(&self) -> Option<&Owner> {
        self.user.as_ref().map(|(user, _)| user)
    }

    /// Adds the next directory or link.
    ///
    /// # Errors
    /// If it breaks the rule.
    pub fn pass(&mut self, part: &PathPart<'_>) -> Result<(), Fault> {
        let PathPart { path, owner, writers, is_link } = part;
        match &self.user {
            Some((user, top)) if owner != user => {
                let message = format!("{path} belongs to {owner}, but is below {top}, which belongs to {user}");
                return Err(Fault::new(message).hint(format!("give {path} and {top} the same owner")));
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
            Writers::Named => "a user or group in its access control list",
            Writers::Everyone => "every user",
        };
        let message = format!("{who} may write to {path}, and so may replace its content");
        Err(Fault::new(message).hint("make it writable only for its owner, or declare another path"))
    }

    /// Checks that a user's file may be at the end of the way. Without an owner, it is that of the way.
    ///
    /// # Errors
    /// If it must be another user's.
    pub fn admit(&self, path: &str, owner: Option<&Owner>) -> Result<(), Fault> {
        match (&self.user, owner) {
            (Some((user, top)), Some(owner)) if owner != user => {
                let message = format!("{path} cannot belong to {owner}: {top} belongs to {user}, not to root");
                Err(Fault::new(message).hint("set `owner` to the owner of that directory, or declare another path"))
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
            let part = PathPart { path: "/p", owner: Owner::Id(*uid), writers: *writers, is_link: *is_link };
            way.pass(&part).map_err(|fault| fault.to_string())?;
        }
        way.admit("/p/f", Some(&Owner::Id(owner))).map_err(|fault| fault.to_string())?;
        Ok(way.user().cloned())
    }

    #[test]
    fn a_path_goes_from_root_to_one_user_and_stays_there() {
        use Writers::{Everyone, Group, Owner as Own};
        assert_eq!(walk(&[(0, Own, false), (0, Own, true)], 0), Ok(None));
        assert_eq!(walk(&[(0, Own, false)], 7), Ok(None), "root gives files away in directories of its own");
        assert_eq!(walk(&[(0, Own, false), (7, Own, false), (7, Own, false)], 7), Ok(Some(Owner::Id(7))));
        for (parts, owner, words) in [
            (&[(7, Own, false)][..], 0, "/p/f cannot belong to root: /p belongs to uid 7, not to root"),
            (&[(7, Own, false)], 8, "/p/f cannot belong to uid 8"),
            (&[(7, Own, false), (0, Own, false)], 7, "belongs to root, but is below /p, which belongs to uid 7"),
            (&[(7, Own, false), (8, Own, false)], 7, "belongs to uid 8, but is below /p"),
            (&[(7, Own, false), (7, Own, true)], 7, "are not followed"),
            (&[(7, Own, true)], 7, "a symbolic link that belongs to uid 7, not to root"),
            (&[(0, Everyone, false)], 0, "every user may write to /p"),
            (&[(0, Group, false)], 0, "its group may write to /p"),
            (&[(7, Group, false)], 7, "its group may write to /p"),
        ] {
            let refused = walk(parts, owner).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn the_writers_follow_from_mode_and_group() {
        for (mode, is_shared, writers) in [
            (0o755, true, Writers::Owner),
            (0o775, false, Writers::Owner),
            (0o775, true, Writers::Group),
            (0o777, false, Writers::Everyone),
            (0o1777, true, Writers::Owner),
        ] {
            assert_eq!(Writers::of(mode, true, || is_shared), writers, "{mode:o}");
        }
        assert_eq!(Writers::of(0o1666, false, || false), Writers::Everyone, "a file is not sticky");
    }
}
