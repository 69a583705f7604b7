//! The last check of a file's new content: by its validator, and by systemd for a unit file or a drop-in.

use anyhow::{Context, Result};

use super::{File, MAX_TEXT_BYTES};
use crate::{
    host::{
        declared::{validate, validator},
        root::{Ownership, Staged},
    },
    system::System,
    value::AbsPath,
};

impl File {
    /// Fails if the declared validator or systemd refuses the new content. It has the file's own name during the check.
    pub(super) fn verify(&self, system: &System, staged: &mut Staged) -> Result<()> {
        let is_unit = system.host.is_unit_file(&self.path) && system.host.has_program("systemd-analyze");
        let extended = system.host.unit_of_drop_in(&self.path).filter(|_| system.host.has_program("systemd-analyze"));
        if !is_unit && extended.is_none() && self.validate.is_none() {
            return Ok(());
        }
        // Root follows no path that a user may change. A file below a user's directory is checked with that user's rights.
        let user = staged.user().cloned();
        let extended = extended.filter(|_| user.is_none());
        staged.under_own_name(|path| {
            if is_unit {
                let verified = system.host.verify_unit(path, self.is_secret());
                verified.with_context(|| format!("{} was not replaced: systemd would not load it", self.path))?;
            }
            if let Some(unit) = extended {
                let verified = self.verify_drop_in(system, path, unit);
                let refused = || format!("{} was not replaced: systemd would not load {unit} with it", self.path);
                verified.with_context(refused)?;
            }
            let Some(argv) = &self.validate else { return Ok(()) };
            let command = validator(&argv.0, path).as_user(user);
            validate(&system.host, &if self.is_secret() { command.private() } else { command })
                .with_context(|| format!("{} was not replaced: its validator failed", self.path))
        })
    }

    /// Fails if systemd would refuse a unit with the drop-in at this path, but accepts the unit without it.
    ///
    /// systemd prefers the drop-ins beside a unit file to those of the same name elsewhere. So it verifies a copy of the
    /// unit's file beside the new drop-in.
    fn verify_drop_in(&self, system: &System, path: &AbsPath, unit: &str) -> Result<()> {
        let root = system.root();
        // The package of the unit may be installed later.
        let Some(file) = system.host.unit_file(unit)? else { return Ok(()) };
        let Ok(Some(bytes)) = root.resolve(&file).and_then(|file| root.read(&file, MAX_TEXT_BYTES)) else {
            return Ok(());
        };
        let directory = path.parent().context("the path of the file is /")?;
        let (copy, drop_ins) = (directory.join(unit)?, directory.join(&format!("{unit}.d"))?);
        let verified = (|| {
            root.write(&copy, Ownership { uid: 0, gid: 0, mode: 0o600 }, &bytes)?;
            root.make_directories(&drop_ins, 0o700)?;
            root.make_link(&drop_ins.join(path.leaf())?, &format!("../{}", path.leaf()))?;
            system.host.verify_unit(&copy, self.is_secret())
        })();
        _ = root.purge(&drop_ins)?;
        root.remove(&copy)?;
        match verified {
            Err(refused) if system.host.verify_unit(&file, self.is_secret()).is_ok() => Err(refused),
            _ => Ok(()),
        }
    }
}
