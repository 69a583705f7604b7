//! Files on their way to their path: whole and durable there, or not at all.

mod own_name;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode as Bits,
    },
    unistd::{UnlinkatFlags, geteuid},
};

use super::{
    FileType, NOTE, Ownership, PART, Place, Purpose, Root, Status, TEMPORARY, check_name, explain_new, explain_write,
    hidden_name, identity::Identity, loop_until_free, set_ownership,
};
use crate::{
    error::Fault,
    host::{
        calls::{fstat, fstatat, fsync, openat, renameat, syncfs, unlinkat},
        file_lock,
    },
    value::AbsPath,
};

/// How a file is made.
const NEW: OFlag =
    OFlag::O_RDWR.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How often something that stands in a temporary file's place is removed. Somebody who keeps putting it there, in a
/// directory they may write to, gets an error, not a loop.
const PATIENCE: usize = 16;
/// So many files are flushed one by one; more of them with all else that waits on their file system.
const FEW: usize = 8;

/// A file on its way to its path.
#[derive(Debug)]
pub struct Staged {
    file: Arc<File>,
    parent: Place,
    name: String,
    path: AbsPath,
    ownership: Ownership,
    /// Whether it has its name, or is to keep the temporary one.
    stays: bool,
    /// Whether there may be a [note](Staged::note).
    has_note: bool,
}

impl Root {
    /// Starts a file: its bytes go to a temporary name in the same directory, which holds the right
    /// owner and mode from the start and is removed when the [`Staged`] is dropped unpublished.
    pub fn stage(&self, path: &AbsPath, ownership: Ownership) -> Result<Staged> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        // One name, not a random one: only the holder of the machine's lock writes, and what a killed
        // run left behind is replaced by the next.
        let name = hidden_name(path.leaf(), TEMPORARY);
        let bits = Bits::from_bits_truncate(0o600);
        let made = parent.act(|fd| loop_until_free(fd, &name, || openat(fd, name.as_str(), NEW, bits)));
        let fd = made.map_err(|errno| explain_new(&parent.fd, errno, path))?;
        let file = Arc::new(File::from(fd));
        let staged = Staged { file, parent, name, path: path.clone(), ownership, stays: false, has_note: false };
        staged.own()?;
        Ok(staged)
    }

    /// Starts a file that takes long, or goes on with what a killed process left of it: its bytes go to `.NAME.part` in
    /// the same directory, which nobody else may read before it is published. Several files of one directory may be on
    /// their way at once.
    ///
    /// # Errors
    /// If another process is at it.
    pub fn resume(&self, path: &AbsPath, ownership: Ownership) -> Result<Staged> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let name = hidden_name(path.leaf(), PART);
        for _ in 0..PATIENCE {
            let opened = parent.act(|fd| open_own(fd, &name)).map_err(|errno| explain_new(&parent.fd, errno, path))?;
            let Some((file, is_new)) = opened else { continue };
            if !file_lock::try_lock(&file).with_context(|| format!("locking {path}"))? {
                return Err(Fault::new(format!("another process is writing {path}")).hint("wait until it has").into());
            }
            // Whoever had the lock may have published or removed the file since it was opened.
            if is_new || is_named(&parent.fd, &name, &file) {
                let file = Arc::new(file);
                let path = path.clone();
                return Ok(Staged { file, parent, name, path, ownership, stays: false, has_note: !is_new });
            }
        }
        Err(explain_write(Errno::EEXIST, path))
    }
}

impl Root {
    /// A file in this directory that has no name, or, where its file system has none such, in memory.
    pub fn unnamed(&self, directory: &AbsPath) -> Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let made = match self.directory(directory, Purpose::Read)? {
            Some(place) => openat(&*place.fd, ".", flags, Bits::from_bits_truncate(0o600)),
            None => Err(Errno::ENOENT),
        };
        let made = match made {
            Err(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EROFS) => {
                memfd_create("download", MFdFlags::MFD_CLOEXEC)
            }
            made => made,
        };
        Ok(File::from(made.with_context(|| format!("making a file without a name in {directory}"))?))
    }
}

impl Staged {
    /// The temporary path, for a validator to read before publication.
    pub fn temporary(&self) -> Result<AbsPath> {
        self.path.parent().unwrap_or_else(|| AbsPath::from("/")).join(&self.name)
    }

    /// The user below whose directory it is, where that is one.
    pub fn user(&self) -> Option<&Identity> {
        self.parent.user.as_deref()
    }

    /// The open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes bytes; an error names the path.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.explain(&error))
    }

    /// Copies a whole reader; returns the number of bytes.
    pub fn copy_from(&mut self, reader: &mut impl Read) -> Result<u64> {
        io::copy(reader, &mut self.file).map_err(|error| self.explain(&error))
    }

    /// Takes the place of another file that was never published, without a copy. Gives it back if it is on another file
    /// system, or of another user: to give it away, root would have to act below that user's directory.
    pub fn take(&mut self, mut other: Self) -> Result<Option<Self>> {
        if self.user().is_some() {
            return Ok(Some(other));
        }
        other.expect_name(&other.name)?;
        match renameat(&*other.parent.fd, other.name.as_str(), &*self.parent.fd, self.name.as_str()) {
            Ok(()) => {}
            Err(Errno::EXDEV) => return Ok(Some(other)),
            Err(errno) => return Err(explain_write(errno, &self.path)),
        }
        other.stays = true;
        other.drop_note();
        std::mem::swap(&mut self.file, &mut other.file);
        self.own()?;
        Ok(None)
    }

    /// The open note beside a [resumed](Root::resume) file, which stays and goes with it.
    pub fn note(&mut self) -> Result<File> {
        self.has_note = true;
        for _ in 0..PATIENCE {
            let note = self.parent.act(|fd| open_own(fd, &self.note_name()));
            if let Some((file, _)) = note.map_err(|errno| explain_write(errno, &self.path))? {
                return Ok(file);
            }
        }
        Err(explain_write(Errno::EEXIST, &self.path))
    }

    fn note_name(&self) -> String {
        hidden_name(self.path.leaf(), NOTE)
    }

    /// Whether an earlier process may have left a note.
    pub fn has_note(&self) -> bool {
        self.has_note
    }

    /// Removes the note.
    pub fn drop_note(&mut self) {
        if std::mem::take(&mut self.has_note) {
            let name = self.note_name();
            _ = self.parent.act(|fd| unlinkat(fd, name.as_str(), UnlinkatFlags::NoRemoveDir));
        }
    }

    /// Stays under its temporary name, for another process to resume.
    pub fn keep(&mut self) {
        self.stays = true;
    }

    fn own(&self) -> Result<()> {
        let owned = self.parent.act(|_| set_ownership(&self.file, self.ownership));
        owned.with_context(|| format!("setting owner and mode of {}", self.path))
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        explain_write(errno, &self.path)
    }

    /// Makes the bytes durable and gives the file its name.
    pub fn publish(self) -> Result<()> {
        self.own()?;
        // After a failed fsync the kernel calls the pages clean: never retried on this descriptor.
        fsync(&self.file).with_context(|| format!("flushing {}", self.path))?;
        let (parent, path) = (self.parent.clone(), self.path.clone());
        self.rename()?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Publishes many files: durable all together, at little more cost than one. The results are in their order.
    pub fn publish_all(files: Vec<Self>) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = files.iter().map(Self::own).collect();
        if files.len() <= FEW {
            for (file, result) in files.iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
                *result = fsync(&file.file).with_context(|| format!("flushing {}", file.path));
            }
        } else {
            // Since Linux 5.8 this tells of failed writes as fsync does.
            flush_each_once(
                &files,
                &mut results,
                |file| fstat(&file.file).map(|stat| (stat.st_dev, 0)),
                |file| syncfs(&file.file),
            );
        }
        let parents: Vec<_> = files.iter().map(|file| file.parent.clone()).collect();
        for (file, result) in files.into_iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
            *result = file.rename();
        }
        flush_each_once(
            &parents,
            &mut results,
            |parent| fstat(&*parent.fd).map(|stat| (stat.st_dev, stat.st_ino)),
            Place::flush,
        );
        results
    }

    /// Gives the file its name. Nothing is durable by that: neither its bytes nor the name.
    ///
    /// # Errors
    /// Also if another file has been put in its place: what was verified is the open file, not its name.
    pub fn rename(mut self) -> Result<()> {
        if let Err(replaced) = self.expect_name(&self.name) {
            // What stands there is not ours to remove.
            self.stays = true;
            return Err(replaced);
        }
        let renamed = self.parent.act(|fd| renameat(fd, self.name.as_str(), fd, self.path.leaf()));
        renamed.map_err(|errno| explain_write(errno, &self.path))?;
        self.stays = true;
        self.drop_note();
        self.expect_name(self.path.leaf())
    }

    /// Fails unless the open file has this name.
    fn expect_name(&self, name: &str) -> Result<()> {
        if is_named(&self.parent.fd, name, &self.file) {
            return Ok(());
        }
        let message = format!("another process has replaced {name} while {} was written", self.path);
        Err(Fault::new(message).hint("run again while nothing else writes to that directory").into())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.stays {
            self.drop_note();
            _ = self.parent.act(|fd| unlinkat(fd, self.name.as_str(), UnlinkatFlags::NoRemoveDir));
        }
    }
}

/// Flushes, for all items whose result is good so far, what several of them may share: once each.
fn flush_each_once<T>(
    items: &[T],
    results: &mut [Result<()>],
    shared: impl Fn(&T) -> nix::Result<(u64, u64)>,
    flush: impl Fn(&T) -> nix::Result<()>,
) {
    let mut flushed = BTreeMap::new();
    for (item, result) in items.iter().zip(results).filter(|(_, result)| result.is_ok()) {
        let outcome = shared(item).and_then(|shared| *flushed.entry(shared).or_insert_with(|| flush(item)));
        *result = outcome.context("flushing to the disk");
    }
}

/// Opens a regular file of our own that has one name, or makes it, and whether it is new. Something else of that name
/// is removed: `None`, to be tried again.
fn open_own(parent: &OwnedFd, name: &str) -> nix::Result<Option<(File, bool)>> {
    match openat(parent, name, NEW, Bits::from_bits_truncate(0o600)) {
        Ok(fd) => return Ok(Some((File::from(fd), true))),
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if let Ok(fd) = openat(parent, name, flags, Bits::empty()) {
        let Status { file_type, ownership, links, .. } = Status::new(&fstat(&fd)?);
        // Nobody else may read or write it.
        let is_ours = ownership.uid == geteuid().as_raw() && ownership.mode.trailing_zeros() >= 6;
        if file_type == FileType::Regular && links == 1 && is_ours {
            return Ok(Some((File::from(fd), false)));
        }
    }
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_named(parent: &OwnedFd, name: &str, file: &impl AsFd) -> bool {
    let (Ok(named), Ok(open)) = (fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW), fstat(file)) else {
        return false;
    };
    (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
}
