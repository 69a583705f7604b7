//! What stood at a path before a run changed it: to be put back where a service refuses the change.
//!
//! The old bytes stay in the inode that a new file has replaced, held open: nothing is copied, and nothing that was
//! private is written anywhere else. Only where a run ends before a service was started with the change, small files are
//! [kept](saved) for the run that starts it. A run that is killed keeps nothing.

mod saved;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Seek,
};

use anyhow::{Context, Result};

use super::System;
use crate::{
    host::root::{FileType, Ownership, Root},
    value::AbsPath,
};

/// What stood at a path.
#[derive(Debug)]
enum Previous {
    Nothing,
    File(File, Ownership),
    /// A file that an earlier run has changed.
    Bytes(Vec<u8>, Ownership),
    Link(String),
}

/// What is kept of the files that services read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    read_by_services: BTreeSet<AbsPath>,
    previous: BTreeMap<AbsPath, Previous>,
    /// The units that refused what this run has changed, and whether they ran before and must be started again.
    refusals: BTreeMap<String, bool>,
    /// The units that ran before this run has restarted them.
    restarted: BTreeSet<String>,
}

pub(crate) type KeptCell = RefCell<Kept>;

impl System {
    /// Names the files that services read at their start: what this run changes of them can be put back.
    pub fn keep_previous_of(&self, paths: impl IntoIterator<Item = AbsPath>) {
        self.kept.borrow_mut().read_by_services.extend(paths);
    }

    /// Keeps what stands at a path that is about to be changed, if a service reads it.
    pub fn keep_previous(&self, path: &AbsPath) -> Result<()> {
        let kept = self.kept.borrow();
        let is_read = kept.read_by_services.iter().any(|read| {
            // A service may read it through a link.
            read == path || self.root().resolve_trusted(read).is_ok_and(|resolved| resolved == *path)
        });
        if !is_read || kept.previous.contains_key(path) {
            return Ok(());
        }
        drop(kept);
        let previous = Previous::at(self.root(), path).with_context(|| format!("keeping what {path} is now"))?;
        _ = self.kept.borrow_mut().previous.insert(path.clone(), previous);
        Ok(())
    }

    /// Returns which of these paths, or of what they point to, can be put back.
    pub fn changed_of(&self, paths: &[AbsPath]) -> BTreeSet<AbsPath> {
        let mut changed: BTreeSet<AbsPath> = paths.iter().cloned().collect();
        changed.extend(paths.iter().filter_map(|path| self.root().resolve_trusted(path).ok()));
        let kept = self.kept.borrow();
        changed.retain(|path| kept.previous.contains_key(path));
        changed
    }

    /// Puts back what stood at these paths, each whatever becomes of the others.
    pub fn put_back(&self, paths: BTreeSet<AbsPath>) -> Vec<(AbsPath, Result<()>)> {
        let mut results = vec![];
        for path in paths {
            let mut kept = self.kept.borrow_mut();
            let Some(previous) = kept.previous.get(&path) else { continue };
            let result = previous.put_back(self.root(), &path);
            if result.is_ok() {
                _ = kept.previous.remove(&path);
            }
            results.push((path, result));
        }
        self.forget();
        results
    }

    /// Remembers that a unit refuses what it was to be started with, and whether it ran before and does not now.
    pub fn note_refusal(&self, unit: &str, must_restart: bool) {
        *self.kept.borrow_mut().refusals.entry(unit.to_owned()).or_default() |= must_restart;
    }

    /// Remembers that a unit runs with what there is now, and whether it ran before with something else.
    pub fn note_start(&self, unit: &str, ran_before: bool) {
        let mut kept = self.kept.borrow_mut();
        _ = kept.refusals.remove(unit);
        _ = ran_before && kept.restarted.insert(unit.to_owned());
    }

    /// Whether a unit has refused what it was to be started with; and then whether it must be started again.
    pub fn refusal(&self, unit: &str) -> Option<bool> {
        self.kept.borrow().refusals.get(unit).copied()
    }

    /// Whether this run has restarted a unit that ran before.
    pub fn has_restarted(&self, unit: &str) -> bool {
        self.kept.borrow().restarted.contains(unit)
    }
}

impl Previous {
    fn at(root: &Root, path: &AbsPath) -> Result<Self> {
        match root.status(path)?.map(|status| status.file_type) {
            None => Ok(Self::Nothing),
            Some(FileType::Link) => {
                let target = root.read_link(path)?.context("the link is gone")?;
                Ok(Self::Link(target.into_string().map_err(|_| anyhow::anyhow!("its target is not UTF-8"))?))
            }
            Some(_) => {
                let (file, status) = root.open_file(path)?.context("the file is gone")?;
                Ok(Self::File(file, status.ownership))
            }
        }
    }

    fn put_back(&self, root: &Root, path: &AbsPath) -> Result<()> {
        match self {
            Self::Nothing => root.remove(path),
            Self::File(file, ownership) => {
                let mut file: &File = file;
                file.rewind().context("reading the old bytes")?;
                let mut staged = root.stage(path, *ownership)?;
                _ = staged.copy_from(&mut file)?;
                staged.publish()
            }
            Self::Bytes(bytes, ownership) => root.write(path, *ownership, bytes),
            Self::Link(target) => {
                if root.status(path)?.is_some_and(|status| status.file_type != FileType::Link) {
                    root.remove(path)?;
                }
                root.make_link(path, target)
            }
        }
    }
}
