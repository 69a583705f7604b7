//! Files that stand next to each other in a step are written together.

use std::ptr;

use anyhow::{Context, Result};

use super::{Run, Step};
use crate::{error, manifest::Declared, resource::file::File, system::ahead::MAX_AHEAD};

/// The name of its end in the report.
const TITLE: &str = "names of files";

impl Run<'_> {
    /// Writes a plain file ahead, together with those that follow it in its step. Called before its change is made.
    pub(super) fn write_ahead(&self, index: usize, declared: &Declared) {
        let system = self.system;
        if declared.resource.owned_path().is_some_and(|path| system.has_looked_ahead(path)) {
            return;
        }
        let after = self.manifest.steps[index].resources.iter().skip_while(|other| !ptr::eq(*other, declared));
        let plain = after.map_while(|next| Some((next, next.resource.plain_file(system)?)));
        let here = plain.filter(|(next, _)| next.not_here.is_none()).map(|(_, file)| file);
        let near: Vec<&File> = here.take(MAX_AHEAD).collect();
        system.note_look_ahead(near.iter().map(|file| file.path()));
        let files: Vec<_> = near.iter().filter_map(|file| file.to_write(system)).collect();
        if files.len() > 1 {
            system.write_ahead(&files);
        }
    }

    /// Makes the names of the files before a resource durable, unless it is one more of them.
    ///
    /// # Errors
    /// If that fails. The resource then waits for it, so a retry of the resource tries it again.
    pub(super) fn end_ahead_before(&self, declared: &Declared) -> Result<()> {
        let is_plain = declared.resource.plain_file(self.system).is_some();
        let ended = if is_plain { self.system.flush_ahead() } else { self.system.end_ahead() };
        ended.context("making earlier files of the step durable")
    }

    /// Ends the look ahead of a step. Takes and returns the step's exit code and whether it failed.
    pub(super) fn end_ahead_of(&mut self, index: usize, step: &Step, (code, failed): (u8, bool)) -> (u8, bool) {
        let ended = self.system.end_ahead().context("making files of the step durable");
        let Err(error) = ended else { return (code, failed) };
        let report = self.end_fails(TITLE, step, &error, !failed);
        self.report.steps[index].resources.push(report);
        // The first failure decides.
        (if failed { code } else { error::exit_code(&error) }, true)
    }
}
