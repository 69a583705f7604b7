//! Putting files back: if a service refuses its new files, it gets the old ones back and runs with them.

use std::{collections::BTreeSet, time::Duration};

use super::{Run, refused::RefusedVersions};
use crate::{
    error::{self, Class},
    manifest::Declared,
    redaction,
    resource::service::Service,
    system::Mode,
    value::AbsPath,
    visible,
};

/// How long putting back may take. Deadlines of the step and the resource do not count.
const PUT_BACK_TIMEOUT: Duration = Duration::from_mins(2);

/// A service that reads files, with its declaration.
#[derive(Clone, Copy)]
struct ReadingService<'a> {
    declared: &'a Declared,
    service: &'a Service,
}

impl ReadingService<'_> {
    fn is(&self, other: &ReadingService<'_>) -> bool {
        std::ptr::eq(self.declared, other.declared)
    }
}

impl<'a> Run<'a> {
    /// Puts back the files that a service has refused permanently. Returns the error with a report of that.
    pub(super) fn put_back(&mut self, declared: &'a Declared, error: anyhow::Error) -> anyhow::Error {
        let system = self.system;
        if system.mode() == Mode::Plan || matches!(error::class(&error), Class::Interrupted(_)) {
            return error;
        }
        let Some(service) = declared.resource.service() else { return error };
        let Some(must_restart) = system.refusal(service.unit_name()) else { return error };
        let undone = || self.undo(ReadingService { declared, service }, must_restart);
        let said = system.host.stop.deadlines.instead(PUT_BACK_TIMEOUT, "putting files back", undone);
        if said.is_empty() {
            return error;
        }
        error.context(format!("{} refuses its new files; {}", service.unit_name(), said.join("; ")))
    }

    /// Puts the files back, and restarts the services that run with the new ones. Returns what was done, in words.
    fn undo(&mut self, refused: ReadingService<'a>, must_restart: bool) -> Vec<String> {
        let (paths, mut readers) = self.affected_by(refused);
        let results = self.system.put_back(paths);
        let done: Vec<&AbsPath> = results.iter().filter(|(_, result)| result.is_ok()).map(|(path, _)| path).collect();
        self.report_put_back(&done);
        let remembered = RefusedVersions::remember(self.manifest, self.system, refused.service.unit_name(), &done);
        if let Err(error) = remembered {
            tracing::warn!("the refused versions are not recorded, so that the timer tries them again: {error:#}");
        }
        let mut said = vec![];
        if !done.is_empty() {
            said.push(format!("put back: {}", list(&done)));
        }
        for (path, result) in &results {
            if let Err(error) = result {
                said.push(format!("not put back: {path}: {error:#}"));
            }
        }
        // A file that cannot be read is not known to be new.
        let mut left = refused.service.changed_since_start(self.system).ok().flatten().unwrap_or_default();
        left.retain(|path| !results.iter().any(|(known, _)| known == path));
        if !left.is_empty() {
            let left = list(&left.iter().collect::<Vec<_>>());
            said.push(format!("not put back: {left}: this program does not have the earlier content"));
        }
        if !done.is_empty() {
            readers.retain(|reader| must_restart || !reader.is(&refused));
            said.extend(self.start_again(&done, &readers));
        }
        said
    }

    fn services(&self) -> impl Iterator<Item = ReadingService<'a>> + use<'a> {
        let all = self.manifest.steps.iter().flat_map(|step| &step.resources);
        all.filter_map(|declared| Some(ReadingService { declared, service: declared.resource.service()? }))
    }

    /// Returns the paths to put back for a service, and the services that run with them.
    ///
    /// These are the service itself and each service that was started with one of the paths. If this run restarted such
    /// a service, its other changed files are put back too.
    fn affected_by(&self, refused: ReadingService<'a>) -> (BTreeSet<AbsPath>, Vec<ReadingService<'a>>) {
        let system = self.system;
        let changed_of = |reader: &ReadingService<'_>| system.changed_of(&reader.declared.resource.files());
        let mut paths = changed_of(&refused);
        let mut readers = vec![refused];
        let shares = |reader: &ReadingService<'_>, paths: &BTreeSet<AbsPath>| {
            let mut shared = changed_of(reader).into_iter().filter(|path| paths.contains(path));
            shared.any(|path| reader.service.runs_with(system, &path).unwrap_or(false))
        };
        let next = |readers: &[ReadingService<'a>], paths: &BTreeSet<AbsPath>| {
            self.services().find(|other| !readers.iter().any(|reader| reader.is(other)) && shares(other, paths))
        };
        while let Some(other) = next(&readers, &paths) {
            if system.has_restarted(other.service.unit_name()) {
                paths.extend(changed_of(&other));
            }
            readers.push(other);
        }
        let in_order = self.services().filter(|service| readers.iter().any(|reader| reader.is(service))).collect();
        (paths, in_order)
    }

    /// Starts services with the files that were put back. Returns which of them run, in words.
    fn start_again(&self, done: &[&AbsPath], readers: &[ReadingService<'_>]) -> Vec<String> {
        let system = self.system;
        let (mut said, mut runs) = (vec![], vec![]);
        // For drop-ins, systemd itself says that a unit needs a reload.
        let is_stale = |reader: &ReadingService<'_>| {
            system.host.unit(reader.service.unit_name()).is_ok_and(|unit| unit.needs_reload())
        };
        if done.iter().any(|path| system.host.is_unit_file(path)) || readers.iter().any(is_stale) {
            let reloaded = system.host.daemon_reload();
            system.forget();
            said.extend(reloaded.err().map(|error| format!("systemd could not read its unit files again: {error:#}")));
        }
        for ReadingService { declared, service } in readers {
            let taken = system
                .host
                .stop
                .deadlines
                .within(declared.timeout, &declared.title(), || service.take_back(system, done));
            system.forget();
            match taken {
                Ok(()) => runs.push(service.unit_name()),
                Err(error) => said.push(format!("{} could not be started with them: {error:#}", service.unit_name())),
            }
        }
        match &runs[..] {
            [] => {}
            [one] => said.insert(0, format!("{one} runs again with them")),
            several => said.insert(0, format!("{} run again with them", several.join(", "))),
        }
        said
    }

    /// Marks the files that were put back in the report: they are no changes of this run.
    fn report_put_back(&mut self, done: &[&AbsPath]) {
        for (step, report) in self.manifest.steps.iter().zip(&mut self.report.steps) {
            for (declared, resource) in step.resources.iter().zip(&mut report.resources) {
                if declared.resource.made_paths().iter().any(|path| done.contains(&path)) {
                    resource.put_back();
                }
            }
            report.put_back();
        }
    }

    /// Removes the previous directories of archives after a good run. One stays while a running service still uses it.
    pub(super) fn remove_previous_trees(&mut self, exit_code: u8) {
        let system = self.system;
        for (path, kept) in system.leaving() {
            let is_of = |file: &AbsPath| *file == path || system.root().resolve(file).is_ok_and(|file| file == path);
            let uses = |reader: &ReadingService<'_>| {
                reader.service.read_files().any(|(_, file)| is_of(file))
                    && !matches!(reader.service.awaits_restart_for(system), Ok(None))
            };
            if exit_code != 0 || self.services().any(|reader| uses(&reader)) {
                continue;
            }
            let removed = system.host.stop.interrupt.aside(|| system.host.finish_tree(&path, &kept));
            if let Err(error) = removed {
                let note = format!("the previous directory of {path} was not removed: {error:#}");
                self.report.notes.push(visible::line(&redaction::shown(&note)).into_owned());
            }
        }
    }

    /// Keeps the earlier content of files whose service has not started yet, for the run that will start it.
    ///
    /// Does nothing for an image.
    pub(super) fn keep_for_later(&self) {
        if self.system.mode() == Mode::Plan || !self.system.is_live() {
            return;
        }
        // A signal that stopped the run must not stop this.
        self.system.host.stop.interrupt.aside(|| self.keep_files_of_waiting_services());
    }

    fn keep_files_of_waiting_services(&self) {
        let has_started = |reader: &ReadingService<'_>| self.system.host.has_started(reader.service.unit_name());
        // A service without a pending change already runs with its files, or is never started by a run.
        let is_pending = |reader: &ReadingService<'_>| {
            reader.declared.resource.plan(self.system).map_or(true, |changes| !changes.is_empty())
        };
        let is_waiting =
            |reader: &ReadingService<'_>| self.system.has_previous() && !has_started(reader) && is_pending(reader);
        let waiting = self.services().filter(is_waiting);
        let mut files: BTreeSet<AbsPath> = waiting.flat_map(|reader| reader.declared.resource.files()).collect();
        let resolved: Vec<_> = files.iter().filter_map(|path| self.system.root().resolve_trusted(path).ok()).collect();
        files.extend(resolved);
        if let Err(error) = self.system.save_previous(|path| files.contains(path)) {
            tracing::warn!("the earlier content of changed files is not kept for a later run: {error:#}");
        }
    }
}

fn list(paths: &[&AbsPath]) -> String {
    paths.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", ")
}
