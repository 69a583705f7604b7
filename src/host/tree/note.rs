//! The note about a tree: the archive that brought it, and all its members as they were written.
//!
//! It is a line of JSON about the tree, then a line of tab-separated fields for each member. A name has no control
//! character, so no field has a tab. Reading 20,000 such lines takes a tenth of the time of as much JSON.

use std::{collections::BTreeMap, fmt::Write, io::Read};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::private;
use crate::{
    error::Fault,
    host::{
        root::{FileType, Root},
        state,
    },
    value::{AbsPath, Sha256, quoted},
};

/// Limits the size of a note. A million members with long names need less.
const MAX_BYTES: u64 = 1 << 30;
/// Limits the size of its first line.
const MAX_HEAD_BYTES: u64 = 4 << 10;
/// The characters of a path's digest in the name of its note.
const DIGEST_CHARS: usize = 32;

/// The note about a tree.
#[derive(Debug, Serialize, Deserialize)]
pub struct TreeNote {
    /// The digest of the archive.
    pub archive: Sha256,
    /// The number of components that were removed from each member's path.
    pub strip: usize,
    /// How many trees have taken this place. It differs also if the same archive was unpacked again.
    pub generation: u64,
    /// The owner of all members.
    pub uid: u32,
    /// The group of all members.
    pub gid: u32,
    /// The number of the tree's directory.
    pub inode: u64,
    /// The members by their paths.
    #[serde(skip)]
    pub members: BTreeMap<String, NotedMember>,
}

/// A member of a tree, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotedMember {
    /// A directory with these permission bits.
    Directory(u32),
    /// A regular file.
    File(NotedFile),
    /// A symbolic link with this target.
    Link(String),
}

/// A regular file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedFile {
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Sha256,
    /// Its number, and the time of its last change, in seconds and nanoseconds. If the size and these are the same, so are
    /// its bytes.
    pub identity: [i64; 3],
}

impl TreeNote {
    /// Returns the digest that stands for the whole tree.
    pub fn digest(&self) -> Sha256 {
        Self::digest_of(self.archive, self.strip, self.generation)
    }

    /// Returns the digest that stands for a tree.
    pub fn digest_of(archive: Sha256, strip: usize, generation: u64) -> Sha256 {
        Sha256::of(format!("{archive} {strip} {generation}").as_bytes())
    }

    /// Reads what the note says about the tree at a path, without the members.
    pub(super) fn load_head(root: &Root, path: &AbsPath) -> Result<Option<Self>> {
        Self::read_head(root, &place(path, "note")?)
    }

    /// Reads what the note says about the next tree, without the members.
    pub(super) fn load_next_head(root: &Root, path: &AbsPath) -> Result<Option<Self>> {
        Self::read_head(root, &place(path, "next")?)
    }

    /// Reads the note about the tree at a path; `None` if no archive has brought it.
    pub fn load(root: &Root, path: &AbsPath) -> Result<Option<Self>> {
        Self::read(root, &place(path, "note")?)
    }

    /// Reads the note about the next tree.
    pub(super) fn load_next(root: &Root, path: &AbsPath) -> Result<Option<Self>> {
        Self::read(root, &place(path, "next")?)
    }

    /// Writes the note about the tree at a path.
    pub(super) fn save(&self, root: &Root, path: &AbsPath) -> Result<()> {
        self.write(root, &place(path, "note")?)
    }

    /// Writes the note about the next tree.
    pub(super) fn save_next(&self, root: &Root, path: &AbsPath) -> Result<()> {
        self.write(root, &place(path, "next")?)
    }

    /// Makes the note about the next tree that about the present one.
    pub(super) fn next_becomes_present(root: &Root, path: &AbsPath) -> Result<()> {
        root.rename_beside(&place(path, "next")?, &place(path, "note")?)
    }

    /// Removes the note about the next tree, if there is one.
    pub(super) fn forget_next(root: &Root, path: &AbsPath) -> Result<()> {
        let next = place(path, "next")?;
        if root.status(&next)?.is_some() { root.remove(&next) } else { Ok(()) }
    }

    fn write(&self, root: &Root, place: &AbsPath) -> Result<()> {
        let mut text = serde_json::to_string(self).context("writing JSON")?;
        for (path, member) in &self.members {
            text.push('\n');
            match member {
                NotedMember::Directory(mode) => write!(text, "d\t{mode:o}\t{path}")?,
                NotedMember::Link(target) => write!(text, "l\t{target}\t{path}")?,
                NotedMember::File(NotedFile { mode, size, digest, identity: [inode, seconds, nanoseconds] }) => {
                    write!(text, "f\t{mode:o}\t{size}\t{digest}\t{inode}\t{seconds}\t{nanoseconds}\t{path}")?;
                }
            }
        }
        // The last line shows that the note is whole.
        text.push_str("\nend\n");
        state::make_directory(root)?;
        root.write(place, private(), text.as_bytes())
    }

    fn read_head(root: &Root, place: &AbsPath) -> Result<Option<Self>> {
        if root.status(place)?.is_none_or(|status| status.file_type != FileType::Regular) {
            return Ok(None);
        }
        let Some((file, _)) = root.open_file(place)? else { return Ok(None) };
        let mut head = vec![];
        let read = file.take(MAX_HEAD_BYTES).read_to_end(&mut head).with_context(|| format!("reading {place}"));
        let line = read.map(|_| head.split(|byte| *byte == b'\n').next().unwrap_or_default())?;
        serde_json::from_slice(line).map(Some).map_err(|error| damaged(place, error.into()))
    }

    fn read(root: &Root, place: &AbsPath) -> Result<Option<Self>> {
        if root.status(place)?.is_none_or(|status| status.file_type != FileType::Regular) {
            return Ok(None);
        }
        let Some(bytes) = root.read(place, MAX_BYTES)? else { return Ok(None) };
        let read = String::from_utf8(bytes).map_err(Into::into).and_then(|text| Self::parse(&text));
        read.map(Some).map_err(|error| damaged(place, error))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let mut note: Self = serde_json::from_str(lines.next().unwrap_or_default())?;
        let (mut members, mut is_whole) = (vec![], false);
        for line in lines {
            if line == "end" {
                is_whole = true;
                break;
            }
            let (path, member) = member(line).with_context(|| format!("the line {line:?} is no member"))?;
            members.push((path.to_owned(), member));
        }
        if !is_whole {
            bail!("its end is missing");
        }
        // A map of a sorted list is made in one go.
        note.members = members.into_iter().collect();
        Ok(note)
    }
}

fn damaged(place: &AbsPath, error: anyhow::Error) -> anyhow::Error {
    let fault = Fault::new(format!("the note {place} about a directory is damaged")).caused_by(error);
    fault.hint(format!("move the directory away, then remove the note: rm {}", quoted(place.as_str()))).into()
}

fn member(line: &str) -> Option<(&str, NotedMember)> {
    let mut fields = line.split('\t');
    let kind = fields.next()?;
    let member = match kind {
        "d" => NotedMember::Directory(u32::from_str_radix(fields.next()?, 8).ok()?),
        "l" => NotedMember::Link(fields.next()?.to_owned()),
        "f" => NotedMember::File(NotedFile {
            mode: u32::from_str_radix(fields.next()?, 8).ok()?,
            size: fields.next()?.parse().ok()?,
            digest: fields.next()?.parse().ok()?,
            identity: [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?],
        }),
        _ => return None,
    };
    Some((fields.next()?, member))
}

fn place(path: &AbsPath, ending: &str) -> Result<AbsPath> {
    let digest = Sha256::of(path.as_str().as_bytes()).to_string();
    state::path(&format!("archive-{}.{ending}", &digest[..DIGEST_CHARS]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn a_note_is_read_as_it_was_written_and_only_whole() {
        let tree = Scratch::new();
        let (root, path) = (tree.root(), AbsPath::from("/opt/app"));
        let file = NotedFile { mode: 0o755, size: 7, digest: Sha256::of(b"x"), identity: [1, -2, 3] };
        let members = BTreeMap::from([
            ("bin".to_owned(), NotedMember::Directory(0o755)),
            ("bin/a b".to_owned(), NotedMember::File(file)),
            ("bin/link".to_owned(), NotedMember::Link("a b".to_owned())),
        ]);
        let note = TreeNote { archive: Sha256::of(b""), strip: 1, generation: 2, uid: 3, gid: 4, inode: 5, members };
        assert!(TreeNote::load(&root, &path).unwrap().is_none());
        note.save(&root, &path).unwrap();
        let read = TreeNote::load(&root, &path).unwrap().unwrap();
        assert_eq!((&read.members, read.digest(), read.inode), (&note.members, note.digest(), 5));
        let text = root.read_text(&place(&path, "note").unwrap()).unwrap();
        for end in text.match_indices('\n').map(|(at, _)| at).filter(|at| *at < text.len() - 1) {
            assert!(TreeNote::parse(&text[..end]).is_err(), "{:?}", &text[..end]);
        }
    }
}
