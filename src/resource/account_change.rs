//! Changes of accounts, for the kinds `user` and `group`.

use anyhow::Result;

use super::Change;
use crate::{host::command::Program, system::System};

/// Returns the change that a program of the shadow suite makes.
///
/// # Errors
/// If a run could not make it: no earlier change brings the missing program, or `/etc` is read-only.
pub(super) fn account_change(system: &System, summary: impl Into<String>, command: Program) -> Result<Change> {
    system.check_program_exists(command.name())?;
    system.host.check_accounts_writable()?;
    Ok(Change::new(summary, move |system| system.host.change_accounts(&command)))
}
