//! The files that a run has replaced. They are put back if a service refuses the change.
//!
//! The old content stays in its inode, which is held open. So nothing is copied, and private content is written nowhere
//! else. If a run ends before a service was started with the change, small files are [saved] for the run that starts it.
//! A killed run saves nothing.

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

/// The earlier state of a path.
#[derive(Debug)]
enum Previous {
    Nothing,
    File(File, Ownership),
    /// A file that an earlier run has changed.
    Bytes(Vec<u8>, Ownership),
    Link(String),
    /// The directory of an archive, which is beside the new one, with the paths that it keeps.
    Tree(Vec<String>),
}

/// The earlier states of files that services read, and the units' reactions to the changes.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    read_by_services: BTreeSet<AbsPath>,
    previous: BTreeMap<AbsPath, Previous>,
    /// The units that refused the changes of this run, each with whether it ran before and must be restarted.
    refusals: BTreeMap<String, bool>,
    /// The units that ran before this run restarted them.
    restarted: BTreeSet<String>,
}

pub(crate) type KeptCell = RefCell<Kept>;

impl System {
    /// Adds the files that services read at their start, so that their changes can be put back.
    pub fn keep_previous_of(&self, paths: impl IntoIterator<Item = AbsPath>) {
        self.kept.borrow_mut().read_by_services.extend(paths);
    }

    /// Keeps the present state of a path before a change, if a service reads it.
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
        let previous =
            Previous::at(self.root(), path).with_context(|| format!("keeping the earlier state of {path}"))?;
        _ = self.kept.borrow_mut().previous.insert(path.clone(), previous);
        Ok(())
    }

    /// Notes that the previous directory of an archive can be put back, if a service reads the path.
    pub fn keep_previous_tree(&self, path: &AbsPath, kept: &[String]) {
        let mut known = self.kept.borrow_mut();
        if known.read_by_services.contains(path) {
            _ = known.previous.entry(path.clone()).or_insert_with(|| Previous::Tree(kept.to_vec()));
        }
    }

    /// Returns the paths that can be put back, of these and of the targets of their links.
    pub fn changed_of(&self, paths: &[AbsPath]) -> BTreeSet<AbsPath> {
        let mut changed: BTreeSet<AbsPath> = paths.iter().cloned().collect();
        changed.extend(paths.iter().filter_map(|path| self.root().resolve_trusted(path).ok()));
        let kept = self.kept.borrow();
        changed.retain(|path| kept.previous.contains_key(path));
        changed
    }

    /// Puts back the earlier states of these paths. A failure of one does not affect the others.
    pub fn put_back(&self, paths: BTreeSet<AbsPath>) -> Vec<(AbsPath, Result<()>)> {
        let mut results = vec![];
        for path in paths {
            let mut kept = self.kept.borrow_mut();
            let Some(previous) = kept.previous.get(&path) else { continue };
            let result = match previous {
                Previous::Tree(kept) => self.host.take_tree_back(&path, kept),
                of_file => of_file.put_back(self.root(), &path),
            };
            if result.is_ok() {
                _ = kept.previous.remove(&path);
            }
            results.push((path, result));
        }
        self.forget();
        results
    }

    /// Records that a unit has refused its files, and whether it ran before and does not run now.
    pub fn note_refusal(&self, unit: &str, must_restart: bool) {
        *self.kept.borrow_mut().refusals.entry(unit.to_owned()).or_default() |= must_restart;
    }

    /// Records that a unit runs with the present files, and whether it ran before with others.
    pub fn note_start(&self, unit: &str, ran_before: bool) {
        let mut kept = self.kept.borrow_mut();
        _ = kept.refusals.remove(unit);
        _ = ran_before && kept.restarted.insert(unit.to_owned());
    }

    /// Returns whether a refusing unit must be restarted; `None` if the unit has refused nothing.
    pub fn refusal(&self, unit: &str) -> Option<bool> {
        self.kept.borrow().refusals.get(unit).copied()
    }

    /// Returns whether this run has restarted a unit that ran before.
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
                // A user's directory may have a file of root's that the user cannot read.
                let (file, status) = root.to_inspect().open_file(path)?.context("the file is gone")?;
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
            Self::Tree(_) => anyhow::bail!("{path} is a directory"),
            Self::Link(target) => {
                if root.status(path)?.is_some_and(|status| status.file_type != FileType::Link) {
                    root.remove(path)?;
                }
                root.make_link(path, target)
            }
        }
    }
}
