//! Programs that a manifest names: the check that no other user can replace them, and validators.

use anyhow::Result;

use super::{
    Host,
    command::{Program, describe, with_tail},
};
use crate::{error::Fault, value::AbsPath};

impl Host {
    /// Fails if a program that is to get the rights of a user could be replaced by a user other than that one and root.
    ///
    /// As in a unit, the user that called sudo is not trusted. A program that does not exist is no error here.
    pub fn check_program_owners(&self, name: &str, uid: u32) -> Result<()> {
        let Some(path) = self.find_program(name) else { return Ok(()) };
        self.root()
            .check_trusted(&path, uid)
            .map_err(|error| Fault::new(replaceable(&path, uid)).caused_by(error).into())
    }
}

/// Returns the fault of a program that another user could replace, in words.
pub fn replaceable(path: &AbsPath, uid: u32) -> String {
    let starter = if uid == 0 { "root".into() } else { format!("uid {uid}") };
    format!("{starter} does not start {path}: another user could replace it")
}

/// Returns the program of a manifest's `validate`, with `{}` replaced by a path.
pub fn validator(argv: &[String], path: &AbsPath) -> Program {
    Program::new(argv.iter().map(|argument| argument.replace("{}", path.as_str())))
}

/// Runs a validator.
///
/// # Errors
/// If the validator fails. The error has its output, unless the program is private.
pub fn validate(host: &Host, command: &Program) -> Result<()> {
    host.check_program_owners(&command.argv[0], command.user.as_ref().map_or(0, |user| user.uid))?;
    let finished = host.run(command)?;
    if !finished.status.success() {
        let status = describe(finished.status);
        let refused = if command.is_private {
            format!("{status}; its output is not shown, because the file is a secret")
        } else {
            with_tail(format!("`{}` refuses it ({status})", command.line()), &finished.tail)
        };
        let hint = format!("correct what it checks, or the validator; then run again: {}", host.run_command());
        return Err(Fault::new(refused).hint(hint).into());
    }
    Ok(())
}
