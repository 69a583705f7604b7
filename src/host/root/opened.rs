//! The directories that were opened since the last change. A run that changes nothing opens each of them once.

use std::cell::RefCell;

use anyhow::Result;
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode as Bits, unistd::geteuid};

use super::{
    FileStatus, FileType, Root,
    walk::{OpenDirectory, WalkPurpose},
    way::Way,
};
use crate::{
    host::calls::{fstat, openat},
    value::AbsPath,
};

/// Limits the open descriptors of known directories.
const MAX_DIRECTORIES: usize = 32;

/// The directories that a root has opened since the last change.
#[derive(Debug, Default)]
pub(super) struct OpenedDirectories(RefCell<Vec<Opened>>);

#[derive(Debug)]
struct Opened {
    purpose: WalkPurpose,
    path: AbsPath,
    place: OpenDirectory,
    /// Whether no link is in its path, and every directory of it is read with the rights of this process.
    is_plain: bool,
}

/// What is at a path, one component below a plain directory.
enum Below {
    Directory(OpenDirectory),
    Missing,
    /// Only a walk can say it: a link, a user's directory, or an error.
    Walk,
}

impl OpenedDirectories {
    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Returns a known directory. A walk to write forgets all others, because a change of a directory may follow.
    fn get(&self, path: &AbsPath, purpose: WalkPurpose) -> Option<OpenDirectory> {
        let mut known = self.0.borrow_mut();
        if purpose == WalkPurpose::Write {
            known.retain(|opened| opened.purpose == WalkPurpose::Write && opened.path == *path);
        }
        let found = known.iter().rev().find(|opened| opened.purpose == purpose && opened.path == *path);
        found.map(|opened| opened.place.clone())
    }

    fn get_plain(&self, path: &AbsPath) -> Option<OpenDirectory> {
        let known = self.0.borrow();
        known.iter().rev().find(|opened| opened.is_plain && opened.path == *path).map(|opened| opened.place.clone())
    }

    fn add(&self, opened: Opened) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_DIRECTORIES {
            _ = known.remove(0);
        }
        known.push(opened);
    }
}

impl Root {
    /// Forgets the opened directories. Every change calls this.
    pub fn forget(&self) {
        self.opened.clear();
    }

    pub(super) fn parent(&self, path: &AbsPath, purpose: WalkPurpose) -> Result<Option<OpenDirectory>> {
        self.directory(&path.parent().unwrap_or_else(|| AbsPath::from("/")), purpose)
    }

    /// Returns a directory; `None` if a component does not exist or is not a directory.
    pub(super) fn directory(&self, path: &AbsPath, purpose: WalkPurpose) -> Result<Option<OpenDirectory>> {
        if let Some(place) = self.opened.get(path, purpose) {
            return Ok(Some(place));
        }
        // Only a walk finds planned links.
        if purpose == WalkPurpose::Read && self.planned.is_empty() {
            match self.open_plain(path) {
                Below::Directory(place) => return Ok(Some(place)),
                Below::Missing => return Ok(None),
                Below::Walk => {}
            }
        }
        let found = self.walk(path, purpose)?;
        if let Some(place) = &found {
            self.opened.add(Opened { purpose, path: path.clone(), place: place.clone(), is_plain: false });
        }
        Ok(found)
    }

    /// Opens a directory to read, from the nearest known one above it. This is a walk's way of a component that is neither
    /// a link nor a user's.
    fn open_plain(&self, path: &AbsPath) -> Below {
        let Some(parent) = path.parent() else {
            return Below::Directory(OpenDirectory { fd: self.fd.clone(), way: Way::default(), user: None });
        };
        if let Some(known) = self.opened.get_plain(path) {
            return Below::Directory(known);
        }
        let parent = match self.open_plain(&parent) {
            Below::Directory(parent) => parent,
            other => return other,
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(&*parent.fd, path.leaf(), flags, Bits::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Below::Missing,
            Err(_) => return Below::Walk,
        };
        let Ok(status) = fstat(&fd).map(|stat| FileStatus::new(&stat)) else { return Below::Walk };
        if status.file_type != FileType::Directory || (status.ownership.uid != 0 && geteuid().is_root()) {
            return Below::Walk;
        }
        let place = OpenDirectory { fd: fd.into(), way: Way::default(), user: None };
        let (purpose, path) = (WalkPurpose::Read, path.clone());
        self.opened.add(Opened { purpose, path, place: place.clone(), is_plain: true });
        Below::Directory(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    fn exists(root: &Root, path: &'static str) -> bool {
        root.status(&path.into()).unwrap().is_some()
    }

    #[test]
    fn a_change_forgets_the_opened_directories() {
        let tree = Scratch::of(&[("/srv/app/old", ""), ("/next/new", "")]);
        let root = tree.root();
        assert!(exists(&root, "/srv/app/old"));
        tree.rename("/srv/app", "/previous");
        tree.rename("/next", "/srv/app");
        let ownership = root.status(&"/srv".into()).unwrap().unwrap().ownership;
        root.make_directory(&"/made".into(), ownership).unwrap();
        assert!(exists(&root, "/srv/app/new"));
        assert!(!exists(&root, "/srv/app/old"));
    }

    #[test]
    fn an_opened_directory_is_not_opened_again() {
        let tree = Scratch::of(&[("/srv/app/file", "")]);
        let root = tree.root();
        let opened = |path: &'static str| root.directory(&path.into(), WalkPurpose::Read).unwrap().unwrap().fd;
        let (above, below) = (opened("/srv"), opened("/srv/app"));
        assert!(exists(&root, "/srv/app/file"));
        assert!(std::sync::Arc::ptr_eq(&above, &opened("/srv")));
        assert!(std::sync::Arc::ptr_eq(&below, &opened("/srv/app")));
        root.forget();
        assert!(!std::sync::Arc::ptr_eq(&below, &opened("/srv/app")));
    }

    #[test]
    fn links_lead_on_below_opened_directories() {
        let tree = Scratch::of(&[("/etc/passwd", ""), ("/srv/app/file", ""), ("/file", "")]);
        tree.link("/etc", "/srv/absolute");
        tree.link("../../..", "/srv/up");
        let root = tree.root();
        assert!(exists(&root, "/srv/app/file"));
        assert!(exists(&root, "/srv/absolute/passwd"));
        assert!(exists(&root, "/srv/up/file"), "`..` stays below the root");
        assert!(!exists(&root, "/srv/missing/file"));
        assert!(!exists(&root, "/file/below"));
    }
}
