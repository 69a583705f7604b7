//! Files that control this program. They are opened, then checked by descriptor, with every directory and link on the way.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{fcntl::OFlag, sys::stat::Mode as Bits};

use super::{
    FileStatus, FileType, Root, obeyed,
    walk::{Reached, Walk, WalkEnd, WalkPurpose},
};
use crate::{
    host::calls::{fstat, list, openat},
    value::AbsPath,
};

/// A file or directory of this machine that controls this program.
#[derive(Debug)]
pub struct Trusted {
    path: AbsPath,
    file: File,
    status: FileStatus,
}

impl Trusted {
    /// Opens a path that the operator named; `None` if it does not exist. Links are followed.
    ///
    /// # Errors
    /// If another user could replace or write the file, a directory above it or a link on the way. Trusted are root, the
    /// caller and, for root, the user that called sudo.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        Self::open_for(path, WalkPurpose::Obey(obeyed::sudo_uid()))
    }

    /// Opens a path as a unit of systemd will. No user has called sudo there, so none of them is trusted.
    ///
    /// # Errors
    /// As [`Trusted::open`].
    pub fn open_for_unit(path: &Path) -> Result<Option<Self>> {
        Self::open_for(path, WalkPurpose::Obey(None))
    }

    /// Opens a path without these checks, for work that needs only the caller's own rights.
    pub fn open_unchecked(path: &Path) -> Result<Option<Self>> {
        Self::open_for(path, WalkPurpose::Read)
    }

    fn open_for(path: &Path, purpose: WalkPurpose) -> Result<Option<Self>> {
        let root = Root::open(Path::new("/"))?;
        let path = if path.is_absolute() { path.to_owned() } else { current_directory()?.join(path) };
        let Reached { place, mut path, end } = Walk::new(&root, &path, purpose).run(&root)?;
        let name = match end {
            WalkEnd::Directory => ".".into(),
            WalkEnd::File(name) => {
                path.push(&name);
                name
            }
            WalkEnd::Missing(_) => return Ok(None),
        };
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = place.act(|directory| openat(directory, name.as_os_str(), flags, Bits::empty()));
        let fd = fd.with_context(|| format!("opening {}", path.display()))?;
        let status = FileStatus::new(&fstat(&fd).with_context(|| format!("reading the status of {}", path.display()))?);
        // The opened file may be another one than the walk found.
        if let WalkPurpose::Obey(also) = purpose {
            obeyed::check(&fd, &status, &path, &root.loader(), also)?;
        }
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(Some(Self { path: text.parse()?, file: File::from(fd), status }))
    }

    /// Returns its path without links.
    pub fn path(&self) -> &AbsPath {
        &self.path
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.status.file_type == FileType::Directory
    }

    /// Reads a regular file.
    ///
    /// # Errors
    /// If it is not a regular file, or has more than `limit` bytes.
    pub fn read(mut self, limit: u64) -> Result<Vec<u8>> {
        let path = &self.path;
        ensure!(self.status.file_type == FileType::Regular, "{path} is not a regular file");
        let mut bytes = vec![];
        let read = (&mut self.file).take(limit + 1).read_to_end(&mut bytes);
        let read = read.with_context(|| format!("reading {path}"))?;
        ensure!(read as u64 <= limit, "{path} has more than {limit} bytes");
        Ok(bytes)
    }

    /// Lists the names in a directory, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        list(&self.file).with_context(|| format!("listing {}", self.path))
    }
}

fn current_directory() -> Result<PathBuf> {
    std::env::current_dir().context("asking for the current directory")
}
