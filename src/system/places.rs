//! The check that a run may write to a path. Every plan makes it, and so every run before it writes.

use std::{ffi::OsString, path::Path};

use anyhow::{Context, Result};

use super::{Fact, Mode, System};
use crate::{
    error::Fault,
    host::root::{
        FileType, Survey,
        identity::UserIdentity,
        way::{Owner, PathPart, Way},
    },
    value::{AbsPath, quoted},
};

/// A path to write.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The path.
    pub path: &'a AbsPath,
    /// The declared owner; `None` for the owner of the directory.
    pub owner: Option<&'a Owner>,
    /// Its group, if it is known.
    pub gid: Option<u32>,
    /// Whether missing directories are made.
    pub makes_parents: bool,
}

/// A path that may be written.
#[derive(Debug)]
pub struct Admitted {
    /// The path. Only its last component may be a link.
    pub path: AbsPath,
    /// The user that owns the directory; `None` for root.
    pub user: Option<Owner>,
}

impl System {
    /// Returns the existing and the missing part of a directory's path, after the planned changes.
    ///
    /// The result is kept until the next change.
    fn survey(&self, directory: &AbsPath) -> Result<Survey> {
        if let Some((_, survey)) = self.survey.borrow().as_ref().filter(|(known, _)| known == directory) {
            return Ok(survey.clone());
        }
        let expected = |at: &Path| self.expected_directory(at).map(|(owner, writers, _)| (owner, writers));
        let survey = self.root().survey(directory, &expected)?;
        *self.survey.borrow_mut() = Some((directory.clone(), survey.clone()));
        Ok(survey)
    }

    /// Fails if `run` would refuse to write to a path.
    ///
    /// It would if another user could replace a directory on the way, if the owner differs from the directory's, or if the
    /// directory is missing. In a plan, the earlier planned changes count as made.
    pub fn check_place(&self, claim: Claim<'_>) -> Result<Admitted> {
        let Claim { path, owner, gid, makes_parents } = claim;
        let parent = path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let expected = |at: &Path| self.expected_directory(at);
        let Survey { mut way, path: mut real, missing } = self.survey(&parent)?;
        let is_missing = !missing.is_empty();
        self.check_directory(&real, missing.first())?;
        for component in missing {
            real.push(component);
            if let Some((owner, writers, _)) = expected(&real) {
                way.pass(&PathPart { path: &real.to_string_lossy(), owner, writers, is_link: false })?;
            }
        }
        let directory = if real.as_os_str() == parent.as_str() { parent.clone() } else { abs_path(&real)? };
        let is_removed = self.mode() == Mode::Plan && self.has(&Fact::Absent(directory.clone()));
        if (is_missing || is_removed) && !makes_parents && !self.is_expected(&directory) && expected(&real).is_none() {
            let hint = if self.has(&Fact::AtBoot(directory.clone())) {
                "set phase = \"boot\": the directory is made at boot".to_owned()
            } else {
                format!("declare it: kind = \"directory\", path = \"{directory}\"")
            };
            let led = if directory == parent { String::new() } else { format!(", to which {parent} leads,") };
            return Err(Fault::new(format!("the directory {directory}{led} does not exist")).hint(hint).into());
        }
        way.admit(path.as_str(), owner)?;
        self.check_group(&way, path, gid)?;
        let user = way.user().cloned();
        let path = if directory == parent { path.clone() } else { directory.join(path.leaf())? };
        Ok(Admitted { path, user })
    }

    /// Fails if something other than a directory is where the way to a path needs one.
    fn check_directory(&self, above: &Path, name: Option<&OsString>) -> Result<()> {
        let Some(at) = name.and_then(|name| above.join(name).to_str()?.parse::<AbsPath>().ok()) else { return Ok(()) };
        let Some(status) = self.root().status(&at)? else { return Ok(()) };
        if matches!(status.file_type, FileType::Directory | FileType::Link) || self.is_removed(&at) {
            return Ok(());
        }
        let fault = Fault::new(format!("{at} is not a directory, so that no path below it can exist"));
        Err(fault.hint("move it away, or declare another path").into())
    }

    /// Fails if `run` could not make changes with these facts at a path.
    ///
    /// It could not on a read-only file system, nor if a user's directory denies its user to make or remove a name.
    pub fn check_may_change<'f>(&self, path: &AbsPath, facts: impl IntoIterator<Item = &'f Fact>) -> Result<()> {
        self.root().check_writable(path)?;
        let is_of_name = |fact: &Fact| matches!(fact, Fact::Path(at) | Fact::Absent(at) if at == path);
        if facts.into_iter().any(is_of_name) { self.check_modes_above(path) } else { Ok(()) }
    }

    /// Fails if the modes of a user's directories deny the user to make or remove a name at a path. Below them, a run has
    /// only the user's rights.
    fn check_modes_above(&self, path: &AbsPath) -> Result<()> {
        let Survey { way, path: mut last, missing } =
            self.survey(&path.parent().unwrap_or_else(|| AbsPath::from("/")))?;
        let mut user = way.user().cloned();
        for component in missing {
            // A directory that this change makes itself can be written to.
            let Some((owner, ..)) = self.expected_directory(&last.join(&component)) else { break };
            last.push(component);
            user = Some(owner).filter(|owner| !owner.is_ours());
        }
        let Some(user) = user else { return Ok(()) };
        for at in last.ancestors() {
            let is_last = at == last;
            let mode = match self.expected_directory(at) {
                Some((owner, _, mode)) if !owner.is_ours() => mode,
                // The user has entered the directories above, or else the plan would have failed.
                None if is_last => match self.root().to_inspect().status(&abs_path(at)?)? {
                    Some(status) => status.ownership.mode,
                    None => continue,
                },
                _ => continue,
            };
            let (right, bits) = if is_last { ("write to", 0o300) } else { ("enter", 0o100) };
            if mode & bits != bits {
                return Err(self.closed(&user, right, &abs_path(at)?, mode));
            }
        }
        Ok(())
    }

    /// Returns the error of a directory whose mode denies its user a right.
    fn closed(&self, user: &Owner, right: &str, directory: &AbsPath, mode: u32) -> anyhow::Error {
        let hint = if self.is_declared(directory) {
            "declare it with a mode that lets its owner write, such as mode = \"0755\"".to_owned()
        } else {
            format!("let its owner write: chmod u+wx {}", quoted(directory.as_str()))
        };
        Fault::new(format!("{user} may not {right} {directory} (mode {mode:04o})")).hint(hint).into()
    }

    fn is_expected(&self, directory: &AbsPath) -> bool {
        self.has(&Fact::Path(directory.clone())) || self.has(&Fact::Packages)
    }

    /// Fails if a user's file has a group that the user is not in, because the user cannot set it.
    fn check_group(&self, way: &Way, path: &AbsPath, gid: Option<u32>) -> Result<()> {
        let (Some(Owner::Id(uid)), Some(gid)) = (way.user(), gid) else { return Ok(()) };
        let accounts = self.host.accounts()?;
        let Some(user) = accounts.user_by_id(*uid) else {
            let message = format!("{path} is below a directory of uid {uid}, which has no account");
            return Err(Fault::new(message).hint("give the directory to a user with an account").into());
        };
        if UserIdentity::of(*uid, &accounts).is_in(gid) || self.expects(&Fact::User(user.name.clone())) {
            return Ok(());
        }
        let group = accounts.group_by_id(gid).map_or_else(|| gid.to_string(), |group| group.name.clone());
        let message = format!("{path} cannot have the group {group}: user {} is not in it", user.name);
        let hint = format!("declare the user with groups = [\"{group}\"], or another group for the file");
        Err(Fault::new(message).hint(hint).into())
    }
}

fn abs_path(path: &Path) -> Result<AbsPath> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.parse()
}
