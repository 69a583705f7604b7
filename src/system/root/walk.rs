//! Walking to a path, component by component, each checked through its descriptor.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode as Bits, unistd::geteuid};

use super::{FileType, Ownership, Root, Status, trusted};
use crate::{
    error::Fault,
    system::calls::{fstat, openat, readlinkat},
};

/// How many symbolic links one path may lead through, as in the kernel (`ELOOP` beyond).
pub(super) const MAX_LINKS: usize = 40;

/// What a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To read.
    Read,
    /// To write: every directory must be a trusted one.
    Write,
    /// To remove: no link is followed below the first directory of another user.
    Remove,
    /// To read what decides about this program's work: nobody else may be able to replace or write any of it.
    Obey,
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    purpose: Purpose,
    /// The path that is walked, for messages.
    path: &'a Path,
    pending: VecDeque<OsString>,
    /// The directories from the root on, and their names.
    stack: Vec<Arc<OwnedFd>>,
    names: Vec<OsString>,
    links: usize,
}

/// Where a walk has ended.
#[derive(Debug)]
pub(super) struct End {
    /// The directory, or that of the file.
    pub(super) directory: Arc<OwnedFd>,
    /// The file's name.
    pub(super) file: Option<OsString>,
    /// The path without any link in it.
    pub(super) path: PathBuf,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: Arc<OwnedFd>, path: &'a Path, purpose: Purpose) -> Self {
        let pending = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let pending = pending.map(|component| OsStr::from_bytes(component).to_owned()).collect();
        Self { purpose, path, pending, stack: vec![root], names: vec![], links: 0 }
    }

    /// Walks to a directory. `None` where a component is missing or no directory.
    pub(super) fn directory(self, root: &Root) -> Result<Option<Arc<OwnedFd>>> {
        Ok(self.end(root)?.filter(|end| end.file.is_none()).map(|end| end.directory))
    }

    /// Walks to a directory or to what else stands there. `None` where a component is missing.
    pub(super) fn end(mut self, root: &Root) -> Result<Option<End>> {
        let mut trusted = true;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = self.path.display();
        while let Some(component) = self.pending.pop_front() {
            let Some(here) = self.stack.last().cloned() else { bail!("{path}: a walk without a root") };
            match component.as_bytes() {
                b"" | b"." => continue,
                // At the root it stays there, as in the kernel.
                b".." => {
                    if self.stack.len() > 1 {
                        _ = (self.stack.pop(), self.names.pop());
                    }
                    continue;
                }
                _ => {}
            }
            let fd = match openat(&*here, component.as_os_str(), flags, Bits::empty()) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(errno) => return Err(errno).with_context(|| format!("opening the directory {path}")),
            };
            let status = Status::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
            match self.purpose {
                Purpose::Read => {}
                Purpose::Write => trust(&status, &component, self.path)?,
                Purpose::Remove => trusted &= trust(&status, &component, self.path).is_ok(),
                Purpose::Obey => trusted::check(root, &status, &self.real(&component))?,
            }
            match status.file_type {
                FileType::Directory => {
                    self.stack.push(Arc::new(fd));
                    self.names.push(component);
                }
                FileType::Link if !trusted => return Ok(None),
                FileType::Link => self.follow(&fd)?,
                _ if self.pending.iter().all(|component| component.is_empty()) => {
                    let path = self.real(&component);
                    return Ok(Some(End { directory: here, file: Some(component), path }));
                }
                _ => return Ok(None),
            }
        }
        let path = self.real(OsStr::new(""));
        Ok(self.stack.pop().map(|directory| End { directory, file: None, path }))
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            bail!("{}: too many levels of symbolic links", self.path.display());
        }
        let target = readlinkat(link, "").with_context(|| format!("reading a link in {}", self.path.display()))?;
        if target.as_bytes().starts_with(b"/") {
            self.stack.truncate(1);
            self.names.clear();
        }
        for component in target.as_bytes().split(|byte| *byte == b'/').rev() {
            self.pending.push_front(OsStr::from_bytes(component).to_owned());
        }
        Ok(())
    }

    /// The path of something in the directory that the walk has reached.
    fn real(&self, name: &OsStr) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(&self.names);
        if !name.is_empty() {
            path.push(name);
        }
        path
    }
}

/// A directory or link that somebody else owns, or that anybody may write to, can be another one in a
/// moment: what is written below it as root could land anywhere.
fn trust(status: &Status, component: &OsStr, path: &Path) -> Result<()> {
    let Ownership { uid, mode, .. } = status.ownership;
    let trusted = uid == 0 || uid == geteuid().as_raw();
    let sticky_or_closed = mode & 0o002 == 0 || mode & 0o1000 != 0 || status.file_type == FileType::Link;
    if trusted && sticky_or_closed {
        return Ok(());
    }
    let why =
        if trusted { "anybody may write to it".to_owned() } else { format!("it belongs to uid {uid}, not to root") };
    let path = path.display();
    Err(Fault::new(format!("refusing to write below {path}: `{}` can be replaced, {why}", component.display()))
        .hint("give the directory to root, or declare the file elsewhere")
        .into())
}
