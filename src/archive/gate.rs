//! The checks that every member passes, in archives of all formats.

use std::{collections::HashMap, io::Read};

use anyhow::Result;

use super::{ArchiveLimits, ArchiveMember, MemberKind, TakeMember, shown};
use crate::{
    error::Fault,
    value::{ByteSize, printable},
};

/// The longest path of a member. With the path of the directory it must fit into the kernel's 4,096 bytes.
pub(super) const MAX_PATH_BYTES: usize = 2048;
/// The most components of a member's path. Comparing a tree holds a directory of each level open.
const MAX_DEPTH: usize = 100;
/// The longest name of a file, as in the kernel.
const MAX_NAME_BYTES: usize = 255;
/// The permission bits of a directory that only the paths of its members name.
const IMPLIED_MODE: u32 = 0o755;
/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

/// A member as its format says it, unchecked.
#[derive(Debug)]
pub(super) struct RawMember<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: RawKind<'a>,
    pub(super) mode: u32,
    pub(super) modified: i64,
}

/// What an unchecked member is.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawKind<'a> {
    Directory,
    File,
    Link(&'a [u8]),
    HardLink(&'a [u8]),
}

/// What was handed out for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Directory,
    File,
    Link,
}

/// The checks of one archive.
pub(super) struct Gate<'a> {
    strip: usize,
    limits: ArchiveLimits,
    take: TakeMember<'a>,
    seen: HashMap<String, Passed>,
    entries: u64,
    bytes: u64,
}

impl<'a> Gate<'a> {
    pub(super) fn new(strip: usize, limits: ArchiveLimits, take: TakeMember<'a>) -> Self {
        Self { strip, limits, take, seen: HashMap::new(), entries: 0, bytes: 0 }
    }

    /// Counts an entry of the archive and its bytes, also of one that is only about another entry or that is left out.
    pub(super) fn count(&mut self, bytes: u64) -> Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let ArchiveLimits { members, bytes } = self.limits;
        if self.entries > members {
            let fault = Fault::new(format!("the archive has more than {members} members"));
            return Err(fault.hint("if this is right, use the kind `archive` with a larger `max_members`").into());
        }
        if self.bytes > bytes {
            let fault = Fault::new(format!("the archive unpacks to more than {}", ByteSize(bytes)));
            return Err(fault.hint("if this is right, use the kind `archive` with a larger `max_size`").into());
        }
        Ok(())
    }

    /// Checks a member and hands it out, after the directories above it.
    pub(super) fn pass(&mut self, raw: &RawMember<'_>, body: &mut dyn Read) -> Result<()> {
        let Some(path) = self.path(raw.name)? else { return Ok(()) };
        let name = &*path;
        if raw.mode & SET_ID != 0 && !matches!(raw.kind, RawKind::Link(_)) {
            return Err(refused(format!("the member {name} has a set-user-id or set-group-id bit")));
        }
        self.make_parents(name)?;
        let (kind, seen);
        let (target, original);
        match raw.kind {
            RawKind::Directory => (kind, seen) = (MemberKind::Directory, Passed::Directory),
            RawKind::File => (kind, seen) = (MemberKind::File, Passed::File),
            RawKind::Link(bytes) => {
                target = link_target(name, bytes)?;
                (kind, seen) = (MemberKind::Link(target), Passed::Link);
            }
            RawKind::HardLink(bytes) => {
                original = self.original(name, bytes)?;
                (kind, seen) = (MemberKind::SameAs(&original), Passed::File);
            }
        }
        match self.seen.insert(path.clone(), seen) {
            None => {}
            Some(Passed::Directory) if seen == Passed::Directory => {}
            Some(_) => return Err(refused(format!("the archive has two members {name}"))),
        }
        // The owner can always read what it has, and enter its directories.
        let mode = raw.mode & 0o755 | if seen == Passed::Directory { 0o700 } else { 0o400 };
        (self.take)(&ArchiveMember { path: name, kind, mode, modified: raw.modified }, body)
    }

    /// Returns the path of a member below the archive's directory; `None` if nothing of it is left.
    fn path(&self, name: &[u8]) -> Result<Option<String>> {
        if name.starts_with(b"/") {
            return Err(refused(format!("the member {} has an absolute name", shown(name))));
        }
        let leads_out = || refused(format!("the member {} leads out of the archive's directory", shown(name)));
        let unreadable = |why: &str| refused(format!("the name of the member {} {why}", shown(name)));
        let text = std::str::from_utf8(name).map_err(|_| unreadable("is not UTF-8"))?;
        printable(text).map_err(|error| unreadable(&error.to_string()))?;
        let components: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if components.contains(&"..") {
            return Err(leads_out());
        }
        if text.len() > MAX_PATH_BYTES || components.iter().any(|part| part.len() > MAX_NAME_BYTES) {
            return Err(unreadable("is too long"));
        }
        if components.len() > MAX_DEPTH {
            return Err(unreadable(&format!("has more than {MAX_DEPTH} components")));
        }
        let left = components.get(self.strip..).unwrap_or_default();
        Ok((!left.is_empty()).then(|| left.join("/")))
    }

    /// Hands out the directories above a member that have no entry of their own before it.
    fn make_parents(&mut self, path: &str) -> Result<()> {
        // Most members are in the directory of the one before.
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        if self.seen.get(parent) == Some(&Passed::Directory) {
            return Ok(());
        }
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            match self.seen.get(above) {
                Some(Passed::Directory) => continue,
                Some(Passed::Link) => return Err(refused(format!("the member {path} is below the link {above}"))),
                Some(Passed::File) => return Err(refused(format!("the member {path} is below the file {above}"))),
                None => {}
            }
            self.count(0)?;
            _ = self.seen.insert(above.to_owned(), Passed::Directory);
            let member = ArchiveMember { path: above, kind: MemberKind::Directory, mode: IMPLIED_MODE, modified: 0 };
            (self.take)(&member, &mut std::io::empty())?;
        }
        Ok(())
    }

    /// Returns the path of the file that a hard link is another name of.
    fn original(&self, path: &str, target: &[u8]) -> Result<String> {
        let what = || format!("the hard link {path} to {}", shown(target));
        let original = self.path(target).map_err(|error| error.context(what()))?;
        let Some(original) = original.filter(|original| self.seen.get(original) == Some(&Passed::File)) else {
            return Err(refused(format!("{} is of no file before it in the archive", what())));
        };
        Ok(original)
    }
}

/// Returns the target of a symbolic link if it stays in the archive's directory, also through other links of it.
///
/// `..` is only allowed at its beginning: after a component that is itself a link, `..` would lead to another place than
/// the text says. Each link leads from its own directory, which is no link, to a path below the archive's directory. So no
/// chain of links leads out.
fn link_target<'t>(path: &str, target: &'t [u8]) -> Result<&'t str> {
    let unsafe_link = |why: &str| refused(format!("the link {path} to {} {why}", shown(target)));
    let text = std::str::from_utf8(target).map_err(|_| unsafe_link("is not UTF-8"))?;
    printable(text).map_err(|error| unsafe_link(&error.to_string()))?;
    if text.is_empty() || text.len() > MAX_PATH_BYTES {
        return Err(unsafe_link("has no target, or one that is too long"));
    }
    let mut levels = path.matches('/').count();
    let mut is_down = text.starts_with('/');
    for component in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match component {
            ".." if is_down || levels == 0 => return Err(unsafe_link("leads out of the archive's directory")),
            ".." => levels -= 1,
            _ => is_down = true,
        }
    }
    if text.starts_with('/') {
        return Err(unsafe_link("leads out of the archive's directory"));
    }
    Ok(text)
}

/// Returns the error of an archive that is not unpacked.
pub(super) fn refused(message: String) -> anyhow::Error {
    Fault::new(message).hint("pack the archive again without this member").into()
}
