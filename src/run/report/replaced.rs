//! The report that a run replaces. Of one with a thousand resources, a run needs only how it ended.

use anyhow::{Context, Result};
use serde::{Deserialize, de::IgnoredAny};

use super::{FILE, Outcome, Report, history, load};
use crate::{host::state, system::System};

/// The fields that a report has, and its outcome.
#[derive(Deserialize)]
struct ReplacedReport {
    #[serde(rename = "run_id")]
    _run_id: IgnoredAny,
    outcome: Outcome,
    #[serde(rename = "steps")]
    _steps: Vec<ReplacedStep>,
}

#[derive(Deserialize)]
struct ReplacedStep {
    #[serde(rename = "name")]
    _name: IgnoredAny,
    #[serde(rename = "resources")]
    _resources: Vec<IgnoredAny>,
}

/// The outcome of the replaced report, which is on the disk until a change is made.
struct ReplacedOutcome(Option<Outcome>);

/// Keeps the last report for `status --list` if its run was cut off. A damaged one is renamed, with a warning. Called before
/// a new run replaces it, with the machine's lock held.
///
/// # Errors
/// If a damaged report cannot be renamed.
pub fn keep(system: &System) -> Result<()> {
    let outcome = match read(system) {
        Ok(outcome) => outcome,
        Err(error) => {
            let aside = system.root().set_aside(&state::path(FILE)?).context("renaming the damaged report")?;
            tracing::warn!("{error}; it was renamed to {aside}");
            None
        }
    };
    system.host.read_once(|_| Ok(ReplacedOutcome(outcome))).map(drop)
}

/// Returns the outcome of the report that the run replaces; `None` if there is none.
pub(super) fn outcome(system: &System) -> Option<Outcome> {
    let read = |_: &_| Ok(ReplacedOutcome(load(system).ok().flatten().map(|last: ReplacedReport| last.outcome)));
    system.host.read_once(read).ok()?.0
}

fn read(system: &System) -> Result<Option<Outcome>> {
    let Some(last) = load::<ReplacedReport>(system)? else { return Ok(None) };
    if last.outcome == Outcome::Running
        && let Some(report) = Report::read(system)?.filter(|report| report.is_of(system))
    {
        history::keep(&report, system);
    }
    Ok(Some(last.outcome))
}
