//! What every user of the machine may know of the last run: how it ended, step by step. All that a manifest, a program or
//! a server wrote stays in the report, but for the steps' names.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Outcome, Report, StepReport};
use crate::{host::state, system::System};

/// The summary's file, beside the report; mode 0644.
pub const FILE: &str = "summary.json";

/// A run without what may be private.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The report's.
    pub run_id: String,
    /// Version of the program.
    pub version: String,
    /// Which machine it is of; see [`Host::public_identity`](crate::host::Host::public_identity).
    pub machine: Option<String>,
    /// The process of the run.
    pub pid: u32,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// When it ended; absent while it runs, or if it was cut off.
    pub ended: Option<String>,
    /// Wall time in milliseconds.
    pub milliseconds: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Its exit code; absent while it runs.
    pub exit_code: Option<u8>,
    /// Every step of the manifest.
    pub steps: Vec<StepSummary>,
    /// The fields of the report that are left out.
    pub left_out: Vec<String>,
}

/// A step without its resources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepSummary {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time in milliseconds.
    pub milliseconds: u64,
    /// How many changes were made.
    pub changes: usize,
    /// How many changes wait for the boot.
    pub deferred: usize,
}

impl Summary {
    /// What a report says that every user may know.
    pub fn of(report: &Report, system: &System) -> Self {
        let step = |step: &StepReport| StepSummary {
            name: step.name.clone(),
            outcome: step.outcome,
            milliseconds: step.milliseconds,
            changes: step.changes(false),
            deferred: step.changes(true),
        };
        Self {
            run_id: report.run_id.clone(),
            version: report.version.clone(),
            machine: system.host.public_identity(),
            pid: std::process::id(),
            started: report.started.clone(),
            ended: report.ended.clone(),
            milliseconds: report.milliseconds,
            outcome: report.outcome,
            exit_code: report.exit_code,
            steps: report.steps.iter().map(step).collect(),
            left_out: ["command", "again", "steps.resources", "notes"].map(Into::into).into(),
        }
    }

    /// Keeps it beside the report. A run does not fail because its summary could not be kept.
    pub(super) fn write(&self, system: &System) {
        let Err(error) = state::write_public(system.root(), FILE, self) else { return };
        tracing::debug!("the summary of the run is not kept: {error:#}");
        // Otherwise an earlier one would tell how another run has ended.
        if let Err(error) = state::path(FILE).and_then(|path| system.root().remove(&path)) {
            tracing::debug!("the summary of an earlier run stays: {error:#}");
        }
    }

    /// The summary of the last run of this machine; `None` where no run has left one.
    ///
    /// # Errors
    /// If it can't be read, or is damaged.
    pub fn read(system: &System) -> Result<Option<Self>> {
        let summary: Option<Self> = state::load(system.root(), FILE)?;
        Ok(summary.filter(|summary| summary.machine == system.host.public_identity()))
    }
}
