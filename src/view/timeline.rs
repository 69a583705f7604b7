//! The picture of a run and of the boot before it: which parts took the time, and which ran side by side.

mod rows;
mod svg;

use std::time::Duration;

use self::rows::{TimelineRow, rows};
pub use self::svg::{html, svg};
use crate::{
    host::boot::BootPart,
    run::report::{Outcome, Report},
    stop::signal_of,
    value::spoken,
};

/// A run that begins at most so long after the boot was complete is drawn with it, in milliseconds.
const AFTER_BOOT: u64 = 60_000;

/// A picture as rows of bars, before it is drawn. All times are in milliseconds since power-on, or since the run began if
/// the boot is not known.
#[derive(Debug)]
pub struct Timeline {
    title: String,
    summary: String,
    /// The longest parts, in words.
    longest: String,
    rows: Vec<TimelineRow>,
    /// Moments, each with its name.
    marks: Vec<(u64, &'static str)>,
    end: u64,
}

impl Timeline {
    /// Arranges a report, with the parts of its boot if they are known. `now` is the present moment on the boot's clock
    /// for a run that goes on.
    pub fn new(report: &Report, boot: &[BootPart], now: Option<u64>) -> Self {
        let clock = report.boot.as_ref().map_or(0, |boot| boot.milliseconds);
        let boot = if is_part_of(boot, clock) { boot } else { &[] };
        let origin = boot.first().map_or(clock, |first| first.began);
        let run = clock.saturating_sub(origin);
        let duration = match (now, report.exit_code) {
            (Some(now), None) => now.saturating_sub(clock),
            _ => report.milliseconds.max(rows::last_known(report)),
        };
        let end = run.saturating_add(duration).max(1);
        let rows = rows(report, boot, &rows::PictureClock { origin, run, end });
        let mut marks = vec![];
        if !boot.is_empty() {
            marks.push((run, "the run begins"));
        }
        marks.extend(first_answer(report).map(|answer| (run.saturating_add(answer), "first answer")));
        let total = spoken(Duration::from_millis(end));
        let from = if boot.is_empty() { "from the run's beginning" } else { "from power-on" };
        Self {
            title: format!("run {} of {}", report.run_id, report.started),
            summary: format!("{from} to {}: {total}", ending(report, now.is_some())),
            longest: rows::longest(&rows, end),
            rows,
            marks,
            end,
        }
    }
}

/// Returns whether a run that began at this time is a part of the boot, and no later one.
fn is_part_of(boot: &[BootPart], run: u64) -> bool {
    let goes_on = boot.iter().any(|part| part.ended.is_none());
    let end = boot.iter().filter_map(|part| part.ended).max().unwrap_or_default();
    goes_on || run <= end.saturating_add(AFTER_BOOT)
}

/// Returns when the first check of an application's address succeeded.
fn first_answer(report: &Report) -> Option<u64> {
    let resources = report.steps.iter().flat_map(|step| &step.resources);
    let is_answered = |outcome| matches!(outcome, Outcome::Changed | Outcome::Unchanged);
    resources
        .filter(|resource| resource.resource.starts_with("http_check ") && is_answered(resource.outcome))
        .map(|resource| resource.began.saturating_add(resource.milliseconds))
        .min()
}

fn ending(report: &Report, goes_on: bool) -> String {
    match (report.outcome, report.exit_code) {
        (_, None) if goes_on => "now, and the run goes on".into(),
        (Outcome::Rebooting, _) => "the reboot in the middle of the run".into(),
        (_, Some(0)) => "converged".into(),
        (Outcome::Stopped, Some(code)) => format!("stopped by {}", signal_of(code).unwrap_or("a signal")),
        (_, Some(code)) => format!("failed with exit code {code}"),
        (_, None) => "the last step that a run which was cut off has reported".into(),
    }
}

#[cfg(test)]
mod tests;
