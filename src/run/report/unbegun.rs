//! The last run that ended before its first step, such as one of a refused manifest: `unbegun.json` in the state
//! directory. It has no report, so without this note `status` would show the run before it as the last one.

use serde::{Deserialize, Serialize};

use super::{ErrorReport, Report, now, run_id};
use crate::{
    error::{self, Class},
    host::state,
    system::System,
};

const FILE: &str = "unbegun.json";

/// A run that ended before its first step.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnbegunRun {
    /// Sorted by time, as that of a report.
    run_id: String,
    /// The machine's identity; see [`System::identity`].
    machine: Option<String>,
    /// When it ended, RFC 3339, UTC.
    ended: String,
    exit_code: u8,
    error: ErrorReport,
}

impl UnbegunRun {
    /// Keeps it for `status`, on a machine only: an image has no later runs. A run that another one has kept out, or that a
    /// signal has stopped, is not kept. A machine without an earlier run stays as it is.
    pub fn keep(system: &System, error: &anyhow::Error) {
        let has_run = || state::exists(system.root()).unwrap_or_default();
        let is_told = !matches!(error::class(error), Class::Locked | Class::Interrupted(_));
        if !is_told || !system.root().is_host() || !has_run() {
            return;
        }
        let run = Self {
            run_id: run_id(),
            machine: system.host.identity(),
            ended: now(),
            exit_code: error::exit_code(error),
            error: ErrorReport::new(error),
        };
        if let Err(error) = state::write_unflushed(system.root(), FILE, &run) {
            tracing::debug!("`status` does not show this run: {error:#}");
        }
    }

    /// Returns a note on it, if it is of this machine and later than the report.
    pub fn note(system: &System, report: &Report) -> Option<String> {
        let run: Self = state::read(system.root(), FILE)?;
        if run.run_id < report.run_id || run.machine != system.host.identity() {
            return None;
        }
        let Self { ended, exit_code, error, .. } = run;
        let hint = error.hint.map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        let causes = error.causes.join(": ");
        Some(format!("a run did not begin, at {ended}: exit code {exit_code}: {causes}{hint}"))
    }
}
