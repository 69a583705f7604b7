//! `status`: the last run or an earlier one, as a table, as JSON, or as a picture.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

use super::{again, fetch::absolute, record, summary};
use crate::{
    cli::{self, Status},
    error::Fault,
    host::{
        boot::BootTime,
        root::{Ownership, Root, is_denied},
        wait,
    },
    manifest::location::Location,
    run::{
        lock::MachineLock,
        report::{
            DownloadReport, Outcome, RebootReport, Report, ResourceReport, StepReport, history, unbegun::UnbegunRun,
        },
    },
    stop::signal_of,
    system::{Mode, System},
    value::{AbsPath, quoted, spoken},
    view::{
        count, say, say_document, say_json,
        timeline::{Timeline, html, svg},
    },
    visible::Shown,
};

/// Shows a run; returns its exit code, 4 while it goes on. A list and a picture return 0.
pub(super) fn execute(arguments: &Status) -> Result<u8> {
    let system = super::open(&arguments.target.root, Mode::Plan, None)?;
    let draw = arguments.timeline.as_deref().map(Picture::of).transpose()?;
    if arguments.list {
        return list(&system, arguments.json).map_err(of_root);
    }
    if let Some(id) = &arguments.run {
        let report = earlier(&system, id).map_err(of_root)?;
        return finish(&system, &report, None, arguments.json, draw.as_ref());
    }
    let holder = loop {
        match MachineLock::holder(system.root()) {
            Ok(None) if arguments.wait && is_rebooting(&system) => system.host.stop.wait(Duration::from_millis(200))?,
            Err(error) if is_denied(&error) && draw.is_none() => {
                return summary::show(&system, arguments.wait, arguments.json, error);
            }
            Err(error) => return Err(error),
            Ok(Some(_)) if arguments.wait => system.host.stop.wait(Duration::from_millis(200))?,
            Ok(holder) => break holder,
        }
    };
    let Some(mut report) = Report::read(&system)? else {
        return Err(Fault::new("no run has left a report on this machine").hint(first_run(&system)).into());
    };
    if !report.is_of(&system) {
        let whose =
            report.machine.as_deref().filter(|id| id.starts_with("i-")).unwrap_or("which this disk was copied from");
        let message =
            format!("the last report is of another machine, {whose}; no run has left a report on this machine");
        return Err(Fault::new(message).hint(first_run(&system)).into());
    }
    let pid = holder.as_deref().and_then(|holder| holder.split(' ').next()?.parse().ok());
    report.waiting = pid.and_then(|pid| wait::of(system.root(), pid));
    report.notes.extend(UnbegunRun::note(&system, &report));
    finish(&system, &report, holder.as_deref(), arguments.json, draw.as_ref())
}

fn finish(system: &System, report: &Report, holder: Option<&str>, json: bool, draw: Option<&Picture>) -> Result<u8> {
    match draw {
        Some(picture) => {
            picture.make(system, report, holder.is_some())?;
            return Ok(0);
        }
        None if json => say_json(report)?,
        None => show(report, holder),
    }
    Ok(match report.exit_code {
        _ if holder.is_some() || report.outcome == Outcome::Rebooting => 4,
        Some(code) => code,
        None => 1,
    })
}

/// Returns the error of a user that may not read the reports.
fn of_root(error: anyhow::Error) -> anyhow::Error {
    if !is_denied(&error) {
        return error;
    }
    let fault = Fault::new("only root can read the reports of earlier runs").caused_by(error);
    fault.hint("run the command again with sudo").into()
}

/// Reads an earlier run, by its id or the beginning of it.
fn earlier(system: &System, id: &str) -> Result<Report> {
    let mut found: Vec<Report> =
        history::read(system)?.into_iter().filter(|report| report.run_id.starts_with(id)).collect();
    match found.pop() {
        Some(report) if found.is_empty() => Ok(report),
        other => {
            let how_many = if other.is_some() { "several runs whose ids begin" } else { "no run whose id begins" };
            let fault = Fault::new(format!("there is {how_many} with {}", quoted(id))).invalid();
            let root = if system.root().is_host() { String::new() } else { format!(" --root {}", quoted_root(system)) };
            Err(fault.hint(format!("to see the ids: glovo-bootstrap status --list{root}")).into())
        }
    }
}

/// Lists the earlier runs, the newest first.
fn list(system: &System, json: bool) -> Result<u8> {
    let reports = history::read(system)?;
    if json {
        say_json(&serde_json::json!({ "runs": reports }))?;
        return Ok(0);
    }
    for report in &reports {
        let changes = count(report.changes(false), "change");
        let time = spoken(Duration::from_millis(report.milliseconds));
        say(format!("{}  {}  {time:>12}  {changes:>12}  {}", report.run_id, report.started, ending(report)));
    }
    if reports.is_empty() {
        say("no earlier run is kept: none has changed anything or failed");
    }
    Ok(0)
}

/// Returns how an earlier run ended, with the step that failed.
fn ending(report: &Report) -> String {
    let failed = report.steps.iter().find(|step| matches!(step.outcome, Outcome::Failed | Outcome::Stopped));
    let at = failed.map(|step| format!(" in {}", step.name)).unwrap_or_default();
    match report.exit_code {
        Some(0) => "converged".into(),
        Some(code) if report.outcome == Outcome::Stopped => {
            format!("stopped by {}{at}", signal_of(code).unwrap_or("a signal"))
        }
        Some(code) => format!("failed with exit code {code}{at}"),
        None if report.outcome == Outcome::Rebooting => "interrupted by a reboot".into(),
        None => "cut off".into(),
    }
}

/// Where a picture goes, and its form.
struct Picture {
    /// `None` for standard output.
    path: Option<AbsPath>,
    draw: fn(&Timeline) -> String,
}

impl Picture {
    fn of(file: &str) -> Result<Self> {
        let draw = match Path::new(file).extension().and_then(|ending| ending.to_str()) {
            _ if file == "-" => return Ok(Self { path: None, draw: svg }),
            Some("svg") => svg,
            Some("html") => html,
            _ => {
                let fault = Fault::new(format!("{} is not the name of a picture", quoted(file))).invalid();
                return Err(fault.hint("end its name in .svg or .html; - prints the SVG").into());
            }
        };
        let here = std::env::current_dir().context("asking for the current directory")?;
        Ok(Self { path: Some(absolute(&here, Path::new(file))?), draw })
    }

    /// The boot is drawn if the run was in this one.
    fn make(&self, system: &System, report: &Report, goes_on: bool) -> Result<()> {
        let now = BootTime::now();
        let is_this_boot = report.boot.as_ref().map(|boot| &boot.id) == now.as_ref().map(|now| &now.id);
        let parts = if is_this_boot && system.is_live() { system.host.boot_parts()? } else { vec![] };
        let now = now.filter(|_| goes_on && is_this_boot).map(|now| now.milliseconds);
        let picture = (self.draw)(&Timeline::new(report, &parts, now));
        let Some(path) = &self.path else {
            say_document(picture.trim_end());
            return Ok(());
        };
        let root = Root::open(Path::new("/"))?;
        let ownership = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 };
        root.write(path, ownership, picture.as_bytes()).map_err(|error| {
            let fault = Fault::new(format!("the picture cannot be written to {path}")).caused_by(error);
            fault.hint("print it instead: sudo glovo-bootstrap status --timeline - > FILE")
        })?;
        say(format!("drawn: {path}"));
        Ok(())
    }
}

/// Returns whether the machine reboots, or has done so and will soon go on with the run.
fn is_rebooting(system: &System) -> bool {
    let report = Report::read(system).ok().flatten();
    report.is_some_and(|report| report.outcome == Outcome::Rebooting && report.is_of(system))
}

/// Returns the image's tree as a shell reads it.
fn quoted_root(system: &System) -> String {
    quoted(&again::absolute(&system.root().path().to_string_lossy()))
}

/// Returns the command to type on a machine without a report.
fn first_run(system: &System) -> String {
    if !system.root().is_host() {
        return format!("glovo-bootstrap bake --root {} --steps DIRECTORY", quoted_root(system));
    }
    match record::complete(system, cli::ManifestArgs::default(), record::Told::Not) {
        Ok(cli::ManifestArgs { steps: None, .. })
            if Location::choose(None).is_ok_and(|usual| usual == Location::BuiltIn) =>
        {
            "glovo-bootstrap run --steps DIRECTORY".into()
        }
        _ => "glovo-bootstrap run".into(),
    }
}

/// Prints the report as a table.
fn show(report: &Report, holder: Option<&str>) {
    let width = report.steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    for step in &report.steps {
        show_step(step, width, holder.is_some());
        step.resources.iter().for_each(show_resource);
    }
    say(format!("run {} of {}: {}", report.run_id, report.started, how_it_ended(report, holder)));
    if let Some(waiting) = &report.waiting {
        say(waiting.clone());
    }
    for note in &report.notes {
        say(format!("note: {note}"));
    }
}

fn show_step(step: &StepReport, width: usize, goes_on: bool) {
    let outcome = match step.outcome {
        Outcome::Unchanged => "unchanged".into(),
        Outcome::Changed => format!("changed ({})", step.changes(false)),
        Outcome::PutBack => "put back".into(),
        Outcome::Pending => format!("pending ({})", step.changes(false)),
        Outcome::Failed => "failed".into(),
        Outcome::Stopped => "stopped".into(),
        Outcome::NotRun => "not run".into(),
        Outcome::Skipped => step.not_here.as_ref().map_or("skipped".into(), |why| format!("not here: {why}")),
        Outcome::Running if goes_on => "running".into(),
        Outcome::Running | Outcome::Rebooting => "cut off".into(),
    };
    let time = match step.outcome {
        // The report does not say how long it has been running.
        Outcome::NotRun | Outcome::Skipped | Outcome::Running => String::new(),
        _ => spoken(Duration::from_millis(step.milliseconds)),
    };
    say(format!("{:width$}  {outcome:12}  {time:>10}", step.name));
}

fn show_resource(resource: &ResourceReport) {
    if let Some(why) = &resource.not_here {
        say(format!("    {}: not here: {why}", resource.resource));
    }
    for change in resource.changes.iter().filter(|change| !change.failed) {
        let mark = if change.deferred || change.put_back { "-" } else { "+" };
        let put_back = if change.put_back { " (put back)" } else { "" };
        say(format!("  {mark} {}: {}{put_back}", resource.resource, change.summary));
    }
    if let Some(sum) = DownloadReport::sum(&resource.downloads) {
        say(format!("    downloaded {sum}"));
    }
    for warning in &resource.warnings {
        say(format!("    warning: {warning}"));
    }
    if let Some(error) = &resource.error {
        let causes = error.causes.join(": ").replace('\n', "\n    ");
        say(Shown::from(format!("  ! {}: ", resource.resource)) + Shown::lines(&causes));
        if let Some(hint) = &error.hint {
            say(Shown::lines(&format!("    hint: {}", hint.replace('\n', "\n    "))));
        }
        if !resource.declared_at.is_empty() {
            say(format!("    declared at: {}", resource.declared_at));
        }
    }
}

fn how_it_ended(report: &Report, holder: Option<&str>) -> String {
    let total = spoken(Duration::from_millis(report.milliseconds));
    match (report.exit_code, holder) {
        (_, Some(holder)) => format!("running: pid {holder}"),
        (None, None) if report.reboot.is_some() => {
            report.reboot.as_ref().map(RebootReport::in_words).unwrap_or_default()
        }
        (None, None) => format!("cut off before its end; to continue: {}", report.again),
        (Some(0), None) => format!("converged in {total}"),
        (Some(code), None) if report.outcome == Outcome::Stopped => {
            format!("stopped by {} after {total}", signal_of(code).unwrap_or("a signal"))
        }
        (Some(code), None) => format!("failed with exit code {code} after {total}"),
    }
}
