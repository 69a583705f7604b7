//! The replacement of a resource whose secret could not be read.

use std::rc::Rc;

use anyhow::Result;

use super::{Change, Resource, Template};
use crate::{
    error::{self, Class},
    system::System,
    value::AbsPath,
};

/// A resource whose secret could not be read. Other resources do not need it, so only this one fails.
#[derive(Debug)]
pub struct Unread {
    /// The resource's own title.
    pub title: String,
    /// The path of its secret.
    pub secret: Option<AbsPath>,
    /// The resource, with the secret's placeholder in its place.
    pub resource: Box<dyn Resource>,
    /// Why its secret could not be read.
    pub error: Rc<anyhow::Error>,
}

impl Resource for Unread {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        self.resource.owned_path()
    }

    fn made_paths(&self) -> Vec<AbsPath> {
        self.resource.made_paths()
    }

    fn fills(&self) -> bool {
        self.resource.fills()
    }

    fn template(&self) -> Option<Template<'_>> {
        Some(Template::Elsewhere)
    }

    fn secret(&self) -> Option<&AbsPath> {
        self.secret.as_ref()
    }

    /// If the store does not answer, the machine keeps the present state of what the secret is for.
    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        if error::class(&self.error) == Class::Transient && self.resource.can_wait_for_secret(system)? {
            system.warn(format!("{} stays as it is: {:#}", self.title, self.error));
            return self.resource.plan_without_secret(system);
        }
        Err(error::again(&self.error))
    }
}
