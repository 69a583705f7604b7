//! What happens when a service refuses what this run has changed: the old files are put back, and it runs with them.

use anyhow::Result;

use super::{START_PATIENCE, Service};
use crate::{
    host::{
        state,
        systemd::{Unit, unit_files},
    },
    system::System,
    value::AbsPath,
};

impl Service {
    /// All that it reads at its start: the files of `restart_on`, and its own unit file.
    pub(super) fn files(&self) -> Vec<AbsPath> {
        self.restart_on.iter().cloned().chain(unit_files(&self.name.0)).collect()
    }

    /// Whether it serves, and a restart that fails takes something away. One that systemd keeps restarting does not.
    pub(super) fn serves(unit: &Unit) -> Result<bool> {
        Ok(unit.is_active() && (unit.restarts() == 0 || unit.active_for()? > START_PATIENCE))
    }

    /// Puts back what this run has changed of its files, if it has refused them; says what was done.
    pub(super) fn put_back_refused(&self, system: &System) -> Result<Option<String>> {
        let name = &self.name.0;
        let Some(must_restart) = system.refusal(name) else { return Ok(None) };
        let back = system.put_back(&self.files())?;
        if back.is_empty() {
            return Ok(None);
        }
        let paths: Vec<&str> = back.iter().map(AbsPath::as_str).collect();
        let said = format!("{name} refuses what this run has changed; put back: {}", paths.join(", "));
        let limit = START_PATIENCE + self.stable.0;
        let restarted =
            system.host.stop.deadlines.instead(limit, "starting it with its old files", || -> Result<bool> {
                // Of a drop-in, systemd itself says so.
                if back.iter().any(|path| system.host.is_unit_file(path)) || system.host.unit(name)?.needs_reload() {
                    system.host.daemon_reload()?;
                }
                if !must_restart {
                    return Ok(false);
                }
                self.settle(system, "restart")?;
                self.remember(system, &self.inputs(system)?)?;
                Ok(true)
            });
        Ok(Some(match restarted {
            Ok(false) => said,
            Ok(true) => format!("{said}; {name} runs again with them"),
            Err(error) => format!("{said}; {name} does not run with them either: {error:#}"),
        }))
    }

    /// Remembers what it was started with.
    pub(super) fn remember(&self, system: &System, inputs: &super::Started) -> Result<()> {
        if self.restart_on.is_empty() { Ok(()) } else { state::write(system.root(), &self.state_name(), inputs) }
    }
}
