//! Whether a run may write at a path: asked by every plan, and so before anything is written.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Fact, System};
use crate::{
    error::Fault,
    host::root::{
        Survey,
        identity::Identity,
        way::{Owner, Part, Way},
    },
    value::AbsPath,
};

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Where.
    pub path: &'a AbsPath,
    /// Whose it is to be; the user's or root's whose the directory is, where that is not declared.
    pub owner: Option<&'a Owner>,
    /// Its group, where that is known.
    pub gid: Option<u32>,
    /// Whether missing directories are made.
    pub makes_parents: bool,
}

/// A place that may be written to.
#[derive(Debug)]
pub struct Admitted {
    /// The path, with no link in it but perhaps the last component.
    pub path: AbsPath,
    /// The user whose the directory is, where it is not root's.
    pub user: Option<Owner>,
}

impl System {
    /// How far a directory's path leads, once what is expected is so; looked at once until something changes.
    fn survey(&self, directory: &AbsPath) -> Result<Survey> {
        if let Some((_, survey)) = self.survey.borrow().as_ref().filter(|(known, _)| known == directory) {
            return Ok(survey.clone());
        }
        let survey = self.root().survey(directory, &|at: &Path| self.expected_directory(at))?;
        *self.survey.borrow_mut() = Some((directory.clone(), survey.clone()));
        Ok(survey)
    }

    /// Fails where `run` would refuse to write: where another user could put something else in the way, the owner is not
    /// the one of the directory, or the directory is missing. In a dry run the changes planned before count as made.
    pub fn check_place(&self, claim: Claim<'_>) -> Result<Admitted> {
        let Claim { path, owner, gid, makes_parents } = claim;
        let parent = path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let expected = |at: &Path| self.expected_directory(at);
        let Survey { mut way, path: mut real, missing } = self.survey(&parent)?;
        let is_missing = !missing.is_empty();
        for component in missing {
            real.push(component);
            if let Some((owner, writers)) = expected(&real) {
                way.pass(&Part { path: &real.to_string_lossy(), owner, writers, is_link: false })?;
            }
        }
        if is_missing && !makes_parents && !self.is_expected(&parent) && expected(&real).is_none() {
            let hint = if self.expects(&Fact::AtBoot(parent.clone())) {
                "the directory is left to the boot; leave this to the boot, too: phase = \"boot\"".to_owned()
            } else {
                format!("declare it: kind = \"directory\", path = \"{parent}\"")
            };
            return Err(Fault::new(format!("the directory {parent} does not exist")).hint(hint).into());
        }
        way.admit(path.as_str(), owner)?;
        self.check_group(&way, path, gid)?;
        let user = way.user().cloned();
        if real.as_os_str() == parent.as_str() {
            return Ok(Admitted { path: path.clone(), user });
        }
        let real = real.join(path.leaf());
        let path = real.to_str().with_context(|| format!("{} is not UTF-8", real.display()))?.parse()?;
        Ok(Admitted { path, user })
    }

    fn is_expected(&self, directory: &AbsPath) -> bool {
        self.expects(&Fact::Path(directory.clone())) || self.expects(&Fact::Packages)
    }

    /// A user can give files only to the groups that it is in.
    fn check_group(&self, way: &Way, path: &AbsPath, gid: Option<u32>) -> Result<()> {
        let (Some(Owner::Id(uid)), Some(gid)) = (way.user(), gid) else { return Ok(()) };
        let accounts = self.host.accounts()?;
        let Some(user) = accounts.user_by_id(*uid) else {
            let message = format!("{path} is below a directory of uid {uid}, which has no account");
            return Err(Fault::new(message).hint("give the directory to a user that has one").into());
        };
        if Identity::of(*uid, &accounts).is_in(gid) || self.expects(&Fact::User(user.name.clone())) {
            return Ok(());
        }
        let group = accounts.group_by_id(gid).map_or_else(|| gid.to_string(), |group| group.name.clone());
        let message = format!("{path} can not be of group {group}: user {} is not in it", user.name);
        let hint = format!("declare the user with groups = [\"{group}\"], or another group for the file");
        Err(Fault::new(message).hint(hint).into())
    }
}
