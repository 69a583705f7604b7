//! Services that have not read what was changed: they had no turn after the change.

use crate::{
    manifest::Manifest,
    resource::{Change, Resource},
    run::report::{Outcome, Report},
    system::System,
    value::AbsPath,
};

/// A note for each service that had no turn since a file that it reads was changed: in this run, because its step was
/// not selected or came before the change; or in an earlier one, as long as it has not been restarted.
pub(crate) fn notes(manifest: &Manifest, report: &Report, system: &System) -> Vec<String> {
    let mut notes = vec![];
    for (at, step) in manifest.steps.iter().enumerate() {
        let is_skipped = report.steps[at].outcome == Outcome::Skipped;
        for declared in &step.resources {
            let files = declared.resource.files();
            let mut changed = changed_paths(manifest, report).filter(|(changed, _)| is_skipped || at < *changed);
            let path = match changed.find(|(_, path)| files.contains(path)) {
                Some((_, path)) => would_change(&*declared.resource, system).then(|| path.clone()),
                None if is_skipped => awaits_restart_for(&*declared.resource, system),
                None => None,
            };
            if let Some(path) = path {
                let (name, step) = (declared.title(), &step.name);
                notes.push(format!(
                    "{name} in step {step} reads {path}, which has changed: run `{}`",
                    system.host.run_command().only(step)
                ));
            }
        }
    }
    notes
}

/// The paths that the run has changed or, in a plan, would change; each with its step's index.
fn changed_paths<'a>(manifest: &'a Manifest, report: &'a Report) -> impl Iterator<Item = (usize, &'a AbsPath)> {
    manifest.steps.iter().zip(&report.steps).enumerate().flat_map(|(index, (step, report))| {
        let changed = step.resources.iter().zip(&report.resources);
        changed
            .filter(|(_, report)| report.outcome == Outcome::Changed)
            .filter_map(move |(declared, _)| declared.resource.owned_path().map(|path| (index, path)))
    })
}

/// Whether a run of its step would do anything about it now.
fn would_change(resource: &dyn Resource, system: &System) -> bool {
    // What can't be planned is told by the run that is hinted at.
    resource.plan(system).is_ok_and(|changes| changes.iter().any(|change: &Change| !change.is_deferred()))
}

/// A file that a service that runs has not read since it was changed.
fn awaits_restart_for(resource: &dyn Resource, system: &System) -> Option<AbsPath> {
    resource.service()?.awaits_restart_for(system).ok().flatten()
}
