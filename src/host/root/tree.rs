//! Trees of files: directories that are filled under a hidden name and take their place as a whole.
//!
//! Two hidden names are beside the place of a tree. A tree is filled under the first one, where a killed run may leave any
//! part of it. A complete tree has the second one until it is exchanged with the tree in the place, which then has it.

use std::{
    cell::RefCell,
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{stat::Mode as Bits, time::TimeSpec},
    unistd::{Gid, Uid, UnlinkatFlags},
};
use rustix::fs::RenameFlags;
use sha2::Digest;

use super::{
    FileStatus, FileType, OpenDirectory, Ownership, Root, TEMPORARY_SUFFIX, WalkPurpose, explain_new, explain_write,
    hidden_name, label::LabelsBelow, set_ownership,
};
use crate::{
    error::Fault,
    host::calls::{
        fchmod, fchown, fchownat, fstat, fstatat, futimens, linkat, list, mkdirat, openat, renameat_with, symlinkat,
        syncfs, unlinkat,
    },
    value::{AbsPath, Sha256, quoted},
};

/// The buffer for the bytes of a file.
const BUFFER_BYTES: usize = 128 << 10;
/// The flags for a directory of a tree. No link is followed.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A hidden place beside that of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Of a tree that is being filled.
    Filled,
    /// Of a complete tree: the next one before the exchange, the previous one after it.
    Complete,
}

impl Beside {
    fn name(self, path: &AbsPath) -> String {
        let ending = match self {
            Self::Filled => ".new",
            Self::Complete => ".tree",
        };
        hidden_name(path.leaf(), &format!("{ending}{TEMPORARY_SUFFIX}"))
    }

    /// Returns the hidden place.
    pub fn of(self, path: &AbsPath) -> Result<AbsPath> {
        path.parent().unwrap_or_else(|| AbsPath::from("/")).join(&self.name(path))
    }
}

/// A tree that is being filled. No other user can enter it. All paths are relative, below directories that were made before.
pub struct NewTree<'a> {
    top: OwnedFd,
    /// The path whose place it takes.
    path: AbsPath,
    /// The owner and group of all its files, unless they are those of this process.
    owner: Option<(Uid, Gid)>,
    buffer: RefCell<Vec<u8>>,
    /// The SELinux labels of what is below the place that the tree takes; `None` without SELinux.
    labels: Option<LabelsBelow<'a>>,
}

impl NewTree<'_> {
    /// Makes a directory. One that exists gets the mode.
    pub fn make_directory(&self, path: &str, mode: u32) -> Result<()> {
        let make = || {
            match mkdirat(&self.top, path, Bits::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            let directory = openat(&self.top, path, DIRECTORY, Bits::empty())?;
            if let Some((uid, gid)) = self.owner {
                fchown(&directory, Some(uid), Some(gid))?;
            }
            fchmod(&directory, Bits::from_bits_truncate(mode)).map(|()| directory)
        };
        let directory = make().map_err(|errno| self.explain(errno, path))?;
        self.labels.as_ref().map_or(Ok(()), |labels| labels.set(directory, path, FileType::Directory))
    }

    /// Makes a file of these bytes. Returns the length and the digest.
    ///
    /// # Errors
    /// Also if the bytes cannot be read.
    pub fn make_file(&self, path: &str, mode: u32, modified: i64, bytes: &mut dyn Read) -> Result<(u64, Sha256)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.top, path, flags, Bits::from_bits_truncate(0o600));
        let mut file = File::from(opened.map_err(|errno| self.explain(errno, path))?);
        let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
        let mut buffer = self.buffer.borrow_mut();
        loop {
            let read = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading the archive"),
            };
            hasher.update(&buffer[..read]);
            let written = file.write_all(&buffer[..read]);
            let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            written.map_err(|error| self.explain(errno(error), path))?;
            size += read as u64;
        }
        let finish = || {
            if let Some((uid, gid)) = self.owner {
                fchown(&file, Some(uid), Some(gid))?;
            }
            fchmod(&file, Bits::from_bits_truncate(mode))?;
            futimens(&file, &TimeSpec::new(modified, 0))
        };
        finish().map_err(|errno| self.explain(errno, path))?;
        self.labels.as_ref().map_or(Ok(()), |labels| labels.set(&file, path, FileType::Regular))?;
        Ok((size, Sha256(hasher.finalize().into())))
    }

    /// Makes a symbolic link.
    pub fn make_link(&self, path: &str, target: &str) -> Result<()> {
        let make = || {
            symlinkat(target, &self.top, path)?;
            self.owner.map_or(Ok(()), |(uid, gid)| fchownat(&self.top, path, uid, gid))
        };
        make().map_err(|errno| self.explain(errno, path))
    }

    /// Makes another name of a file.
    pub fn make_name(&self, path: &str, original: &str) -> Result<()> {
        linkat(&self.top, original, &self.top, path).map_err(|errno| self.explain(errno, path))
    }

    /// Returns its number on its file system.
    pub fn inode(&self) -> Result<u64> {
        Ok(fstat(&self.top).context("reading the status of the new directory")?.st_ino)
    }

    /// Visits all of it; see [`visit`].
    pub fn visit(&self, meet: Meet<'_>) -> Result<()> {
        visit(&self.top, "", None, meet)
    }

    fn explain(&self, errno: Errno, path: &str) -> anyhow::Error {
        explain_new(&self.top, errno, &self.path).context(format!("in the new directory: {path}"))
    }
}

/// An entry of a directory of a tree.
#[derive(Debug)]
pub struct TreeEntry<'a> {
    directory: &'a OwnedFd,
    name: &'a str,
    /// Its path below the top of the tree. Bytes that are not UTF-8 are replaced.
    pub path: &'a str,
    labels: Option<&'a LabelsBelow<'a>>,
}

impl TreeEntry<'_> {
    /// Returns its status; `None` if it does not exist.
    pub fn status(&self) -> Result<Option<FileStatus>> {
        match fstatat(self.directory, self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileStatus::new(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("reading the status of {}", self.path)),
        }
    }

    /// Returns the words for a wrong SELinux label; `None` if it is right.
    pub fn label_difference(&self, file_type: FileType) -> Result<Option<String>> {
        self.labels.map_or(Ok(None), |labels| labels.difference(self.directory, self.name, self.path, file_type))
    }

    /// Opens a regular file for reading; `None` if it is none.
    pub fn open(&self) -> Result<Option<File>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = match openat(self.directory, self.name, flags, Bits::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("opening {}", self.path)),
        };
        let stat = fstat(&fd).with_context(|| format!("reading the status of {}", self.path))?;
        Ok((FileStatus::new(&stat).file_type == FileType::Regular).then(|| File::from(fd)))
    }

    /// Returns the target of a symbolic link.
    pub fn target(&self) -> Result<Option<String>> {
        match super::readlinkat(self.directory, self.name) {
            Ok(target) => Ok(target.into_string().ok()),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("reading the link {}", self.path)),
        }
    }
}

/// A function that meets an entry, and returns whether to visit its entries.
pub type Meet<'a> = &'a mut dyn FnMut(&TreeEntry<'_>) -> Result<bool>;

/// Visits the entries of a directory in the order of their names, from the top down. No link is followed.
fn visit(directory: &OwnedFd, prefix: &str, labels: Option<&LabelsBelow<'_>>, meet: Meet<'_>) -> Result<()> {
    for name in list(directory).with_context(|| format!("listing {}", if prefix.is_empty() { "." } else { prefix }))? {
        let path = joined(prefix, &name);
        let entry = TreeEntry { directory, name: &name, path: &path, labels };
        if !meet(&entry)? {
            continue;
        }
        match openat(directory, name.as_str(), DIRECTORY, Bits::empty()) {
            Ok(below) => visit(&below, &path, labels, meet)?,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => return Err(errno).with_context(|| format!("opening the directory {path}")),
        }
    }
    Ok(())
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

impl Root {
    /// Makes a tree beside a path: `fill` fills it, and it is flushed to the disk. It is not [complete](Self::complete_tree) yet.
    ///
    /// Below a user's directory, `fill` has that user's rights, and runs on another thread.
    pub fn build_tree<T: Send>(
        &self,
        path: &AbsPath,
        ownership: Ownership,
        fill: impl FnOnce(&NewTree) -> Result<T> + Send,
    ) -> Result<T> {
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let new = Beside::Filled.name(path);
        let ours = parent.user.as_ref().map_or((nix::unistd::geteuid(), nix::unistd::getegid()), |user| {
            (Uid::from_raw(user.uid), Gid::from_raw(user.gid))
        });
        let owner = (Uid::from_raw(ownership.uid), Gid::from_raw(ownership.gid));
        let labels = self.labels_below(&parent.fd, path)?;
        let work = |fd: &OwnedFd| {
            remove_all(fd, &new).with_context(|| format!("removing what an earlier run left of {path}"))?;
            mkdirat(fd, new.as_str(), Bits::S_IRWXU).map_err(|errno| explain_new(fd, errno, path))?;
            let filled = (|| {
                let top =
                    openat(fd, new.as_str(), DIRECTORY, Bits::empty()).with_context(|| format!("opening {new}"))?;
                let owner = (owner != ours).then_some(owner);
                let (place, buffer) = (path.clone(), RefCell::new(vec![0; BUFFER_BYTES]));
                let tree = NewTree { top, path: place, owner, buffer, labels };
                let filled = fill(&tree)?;
                set_ownership(&tree.top, ownership).with_context(|| format!("setting owner and mode of {path}"))?;
                tree.labels.as_ref().map_or(Ok(()), |labels| labels.set(&tree.top, "", FileType::Directory))?;
                syncfs(&tree.top).with_context(|| format!("flushing {path}"))?;
                Ok(filled)
            })();
            if filled.is_err() {
                _ = remove_all(fd, &new);
            }
            filled
        };
        parent.act_on(work)
    }

    /// Gives the filled tree beside a path the name of a complete one. Its note must be on the disk.
    pub fn complete_tree(&self, path: &AbsPath) -> Result<()> {
        self.rename_beside(&Beside::Filled.of(path)?, &Beside::Complete.of(path)?)
    }

    /// Exchanges the complete tree beside a path with the one at the path, or moves it there if nothing is there.
    pub fn exchange_tree(&self, path: &AbsPath) -> Result<()> {
        let parent = self.place_to_write(path, None)?;
        let complete = Beside::Complete.name(path);
        let flags = if self.status(path)?.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let renamed = parent.act(|fd| renameat_with(fd, &complete, fd, path.leaf(), flags));
        renamed.map_err(|errno| match errno {
            Errno::EINVAL | Errno::EXDEV | Errno::ENOSYS => no_exchange(path).caused_by(errno).into(),
            _ => explain_write(errno, path),
        })?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Visits the entries of a directory; see [`visit`].
    pub fn visit_tree(&self, path: &AbsPath, meet: Meet<'_>) -> Result<()> {
        let Some(place) = self.directory(path, WalkPurpose::Inspect)? else { return Ok(()) };
        let labels = self.labels_below(&place.fd, &AbsPath::from("/"))?;
        visit(&place.fd, "", labels.as_ref(), meet).with_context(|| format!("comparing {path}"))
    }

    /// Removes the known files and directories of the complete tree beside a path. Returns the paths of the others, which
    /// stay.
    ///
    /// # Errors
    /// If a link, a file, or a directory of another user is in the tree's place.
    pub fn remove_tree(&self, path: &AbsPath, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let tree = Beside::Complete.of(path)?;
        let parent = self.place_to_write(path, None)?;
        let Some(top) = open_tree(&parent, tree.leaf()).with_context(|| format!("opening {tree}"))? else {
            if self.status(&tree)?.is_none() {
                return Ok(vec![]);
            }
            let fault = Fault::new(format!("{tree} is not the directory that a run has left there"));
            return Err(fault.hint(format!("look at it, then move it away: ls -ld {}", quoted(tree.as_str()))).into());
        };
        self.forget();
        let mut left = vec![];
        remove_known(&top, "", is_known, &mut left).with_context(|| format!("removing {tree}"))?;
        if !left.is_empty() {
            return Ok(left);
        }
        match parent.act(|fd| unlinkat(fd, tree.leaf(), UnlinkatFlags::RemoveDir)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(explain_write(errno, &tree)),
        }
        parent.flush().with_context(|| format!("flushing the directory of {path}"))?;
        Ok(left)
    }

    /// Moves a file or directory of one tree into another one beside it, if the first one has it.
    ///
    /// It may belong to another user than the trees, and then only root can move it. No link is followed.
    ///
    /// # Errors
    /// If both trees have it.
    pub fn move_between(&self, from: &AbsPath, to: &AbsPath, path: &str) -> Result<()> {
        let parent = self.place_to_write(to, None)?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let open = |tree: &AbsPath| match open_tree(&parent, tree.leaf())? {
            Some(top) => descend(top, above),
            None => Ok(None),
        };
        let moved = (|| {
            let (Some(from), Some(to)) = (open(from)?, open(to)?) else { return Ok(()) };
            renameat_with(&from, name, &to, name, RenameFlags::NOREPLACE)
        })();
        self.forget();
        match moved {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EEXIST) => Err(both_exist(from, to, path).into()),
            Err(errno) => Err(errno).with_context(|| format!("moving {path} from {from} to {to}")),
        }
    }
}

/// Opens the top of a tree in a directory; `None` if there is no such directory. No link is followed.
///
/// A user can put any directory into the tree's place below the user's own directories: it must belong to that user.
fn open_tree(parent: &OpenDirectory, name: &str) -> nix::Result<Option<OwnedFd>> {
    let top = match openat(&*parent.fd, name, DIRECTORY, Bits::empty()) {
        Ok(top) => top,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let owner = fstat(&top)?.st_uid;
    Ok(parent.user.as_ref().is_none_or(|user| user.uid == owner).then_some(top))
}

/// Opens a directory below another one; `None` if it does not exist or a component is no directory.
fn descend(top: OwnedFd, path: &str) -> nix::Result<Option<OwnedFd>> {
    let mut directory = top;
    for component in path.split('/').filter(|component| !component.is_empty()) {
        directory = match openat(&directory, component, DIRECTORY, Bits::empty()) {
            Ok(below) => below,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
    }
    Ok(Some(directory))
}

fn remove_known(
    directory: &OwnedFd,
    prefix: &str,
    is_known: &dyn Fn(&str) -> bool,
    left: &mut Vec<String>,
) -> Result<()> {
    for name in list(directory).with_context(|| format!("listing {prefix}"))? {
        let path = joined(prefix, &name);
        if !is_known(&path) {
            left.push(path);
            continue;
        }
        let removed = match openat(directory, name.as_str(), DIRECTORY, Bits::empty()) {
            Ok(below) => {
                remove_known(&below, &path, is_known, left)?;
                unlinkat(directory, name.as_str(), UnlinkatFlags::RemoveDir)
            }
            Err(_) => unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir),
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("removing {path}")),
        }
    }
    Ok(())
}

/// Removes a directory with its content, if it exists. Only this program writes to it.
fn remove_all(parent: &OwnedFd, name: &str) -> Result<()> {
    match std::fs::remove_dir_all(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {name}"))
        }
        _ => Ok(()),
    }
}

/// Returns the fault of two trees that both have a path, of which only one can stay.
pub fn both_exist(from: &AbsPath, to: &AbsPath, path: &str) -> Fault {
    let (from, to) = (format!("{from}/{path}"), format!("{to}/{path}"));
    let hint = format!("look at both, then move one of them away: ls -la {} {}", quoted(&to), quoted(&from));
    Fault::new(format!("{to} and {from} both exist, and only one of them can be kept")).hint(hint)
}

/// Returns the fault of a file system that cannot exchange two directories.
pub fn no_exchange(path: &AbsPath) -> Fault {
    let fault = Fault::new(format!("the file system of {path} cannot exchange two directories"));
    fault.hint("declare a path on a local file system, such as ext4 or XFS")
}
