//! The replacement of a resource that this run does not ensure: only the booted machine can, or it is for others.

use anyhow::Result;

use super::{Change, Resource, Template};
use crate::{
    system::{Fact, System},
    value::AbsPath,
};

/// A resource that is left to the boot, or to other machines.
#[derive(Debug)]
pub struct Deferred {
    /// The resource's own title.
    pub title: String,
    /// Why it must wait.
    pub why: String,
    /// The path of its secret.
    pub secret: Option<AbsPath>,
    /// The paths that it makes.
    pub paths: Vec<AbsPath>,
}

impl Resource for Deferred {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn made_paths(&self) -> Vec<AbsPath> {
        self.paths.clone()
    }

    fn template(&self) -> Option<Template<'_>> {
        Some(Template::Elsewhere)
    }

    fn secret(&self) -> Option<&AbsPath> {
        self.secret.as_ref()
    }

    fn plan(&self, _system: &System) -> Result<Vec<Change>> {
        let change = Change::deferred(format!("ensure at boot (deferred: {})", self.why));
        Ok(vec![change.brings(self.paths.iter().cloned().map(Fact::AtBoot))])
    }
}
