//! Unpacking: an archive becomes a complete directory beside its path, then takes the path.

use std::{collections::BTreeMap, fs::File, io::Read};

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
    tree: &'a NewTree,
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
        let mut moving = kept.clone();
        let mut is_there = |path: &String| -> Result<bool> {
            let path = format!("{}/{path}", self.path).parse()?;
            Ok(root.to_inspect().status(&path)?.is_some())
        };
        let there = kept.iter().map(&mut is_there).collect::<Result<Vec<_>>>()?;
        moving.retain(|path| kept.iter().zip(&there).any(|(kept, there)| kept == path && *there));
        let (archive, strip) = (self.sha256, self.strip);
        let Ownership { uid, gid, .. } = ownership;
        let note = TreeNote { archive, strip, generation, uid, gid, inode: 0, members: BTreeMap::new() };
        let (watch, limits, file) = (system.host.watch(), self.limits(), &*fetched.file);
        let unpack =
            |tree: &NewTree| Unpacking { tree, note, watch: &watch, kept: &kept, moving: &moving }.run(file, limits);
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
        self.note.identify(self.tree)?;
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
                self.tree.make_directory(path, member.mode)?;
                NotedMember::Directory(member.mode)
            }
            MemberKind::File => {
                let (size, digest) = self.tree.make_file(path, member.mode, member.modified, body)?;
                NotedMember::File(NotedFile { mode: member.mode, size, digest, identity: [0; 3] })
            }
            MemberKind::Link(target) => {
                self.tree.make_link(path, target)?;
                NotedMember::Link(target.to_owned())
            }
            MemberKind::SameAs(original) => {
                if is_at_or_below(original, self.kept) != is_kept {
                    let message = format!("{path} and {original} are one file, of which `keep` names one");
                    return Err(Fault::new(message).hint("name both of them in `keep`, or none").into());
                }
                self.tree.make_name(path, original)?;
                self.note.members.get(original).cloned().unwrap_or(NotedMember::Directory(0))
            }
        };
        if !is_kept {
            _ = self.note.members.insert(path.to_owned(), noted);
        }
        Ok(())
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
                    self.tree.make_directory(above, 0o755)?;
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
