//! Files that stand next to each other in a step share their flushes.
//!
//! Their bytes become durable together, before the first of them gets its name. Each gets its name in its own turn, so a
//! resource finds what those before it have made. The names become durable together, before anything but such a file
//! changes. So a crash leaves each file as it was or as it is declared.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::Result;

use super::System;
use crate::{
    host::root::{Ownership, Staged, UnflushedNames},
    value::{AbsPath, Sha256},
};

/// Limits the files of one look ahead. Each is held open, and a process may have only 1,024 open files.
pub const MAX_AHEAD: usize = 64;

/// A file as it is declared, which differs on the machine.
#[derive(Debug)]
pub struct NewFile<'a> {
    /// Its path.
    pub path: &'a AbsPath,
    /// Its owner and mode.
    pub ownership: Ownership,
    /// Its bytes.
    pub content: Cow<'a, [u8]>,
}

/// The files that were written ahead.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Those that have no name yet.
    staged: BTreeMap<AbsPath, (Sha256, Staged)>,
    /// Those that a look ahead has seen.
    seen: BTreeSet<AbsPath>,
    names: UnflushedNames,
}

impl System {
    /// Returns whether a look ahead has seen a file.
    pub fn has_looked_ahead(&self, path: &AbsPath) -> bool {
        self.ahead.borrow().seen.contains(path)
    }

    /// Notes that a look ahead has seen these files.
    pub fn note_look_ahead<'a>(&self, paths: impl Iterator<Item = &'a AbsPath>) {
        self.ahead.borrow_mut().seen.extend(paths.cloned());
    }

    /// Writes files without their names, and makes their bytes durable together.
    ///
    /// A file that cannot be written now is written in its turn, which reports the error.
    pub fn write_ahead(&self, files: &[NewFile<'_>]) {
        let mut ahead = self.ahead.borrow_mut();
        let staged = files.iter().map(|NewFile { path, ownership, content }| {
            let mut staged = self.root().stage(path, *ownership)?;
            staged.write_all(content)?;
            Ok(staged)
        });
        // Without room for all of them, none is kept: each needs the room alone.
        let flushed = staged.collect::<Result<Vec<_>>>().and_then(|mut staged| {
            Staged::flush_all(&mut staged).into_iter().collect::<Result<()>>()?;
            Ok(staged)
        });
        match flushed {
            Ok(staged) => ahead.staged.extend(
                files.iter().zip(staged).map(|(file, staged)| (file.path.clone(), (Sha256::of(&file.content), staged))),
            ),
            Err(error) => tracing::debug!("writing each file alone: {error:#}"),
        }
    }

    /// Gives a file that was written ahead its name. Returns whether it did: else the file must be written now.
    ///
    /// The last one of a look ahead makes the names of all of them durable.
    ///
    /// # Errors
    /// If another process has replaced it, or if the names cannot be made durable.
    pub fn publish_ahead(&self, file: &NewFile<'_>) -> Result<bool> {
        let mut ahead = self.ahead.borrow_mut();
        let Some((digest, staged)) = ahead.staged.remove(file.path) else { return Ok(false) };
        if digest != Sha256::of(&file.content) || !staged.is_current(self.root(), file.ownership)? {
            return Ok(false);
        }
        staged.publish_into(&mut ahead.names)?;
        drop(ahead);
        self.flush_ahead()?;
        Ok(true)
    }

    /// Makes the names of the published files durable, unless more are to be published.
    ///
    /// # Errors
    /// If a directory cannot be flushed. The next call flushes it again.
    pub fn flush_ahead(&self) -> Result<()> {
        let mut ahead = self.ahead.borrow_mut();
        if ahead.staged.is_empty() { ahead.names.flush() } else { Ok(()) }
    }

    /// Makes the names of the published files durable, and removes the files that were written in vain.
    ///
    /// # Errors
    /// If a directory cannot be flushed. The next call flushes it again.
    pub fn end_ahead(&self) -> Result<()> {
        let mut ahead = self.ahead.borrow_mut();
        ahead.staged.clear();
        ahead.seen.clear();
        ahead.names.flush()
    }
}
