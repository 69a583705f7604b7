//! The kind `group`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource, account_change::account_change, ownership::AccountName, user::complete};
use crate::{
    error::Fault,
    host::{account_changes::GSHADOW, command::Program},
    system::{Fact, System},
};

/// A group. If it exists with another id, that is an error: with a new id, its files would belong to another group. It is
/// declared once on each machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    name: AccountName,
    /// Its numeric id. Default: the next free one.
    gid: Option<u32>,
    /// Whether its id comes from the range of system groups. Default: false.
    #[serde(default)]
    system: bool,
}

impl Kind for Group {
    const NAME: &'static str = "group";
    const EXAMPLE: &'static str = r#"kind = "group"
name = "deployers"
gid = 4000"#;
}

impl Resource for Group {
    fn title(&self) -> String {
        self.name.to_string()
    }

    fn check(&self) -> Vec<Finding> {
        // chown(2) does not change the group for this value.
        let is_none = self.gid == Some(u32::MAX);
        is_none.then(|| Finding::new("gid", format!("{} is not a gid", u32::MAX))).into_iter().collect()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("name", format!("group {}", self.name))]
    }

    fn owned_id(&self) -> Option<String> {
        self.gid.map(|id| format!("gid {id}"))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let accounts = system.host.accounts()?;
        if let Some(group) = accounts.group(self.name.as_str()) {
            return match self.gid {
                Some(gid) if gid != group.gid => {
                    Err(Fault::new(format!("group {} has gid {}, not {gid}", self.name, group.gid))
                        .hint("declare the id that it has, or change the id yourself: its files keep the old one")
                        .into())
                }
                _ => Ok(complete(system, GSHADOW, self.name.as_str())?.into_iter().collect()),
            };
        }
        if let Some(taken) = self.gid.and_then(|gid| accounts.group_by_id(gid)) {
            return Err(Fault::new(format!("gid {} belongs to group {}", taken.gid, taken.name))
                .hint("declare another gid, or leave `gid` out")
                .into());
        }
        let mut command = Program::new(["groupadd"]);
        if self.system {
            command = command.arg("--system");
        }
        if let Some(gid) = self.gid {
            command = command.args(["--gid", &gid.to_string()]);
        }
        let change = account_change(system, "create group", command.arg(self.name.as_str()))?;
        Ok(vec![change.brings([Fact::Group(self.name.to_string())])])
    }
}
