//! Files that stand next to each other in a step are written together.

use std::ptr;

use anyhow::Result;

use super::Run;
use crate::{manifest::Declared, resource::file::File, system::ahead::MAX_AHEAD};

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
    pub(super) fn end_ahead_before(&self, declared: &Declared) -> Result<()> {
        if declared.resource.plain_file(self.system).is_some() { Ok(()) } else { self.system.end_ahead() }
    }
}
