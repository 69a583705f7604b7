//! Reloads: a running service reads its changed files without a restart.

use anyhow::Result;

use super::{START_TIMEOUT, Service};
use crate::{
    error::Fault,
    host::systemd::{Unit, unit_files},
    resource::{Change, Finding},
    system::System,
    value::AbsPath,
};

impl Service {
    /// Returns the faults of `reload_on`.
    pub(super) fn faults_of_reload_on(&self) -> Option<Finding> {
        if self.running != Some(true) && !self.reload_on.is_empty() {
            return Some(Finding::new("reload_on", "`reload_on` needs running = true"));
        }
        if let Some(both) = self.reload_on.iter().find(|path| self.restart_on.contains(path)) {
            let message = format!("`restart_on` and `reload_on` both name {both}");
            return Some(Finding::new("reload_on", message).hint("remove it from one of them"));
        }
        let own = self.reload_on.iter().find(|path| self.is_of_unit(path))?;
        let message = format!("a reload does not apply {own}, which is a file of the unit");
        Some(Finding::new("reload_on", message).hint("name it in `restart_on`"))
    }

    /// Returns whether a path is the unit's file or one of its drop-ins.
    fn is_of_unit(&self, path: &AbsPath) -> bool {
        let is_drop_in = |file: &AbsPath| path.parent().is_some_and(|parent| parent.as_str() == format!("{file}.d"));
        unit_files(&self.name.0).any(|file| file == *path || is_drop_in(&file))
    }

    /// Returns the change that reloads the running service, if it has not read all files of `reload_on`.
    pub(super) fn plan_reload(&self, system: &System, unit: &Unit) -> Result<Option<Change>> {
        let service = self.clone();
        let change = |why| Change::new(format!("reload: {why}"), move |system: &System| service.reload(system));
        Ok(self.reason_to_read_again(system, unit, &self.reload_on)?.map(change))
    }

    /// Fails if files are to be reloaded and the unit cannot do that.
    pub(super) fn check_reloadable(&self, unit: &Unit) -> Result<()> {
        // systemd answers for the unit file that it has read. A newer one may have another answer.
        if self.reload_on.is_empty() || unit.needs_reload() || !unit.cannot_reload() {
            return Ok(());
        }
        Err(Fault::new(format!("{} cannot reload: its unit has no ExecReload=", self.name.0))
            .hint("name the files of `reload_on` in `restart_on`")
            .into())
    }

    fn reload(&self, system: &System) -> Result<()> {
        let unit = system.host.unit(&self.name.0)?;
        self.check_reloadable(&unit)?;
        self.validate(system, "reloaded")?;
        let inputs = self.inputs(system)?;
        let serves = Self::serves(&unit)?;
        system
            .host
            .reload(&self.name.0, self.stable.0, START_TIMEOUT + self.stable.0)
            .inspect_err(|_| system.note_refusal(&self.name.0, serves))?;
        system.note_start(&self.name.0, serves);
        self.remember(system, &inputs)
    }

    /// Makes the service read files that were put back: by a reload, if it runs and a reload applies all of them.
    pub fn take_back(&self, system: &System, put_back: &[&AbsPath]) -> Result<()> {
        let unit = system.host.unit(&self.name.0)?;
        let needs_restart = |path: &AbsPath| {
            put_back.contains(&path)
                || system.root().resolve_trusted(path).is_ok_and(|resolved| put_back.contains(&&resolved))
        };
        let applies = !self.restart_on.iter().any(needs_restart) && !put_back.iter().any(|path| self.is_of_unit(path));
        let inputs = self.inputs(system)?;
        if applies && !self.reload_on.is_empty() && unit.is_active() && !unit.cannot_reload() {
            system.host.reload(&self.name.0, self.stable.0, START_TIMEOUT + self.stable.0)?;
        } else {
            self.settle(system, "restart")?;
        }
        self.remember(system, &inputs)
    }
}
