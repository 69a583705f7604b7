//! The home directory of a user.

use std::io::Read;

use anyhow::{Context, Result};

use super::User;
use crate::{
    host::{
        accounts::UserAccount,
        root::{
            FileType, Ownership, Root, is_denied,
            tree::{Beside, NewTree},
            way::{Owner, Writers},
        },
    },
    resource::Change,
    system::{Fact, System, places::Claim},
    value::{AbsPath, ByteSize},
};

/// The settings of useradd(8), login.defs(5).
const SETTINGS: &str = "/etc/login.defs";
/// The files that a new home gets, useradd(8).
const SKELETON: &str = "/etc/skel";
/// Limits the bytes of its files.
const MAX_SKELETON_BYTES: u64 = 64 << 20;
/// The home of users that have none. By convention it never exists.
const NO_HOME: &str = "/nonexistent";
/// The ids of users that log in, if the machine's settings do not name others.
const LOGIN_UIDS: (u32, u32) = (1000, 60_000);

impl User {
    /// Returns whether the user is to have a home directory.
    pub(super) fn has_home(&self) -> bool {
        !self.system && self.home.as_ref().is_none_or(|home| home.as_str() != NO_HOME)
    }

    /// Returns the home of a user that does not exist yet.
    pub(super) fn home_to_come(&self) -> Result<AbsPath> {
        self.home.clone().map_or_else(|| format!("/home/{}", self.name).parse(), Ok)
    }

    /// Returns the facts of the home directory that useradd makes for a new user.
    ///
    /// # Errors
    /// If it could not: useradd would write the account first, and fail then.
    pub(super) fn facts_of_new_home(&self, system: &System) -> Result<Vec<Fact>> {
        let home = self.home_to_come()?;
        // useradd does not change an existing directory.
        if !self.has_home() || system.root().status(&home)?.is_some() {
            return Ok(vec![]);
        }
        if !system.expects(&Fact::Path(home.clone())) {
            system.root().check_writable(&home)?;
        }
        let owner = Owner::Name(self.name.to_string());
        let mode = mode_of_home(&system.root().read_text(&SETTINGS.into())?);
        Ok(vec![Fact::Path(home.clone()), Fact::Directory(home, owner, Writers::Owner, mode)])
    }

    /// Returns the change that makes the missing home of an existing user, and its path.
    ///
    /// A useradd that failed has added the user without it.
    pub(super) fn plan_home(&self, system: &System, user: &UserAccount) -> Result<Option<(Change, AbsPath)>> {
        let Ok(home) = user.home.trim_end_matches('/').parse::<AbsPath>() else { return Ok(None) };
        let settings = system.root().read_text(&SETTINGS.into())?;
        let id = |name, default| setting(&settings, name).and_then(|id| id.parse().ok()).unwrap_or(default);
        let login_uids = id("UID_MIN", LOGIN_UIDS.0)..=id("UID_MAX", LOGIN_UIDS.1);
        let is_of_kernel = ["/dev/", "/proc/", "/sys/"].iter().any(|above| home.as_str().starts_with(above));
        let is_none = home.as_str() == NO_HOME || is_of_kernel;
        if !self.has_home() || is_none || !(self.home.is_some() || login_uids.contains(&user.uid)) {
            return Ok(None);
        }
        match system.root().status(&home) {
            Ok(None) if !system.expects(&Fact::Path(home.clone())) => {}
            Err(error) if !is_denied(&error) => return Err(error),
            // It may be below a mount point to come. Nor is a link replaced: its target may be on a file system to come.
            _ => return Ok(None),
        }
        let mode = mode_of_home(&settings);
        let summary = format!("make its home directory {home}, mode {mode:04o}");
        let owner = Owner::Id(user.uid);
        let claim = Claim { path: &home, owner: Some(&owner), gid: Some(user.gid), makes_parents: true };
        let checked = system.check_place(claim).and_then(|place| {
            system.check_may_change(&home, &[Fact::Path(home.clone())])?;
            Ok(place)
        });
        let place = match checked {
            // The manifest does not ask for this home: the account has it from elsewhere.
            Err(error) if self.home.is_none() => {
                system.warn(format!("the home directory {home} is missing and stays so: {error:#}"));
                return Ok(None);
            }
            place => place?,
        };
        let above = std::iter::successors(Some(home.clone()), AbsPath::parent).map(Fact::Path);
        let ownership = Ownership { uid: user.uid, gid: user.gid, mode };
        let at = home.clone();
        let change = Change::new(summary, move |system| make(system.root(), &at, ownership)).brings(above);
        Ok(Some((change.brings([Fact::Directory(place.path, owner, Writers::Owner, mode)]), home)))
    }
}

/// Makes a home directory with the files of the skeleton. It appears as a whole.
fn make(root: &Root, home: &AbsPath, ownership: Ownership) -> Result<()> {
    if let Some(parent) = home.parent() {
        root.make_directories(&parent, 0o755)?;
    }
    let skeleton = skeleton(root)?;
    root.build_tree(home, ownership, |tree| skeleton.iter().try_for_each(|part| part.make(tree)))?;
    root.rename_beside(&Beside::Filled.of(home)?, home)
}

/// A file, directory or link of the skeleton.
struct SkeletonPart {
    path: String,
    mode: u32,
    /// In seconds since 1970-01-01.
    modified: i64,
    kind: SkeletonKind,
}

enum SkeletonKind {
    Directory,
    File(Vec<u8>),
    Link(String),
}

impl SkeletonPart {
    fn make(&self, tree: &NewTree<'_>) -> Result<()> {
        match &self.kind {
            SkeletonKind::Directory => tree.make_directory(&self.path, self.mode),
            SkeletonKind::File(bytes) => {
                tree.make_file(&self.path, self.mode, self.modified, &mut bytes.as_slice()).map(drop)
            }
            SkeletonKind::Link(target) => tree.make_link(&self.path, target),
        }
    }
}

/// Reads the skeleton, each directory before its entries. Devices, sockets and FIFOs are left out.
///
/// Its files are kept in memory: there may be more than a process may open at a time, and the user may not read them.
fn skeleton(root: &Root) -> Result<Vec<SkeletonPart>> {
    let (mut parts, mut left) = (vec![], MAX_SKELETON_BYTES);
    root.visit_tree(&SKELETON.into(), &mut |entry| {
        let Some(status) = entry.status()? else { return Ok(false) };
        let kind = match status.file_type {
            FileType::Directory => Some(SkeletonKind::Directory),
            FileType::Link => entry.target()?.map(SkeletonKind::Link),
            FileType::Regular => match entry.open()? {
                Some(file) => {
                    let mut bytes = vec![];
                    let read = (&file).take(left + 1).read_to_end(&mut bytes);
                    left = left
                        .checked_sub(read.with_context(|| format!("reading {}", entry.path))? as u64)
                        .with_context(|| {
                            format!("{SKELETON} has more than {} in its files", ByteSize(MAX_SKELETON_BYTES))
                        })?;
                    Some(SkeletonKind::File(bytes))
                }
                None => None,
            },
            FileType::Special => None,
        };
        let (path, mode, modified) = (entry.path.to_owned(), status.ownership.mode, status.identity[3]);
        parts.extend(kind.map(|kind| SkeletonPart { path, mode, modified, kind }));
        Ok(status.file_type == FileType::Directory)
    })?;
    Ok(parts)
}

/// Returns the value of a setting, login.defs(5).
fn setting<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    settings.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == name).and_then(|_| words.next())
    })
}

/// Returns the mode of a new home, as useradd(8) does.
fn mode_of_home(settings: &str) -> u32 {
    let octal = |name| u32::from_str_radix(setting(settings, name)?, 8).ok();
    octal("HOME_MODE").unwrap_or(0o777 & !octal("UMASK").unwrap_or(0o022)) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_a_home_is_that_of_the_machines_settings() {
        for (settings, mode) in [
            ("", 0o755),
            ("UMASK 077\n", 0o700),
            ("#HOME_MODE\t0700\nUMASK\t\t022\n", 0o755),
            ("UMASK 022\nHOME_MODE\t0750 # Ubuntu\n", 0o750),
            ("HOME_MODE none\n", 0o755),
        ] {
            assert_eq!(mode_of_home(settings), mode, "{settings}");
        }
    }
}
