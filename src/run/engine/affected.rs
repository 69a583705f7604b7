//! Notes on what a run leaves open: services that have not read a changed file, because their step did not run after the
//! change, and warnings of earlier runs that still hold.

use crate::{
    manifest::Manifest,
    packages, redaction,
    resource::{Change, Resource},
    run::report::{Outcome, Report},
    system::{Mode, System},
    value::AbsPath,
    visible,
};

/// Returns a note for each service whose step did not run since one of its files changed.
///
/// In this run, the step was not selected, or ran before the change. A change of an earlier run counts until the
/// service is restarted.
pub(crate) fn notes(manifest: &Manifest, report: &Report, system: &System) -> Vec<String> {
    let mut notes = vec![];
    let changed: Vec<_> = changed_paths(manifest, report).collect();
    for (at, step) in manifest.steps.iter().enumerate() {
        let is_skipped = report.steps[at].outcome == Outcome::Skipped;
        for declared in &step.resources {
            if declared.resource.service().is_none() {
                continue;
            }
            let files = declared.resource.files();
            let mut later = changed.iter().filter(|(changed, _)| is_skipped || at < *changed);
            let changed = later.find(|(_, path)| files.contains(path));
            // A plan has changed nothing yet.
            let told = match system.mode() {
                Mode::Plan if changed.is_some() => "which the run changes: afterwards, run",
                _ => "which has changed: run",
            };
            let path = match changed {
                Some((_, path)) => would_change(&*declared.resource, system).then(|| (*path).clone()),
                None if is_skipped => awaits_restart_for(&*declared.resource, system),
                None => None,
            };
            if let Some(path) = path {
                let (name, step) = (declared.title(), &step.name);
                notes.push(format!(
                    "{name} in step {step} reads {path}, {told} `{}`",
                    system.host.run_command().only(step)
                ));
            }
        }
    }
    notes
}

/// Notes the steps that are not picked, and that an earlier run owes: it failed in them, or did not reach them.
pub(crate) fn note_owed(report: &mut Report, picks: &[bool], system: &System) {
    // What cannot be read is not owed: the next whole run shows it.
    let Ok(Some(before)) = Report::read(system) else { return };
    if !before.is_of(system) {
        return;
    }
    let is_owed = |name: &str| {
        let step = before.steps.iter().find(|step| step.name == name);
        let is_cut = |outcome| {
            matches!(
                outcome,
                Outcome::Failed | Outcome::Stopped | Outcome::NotRun | Outcome::Running | Outcome::Rebooting
            )
        };
        step.is_some_and(|step| step.is_owed || is_cut(step.outcome))
    };
    for (step, _) in report.steps.iter_mut().zip(picks).filter(|(_, picked)| !**picked) {
        step.is_owed = is_owed(&step.name);
    }
}

/// Returns a note on the steps that are still owed.
pub(crate) fn owed(report: &Report, system: &System) -> Option<String> {
    let names: Vec<_> = report.steps.iter().filter(|step| step.is_owed).map(|step| &*step.name).collect();
    let run = system.host.run_command().whole();
    (!names.is_empty()).then(|| {
        format!("an earlier run failed, and these steps have not run since: {}; run `{run}`", names.join(", "))
    })
}

/// Returns the warnings of earlier runs that the package manager still gives, and that this run has not given.
pub(crate) fn open_warnings(manifest: &Manifest, report: &Report, system: &System) -> Vec<String> {
    let mut resources = manifest.steps.iter().flat_map(|step| &step.resources);
    if !resources.any(|declared| declared.resource.package_managers().is_some()) {
        return vec![];
    }
    let warnings = packages::open_warnings(&system.host).unwrap_or_else(|error| {
        tracing::warn!("the warnings of earlier runs cannot be checked: {error:#}");
        vec![]
    });
    let given: Vec<_> =
        report.steps.iter().flat_map(|step| &step.resources).flat_map(|resource| &resource.warnings).collect();
    let is_given = |warning: &String| given.iter().any(|given| **given == visible::line(&redaction::shown(warning)));
    warnings.into_iter().filter(|warning| !is_given(warning)).collect()
}

/// Returns the paths that the run changed or, in a plan, would change, each with its step's index.
fn changed_paths<'a>(manifest: &'a Manifest, report: &'a Report) -> impl Iterator<Item = (usize, &'a AbsPath)> {
    manifest.steps.iter().zip(&report.steps).enumerate().flat_map(|(index, (step, report))| {
        let changed = step.resources.iter().zip(&report.resources);
        changed
            .filter(|(_, report)| matches!(report.outcome, Outcome::Changed | Outcome::Pending))
            .filter_map(move |(declared, _)| declared.resource.owned_path().map(|path| (index, path)))
    })
}

/// Returns whether a run of the service's step would change something now.
fn would_change(resource: &dyn Resource, system: &System) -> bool {
    // If planning fails, the run that the note suggests reports the error.
    resource.plan(system).is_ok_and(|changes| changes.iter().any(|change: &Change| !change.is_deferred()))
}

/// Returns a file that the running service has not read since the file changed.
fn awaits_restart_for(resource: &dyn Resource, system: &System) -> Option<AbsPath> {
    resource.service()?.awaits_restart_for(system).ok().flatten()
}
