//! The kind `directory`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Kind, Resource,
    ownership::{AccountName, differences, ids},
};
use crate::{
    error::Fault,
    system::{
        Fact, System,
        root::{FileType, Ownership},
    },
    value::{AbsPath, Mode},
};

/// A directory. Missing parents are made too, as root's with mode 0755. What it holds is left alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Where it is.
    path: AbsPath,
    /// Its owner. Default: root for a new directory, unchanged for one that exists.
    owner: Option<AccountName>,
    /// Its group. Default: the owner's primary group.
    group: Option<AccountName>,
    /// Its permission bits. Default: 0755 for a new directory, unchanged for one that exists.
    mode: Option<Mode>,
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

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let path = self.path.clone();
        let Some(status) = system.root().status(&path)? else {
            let ids = ids(system, self.owner.as_ref(), self.group.as_ref())?;
            let mode = self.mode.map_or(0o755, |mode| mode.0);
            // Missing parents come with it.
            let brings: Vec<Fact> =
                std::iter::successors(Some(path.clone()), AbsPath::parent).map(Fact::Path).collect();
            let create = move |system: &System| {
                let (uid, gid) = ids.unwrap_or_default();
                if let Some(parent) = path.parent() {
                    system.root().make_directories(&parent, 0o755)?;
                }
                system.root().make_directory(&path, Ownership { uid, gid, mode })
            };
            return Ok(vec![Change::new(format!("create directory, mode {mode:04o}"), create).brings(brings)]);
        };
        match status.file_type {
            FileType::Directory => {}
            FileType::Link => {
                let target = system.root().resolve(&path)?;
                return Err(Fault::new(format!("{path} is a symbolic link to {target}"))
                    .hint(format!("declare {target}, or remove the link"))
                    .into());
            }
            FileType::Regular | FileType::Special => bail!("{path} is there and is not a directory"),
        }
        let ids = match (&self.owner, &self.group) {
            (None, None) => Some((status.ownership.uid, status.ownership.gid)),
            (owner, group) => ids(system, owner.as_ref(), group.as_ref())?,
        };
        let differences = differences(system, status.ownership, ids, self.mode.map(|mode| mode.0))?;
        if differences.is_empty() {
            return Ok(vec![]);
        }
        let mode = self.mode.map_or(status.ownership.mode, |mode| mode.0);
        Ok(vec![Change::new(format!("set {}", differences.join(", ")), move |system| {
            let (uid, gid) = ids.unwrap_or_default();
            system.root().own_directory(&path, Ownership { uid, gid, mode })
        })])
    }
}
