//! Reloads: a running unit reads its files again, without a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{
    error::Fault,
    host::{
        Host,
        command::{Program, with_tail},
    },
    value::{quoted, spoken},
};

use super::Unit;

impl Unit {
    /// Returns whether systemd has no way to reload it: its file has no `ExecReload=`.
    pub fn cannot_reload(&self) -> bool {
        self.get("CanReload") == "no"
    }
}

impl Host {
    /// Reloads a running unit and waits until it has run for `stable` after the reload.
    ///
    /// It does not wait for a job that can begin only after this process; see [`Host::waits_for_us`].
    pub fn reload(&self, name: &str, stable: Duration, patience: Duration) -> Result<()> {
        let before = self.fresh_unit(name)?;
        tracing::debug!("reload {name} (deadline: {})", self.stop.deadlines.in_words());
        _ = self.run_checked(&Program::new(["systemctl", "reload", "--no-block", name]))?;
        let end = Instant::now() + patience;
        let mut reloaded_since = None;
        let mut pause = Duration::from_millis(20);
        loop {
            let unit = self.fresh_unit(name)?;
            if unit.has_job() {
                if pause >= Duration::from_millis(200) && self.waits_for_us(name)? {
                    return Ok(());
                }
            } else if !unit.is_active() || unit.invocation() != before.invocation() {
                return Err(self.failed(name, &unit).context(format!("{name} did not survive its reload")));
            } else if unit.get("ActiveState") == "active" {
                // systemd sets it to `success` when a reload begins.
                let result = unit.get("ReloadResult");
                if !matches!(result, "" | "success") {
                    return Err(self.refused_reload(name, result));
                }
                let since: Instant = *reloaded_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= stable {
                    let invocation = unit.invocation().to_owned();
                    _ = self.units.borrow_mut().started.insert(name.to_owned(), invocation);
                    return Ok(());
                }
            }
            if Instant::now() >= end {
                let waited = Fault::new(format!("gave up after {}", spoken(patience)));
                return Err(waited.hint(format!("see its state: systemctl status {}", quoted(name))))
                    .context(self.still(name, &unit));
            }
            self.progress(&format!("{name}: reloading"));
            self.stop.wait(pause).map_err(|stopped| stopped.context(self.still(name, &unit)))?;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    fn refused_reload(&self, name: &str, result: &str) -> anyhow::Error {
        let message = format!("{name} failed to reload ({result})");
        Fault::new(with_tail(message, &self.journal(name)))
            .hint(format!("read its log: journalctl -u {}; then run again: {}", quoted(name), self.run_command()))
            .into()
    }
}
