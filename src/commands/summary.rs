//! `status` of a user that may not read the report: the summary.

use std::time::Duration;

use anyhow::Result;

use crate::{
    error::Fault,
    run::report::{Outcome, summary::Summary},
    system::System,
    value::{AbsPath, spoken},
    view::{say, say_json},
};

/// Shows the summary of the last run; returns its exit code, 4 while it goes on.
///
/// # Errors
/// The error that the report could not be read with, if there is no summary either.
pub(super) fn show(system: &System, wait: bool, json: bool, error: anyhow::Error) -> Result<u8> {
    let hint = if wait { "sudo glovo-bootstrap status --wait" } else { "sudo glovo-bootstrap status" };
    let private = |error| Fault::new("only root can read the report of the last run").hint(hint).caused_by(error);
    if wait {
        return Err(private(error).into());
    }
    let Ok(Some(summary)) = Summary::read(system) else { return Err(private(error).into()) };
    let is_running = summary.exit_code.is_none() && is_program(system, summary.pid);
    if json {
        say_json(&summary)?;
    } else {
        show_table(&summary, is_running);
    }
    Ok(match summary.exit_code {
        _ if is_running || summary.outcome == Outcome::Rebooting => 4,
        code => code.unwrap_or(1),
    })
}

fn show_table(summary: &Summary, is_running: bool) {
    let width = summary.steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    for step in &summary.steps {
        let outcome = match step.outcome {
            Outcome::Unchanged => "unchanged".into(),
            Outcome::Changed => format!("changed ({})", step.changes),
            Outcome::Pending => format!("pending ({})", step.changes),
            Outcome::PutBack => "put back".into(),
            Outcome::Failed => "failed".into(),
            Outcome::Stopped => "stopped".into(),
            Outcome::NotRun => "not run".into(),
            Outcome::Skipped => "skipped".into(),
            Outcome::Running if is_running => "running".into(),
            Outcome::Running | Outcome::Rebooting => "cut off".into(),
        };
        let time = match step.outcome {
            Outcome::NotRun | Outcome::Skipped | Outcome::Running => String::new(),
            _ => spoken(Duration::from_millis(step.milliseconds)),
        };
        say(format!("{:width$}  {outcome:12}  {time:>10}", step.name));
    }
    let total = spoken(Duration::from_millis(summary.milliseconds));
    let ended = match summary.exit_code {
        None if is_running => format!("running: pid {}", summary.pid),
        None if summary.outcome == Outcome::Rebooting => "rebooting; the run goes on after the boot".into(),
        None => "cut off before its end".into(),
        Some(0) => format!("converged in {total}"),
        Some(code) => format!("ended with exit code {code} after {total}"),
    };
    say(format!("run {} of {}: {ended}", summary.run_id, summary.started));
    say("left out, because only root may read it: resources, changes, errors and hints");
    say("to see it: sudo glovo-bootstrap status");
}

/// Whether a process is this program, as its name says. Another one may have got the number of one that was killed.
fn is_program(system: &System, pid: u32) -> bool {
    let name = format!("/proc/{pid}/comm").parse().and_then(|path: AbsPath| system.root().read_text(&path));
    name.is_ok_and(|name| name.trim() == env!("CARGO_PKG_NAME"))
}
