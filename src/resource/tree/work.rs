//! The changes of a tree: downloads, owners and removals, each of many files.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{PrefixNote, PrefixTree, TreeFile, Written, directories};
use crate::{
    fetch::{
        batch::{DeliveryEvent, Order},
        source::Source,
    },
    host::root::{FileType, Ownership},
    resource::{Change, ownership::Ids},
    system::{Fact, System},
    value::AbsPath,
};

/// The most files that a sentence names.
const MAX_NAMED: usize = 10;

/// What differs between a tree and its source.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The files to download, each with the reason.
    pub(super) downloaded: Vec<(String, &'static str)>,
    /// The files whose owner or mode differs.
    pub(super) owned: Vec<(String, String)>,
    /// The files that are gone from the source.
    pub(super) removed: Vec<String>,
}

/// Returns names for a sentence: `a, b and 3 more`.
pub(super) fn shown(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let list = names.take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

fn count(number: usize) -> String {
    if number == 1 { "1 file".into() } else { format!("{number} files") }
}

impl Work {
    /// Returns the changes: first the downloads.
    pub(super) fn changes(self, tree: &PrefixTree, files: BTreeMap<String, TreeFile>, ids: Ids) -> Vec<Change> {
        let mut changes = vec![];
        let with_reason = |(name, why): &(String, &'static str)| format!("{name} ({why})");
        if !self.downloaded.is_empty() {
            let list = shown(self.downloaded.iter().map(with_reason));
            let summary = format!("download {} from {}: {list}", count(self.downloaded.len()), tree.source);
            let paths = self.downloaded.iter().filter_map(|(name, _)| files.get(name));
            let facts: Vec<Fact> = paths.map(|file| Fact::Path(file.path.clone())).collect();
            let (tree, names) = (tree.clone(), self.downloaded.into_iter().map(|(name, _)| name).collect());
            changes.push(Change::new(summary, move |system| tree.download(system, names, &files, ids)).brings(facts));
        }
        if !self.owned.is_empty() {
            let list = shown(self.owned.iter().map(|(name, words)| format!("{name}: {words}")));
            let summary = format!("set the owner or mode of {}: {list}", count(self.owned.len()));
            let (tree, owned) = (tree.clone(), self.owned);
            changes.push(Change::new(summary, move |system| {
                for (name, _) in owned {
                    let path = tree.path_of(&name)?;
                    system.keep_previous(&path)?;
                    system.root().own_file(&path, tree.ownership(ids), FileType::Regular)?;
                }
                Ok(())
            }));
        }
        if !self.removed.is_empty() {
            let list = shown(self.removed.iter().cloned());
            let summary = format!("remove {}, gone from the source: {list}", count(self.removed.len()));
            let facts = self.removed.iter().filter_map(|name| tree.path_of(name).ok()).map(Fact::Absent);
            let facts: Vec<Fact> = facts.collect();
            let (tree, removed) = (tree.clone(), self.removed);
            changes.push(Change::new(summary, move |system| tree.remove(system, &removed)).brings(facts));
        }
        changes
    }
}

impl PrefixTree {
    /// Downloads files, and notes those that arrive also if others fail.
    fn download(
        &self,
        system: &System,
        names: Vec<String>,
        files: &BTreeMap<String, TreeFile>,
        ids: Ids,
    ) -> Result<()> {
        for directory in directories(names.iter()) {
            let path = self.path_of(&directory)?;
            if system.root().status(&path)?.is_none() {
                let ownership = Ownership { mode: self.directory_mode(), ..self.ownership(ids) };
                system.root().make_directory(&path, ownership)?;
            }
        }
        let wanted: Vec<(String, &TreeFile)> =
            names.into_iter().filter_map(|name| files.get(&name).map(|file| (name, file))).collect();
        let mut orders = vec![];
        for (_, file) in &wanted {
            system.keep_previous(&file.path)?;
            let (bucket, key) = (self.source.0.bucket.clone(), file.listed.key.clone());
            orders.push(Order {
                source: Source::S3 { bucket, key, version: None },
                sha256: None,
                destination: file.path.clone(),
                ownership: Some(self.ownership(ids)),
            });
        }
        let (total, mut arrived) = (orders.len(), 0);
        let mut note = PrefixNote::read(system, &self.path);
        let delivered = system.fetcher.deliver(&system.host, orders, None, &mut |event| {
            if let DeliveryEvent::Done { index, result: Ok(delivery) } = event {
                let (name, file) = &wanted[index];
                let etag = file.listed.etag.clone().unwrap_or_default();
                let written = Written { source: file.source.clone(), etag, sha256: delivery.sha256 };
                _ = note.files.insert(name.clone(), written);
                arrived += 1;
                system.host.progress(&format!("downloaded {arrived} of {total} files"));
            }
        });
        // Also if a signal has ended the downloads.
        note.write(system, &self.path)?;
        let failed: Vec<_> = delivered?.into_iter().filter_map(Result::err).collect();
        let number = failed.len();
        match failed.into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error).with_context(|| format!("{number} of {total} downloads failed; the first one")),
        }
    }

    /// Removes files, and the directories that have nothing else.
    fn remove(&self, system: &System, names: &[String]) -> Result<()> {
        let mut note = PrefixNote::read(system, &self.path);
        for name in names {
            let path = self.path_of(name)?;
            system.keep_previous(&path)?;
            system.root().remove(&path)?;
            _ = note.files.remove(name);
        }
        let kept = directories(note.files.keys());
        for directory in directories(names.iter()).into_iter().rev().filter(|directory| !kept.contains(directory)) {
            let path: AbsPath = self.path_of(&directory)?;
            _ = system.root().remove_empty_directory(&path)?;
        }
        note.write(system, &self.path)
    }
}
