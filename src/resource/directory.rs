//! The kind `directory`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Kind, Resource,
    ownership::{AccountName, Ids, NameOrNumber, attributes, ids_of, owner, words},
};
use crate::{
    error::Fault,
    host::root::{
        FileStatus, FileType, Ownership,
        way::{Owner, Writers},
    },
    system::{Fact, System, places::Claim},
    value::{AbsPath, FileMode, quoted},
};

/// A directory. Missing parents are made with mode 0755; they belong to root, or below a user's directory to that user. The
/// content of the directory is not changed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Its path.
    path: AbsPath,
    /// Its owner, by name or by number, such as `1500`. Default: root for a new directory, or the user whose directory it is in; unchanged for an existing one.
    /// Below a user's directory it must be that user.
    owner: Option<NameOrNumber>,
    /// Its group, by name or by number. Default: the owner's primary group; for a number without an account, that number.
    group: Option<NameOrNumber>,
    /// Its permission bits. Default: 0755 for a new directory, unchanged for an existing one.
    mode: Option<FileMode>,
}

impl Kind for Directory {
    const NAME: &'static str = "directory";
    const EXAMPLE: &'static str = r#"kind = "directory"
path = "/var/www/glovo-app"
owner = "root"
mode = "0755""#;
}

impl Resource for Directory {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(NameOrNumber::as_str)
    }

    fn writers(&self) -> Option<Writers> {
        let group = self.group.as_ref().map(NameOrNumber::as_str);
        let is_shared = || group.is_some_and(|group| !["root", "0"].contains(&group) && Some(group) != self.owner());
        Some(Writers::of(self.mode.map_or(0, |mode| mode.0), true, is_shared))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let status = system.root().status(&self.path)?;
        let whose = self.whose(system, status.as_ref())?;
        let ids = match (&status, &self.owner, &self.group) {
            (Some(status), None, None) => Some((status.ownership.uid, status.ownership.gid)),
            (_, _, group) => ids_of(system, &whose, group.as_ref())?,
        };
        let claim = Claim { path: &self.path, owner: Some(&whose), gid: ids.map(|(_, gid)| gid), makes_parents: true };
        let place = system.check_place(claim)?;
        let becomes = |mode| -> Result<Fact> {
            Ok(Fact::Directory(place.path.clone(), whose.clone(), self.writers_of(system, ids, mode)?, mode))
        };
        let Some(status) = status else {
            let mode = self.mode.map_or(0o755, |mode| mode.0);
            return Ok(vec![self.create(ids, mode).brings([becomes(mode)?])]);
        };
        self.check_replaceable(system, &status)?;
        if let Some(user) = place.user.filter(|user| *user != Owner::Id(status.ownership.uid)) {
            let now = words(system, status.ownership.uid, status.ownership.gid)?;
            let message = format!("{} belongs to {now}, but is below a directory of {user}", self.path);
            let path = quoted(self.path.as_str());
            let hint = match &whose {
                Owner::Id(uid) => format!("check its content, then change its owner: chown {uid} {path}"),
                Owner::Name(name) => format!("check its content, then change its owner: chown {name} {path}"),
            };
            return Err(Fault::new(message).hint(hint).into());
        }
        let differences = attributes(system, &self.path, &status, ids, self.mode.map(|mode| mode.0))?;
        if differences.is_empty() {
            return Ok(vec![]);
        }
        let (path, mode) = (self.path.clone(), self.mode.map_or(status.ownership.mode, |mode| mode.0));
        let change = Change::new(format!("set {}", differences.join(", ")), move |system| {
            let (uid, gid) = ids.unwrap_or_default();
            system.root().own_directory(&path, Ownership { uid, gid, mode })
        });
        Ok(vec![change.brings([becomes(mode)?])])
    }
}

impl Directory {
    /// Returns a directory with an optional owner and group, for a kind that has some.
    pub(super) fn of(path: AbsPath, owner: Option<NameOrNumber>, group: Option<NameOrNumber>, mode: FileMode) -> Self {
        Self { path, owner, group, mode: Some(mode) }
    }

    /// Returns a user's directory with mode 0700, for a kind that needs one.
    pub(super) fn private(path: AbsPath, owner: &AccountName) -> Self {
        Self { path, owner: Some(owner.into()), group: None, mode: Some(FileMode(0o700)) }
    }

    /// Whose it is to be. Without an owner it stays whose it is; a new one is that of the directory above.
    fn whose(&self, system: &System, status: Option<&FileStatus>) -> Result<Owner> {
        match (&self.owner, status) {
            (None, Some(status)) => Ok(Owner::Id(status.ownership.uid)),
            (None, None) => {
                let of_any_owner = Claim { path: &self.path, owner: None, gid: None, makes_parents: true };
                system.check_place(of_any_owner)?.user.map_or_else(|| owner(system, None), Ok)
            }
            (name, _) => owner(system, name.as_ref()),
        }
    }

    fn create(&self, ids: Ids, mode: u32) -> Change {
        let path = self.path.clone();
        // The change also makes missing parents.
        let brings: Vec<Fact> = std::iter::successors(Some(path.clone()), AbsPath::parent).map(Fact::Path).collect();
        let create = move |system: &System| {
            let (uid, gid) = ids.unwrap_or_default();
            if let Some(parent) = path.parent() {
                system.root().make_directories(&parent, 0o755)?;
            }
            system.root().make_directory(&path, Ownership { uid, gid, mode })
        };
        Change::new(format!("create directory, mode {mode:04o}"), create).brings(brings)
    }

    fn check_replaceable(&self, system: &System, status: &FileStatus) -> Result<()> {
        let path = &self.path;
        match status.file_type {
            FileType::Directory => Ok(()),
            FileType::Link => {
                let target = system.root().resolve(path)?;
                Err(Fault::new(format!("{path} is a symbolic link to {target}"))
                    .hint(format!("declare {target}, or remove the link"))
                    .into())
            }
            FileType::Regular | FileType::Special => bail!("{path} exists and is not a directory"),
        }
    }

    /// Returns the users that may write to it with this mode.
    fn writers_of(&self, system: &System, ids: Ids, mode: u32) -> Result<Writers> {
        let accounts = system.host.accounts()?;
        Ok(Writers::of(mode, true, || match ids {
            Some((uid, gid)) => gid != 0 && !accounts.is_private(gid, uid),
            None => self.group.is_some(),
        }))
    }
}
