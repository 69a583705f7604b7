//! The last look at a file's new bytes: by its validator, and by systemd where it is a unit file.

use anyhow::{Context, Result};

use super::File;
use crate::{
    host::{
        command::{validate, validator},
        root::Staged,
    },
    system::System,
};

impl File {
    /// Fails where the declared validator or systemd refuses the new bytes. They have the file's own name meanwhile.
    pub(super) fn verify(&self, system: &System, staged: &mut Staged) -> Result<()> {
        let is_unit = system.host.is_unit_file(&self.path) && system.host.has_program("systemd-analyze");
        if !is_unit && self.validate.is_none() {
            return Ok(());
        }
        // Root follows no path that a user may change: what is below a user's directory is judged with that user's rights.
        let user = staged.user().cloned();
        staged.under_own_name(|path| {
            if is_unit {
                let verified = system.host.verify_unit(path, self.secret);
                verified.with_context(|| format!("{} was not replaced: systemd would not load it", self.path))?;
            }
            let Some(argv) = &self.validate else { return Ok(()) };
            let command = validator(&argv.0, path).as_user(user);
            validate(&system.host, &if self.secret { command.private() } else { command })
                .with_context(|| format!("{} was not replaced: its validator failed", self.path))
        })
    }
}
