//! The view of a run in the journal: records with step, resource and change as fields.
//!
//! A run of a unit prints nothing else. A run of user-data prints lines for cloud-init's log, and writes the same records
//! beside them, so that the journal and what reads it have every run.

use std::{sync::OnceLock, time::Duration};

use super::run::summary;
use crate::{
    error,
    run::{
        engine::Observer,
        report::{ChangeReport, DownloadReport, Report, StepReport},
    },
    system::Mode,
    visible::{self, Shown},
};

/// The target of these records. What it says, lines say already.
pub const TARGET: &str = module_path!();

/// Where the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalPlace {
    /// It has all output of this process.
    Output,
    /// It gets records, and people get lines.
    Beside,
}

/// The journal's place, if this process writes to the journal.
static PLACE: OnceLock<JournalPlace> = OnceLock::new();

/// Sets where the journal is. Only the first call has an effect.
pub fn set_place(place: JournalPlace) {
    _ = PLACE.set(place);
}

/// Returns where the journal is; `None` if this process does not write to it.
pub fn place() -> Option<JournalPlace> {
    PLACE.get().copied()
}

/// Writes a text that was printed to standard error to the journal too, unless standard error is the journal.
pub(super) fn repeat(text: &Shown) {
    if place() == Some(JournalPlace::Beside) {
        tracing::error!("{}", text.as_str().trim_end());
    }
}

/// The view in records of the journal, with step, resource and change as fields.
#[derive(Debug, Default)]
pub(super) struct JournalLines {
    step: String,
}

impl Observer for JournalLines {
    fn step_begins(&mut self, _index: usize, _total: usize, name: &str) {
        self.step = name.into();
    }

    fn not_here(&mut self, resource: Option<&str>, why: &str) {
        let what = resource.map_or_else(|| format!("step {}", self.step), ToOwned::to_owned);
        tracing::info!(step = self.step, resource, "{what}: not here: {why}");
    }

    fn change(&mut self, resource: &str, change: &ChangeReport) {
        tracing::info!(
            step = self.step,
            resource,
            change = change.summary,
            deferred = change.deferred,
            "{resource}: {}",
            change.summary
        );
    }

    fn downloads(&mut self, resource: &str, downloads: &[DownloadReport]) {
        for download in downloads {
            let DownloadReport { source, bytes, began, wanted, ended, .. } = download;
            tracing::info!(
                step = self.step,
                resource,
                source,
                bytes,
                began,
                wanted,
                ended,
                "{resource}: downloaded {download}"
            );
        }
    }

    fn warning(&mut self, resource: &str, warning: &str) {
        tracing::warn!(step = self.step, resource, "{resource}: {}", visible::line(warning));
    }

    fn progress(&mut self, line: &str) {
        tracing::debug!(step = self.step, "{}", visible::line(line));
    }

    fn waits(&mut self, line: &str) {
        tracing::info!(step = self.step, "{}", visible::line(line));
    }

    fn failure(&mut self, resource: &str, declared_at: &str, error: &anyhow::Error, again: bool) {
        let text = error::render(error);
        tracing::error!(step = self.step, resource, declared_at, again, "{resource}: {}", text.trim_end());
    }

    fn step_ends(&mut self, index: usize, total: usize, step: &StepReport) {
        let outcome = format!("{:?}", step.outcome).to_lowercase();
        tracing::info!(
            step = step.name,
            outcome,
            milliseconds = step.milliseconds,
            "step {}/{total} {}: {outcome}",
            index + 1,
            step.name
        );
    }

    fn ends(&mut self, report: &Report) {
        let text = summary(report, Mode::Run, Duration::from_millis(report.milliseconds));
        tracing::info!(
            run_id = report.run_id,
            milliseconds = report.milliseconds,
            exit_code = report.exit_code,
            "{text}"
        );
    }
}
