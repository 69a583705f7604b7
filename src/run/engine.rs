//! The loop over the steps: plan each resource after its predecessor was applied, make the changes, plan again.

mod affected;
mod ahead;
mod put_back;
mod reboot;
mod refused;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::refused::RefusedVersions;
use super::{
    report::{ChangeReport, DownloadReport, ErrorReport, Outcome, Report, ResourceReport, StepReport, milliseconds},
    selection::Selection,
    supervisor::{self, RunMessage},
};
use crate::{
    error::{self, Class, Fault},
    fetch::fetched::Arrival,
    manifest::{Declared, Manifest, Step},
    net::retry::spread,
    redaction,
    resource::{Change, Resource, deferred::Deferred},
    system::{Fact, Mode, System},
    value::AbsPath,
    visible,
};

/// The deadline of a step that declares none, so that no run waits forever.
const STEP_TIMEOUT: Duration = Duration::from_hours(1);

/// A view of the run: the engine calls it at each event.
pub trait Observer {
    /// A step begins.
    fn step_begins(&mut self, index: usize, total: usize, name: &str);
    /// A resource, or else the step that has just begun, does not apply on this machine.
    fn not_here(&mut self, resource: Option<&str>, why: &str);
    /// A change is about to be made, or is pending in a plan.
    fn change(&mut self, resource: &str, change: &ChangeReport);
    /// Downloads that a change needed are complete.
    fn downloads(&mut self, resource: &str, downloads: &[DownloadReport]);
    /// A change was made, but with a warning.
    fn warning(&mut self, resource: &str, warning: &str);
    /// A change reports its progress.
    fn progress(&mut self, line: &str);
    /// A change has been waiting for some seconds.
    fn waits(&mut self, line: &str);
    /// A resource failed; `again` if it will be tried once more.
    fn failure(&mut self, resource: &str, declared_at: &str, error: &anyhow::Error, again: bool);
    /// A step has ended.
    fn step_ends(&mut self, index: usize, total: usize, step: &StepReport);
    /// The run has ended.
    fn ends(&mut self, report: &Report);
}

/// Runs or plans the selected steps. Returns the report, which includes the exit code.
///
/// # Errors
/// Only if the report cannot be written.
pub fn run(
    manifest: &Manifest,
    selection: &Selection,
    system: &System,
    observer: Rc<RefCell<dyn Observer>>,
) -> Result<Report> {
    let began = Instant::now();
    let mut is_picked = selection.picker();
    let picks: Vec<bool> = manifest.steps.iter().map(|step| is_picked(&step.name)).collect();
    let shown = observer.clone();
    system.host.on_progress(move |line| {
        // The observer is busy if one of its own calls reports progress. That line is dropped.
        if let Ok(mut observer) = shown.try_borrow_mut() {
            observer.progress(&redaction::shown(line));
        }
    });
    let shown = observer.clone();
    system.host.on_wait(move |line| {
        if let Ok(mut observer) = shown.try_borrow_mut() {
            observer.waits(&redaction::shown(line));
        }
    });
    // The name of a step may hold the value of a variable.
    let names = manifest.steps.iter().map(|step| visible::line(&redaction::shown(&step.name)).into_owned());
    let mut report = Report::begin(system.host.identity(), names);
    report.again = redaction::shown(&system.host.run_command().to_string()).into_owned();
    let refused = RefusedVersions::of_run(system);
    if system.mode() == Mode::Run && picks.contains(&false) {
        affected::note_owed(&mut report, &picks, system);
    }
    let mut run = Run { manifest, system, began, observer, report, recorded: false, refused };
    declare(manifest, system);
    begin_in_background(manifest, &picks, system)?;
    let mut exit_code = 0;
    for (index, (step, picked)) in manifest.steps.iter().zip(&picks).enumerate() {
        if !picked {
            run.report.steps[index].outcome = Outcome::Skipped;
        } else if let Some(why) = &step.not_here {
            run.step_is_not_here(index, why);
        } else if (exit_code == 0 && run.report.reboot.is_none()) || system.mode() == Mode::Plan {
            let code = run.step(index, step)?;
            exit_code = if exit_code == 0 { code } else { exit_code };
        }
    }
    system.close_stores();
    run.keep_for_later();
    let mut notes = affected::notes(manifest, &run.report, system);
    notes.extend(affected::owed(&run.report, system));
    notes.extend(affected::open_warnings(manifest, &run.report, system));
    run.report.notes = notes.iter().map(|note| visible::line(&redaction::shown(note)).into_owned()).collect();
    run.remove_previous_trees(exit_code);
    run.report.end(began.elapsed(), exit_code);
    run.report.write(system).context("keeping the report of the run")?;
    run.observer.borrow_mut().ends(&run.report);
    Ok(run.report)
}

/// Tells the system what the manifest declares on this machine.
fn declare(manifest: &Manifest, system: &System) {
    let all = manifest.steps.iter().flat_map(|step| &step.resources);
    let here = all.clone().filter(|declared| declared.not_here.is_none());
    let paths = here.flat_map(|Declared { resource, .. }| {
        let fills = |path: &AbsPath| resource.fills() && resource.owned_path() == Some(path);
        resource.made_paths().into_iter().map(move |path| (path.clone(), fills(&path)))
    });
    system.set_declared(paths);
    all.clone().flat_map(|declared| declared.resource.secrets()).for_each(|path| system.learn_secret(path));
    system.keep_previous_of(all.flat_map(|declared| declared.resource.files()));
    let here = manifest.steps.iter().filter(|step| step.not_here.is_none()).flat_map(|step| &step.resources);
    let here = here.filter(|declared| declared.not_here.is_none());
    system
        .declare_packages(here.flat_map(|declared| declared.resource.packages()).map(|package| package.text).collect());
}

/// Begins what the picked steps need later and what takes no step's turn: the states of units, downloads and questions.
///
/// # Errors
/// If the credentials that a killed run has left cannot be removed.
fn begin_in_background(manifest: &Manifest, picks: &[bool], system: &System) -> Result<()> {
    let picked =
        || manifest.steps.iter().zip(picks).filter(|(_, picked)| **picked).flat_map(|(step, _)| &step.resources);
    system.host.watch_units(picked().filter_map(|declared| declared.resource.unit()).map(Into::into));
    if system.is_live() {
        system.host.ask_for_units();
    }
    // Earlier downloads, such as the manifest itself, are no part of the run.
    drop(system.fetcher.arrivals());
    if system.mode() == Mode::Run {
        if system.is_live() {
            system.load_previous();
        }
        system.host.clear_command_memory().context("removing the credentials that a killed run has left")?;
        system.prefetch(picked().filter_map(|declared| declared.resource.prefetch(system)).collect());
    }
    let asked = manifest.steps.iter().zip(picks).filter(|(step, picked)| **picked && step.not_here.is_none());
    let asked = asked.flat_map(|(step, _)| &step.resources).filter(|declared| declared.not_here.is_none());
    asked.clone().for_each(|declared| declared.resource.prepare(system));
    system.fetcher.ask_for_etags(asked.filter_map(|declared| declared.resource.etag_source(system)));
    Ok(())
}

struct Run<'a> {
    manifest: &'a Manifest,
    system: &'a System,
    began: Instant,
    observer: Rc<RefCell<dyn Observer>>,
    report: Report,
    /// Whether the report on disk says that a run is in progress.
    recorded: bool,
    refused: RefusedVersions,
}

impl<'a> Run<'a> {
    /// Runs one step; returns its exit code.
    fn step(&mut self, index: usize, step: &'a Step) -> Result<u8> {
        let total = self.report.steps.len();
        let began = Instant::now();
        let name = self.report.steps[index].name.clone();
        self.observer.borrow_mut().step_begins(index, total, &name);
        supervisor::tell(&RunMessage { step: Some(name), ..RunMessage::default() });
        self.report.steps[index].outcome = Outcome::Running;
        self.report.steps[index].began = milliseconds(began - self.began);
        let what = format!("step {}", step.name);
        let limit = Some(step.timeout.unwrap_or(STEP_TIMEOUT));
        let deadlines = &self.system.host.stop.deadlines;
        let (exit_code, failed) = deadlines.within(limit, &what, || {
            let mut first = (0, false);
            for declared in &step.resources {
                let now = || declared.resource.why_not_here(self.system);
                if let Some(why) = declared.not_here.as_deref().or_else(now) {
                    self.resource_is_not_here(index, declared, why);
                    self.system.expect(declared.resource.made_paths().into_iter().map(Fact::Unplanned));
                    continue;
                }
                let code = self.resource(index, declared);
                if code != 0 {
                    self.system.expect(declared.resource.made_paths().into_iter().map(Fact::Unplanned));
                }
                if code != 0 && first.0 == 0 {
                    first = (code, true);
                }
                if code != 0 && self.system.mode() == Mode::Run {
                    break;
                }
            }
            first
        });
        let (exit_code, failed) = self.end_ahead_of(index, step, (exit_code, failed));
        let (exit_code, failed) =
            if failed || !step.reboot { (exit_code, failed) } else { self.reboot_if_required(index, step) };
        let report = &mut self.report.steps[index];
        report.milliseconds = milliseconds(began.elapsed());
        let is = |outcome| report.resources.iter().any(|resource| resource.outcome == outcome);
        report.outcome = match failed {
            true if is(Outcome::Stopped) => Outcome::Stopped,
            true => Outcome::Failed,
            false if is(Outcome::Changed) => Outcome::Changed,
            false if is(Outcome::Pending) => Outcome::Pending,
            false => Outcome::Unchanged,
        };
        self.observer.borrow_mut().step_ends(index, total, report);
        if self.recorded {
            self.report.write(self.system).context("keeping the report of the run")?;
        }
        Ok(exit_code)
    }

    /// Reports that a step does not apply on this machine.
    fn step_is_not_here(&mut self, index: usize, why: &str) {
        let total = self.report.steps.len();
        let why = visible::line(&redaction::shown(why)).into_owned();
        let step = &mut self.report.steps[index];
        step.outcome = Outcome::Skipped;
        self.observer.borrow_mut().step_begins(index, total, &step.name);
        self.observer.borrow_mut().not_here(None, &why);
        step.not_here = Some(why);
    }

    /// Reports that a resource does not apply on this machine.
    fn resource_is_not_here(&mut self, index: usize, declared: &Declared, why: &str) {
        let shown = |text: &str| visible::line(&redaction::shown(text)).into_owned();
        let (resource, why) = (shown(&declared.title()), shown(why));
        self.observer.borrow_mut().not_here(Some(&resource), &why);
        self.report.steps[index].resources.push(ResourceReport {
            resource,
            declared_at: visible::line(&declared.place).into_owned(),
            outcome: Outcome::Skipped,
            not_here: Some(why),
            ..ResourceReport::default()
        });
    }

    /// Runs one resource with its retries; returns its exit code.
    fn resource(&mut self, index: usize, declared: &'a Declared) -> u8 {
        let began = Instant::now();
        let title = visible::line(&redaction::shown(&declared.title())).into_owned();
        let declared_at = visible::line(&declared.place).into_owned();
        self.report.steps[index].resources.push(ResourceReport {
            resource: title.clone(),
            declared_at: declared_at.clone(),
            began: milliseconds(began - self.began),
            ..ResourceReport::default()
        });
        let mut attempts = 0;
        let result = loop {
            attempts += 1;
            let deadlines = &self.system.host.stop.deadlines;
            let result = deadlines.within(declared.timeout, &title, || {
                self.system.host.stop.check()?;
                self.converge(index, declared, &title)
            });
            let Err(error) = result else { break Ok(()) };
            self.system.forget();
            let again = attempts <= declared.retries
                && self.system.mode() == Mode::Run
                && !matches!(error::class(&error), Class::Interrupted(_))
                && self.system.host.stop.check().is_ok();
            let error = if again { error } else { self.put_back(declared, error) };
            self.observer.borrow_mut().failure(&title, &declared_at, &error, again);
            if !again {
                break Err(error);
            }
            let pause = spread(Duration::from_secs(1 << attempts.min(5)), Duration::MAX);
            if let Err(stopped) = self.system.host.stop.wait(pause) {
                break Err(stopped);
            }
        };
        if let Some(report) = self.report.steps[index].resources.last_mut() {
            report.milliseconds = milliseconds(began.elapsed());
            report.attempts = attempts;
        }
        self.conclude(index, title, result)
    }

    /// Reports how the present resource of a step has ended; returns the exit code that it calls for.
    fn conclude(&mut self, index: usize, title: String, result: Result<()>) -> u8 {
        let Some(report) = self.report.steps[index].resources.last_mut() else { return 0 };
        match result {
            Ok(()) => {
                let changed = report.changes.iter().any(|change| !change.deferred);
                report.outcome = match (changed, self.system.mode()) {
                    (false, _) => Outcome::Unchanged,
                    (true, Mode::Run) => Outcome::Changed,
                    (true, Mode::Plan) => Outcome::Pending,
                };
                0
            }
            Err(error) => {
                let why = ErrorReport::new(&error);
                supervisor::tell(&RunMessage {
                    resource: Some(title),
                    error: Some(why.clone()),
                    ..RunMessage::default()
                });
                report.outcome = match error::class(&error) {
                    Class::Interrupted(_) => Outcome::Stopped,
                    _ => Outcome::Failed,
                };
                report.error = Some(why);
                error::exit_code(&error)
            }
        }
    }

    /// Plans, makes the changes, plans again.
    fn converge(&mut self, index: usize, declared: &Declared, title: &str) -> Result<()> {
        self.end_ahead_before(declared)?;
        let changes = self.plan(declared);
        self.warnings(index, title);
        let changes = changes?;
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(path) = declared.resource.owned_path() {
            self.system.check_may_change(path, changes.iter().flat_map(|change| &change.brings))?;
        }
        for mut change in changes {
            self.record(index, title, &mut change)?;
            match (self.system.mode(), change.action) {
                // Later resources must know the result of a change that is only planned, or deferred to the boot.
                (Mode::Plan, _) | (Mode::Run, None) => self.system.expect(change.brings),
                (Mode::Run, Some(action)) => {
                    self.write_ahead(index, declared);
                    let made = action(self.system);
                    self.system.forget();
                    self.note(index, &change.summary, made.is_err());
                    self.downloads(index, title);
                    self.warnings(index, title);
                    made.with_context(|| change.summary)?;
                }
            }
        }
        if self.system.mode() == Mode::Plan {
            return Ok(());
        }
        let planned = self.plan(declared);
        self.warnings(index, title);
        let (deferred, left): (Vec<_>, Vec<_>) = planned?.into_iter().partition(Change::is_deferred);
        for mut change in deferred {
            self.record(index, title, &mut change)?;
        }
        if left.is_empty() {
            return Ok(());
        }
        let left: Vec<String> = left.into_iter().map(|change| change.summary).collect();
        let message = format!("did not converge: after the changes it would still {}", left.join(", "));
        Err(Fault::new(message)
            .hint("find the program on the machine that undoes the change, or the resource that contradicts this one")
            .into())
    }

    /// Returns the changes of a resource. In an image, what is below a mount point waits for the boot.
    fn plan(&self, declared: &Declared) -> Result<Vec<Change>> {
        let path = declared.resource.owned_path();
        let Some(mount) = path.and_then(|path| self.system.mounted_at_boot(path)) else {
            let changes = declared.resource.plan(self.system)?;
            let why = if changes.is_empty() { None } else { self.refused.why_left(declared, self.system)? };
            return Ok(match why {
                Some(why) => {
                    self.system.warn(why);
                    vec![]
                }
                None => changes,
            });
        };
        let why = format!("the boot mounts a file system at {mount}");
        let resource = &declared.resource;
        let (title, paths, secret) = (resource.title(), resource.made_paths(), resource.secret().cloned());
        Deferred { title, why, secret, paths }.plan(self.system)
    }

    /// Records whether a change could be made.
    fn note(&mut self, index: usize, summary: &str, failed: bool) {
        let summary = visible::line(summary);
        let resource = self.report.steps[index].resources.last_mut();
        let recorded = resource.and_then(|resource| resource.changes.iter_mut().find(|known| known.summary == summary));
        if let Some(change) = recorded {
            change.failed = failed;
        }
    }

    /// Puts the downloads of a change into the report and shows them.
    fn downloads(&mut self, index: usize, title: &str) {
        let at = |instant| milliseconds(Instant::saturating_duration_since(&instant, self.began));
        let report = |arrival: Arrival| {
            let (began, wanted, ended) = (at(arrival.began), at(arrival.wanted), at(arrival.ended));
            let behind = self.report.steps_between(index, began, wanted.min(ended));
            let source = visible::line(&redaction::shown(&arrival.source)).into_owned();
            DownloadReport { source, bytes: arrival.bytes, began, wanted, ended, behind }
        };
        let reports: Vec<_> = self.system.fetcher.arrivals().into_iter().map(report).collect();
        self.observer.borrow_mut().downloads(title, &reports);
        if let Some(resource) = self.report.steps[index].resources.last_mut() {
            resource.downloads.extend(reports);
        }
    }

    /// Puts the warnings of a change into the report and shows each once.
    fn warnings(&mut self, index: usize, title: &str) {
        for warning in self.system.warnings() {
            let warning = visible::line(&redaction::shown(&warning)).into_owned();
            if let Some(resource) = self.report.steps[index].resources.last_mut()
                && !resource.warnings.contains(&warning)
            {
                self.observer.borrow_mut().warning(title, &warning);
                resource.warnings.push(warning);
            }
        }
    }

    /// Puts a change into the report and shows it.
    ///
    /// Before the first change is made, the report on disk says that a run is in progress. If the run is cut off, the
    /// report keeps saying so.
    fn record(&mut self, index: usize, title: &str, change: &mut Change) -> Result<()> {
        let diff = change.diff.take();
        let report = ChangeReport::new(&change.summary, change.is_deferred(), diff.as_deref());
        // A retry and the second plan find the same change again. It is reported once.
        if let Some(resource) = self.report.steps[index].resources.last_mut()
            && !resource.changes.iter().any(|known| known.summary == report.summary)
        {
            self.observer.borrow_mut().change(title, &report);
            resource.changes.push(report);
        }
        if !self.recorded && !change.is_deferred() {
            self.report.write(self.system).context("keeping the report of the run")?;
            self.recorded = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
