//! What stood at a path before this run changed it: to be put back where a service refuses the change.
//!
//! The old bytes stay in the inode that a new file has replaced, held open: nothing is copied, and nothing that was
//! private is written anywhere else. A run that is killed puts nothing back; the next one asks the service's
//! validator again.

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
    Link(String),
}

/// What is kept of the files that services read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    read_by_services: BTreeSet<AbsPath>,
    previous: BTreeMap<AbsPath, Previous>,
    /// The units that refused what this run has changed, and whether they ran before and must be started again.
    refusals: BTreeMap<String, bool>,
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

    /// Puts back what this run has changed of these paths, or of what they point to; returns what that was.
    pub fn put_back(&self, paths: &[AbsPath]) -> Result<Vec<AbsPath>> {
        let mut wanted: BTreeSet<AbsPath> = paths.iter().cloned().collect();
        wanted.extend(paths.iter().filter_map(|path| self.root().resolve_trusted(path).ok()));
        let mut done = vec![];
        for path in wanted {
            let Some(previous) = self.kept.borrow_mut().previous.remove(&path) else { continue };
            previous.put_back(self.root(), &path).with_context(|| format!("putting back {path}"))?;
            done.push(path);
        }
        self.forget();
        Ok(done)
    }

    /// Remembers that a unit refuses what it was to be started with, and whether it ran before and does not now.
    pub fn note_refusal(&self, unit: &str, must_restart: bool) {
        *self.kept.borrow_mut().refusals.entry(unit.to_owned()).or_default() |= must_restart;
    }

    /// Forgets a refusal: the unit runs.
    pub fn drop_refusal(&self, unit: &str) {
        _ = self.kept.borrow_mut().refusals.remove(unit);
    }

    /// Whether a unit has refused what it was to be started with; and then whether it must be started again.
    pub fn refusal(&self, unit: &str) -> Option<bool> {
        self.kept.borrow().refusals.get(unit).copied()
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

    fn put_back(self, root: &Root, path: &AbsPath) -> Result<()> {
        match self {
            Self::Nothing => root.remove(path),
            Self::File(mut file, ownership) => {
                file.rewind().context("reading the old bytes")?;
                let mut staged = root.stage(path, ownership)?;
                _ = staged.copy_from(&mut file)?;
                staged.publish()
            }
            Self::Link(target) => {
                if root.status(path)?.is_some_and(|status| status.file_type != FileType::Link) {
                    root.remove(path)?;
                }
                root.make_link(path, &target)
            }
        }
    }
}
