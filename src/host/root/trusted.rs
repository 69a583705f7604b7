//! Files that decide what this program does: opened first, then checked by descriptor, with every directory and link on
//! the way to them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{fcntl::OFlag, sys::stat::Mode as Bits};

use super::{
    FileType, Root, Status, obeyed,
    walk::{End, Purpose, Reached, Walk},
};
use crate::{
    host::calls::{fstat, list, openat},
    value::AbsPath,
};

/// A file or directory of this machine that decides what this program does.
#[derive(Debug)]
pub struct Trusted {
    path: AbsPath,
    file: File,
    status: Status,
}

impl Trusted {
    /// Opens a path that the operator named, or returns `None` where nothing is. Links are followed.
    ///
    /// # Errors
    /// If another user than root, the caller and, where the caller is root, the user that called sudo could replace or
    /// write it: itself, a directory above it or a link on the way to it.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        Self::open_for(path, Purpose::Obey)
    }

    /// The same without these checks, for what is done with the caller's own rights only.
    pub fn open_unchecked(path: &Path) -> Result<Option<Self>> {
        Self::open_for(path, Purpose::Read)
    }

    fn open_for(path: &Path, purpose: Purpose) -> Result<Option<Self>> {
        let root = Root::open(Path::new("/"))?;
        let path = if path.is_absolute() { path.to_owned() } else { current_directory()?.join(path) };
        let Reached { place, mut path, end } = Walk::new(root.fd.clone(), &path, purpose).run(&root)?;
        let name = match end {
            End::Directory => ".".into(),
            End::File(name) => {
                path.push(&name);
                name
            }
            End::Missing(_) => return Ok(None),
        };
        // A FIFO in its place must not be waited for.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = place.act(|directory| openat(directory, name.as_os_str(), flags, Bits::empty()));
        let fd = fd.with_context(|| format!("opening {}", path.display()))?;
        let status = Status::new(&fstat(&fd).with_context(|| format!("reading the status of {}", path.display()))?);
        // What was opened may be another file than the one that the walk saw.
        if purpose == Purpose::Obey {
            obeyed::check(&fd, &status, &path, &root.loader())?;
        }
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(Some(Self { path: text.parse()?, file: File::from(fd), status }))
    }

    /// Its path, without any link in it.
    pub fn path(&self) -> &AbsPath {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.status.file_type == FileType::Directory
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// If it is none, or has more than `limit` bytes.
    pub fn read(mut self, limit: u64) -> Result<Vec<u8>> {
        let path = &self.path;
        ensure!(self.status.file_type == FileType::Regular, "{path} is not a regular file");
        let mut bytes = vec![];
        let read = (&mut self.file).take(limit + 1).read_to_end(&mut bytes);
        let read = read.with_context(|| format!("reading {path}"))?;
        ensure!(read as u64 <= limit, "{path} has more than {limit} bytes");
        Ok(bytes)
    }

    /// The names in a directory, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        list(&self.file).with_context(|| format!("listing {}", self.path))
    }
}

fn current_directory() -> Result<PathBuf> {
    std::env::current_dir().context("asking for the current directory")
}
