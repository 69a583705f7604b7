//! The comparison of a tree with its note: what was edited, removed or added by hand.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context, Result, ensure};
use sha2::Digest;

use super::{NotedFile, NotedMember, TreeNote, Trees};
use crate::{
    host::{
        Host, calls,
        root::{
            FileStatus, FileType,
            tree::{NewTree, TreeEntry},
        },
    },
    stop::Interrupt,
    value::{AbsPath, Sha256},
};

/// The bytes of a file that are digested at once.
const BUFFER_BYTES: usize = 128 << 10;

/// The differences between a tree and its note.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Sentences about members: `bin/app was edited`.
    pub differences: Vec<String>,
    /// Paths that are not in the note.
    pub unknown: Vec<String>,
    /// The files that have the noted bytes, but another number or time, each with these: a copied tree has others.
    seen_anew: Vec<(String, [i64; 3])>,
}

/// Ends long work at a signal or a deadline, on any thread.
#[derive(Debug, Clone)]
pub struct StopSignal {
    interrupt: Interrupt,
    until: Option<Instant>,
}

impl StopSignal {
    /// Fails if the work must end. The caller then asks [`Stop::check`](crate::stop::Stop::check) for the reason.
    pub fn check(&self) -> Result<()> {
        self.interrupt.check()?;
        ensure!(self.until.is_none_or(|until| Instant::now() < until), "out of time");
        Ok(())
    }
}

impl Host {
    /// Returns the signal and the first deadline for work on another thread.
    pub fn watch(&self) -> StopSignal {
        let until = self.stop.deadlines.left().map(|left| Instant::now() + left);
        StopSignal { interrupt: self.stop.interrupt.clone(), until }
    }

    /// Compares the tree at a path with its note. Only files that may have changed are read.
    ///
    /// The paths of `kept`, and all below them, are not compared.
    pub fn compare_tree(&self, path: &AbsPath, note: &TreeNote, kept: &[String]) -> Result<Comparison> {
        let mut comparison = Comparison::default();
        let (watch, mut found, mut entered) = (self.watch(), BTreeSet::new(), BTreeSet::new());
        let visited = self.root().visit_tree(path, &mut |entry| {
            watch.check()?;
            if kept.iter().any(|kept| kept == entry.path) {
                return Ok(false);
            }
            let Some((name, member)) = note.members.get_key_value(entry.path) else {
                comparison.unknown.push(entry.path.to_owned());
                return Ok(false);
            };
            let Some(status) = entry.status()? else { return Ok(false) };
            _ = found.insert(name.as_str());
            let is_as_noted = comparison.meet(entry, &status, member, note, &watch)?;
            let enters = is_as_noted && status.file_type == FileType::Directory;
            _ = enters && entered.insert(name.as_str());
            Ok(enters)
        });
        self.stop.check()?;
        visited?;
        let is_gone = |name: &&String| !found.contains(name.as_str()) && !is_in_any(name, kept);
        let gone: Vec<&String> = note.members.keys().filter(is_gone).collect();
        // Of a directory that is gone, its content need not be named.
        let is_first = |name: &&&String| name.rsplit_once('/').is_none_or(|(above, _)| entered.contains(above));
        comparison.differences.extend(gone.iter().filter(is_first).map(|name| format!("{name} is missing")));
        Ok(comparison)
    }
}

impl Trees {
    /// Brings the notes up to date about a tree without differences: the last step of a run that was cut off, and other
    /// numbers and times of its files, so that the next run reads no file.
    pub fn remember(&mut self, host: &Host, path: &AbsPath, comparison: &Comparison) -> Result<()> {
        if !self.is_unfinished && (self.is_next_present || self.beside.is_some()) {
            host.finish_tree(path, &[])?;
        }
        let Some(note) = self.present.as_mut().filter(|_| !self.is_next_present) else { return Ok(()) };
        if comparison.seen_anew.is_empty() {
            return Ok(());
        }
        for (name, identity) in &comparison.seen_anew {
            if let Some(NotedMember::File(file)) = note.members.get_mut(name) {
                file.identity = *identity;
            }
        }
        note.inode = host.root().status(path)?.map_or(note.inode, |status| status.inode());
        note.save(host.root(), path)
    }
}

impl Comparison {
    /// Compares one entry. Returns whether it has the noted type.
    fn meet(
        &mut self,
        entry: &TreeEntry<'_>,
        status: &FileStatus,
        member: &NotedMember,
        note: &TreeNote,
        watch: &StopSignal,
    ) -> Result<bool> {
        let path = entry.path;
        let (is_of_type, mode, article) = match member {
            NotedMember::Directory(mode) => (status.file_type == FileType::Directory, Some(*mode), "a directory"),
            NotedMember::File(file) => (status.file_type == FileType::Regular, Some(file.mode), "a file"),
            NotedMember::Link(_) => (status.file_type == FileType::Link, None, "a link"),
        };
        if !is_of_type {
            self.differences.push(format!("{path} is no longer {article}"));
            return Ok(false);
        }
        let is_edited = match member {
            NotedMember::Directory(_) => false,
            NotedMember::Link(target) => entry.target()?.as_ref() != Some(target),
            NotedMember::File(file) => self.is_edited(entry, status, file, watch)?,
        };
        if is_edited {
            self.differences.push(format!("{path} was edited"));
        }
        let now = status.ownership;
        if (now.uid, now.gid) != (note.uid, note.gid) {
            self.differences.push(format!("{path} belongs to {}:{}", now.uid, now.gid));
        }
        if let Some(mode) = mode.filter(|mode| *mode != now.mode) {
            self.differences.push(format!("{path} has mode {:04o}, not {mode:04o}", now.mode));
        }
        if let Some(label) = entry.label_difference(status.file_type)? {
            self.differences.push(format!("{path} needs the {label}"));
        }
        Ok(true)
    }

    fn is_edited(
        &mut self,
        entry: &TreeEntry<'_>,
        status: &FileStatus,
        noted: &NotedFile,
        watch: &StopSignal,
    ) -> Result<bool> {
        let identity = identity(status);
        if status.size != noted.size {
            return Ok(true);
        }
        if identity == noted.identity {
            return Ok(false);
        }
        let Some(mut file) = entry.open()? else { return Ok(true) };
        let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; BUFFER_BYTES]);
        loop {
            watch.check()?;
            match calls::read(&mut file, &mut buffer).with_context(|| format!("reading {}", entry.path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let is_same = Sha256(hasher.finalize().into()) == noted.digest;
        if is_same {
            self.seen_anew.push((entry.path.to_owned(), identity));
        }
        Ok(!is_same)
    }
}

impl TreeNote {
    /// Completes the note about a new tree with the numbers and times of its files.
    pub fn identify(&mut self, tree: &NewTree<'_>) -> Result<()> {
        self.inode = tree.inode()?;
        tree.visit(&mut |entry| {
            let Some(member) = self.members.get_mut(entry.path) else { return Ok(false) };
            if let (NotedMember::File(file), Some(status)) = (&mut *member, entry.status()?) {
                file.identity = identity(&status);
            }
            Ok(matches!(member, NotedMember::Directory(_)))
        })
    }
}

/// Returns the number of a file, and the time of its last change.
fn identity(status: &FileStatus) -> [i64; 3] {
    [status.identity[1], status.identity[5], status.identity[6]]
}

fn is_in_any(path: &str, kept: &[String]) -> bool {
    kept.iter()
        .any(|kept| path.strip_prefix(kept.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}
