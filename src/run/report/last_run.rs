//! How the last run of a machine ended, as one line of JSON. The machine uploads it, and `deploy status` reads it.

use serde::{Deserialize, Serialize};

use super::{Outcome, Report, now};
use crate::redaction;

/// A run that has ended, in short. It has no text of a manifest, a program or a server, but for the names of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Version of the program.
    pub version: String,
    /// The build in the machine's tag of that name.
    #[serde(default)]
    pub build: Option<String>,
    /// When it ended, RFC 3339, UTC.
    pub ended: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its exit code.
    pub exit_code: u8,
    /// How many changes it made.
    pub changes: usize,
    /// How much had changed since an earlier run of the same steps had converged; `None` without such a run.
    #[serde(default)]
    pub drift: Option<usize>,
    /// The step that failed.
    #[serde(default)]
    pub step: Option<String>,
}

impl LastRun {
    /// Returns that of a run's report; `None` if the run has not ended, or if a signal has stopped it. `before` is the report
    /// that the run replaced.
    pub fn of(report: &Report, before: Option<&Report>) -> Option<Self> {
        let exit_code = report.exit_code.filter(|_| report.outcome != Outcome::Stopped)?;
        let has_converged = |before: &&Report| before.exit_code == Some(0) && before.again == report.again;
        let failed = report.steps.iter().find(|step| step.outcome == Outcome::Failed);
        Some(Self {
            version: report.version.clone(),
            build: None,
            ended: report.ended.clone()?,
            outcome: report.outcome,
            exit_code,
            changes: report.changes(false),
            drift: before.filter(has_converged).map(|_| report.changes(false)),
            // The name may hold the value of a variable.
            step: failed.map(|step| redaction::line(&redaction::shown(&step.name))),
        })
    }

    /// Returns that of a run that has just failed without a report of its own.
    pub fn failed(exit_code: u8, step: Option<String>) -> Self {
        let (version, ended, outcome) = (env!("CARGO_PKG_VERSION").into(), now(), Outcome::Failed);
        Self { version, build: None, ended, outcome, exit_code, changes: 0, drift: None, step }
    }

    /// Finds the last one in an object of a machine, which may hold any text.
    pub fn find(text: &str) -> Option<Self> {
        text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// Returns the line of JSON, with a newline.
    pub fn line(&self) -> String {
        serde_json::to_string(self).map(|line| line + "\n").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report::{ChangeReport, ResourceReport};

    /// The report of a run with this exit code, and this number of changes.
    fn report(exit_code: u8, changes: usize) -> Report {
        let mut report = Report::begin(None, ["first", "second"].into_iter().map(Into::into));
        let changes = (0..changes).map(|_| ChangeReport::new("create", false, None)).collect();
        report.steps[0].resources.push(ResourceReport { changes, ..ResourceReport::default() });
        if exit_code != 0 {
            report.steps[1].outcome = Outcome::Failed;
        }
        report.end(std::time::Duration::ZERO, exit_code);
        report
    }

    #[test]
    fn drift_is_what_a_later_run_of_the_same_steps_changes() {
        let drift = |before: Option<&Report>| LastRun::of(&report(0, 2), before).unwrap().drift;
        assert_eq!(drift(None), None);
        assert_eq!(drift(Some(&report(0, 5))), Some(2));
        assert_eq!(drift(Some(&report(1, 0))), None, "the machine had not converged");
        let other = Report { again: "glovo-bootstrap run --steps /other".into(), ..report(0, 0) };
        assert_eq!(drift(Some(&other)), None);
        let quiet = LastRun::of(&report(0, 0), Some(&report(0, 5))).unwrap();
        assert_eq!((quiet.outcome, quiet.drift), (Outcome::Unchanged, Some(0)));
    }

    #[test]
    fn a_run_that_has_not_ended_is_no_last_run() {
        assert_eq!(LastRun::of(&Report::begin(None, std::iter::empty()), None), None);
        assert_eq!(LastRun::of(&report(143, 0), None), None, "stopped");
        let failed = LastRun::of(&report(1, 1), None).unwrap();
        assert_eq!((failed.outcome, failed.step.as_deref(), failed.changes), (Outcome::Failed, Some("second"), 1));
    }

    #[test]
    fn it_is_found_below_a_block_in_any_text() {
        let last = LastRun::of(&report(0, 3), None).unwrap();
        assert_eq!(LastRun::find(&format!("-----BEGIN-----\nlog: {{}}\n-----END-----\n{}", last.line())), Some(last));
        for text in ["", "{", "null\n", "{\"version\": 1}", "log: {}\n"] {
            assert_eq!(LastRun::find(text), None, "{text:?}");
        }
    }
}
