//! Directories that an archive brings: the notes about their members, and the exchange of two directories.
//!
//! A complete new tree is beside its place ([`Beside::Complete`]). Its note is written first. Then both are exchanged, so
//! the place has the old tree or the new one at each moment. Which of two notes is about which tree follows from the number
//! (inode) of its directory. So a run that was cut off at any point is completed by the next one.

mod comparison;
mod note;

pub use self::{
    comparison::{Comparison, StopSignal},
    note::{NotedFile, NotedMember, TreeNote},
};

use anyhow::{Context, Result};

use super::{
    Host,
    root::{
        FileType, Ownership,
        tree::{Beside, both_exist},
    },
};
use crate::{
    error::Fault,
    value::{AbsPath, Sha256, quoted},
};

/// Limits the number of paths that a message names.
const MAX_NAMED: usize = 5;

/// The notes about the tree at a path, and about the one beside it.
#[derive(Debug, Default)]
pub struct Trees {
    /// The note about the tree at the path.
    pub present: Option<TreeNote>,
    /// The note about the complete tree beside it.
    beside: Option<TreeNote>,
    /// Whether the note about the present tree is that of the next one, because the exchange was the last step.
    is_next_present: bool,
    /// Whether something is beside the path.
    pub is_unfinished: bool,
}

impl Host {
    /// Returns the note about the tree at a path, without its members.
    pub fn tree_head(&self, path: &AbsPath) -> Result<Option<TreeNote>> {
        let (root, inode) = (self.root(), self.inode_of_tree(path)?);
        let next = TreeNote::load_next_head(root, path)?.filter(|next| Some(next.inode) == inode);
        next.map_or_else(|| TreeNote::load_head(root, path), |next| Ok(Some(next)))
    }

    fn inode_of_tree(&self, path: &AbsPath) -> Result<Option<u64>> {
        let status = self.root().status(path)?.filter(|status| status.file_type == FileType::Directory);
        Ok(status.map(|status| status.inode()))
    }

    /// Returns the notes about the tree at a path and the one beside it.
    pub fn trees(&self, path: &AbsPath) -> Result<Trees> {
        let (root, inode) = (self.root(), self.inode_of_tree(path)?);
        let (note, next) = (TreeNote::load(root, path)?, TreeNote::load_next(root, path)?);
        let is_next_present = next.as_ref().is_some_and(|next| Some(next.inode) == inode);
        let (present, beside) = if is_next_present { (next, note) } else { (note, next) };
        let exists = |beside: Beside| Ok::<_, anyhow::Error>(root.status(&beside.of(path)?)?.is_some());
        let is_unfinished = exists(Beside::Filled)? || exists(Beside::Complete)?;
        Ok(Trees { present, beside, is_next_present, is_unfinished })
    }

    /// Returns the digest that stands for the tree at a path; `None` if no archive has brought it.
    pub fn tree_digest(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        Ok(self.tree_head(path)?.map(|note| note.digest()))
    }

    /// Removes what runs have left beside a path: half of a tree, a tree that never took its place, or the previous one.
    ///
    /// The previous tree loses only what its note names. What of `kept` it still has is moved to the present tree.
    ///
    /// # Errors
    /// If the tree beside the path has files of others.
    pub fn finish_tree(&self, path: &AbsPath, kept: &[String]) -> Result<()> {
        let (root, complete) = (self.root(), Beside::Complete.of(path)?);
        _ = root.purge(&Beside::Filled.of(path)?)?;
        let trees = self.trees(path)?;
        if root.status(&complete)?.is_some() {
            self.move_kept(path, kept)?;
            let is_known = |path: &str| trees.beside.as_ref().is_some_and(|note| note.members.contains_key(path));
            let left = root.remove_tree(path, &is_known)?;
            if !left.is_empty() {
                let message = format!("{complete}, the previous directory, has files of others: {}", some_of(&left));
                return Err(Fault::new(message).hint(by_hand(&complete)).into());
            }
        }
        match trees.present.filter(|_| trees.is_next_present) {
            Some(_) => TreeNote::next_becomes_present(root, path),
            None => TreeNote::forget_next(root, path),
        }
    }

    /// Moves what of `kept` the previous tree beside a path still has to the present one.
    pub fn move_kept(&self, path: &AbsPath, kept: &[String]) -> Result<()> {
        let (root, complete) = (self.root(), Beside::Complete.of(path)?);
        let (next, inode) = (TreeNote::load_next_head(root, path)?, self.inode_of_tree(path)?);
        if next.is_none_or(|next| Some(next.inode) != inode) {
            return Ok(());
        }
        kept.iter().try_for_each(|kept| root.move_between(&complete, path, kept))
    }

    /// Fails if [`Host::move_kept`] would.
    pub fn check_kept(&self, path: &AbsPath, trees: &Trees, kept: &[String]) -> Result<()> {
        let (root, complete) = (self.root().to_inspect(), Beside::Complete.of(path)?);
        let has = |tree: &AbsPath, kept: &str| -> Result<bool> {
            Ok(root.status(&format!("{tree}/{kept}").parse()?)?.is_some())
        };
        for kept in kept.iter().filter(|_| trees.is_next_present) {
            if has(&complete, kept)? && has(path, kept)? {
                return Err(both_exist(&complete, path, kept).into());
            }
        }
        Ok(())
    }

    /// Puts the filled tree beside a path into its place. Returns whether the previous one is beside it now.
    ///
    /// What of `kept` the previous tree has is moved to the new one. [`Host::finish_tree`] removes the previous one.
    pub fn exchange_trees(&self, path: &AbsPath, note: &TreeNote, kept: &[String]) -> Result<bool> {
        let (root, complete) = (self.root(), Beside::Complete.of(path)?);
        let had_one = root.status(path)?.is_some();
        // The note comes first: without it, the next run would not know what the complete tree is.
        let exchanged = note.save_next(root, path).and_then(|()| {
            root.complete_tree(path)?;
            root.exchange_tree(path)
        });
        root.forget();
        if exchanged.is_err() && self.trees(path).is_ok_and(|trees| !trees.is_next_present) {
            _ = self.finish_tree(path, kept);
        }
        exchanged?;
        if !had_one {
            TreeNote::next_becomes_present(root, path)?;
            return Ok(false);
        }
        kept.iter().try_for_each(|kept| root.move_between(&complete, path, kept))?;
        Ok(true)
    }

    /// Puts the previous tree back into its place, with what of `kept` the present one has.
    pub fn take_tree_back(&self, path: &AbsPath, kept: &[String]) -> Result<()> {
        let (root, complete) = (self.root(), Beside::Complete.of(path)?);
        let trees = self.trees(path)?;
        let is_there = root.status(&complete)?.is_some() && trees.is_next_present;
        is_there.then_some(()).with_context(|| format!("the previous directory of {path} is gone"))?;
        kept.iter().try_for_each(|kept| root.move_between(path, &complete, kept))?;
        root.exchange_tree(path)
    }

    /// Fails if a file system is mounted at a path or below it.
    pub fn check_no_mounts(&self, path: &AbsPath) -> Result<()> {
        let Some(mount) = self.mount_point_in(path)? else { return Ok(()) };
        let message = format!("{mount} is a mount point: the directory {path} cannot be exchanged");
        let hint = format!("unmount it, or declare a path below it: umount {}", quoted(&mount));
        Err(Fault::new(message).hint(hint).into())
    }
}

/// Returns the owner and mode of the state files and of nothing else: root's alone.
fn private() -> Ownership {
    use nix::unistd::{getegid, geteuid};
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 }
}

/// Returns the first paths of a list for a message.
pub fn some_of(paths: &[String]) -> String {
    let named = paths.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len().checked_sub(MAX_NAMED) {
        Some(more @ 1..) => format!("{named} and {more} more"),
        _ => named,
    }
}

fn by_hand(directory: &AbsPath) -> String {
    let directory = quoted(directory.as_str());
    format!("look at it, move away what you need, then remove it: ls -lA {directory}; rm -r {directory}")
}
