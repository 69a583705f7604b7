//! Unpacking: an archive becomes a complete directory beside its path, then takes the path.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
};

use anyhow::{Context, Result};

use super::UnpackedArchive;
use crate::{
    archive::{self, ArchiveLimits, ArchiveMember, MemberKind},
    error::Fault,
    host::{
        root::{Ownership, tree::NewTree},
        tree::{NotedFile, NotedMember, StopSignal, TreeNote},
    },
    system::System,
};

/// A directory that is being unpacked.
struct Unpacking<'a> {
    /// The new directory; `None` to only check the archive.
    tree: Option<&'a NewTree<'a>>,
    note: TreeNote,
    watch: &'a StopSignal,
    /// The paths that are not compared.
    kept: &'a [String],
    /// Those of them that the present directory has. They move into the new one.
    moving: &'a [String],
}

impl UnpackedArchive {
    /// Unpacks the archive and exchanges the directories.
    pub(super) fn install(&self, system: &System, ownership: Ownership, generation: u64) -> Result<()> {
        let (root, kept) = (system.root(), self.kept());
        if let Some(parent) = self.path.parent() {
            root.make_directories(&parent, 0o755)?;
        }
        system.host.finish_tree(&self.path, &kept)?;
        let fetched = system.fetch(&self.download())?;
        let moving = self.moving(system)?;
        let Ownership { uid, gid, .. } = ownership;
        let note = TreeNote { generation, uid, gid, ..self.empty_note() };
        let (watch, limits, file) = (system.host.watch(), self.limits(), &*fetched.file);
        let unpack = |tree: &NewTree<'_>| {
            Unpacking { tree: Some(tree), note, watch: &watch, kept: &kept, moving: &moving }.run(file, limits)
        };
        let built = root.build_tree(&self.path, ownership, unpack);
        system.host.stop.check()?;
        let note = built.with_context(|| format!("unpacking {}", self.source))?;
        system.forget();
        if system.host.exchange_trees(&self.path, &note, &kept)? {
            system.keep_previous_tree(&self.path, &kept);
            system.leave_tree(self.path.clone(), kept);
        }
        Ok(())
    }

    /// Fails if the archive could not be unpacked. Writes nothing.
    pub(super) fn try_out(&self, system: &System, file: &File) -> Result<()> {
        let (note, watch, kept, moving) = (self.empty_note(), system.host.watch(), self.kept(), self.moving(system)?);
        let tried =
            Unpacking { tree: None, note, watch: &watch, kept: &kept, moving: &moving }.run(file, self.limits());
        system.host.stop.check()?;
        tried.map(drop)
    }

    /// Returns the kept paths that the present directory has.
    fn moving(&self, system: &System) -> Result<Vec<String>> {
        let root = system.root().to_inspect();
        let mut moving = vec![];
        for kept in self.kept() {
            if root.status(&format!("{}/{kept}", self.path).parse()?)?.is_some() {
                moving.push(kept);
            }
        }
        Ok(moving)
    }

    fn empty_note(&self) -> TreeNote {
        let (archive, strip) = (self.sha256, self.strip);
        TreeNote { archive, strip, generation: 0, uid: 0, gid: 0, inode: 0, members: BTreeMap::new() }
    }
}

impl Unpacking<'_> {
    /// Unpacks all members; returns the complete note.
    fn run(mut self, file: &File, limits: ArchiveLimits) -> Result<TreeNote> {
        let strip = self.note.strip;
        let mut members = 0u64;
        archive::read(file, strip, limits, &mut |member, body| {
            members += 1;
            self.take(member, body).with_context(|| format!("unpacking {}", member.path))
        })?;
        if members == 0 {
            let fault = Fault::new(format!("the archive has no member with more than {strip} components"));
            return Err(fault.hint("declare a smaller `strip`; to list the members: tar -tf ARCHIVE").into());
        }
        for kept in self.moving {
            self.make_above(kept)?;
        }
        if let Some(tree) = self.tree {
            self.note.identify(tree)?;
        }
        Ok(self.note)
    }

    fn take(&mut self, member: &ArchiveMember<'_>, body: &mut dyn Read) -> Result<()> {
        self.watch.check()?;
        let path = member.path;
        let is_kept = is_at_or_below(path, self.kept);
        if is_at_or_below(path, self.moving) {
            return Ok(());
        }
        let noted = match member.kind {
            MemberKind::Directory => {
                _ = self.make(|tree| tree.make_directory(path, member.mode))?;
                NotedMember::Directory(member.mode)
            }
            MemberKind::File => {
                let made = self.make(|tree| tree.make_file(path, member.mode, member.modified, body))?;
                let (size, digest) = match made {
                    Some(made) => made,
                    // Reading all bytes checks them. The note of a check needs no digest.
                    None => (io::copy(body, &mut io::sink()).context("reading the archive")?, self.note.archive),
                };
                NotedMember::File(NotedFile { mode: member.mode, size, digest, identity: [0; 3] })
            }
            MemberKind::Link(target) => {
                _ = self.make(|tree| tree.make_link(path, target))?;
                NotedMember::Link(target.to_owned())
            }
            MemberKind::SameAs(original) => {
                if is_at_or_below(original, self.kept) != is_kept {
                    let message = format!("{path} and {original} are one file, of which `keep` names one");
                    return Err(Fault::new(message).hint("name both of them in `keep`, or none").into());
                }
                _ = self.make(|tree| tree.make_name(path, original))?;
                self.note.members.get(original).cloned().unwrap_or(NotedMember::Directory(0))
            }
        };
        if !is_kept {
            _ = self.note.members.insert(path.to_owned(), noted);
        }
        Ok(())
    }

    /// Makes something in the new directory, if there is one.
    fn make<T>(&self, make: impl FnOnce(&NewTree) -> Result<T>) -> Result<Option<T>> {
        self.tree.map(make).transpose()
    }

    /// Makes the directories above a kept path that the archive does not have.
    fn make_above(&mut self, kept: &str) -> Result<()> {
        for (end, _) in kept.match_indices('/') {
            let above = &kept[..end];
            match self.note.members.get(above) {
                Some(NotedMember::Directory(_)) => {}
                Some(_) => {
                    let message = format!("`keep` names {kept}, but in the archive {above} is not a directory");
                    return Err(Fault::new(message).hint("move the kept path away, or correct `keep`").into());
                }
                None => {
                    _ = self.make(|tree| tree.make_directory(above, 0o755))?;
                    _ = self.note.members.insert(above.to_owned(), NotedMember::Directory(0o755));
                }
            }
        }
        Ok(())
    }
}

fn is_at_or_below(path: &str, places: &[String]) -> bool {
    places
        .iter()
        .any(|place| path.strip_prefix(place.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}
