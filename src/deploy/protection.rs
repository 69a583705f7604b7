//! Protects a stack from its deletion, and says where it is protected.

use anyhow::{Result, ensure};

use super::{
    Deploy,
    prepare::Prepared,
    stack::{self, Stack},
};
use crate::error::Fault;

impl Deploy {
    /// Returns the protection that a stack lacks or has too much; `None` if it is as wanted.
    pub(super) fn protection_to_set(&self, prepared: &Prepared) -> Option<bool> {
        let is_protected = prepared.current.as_ref().is_some_and(|stack| stack.is_protected);
        self.settings.termination_protection.filter(|wanted| *wanted != is_protected)
    }

    /// Says whether a stack is protected, and what a deploy changes about that.
    pub(super) fn tell_protection(&self, prepared: &Prepared) {
        let name = &prepared.stack;
        match self.protection_to_set(prepared) {
            Some(true) => self.say(&format!("{name} gets termination protection")),
            Some(false) => self.say(&format!("{name} loses its termination protection")),
            None if prepared.current.as_ref().is_some_and(|stack| stack.is_protected) => {
                self.say(&format!("{name} has termination protection"));
            }
            None => {}
        }
    }

    /// Changes only the protection of a stack, after a question.
    pub(super) fn protect_as_wanted(&self, prepared: &Prepared) -> Result<()> {
        if self.protection_to_set(prepared).is_some() {
            ensure!(self.ask("change the termination protection?")?, Fault::new("cancelled; nothing was changed"));
        }
        self.protect(prepared)
    }

    /// Gives a complete stack the protection that is wanted.
    ///
    /// # Errors
    /// If CloudFormation refuses. The stack stays as it is.
    pub(super) fn protect(&self, prepared: &Prepared) -> Result<()> {
        let Some(wanted) = self.protection_to_set(prepared) else { return Ok(()) };
        let name = &prepared.stack;
        stack::set_protection(&self.system, name, wanted).map_err(|error| {
            let text = if wanted { "did not get" } else { "keeps" };
            error.context(format!("the stack {name} is complete, but {text} its termination protection"))
        })?;
        let text = if wanted { "has termination protection now" } else { "has lost its termination protection" };
        self.say(&format!("{name} {text}"));
        Ok(())
    }

    /// Fails if a stack is protected from its deletion.
    pub(super) fn check_deletable(&self, stack: &Stack) -> Result<()> {
        let allow = format!(
            "aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name {}{}",
            stack.name, self.repeated.account
        );
        ensure!(
            !stack.is_protected,
            Fault::new(format!("the stack {} has termination protection; nothing was deleted", stack.name))
                .hint(format!("to remove it: {allow}"))
                .invalid()
        );
        Ok(())
    }
}
