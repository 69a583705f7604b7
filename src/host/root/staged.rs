//! Files that get their name only when they are complete and durable.

mod own_name;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
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
    FileStatus, FileType, NOTE_SUFFIX, OpenDirectory, Ownership, PART_SUFFIX, Root, TEMPORARY_SUFFIX, WalkPurpose,
    check_name, explain_new, explain_write, hidden_name,
    identity::UserIdentity,
    label::{LabelFor, set_label},
    loop_until_free, set_ownership,
};
use crate::{
    error::Fault,
    host::{
        calls::{fstat, fstatat, fsync, openat, renameat, syncfs, unlinkat},
        file_lock,
    },
    value::AbsPath,
};

/// The flags for a new file.
const NEW_FILE: OFlag =
    OFlag::O_RDWR.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Limits how often another file with the temporary name is removed. Another user could make it again and again.
const MAX_NAME_ATTEMPTS: usize = 16;
/// Up to this number of files are flushed one by one. For more files, their whole file system is flushed.
const MAX_SINGLE_FLUSHES: usize = 8;

/// A device and the number of a file on it.
type FileId = (u64, u64);

/// A file that does not have its name yet.
#[derive(Debug)]
pub struct Staged {
    file: Arc<File>,
    /// Where the file is. Its descriptor keeps the number from being used again.
    identity: FileId,
    parent: OpenDirectory,
    name: String,
    path: AbsPath,
    ownership: Ownership,
    /// Its SELinux label, if the policy has one for its name.
    label: Option<String>,
    /// Whether it has its name, or keeps the temporary one.
    stays: bool,
    /// Whether its bytes are durable.
    is_flushed: bool,
    /// Whether there may be a [note](Staged::note).
    has_note: bool,
}

impl Root {
    /// Starts a file under a temporary name in the same directory, with its final owner and mode.
    ///
    /// The temporary file is removed if the [`Staged`] is dropped before it is published.
    pub fn stage(&self, path: &AbsPath, ownership: Ownership) -> Result<Staged> {
        self.stage_labelled(path, ownership, FileType::Regular)
    }

    /// Starts a file whose label does not depend on its path alone, as [`stage`](Self::stage) does.
    pub fn stage_labelled(&self, path: &AbsPath, ownership: Ownership, label: impl Into<LabelFor>) -> Result<Staged> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        // The name is not random. Only the holder of the machine's lock writes, and its next write of the path replaces
        // the file of a killed run.
        let name = hidden_name(path.leaf(), TEMPORARY_SUFFIX);
        let bits = Bits::from_bits_truncate(0o600);
        let made = parent.act(|fd| loop_until_free(fd, &name, || openat(fd, name.as_str(), NEW_FILE, bits)));
        let fd = made.map_err(|errno| explain_new(&parent.fd, errno, path))?;
        let identity = identity(&fd).with_context(|| format!("reading the status of {path}"))?;
        let file = Arc::new(File::from(fd));
        let label = self.label_for(&parent.fd, path.leaf(), label)?;
        let path = path.clone();
        let staged = Staged {
            file,
            identity,
            parent,
            name,
            path,
            ownership,
            label,
            stays: false,
            is_flushed: false,
            has_note: false,
        };
        staged.own()?;
        Ok(staged)
    }

    /// Starts a file under the name `.NAME.part` in the same directory, or resumes the file of a killed process.
    ///
    /// Other users cannot read it before it is published. Several files of one directory may be written at the same time.
    ///
    /// # Errors
    /// If another process is writing it.
    pub fn resume(&self, path: &AbsPath, ownership: Ownership) -> Result<Staged> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let name = hidden_name(path.leaf(), PART_SUFFIX);
        for _ in 0..MAX_NAME_ATTEMPTS {
            let opened = parent.act(|fd| open_own(fd, &name)).map_err(|errno| explain_new(&parent.fd, errno, path))?;
            let Some((file, is_new)) = opened else { continue };
            if !file_lock::try_lock(&file).with_context(|| format!("locking {path}"))? {
                return Err(Fault::new(format!("another process is writing {path}"))
                    .hint("wait until the other process has ended")
                    .into());
            }
            let identity = identity(&file).with_context(|| format!("reading the status of {path}"))?;
            // The earlier holder of the lock may have published or removed the file since it was opened.
            if is_new || is_named(&parent.fd, &name, identity).is_ok_and(|is_named| is_named) {
                let file = Arc::new(file);
                let label = self.label_for(&parent.fd, path.leaf(), FileType::Regular)?;
                let path = path.clone();
                return Ok(Staged {
                    file,
                    identity,
                    parent,
                    name,
                    path,
                    ownership,
                    label,
                    stays: false,
                    is_flushed: false,
                    has_note: !is_new,
                });
            }
        }
        Err(explain_write(Errno::EEXIST, path))
    }
}

impl Root {
    /// Makes a file without a name in a directory, or in memory if the file system does not support that.
    pub fn unnamed(&self, directory: &AbsPath) -> Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let made = match self.directory(directory, WalkPurpose::Read)? {
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
    /// Returns the temporary path, for a validator.
    pub fn temporary(&self) -> Result<AbsPath> {
        self.path.parent().unwrap_or_else(|| AbsPath::from("/")).join(&self.name)
    }

    /// Returns the user whose directory it is in; `None` for a directory of root's.
    pub fn user(&self) -> Option<&UserIdentity> {
        self.parent.user.as_deref()
    }

    /// Returns the open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes bytes; an error names the path.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.explain(&error))
    }

    /// Copies a whole reader. Returns the number of bytes.
    pub fn copy_from(&mut self, reader: &mut impl Read) -> Result<u64> {
        io::copy(reader, &mut self.file).map_err(|error| self.explain(&error))
    }

    /// Takes the content of another unpublished file by renaming it.
    ///
    /// Returns the other file if it is on another file system or below a directory of another user. To give that away,
    /// root would have to act below that user's directory.
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
        std::mem::swap(&mut self.identity, &mut other.identity);
        self.own()?;
        Ok(None)
    }

    /// Opens the note beside a [resumed](Root::resume) file. It is kept and removed together with the file.
    pub fn note(&mut self) -> Result<File> {
        self.has_note = true;
        for _ in 0..MAX_NAME_ATTEMPTS {
            let note = self.parent.act(|fd| open_own(fd, &self.note_name()));
            if let Some((file, _)) = note.map_err(|errno| explain_write(errno, &self.path))? {
                return Ok(file);
            }
        }
        Err(explain_write(Errno::EEXIST, &self.path))
    }

    fn note_name(&self) -> String {
        hidden_name(self.path.leaf(), NOTE_SUFFIX)
    }

    /// Returns whether an earlier process may have left a note.
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

    /// Keeps the file under its temporary name, so that another process can resume it.
    pub fn keep(&mut self) {
        self.stays = true;
    }

    fn own(&self) -> Result<()> {
        let owned = self.parent.act(|_| set_ownership(&self.file, self.ownership));
        owned.with_context(|| format!("setting owner and mode of {}", self.path))?;
        set_label(&self.file, self.label.as_deref()).with_context(|| self.path.to_string())
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        explain_write(errno, &self.path)
    }

    /// Makes the bytes durable and gives the file its name.
    pub fn publish(self) -> Result<()> {
        self.own()?;
        // Never retry on this descriptor: after a failed fsync the kernel treats the pages as clean.
        fsync(&self.file).with_context(|| format!("flushing {}", self.path))?;
        let (parent, path) = (self.parent.clone(), self.path.clone());
        self.rename()?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Publishes many files with few flushes. The results are in the order of the files.
    pub fn publish_all(mut files: Vec<Self>) -> Vec<Result<()>> {
        let mut results = Self::flush_all(&mut files);
        let parents: Vec<_> = files.iter().map(|file| file.parent.clone()).collect();
        for (file, result) in files.into_iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
            *result = file.rename();
        }
        flush_each_once(&parents, &mut results, |parent| identity(&parent.fd), OpenDirectory::flush);
        results
    }

    /// Makes the bytes of many files durable with few flushes. The results are in the order of the files.
    pub fn flush_all(files: &mut [Self]) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = files.iter().map(Self::own).collect();
        if files.len() <= MAX_SINGLE_FLUSHES {
            for (file, result) in files.iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
                *result = fsync(&file.file).with_context(|| format!("flushing {}", file.path));
            }
        } else {
            // Since Linux 5.8, syncfs reports failed writes, as fsync does.
            flush_each_once(files, &mut results, |file| Ok((file.identity.0, 0)), |file| syncfs(&file.file));
        }
        for (file, result) in files.iter_mut().zip(&results) {
            file.is_flushed = result.is_ok();
        }
        results
    }

    /// Gives a file whose bytes are durable its name. The name becomes durable with [`UnflushedNames::flush`].
    ///
    /// # Errors
    /// Also if the bytes are not durable.
    pub fn publish_into(self, names: &mut UnflushedNames) -> Result<()> {
        ensure!(self.is_flushed, "the bytes of {} are not durable", self.path);
        let (parent, path) = (self.parent.clone(), self.path.clone());
        self.rename()?;
        names.add(parent, path)
    }

    /// Returns whether it would be made in the same directory, with this owner and mode, if it were made now.
    pub fn is_current(&self, root: &Root, ownership: Ownership) -> Result<bool> {
        let parent = root.place_to_write(&self.path, Some(ownership.uid))?;
        let is_same = identity(&parent.fd) == identity(&self.parent.fd);
        Ok(is_same && parent.user.is_none() && ownership == self.ownership)
    }

    /// Gives the file its name. Neither the content nor the name becomes durable.
    ///
    /// # Errors
    /// Also if another file has its temporary name now: only the open file was verified.
    pub fn rename(mut self) -> Result<()> {
        if let Err(replaced) = self.expect_name(&self.name) {
            // Do not remove the other process's file.
            self.stays = replaced.is::<Fault>();
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
        let is_named = is_named(&self.parent.fd, name, self.identity);
        if is_named.with_context(|| format!("reading the status of {name} for {}", self.path))? {
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

/// The directories with names that are not durable yet, each with the path of such a file.
#[derive(Debug, Default)]
pub struct UnflushedNames(BTreeMap<FileId, (OpenDirectory, AbsPath)>);

impl UnflushedNames {
    fn add(&mut self, directory: OpenDirectory, path: AbsPath) -> Result<()> {
        let identity = identity(&directory.fd).with_context(|| format!("reading the directory of {path}"))?;
        _ = self.0.entry(identity).or_insert((directory, path));
        Ok(())
    }

    /// Makes the names durable. Flushes each directory, also after an error, and keeps those that fail for the next call.
    ///
    /// # Errors
    /// The first error.
    pub fn flush(&mut self) -> Result<()> {
        let mut result = Ok(());
        self.0.retain(|_, (directory, path)| {
            let flushed = directory.flush().with_context(|| format!("flushing the directory of {path}"));
            let is_unflushed = flushed.is_err();
            if result.is_ok() {
                result = flushed;
            }
            is_unflushed
        });
        result
    }
}

/// Flushes each directory or file system of several items once, for all items without an error.
fn flush_each_once<T>(
    items: &[T],
    results: &mut [Result<()>],
    shared: impl Fn(&T) -> nix::Result<FileId>,
    flush: impl Fn(&T) -> nix::Result<()>,
) {
    let mut flushed = BTreeMap::new();
    for (item, result) in items.iter().zip(results).filter(|(_, result)| result.is_ok()) {
        let outcome = shared(item).and_then(|shared| *flushed.entry(shared).or_insert_with(|| flush(item)));
        *result = outcome.context("flushing to the disk");
    }
}

/// Opens or makes this process's regular file with a single name. Returns it and whether it is new.
///
/// Another file with that name is removed. Then this returns `None`, and the caller tries again.
fn open_own(parent: &OwnedFd, name: &str) -> nix::Result<Option<(File, bool)>> {
    match openat(parent, name, NEW_FILE, Bits::from_bits_truncate(0o600)) {
        Ok(fd) => return Ok(Some((File::from(fd), true))),
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if let Ok(fd) = openat(parent, name, flags, Bits::empty()) {
        let FileStatus { file_type, ownership, links, .. } = FileStatus::new(&fstat(&fd)?);
        // No other user may read or write it.
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

fn identity(file: &impl AsFd) -> nix::Result<FileId> {
    fstat(file).map(|status| (status.st_dev, status.st_ino))
}

/// Returns whether a name is that of this file.
fn is_named(parent: &OwnedFd, name: &str, identity: FileId) -> nix::Result<bool> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(false),
        named => named.map(|status| (status.st_dev, status.st_ino) == identity),
    }
}
