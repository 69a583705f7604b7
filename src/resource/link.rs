//! The kind `link`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    error::Fault,
    system::{Fact, System, places::Claim},
    value::{AbsPath, printable},
};

/// A symbolic link. A link with another target is replaced atomically. A file or directory at the path is an error; it is
/// never removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The path of the link.
    path: AbsPath,
    /// The target, absolute or relative to the link's directory. It need not exist.
    target: String,
}

impl Kind for Link {
    const NAME: &'static str = "link";
    const EXAMPLE: &'static str = r#"kind = "link"
path = "/var/www/glovo-app/systems-engineer-interview.jar"
target = "systems-engineer-interview-1.0.0.jar""#;
}

impl Resource for Link {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn link_target(&self) -> Option<&str> {
        Some(&self.target)
    }

    fn check(&self) -> Vec<Finding> {
        let of_target = match printable(&self.target) {
            Ok(()) if self.target.is_empty() => Some(Finding::new("target", "the target is empty")),
            Ok(()) => None,
            Err(error) => Some(Finding::new("target", format!("the target {error}"))),
        };
        Finding::of_name(&self.path).into_iter().chain(of_target).collect()
    }

    fn version_to_come(&self, _system: &System) -> Result<Option<String>> {
        Ok(Some(format!("link to {}", self.target)))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let claim = Claim { path: &self.path, owner: None, gid: None, makes_parents: false };
        _ = system.check_place(claim)?;
        let now = system.root().read_link(&self.path)?;
        let summary = match now {
            Some(target) if target.to_str() == Some(&self.target) => return Ok(vec![]),
            Some(target) => format!("point to {} (now {})", self.target, target.display()),
            None if system.root().status(&self.path)?.is_some() => {
                return Err(Fault::new(format!("{} exists and is not a symbolic link", self.path))
                    .hint("move it away, or declare another path")
                    .into());
            }
            None => format!("create link to {}", self.target),
        };
        let (path, target) = (self.path.clone(), self.target.clone());
        Ok(vec![
            Change::new(summary, move |system| {
                system.keep_previous(&path)?;
                system.root().make_link(&path, &target)
            })
            .brings([Fact::Path(self.path.clone()), Fact::Link(self.path.clone(), self.target.clone())]),
        ])
    }
}
