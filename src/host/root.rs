//! The file system below the root of a run: `/`, or an image's tree with `--root`.
//!
//! Every path is walked component by component from the root's descriptor. This module follows symbolic links itself, so
//! that no link, `..` or race leads outside of the root (as openat2's `RESOLVE_IN_ROOT`, but on every kernel).
//!
//! For writing there is one more check. Each directory on the way must be root's or, from one of them on, one user's
//! ([`way`]). Below a user's directory, only the user's rights are used ([`identity`]). Otherwise another local user
//! could put a link or another directory in its place. Only the user's own files are read also if their mode denies that.
//!
//! A written file appears whole and durable or not at all: a temporary file in the same directory, fsync, rename, fsync of
//! the directory. Files that stand next to each other share the flushes (`src/system/ahead.rs`).

mod acl;
pub mod identity;
mod label;
mod obeyed;
mod opened;
mod planned;
mod removal;
mod staged;
mod status;
pub mod tree;
pub mod trusted;
mod walk;
pub mod way;
mod writable;

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    sys::stat::Mode as Bits,
    unistd::{Gid, Uid, UnlinkatFlags, getegid, geteuid},
};

pub use self::{
    label::LabelFor,
    removal::is_match,
    staged::{Staged, UnflushedNames},
    status::{FileStatus, FileType, OpenFile, Ownership},
    walk::Survey,
};
use self::{
    label::{Labels, set_label},
    opened::OpenedDirectories,
    planned::PlannedLinks,
    walk::{OpenDirectory, WalkPurpose},
    way::Owner,
    writable::explain_new,
};
use super::calls::{
    canonicalize, fchmod, fchown, fstat, fstatat, fstatfs, fstatvfs, list, mkdirat, openat, readlinkat, renameat,
    symlinkat, unlinkat,
};
use crate::{
    error::Fault,
    value::{AbsPath, MAX_LINKS, Sha256},
};

/// The suffix of a file while it is written.
pub const TEMPORARY_SUFFIX: &str = ".glovo-bootstrap";
/// The suffix of a file while it is downloaded.
const PART_SUFFIX: &str = ".part";
/// The suffix of the note about an unfinished download.
const NOTE_SUFFIX: &str = ".part.map";

/// Limits the size of a small text file of the distribution. Real ones are smaller.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;

/// The root directory of a run.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: Arc<OwnedFd>,
    /// The purpose of reads, which decides about their rights.
    reads: WalkPurpose,
    opened: OpenedDirectories,
    /// The SELinux labels of this machine, once they were asked for.
    labels: Arc<OnceLock<Option<Labels>>>,
    planned: PlannedLinks,
}

impl Root {
    /// Opens a root.
    ///
    /// # Errors
    /// If it is not a directory or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Bits::empty())
            .with_context(|| format!("opening the root {}", path.display()))?;
        let path = canonicalize(path).with_context(|| format!("resolving {}", path.display()))?;
        Ok(Self {
            path,
            fd: Arc::new(fd),
            reads: WalkPurpose::Read,
            opened: OpenedDirectories::default(),
            labels: Arc::default(),
            planned: PlannedLinks::default(),
        })
    }

    /// Returns the same root for reads with root's rights, also below users' directories. It follows no links there.
    #[must_use]
    pub fn to_inspect(&self) -> Self {
        Self {
            path: self.path.clone(),
            fd: self.fd.clone(),
            reads: WalkPurpose::Inspect,
            opened: OpenedDirectories::default(),
            labels: self.labels.clone(),
            planned: self.planned.clone(),
        }
    }

    /// Returns the path of the root on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the root is the host's own `/`.
    pub fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    /// Returns the status of the file at a path; `None` if it does not exist.
    pub fn status(&self, path: &AbsPath) -> Result<Option<FileStatus>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        let leaf = if path.leaf().is_empty() { "." } else { path.leaf() };
        match parent.act(|fd| fstatat(fd, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(FileStatus::new(&stat))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(parent.explain_status(errno, path).context(format!("reading the status of {path}"))),
        }
    }

    /// Opens a regular file for reading; `None` if it does not exist. A link is not followed.
    pub fn open_file(&self, path: &AbsPath) -> Result<Option<(File, FileStatus)>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = match parent.open(path.leaf(), flags) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(Errno::ELOOP) => {
                let fault = Fault::new(format!("{path} is a symbolic link, and a file is needed here"));
                return Err(fault.hint("name the file that it leads to: `readlink -f` prints it").into());
            }
            Err(errno) => return Err(parent.explain(errno, "read", path).context(format!("opening {path}"))),
        };
        let status = FileStatus::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular {
            bail!("{path} is not a regular file");
        }
        Ok(Some((File::from(fd), status)))
    }

    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// If it has more than `limit` bytes.
    pub fn read(&self, path: &AbsPath, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((mut file, status)) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(status.size.min(limit)).unwrap_or_default() + 1);
        let read = (&mut file).take(limit + 1).read_to_end(&mut bytes);
        let read = read.with_context(|| format!("reading {path}"))?;
        if read as u64 > limit {
            bail!("{path} has more than {limit} bytes");
        }
        Ok(Some(bytes))
    }

    /// Reads a small text file of the distribution (`/etc/passwd`, `/proc/swaps`); empty if it does not exist.
    ///
    /// Bytes that are not UTF-8 become replacement characters. So this text must never be written back.
    pub fn read_text(&self, path: &AbsPath) -> Result<String> {
        let bytes = self.read(path, MAX_TEXT_BYTES)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the target of a symbolic link; `None` if the path does not exist or is not a link.
    pub fn read_link(&self, path: &AbsPath) -> Result<Option<OsString>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        match parent.act(|fd| readlinkat(fd, path.leaf())) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(parent.explain_status(errno, path).context(format!("reading the link {path}"))),
        }
    }

    /// Follows every symbolic link in a path, also that of the last component.
    pub fn resolve(&self, path: &AbsPath) -> Result<AbsPath> {
        self.follow(path, |_| Ok(()))
    }

    /// Follows every symbolic link in a path that root will change.
    ///
    /// # Errors
    /// Also if a user may have made a link: the user must not choose the path that root changes.
    pub fn resolve_trusted(&self, path: &AbsPath) -> Result<AbsPath> {
        self.follow(path, |link| {
            let Some(uid) = self.owner_of_link(link)? else { return Ok(()) };
            let message = format!("{link} is a symbolic link of uid {uid}: links of users are not followed");
            Err(Fault::new(message).hint("declare the path that the link leads to").into())
        })
    }

    /// Follows every symbolic link of the last component, after a check of each link.
    pub fn follow(&self, path: &AbsPath, check: impl Fn(&AbsPath) -> Result<()>) -> Result<AbsPath> {
        let mut path = path.clone();
        for _ in 0..MAX_LINKS {
            let target = match self.planned_target(&path) {
                Some(target) => target,
                None => match self.read_link(&path)? {
                    Some(target) => target,
                    None => return Ok(path),
                },
            };
            check(&path)?;
            let target = target.to_string_lossy().into_owned();
            let mut components: Vec<&str> =
                if target.starts_with('/') { vec![] } else { path.as_str().split('/').skip(1).collect() };
            _ = components.pop();
            for component in target.split('/') {
                match component {
                    "" | "." => {}
                    ".." => _ = components.pop(),
                    component => components.push(component),
                }
            }
            path = format!("/{}", components.join("/")).parse()?;
        }
        bail!("{path}: too many levels of symbolic links")
    }

    /// Returns the user that may replace a link; `None` if it is root or the caller.
    fn owner_of_link(&self, path: &AbsPath) -> Result<Option<u32>> {
        let (Some(parent), Some(status)) = (self.parent(path, self.reads)?, self.status(path)?) else {
            return Ok(None);
        };
        let uid = parent.user.map_or(status.ownership.uid, |user| user.uid);
        Ok((geteuid().is_root() && uid != 0).then_some(uid))
    }

    /// Lists the names in a directory, sorted; empty if it does not exist.
    pub fn list(&self, path: &AbsPath) -> Result<Vec<String>> {
        let Some(place) = self.directory(path, self.reads)? else { return Ok(vec![]) };
        place.act(|fd| list(fd)).map_err(|errno| place.explain(errno, "list", path).context(format!("listing {path}")))
    }

    /// Writes a file, atomically and durably.
    pub fn write(&self, path: &AbsPath, ownership: Ownership, bytes: &[u8]) -> Result<()> {
        let mut staged = self.stage(path, ownership)?;
        staged.write_all(bytes)?;
        staged.publish()
    }

    /// Makes one directory. Its parent must exist.
    pub fn make_directory(&self, path: &AbsPath, ownership: Ownership) -> Result<()> {
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let mode = Bits::from_bits_truncate(0o700);
        parent.act(|fd| mkdirat(fd, path.leaf(), mode)).map_err(|errno| explain_new(&parent.fd, errno, path))?;
        self.own_directory(path, ownership)?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Sets owner and mode of a directory, through its descriptor.
    pub fn own_directory(&self, path: &AbsPath, ownership: Ownership) -> Result<()> {
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let leaf = if path.leaf().is_empty() { "." } else { path.leaf() };
        let opened = parent.open(leaf, flags);
        let owned = opened.and_then(|fd| parent.act(|_| set_ownership(&fd, ownership)).map(|()| fd));
        let owned =
            owned.map_err(|errno| explain_write(errno, path).context(format!("setting owner and mode of {path}")))?;
        let label = self.label_for(&parent.fd, leaf, FileType::Directory)?;
        set_label(owned, label.as_deref()).with_context(|| path.to_string())
    }

    /// Opens a regular file with a single name to read and write it in place. A missing file is made with mode 0600.
    pub fn open_own(&self, path: &AbsPath) -> Result<File> {
        let parent = self.place_to_write(path, Some(geteuid().as_raw()))?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = openat(&*parent.fd, path.leaf(), flags, Bits::from_bits_truncate(0o600));
        let fd = fd.map_err(|errno| explain_write(errno, path))?;
        let status = FileStatus::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular || status.links != 1 {
            bail!("{path} is not a regular file with one name");
        }
        Ok(File::from(fd))
    }

    /// Sets owner, mode and label of a regular file with a single name, through its descriptor.
    pub fn own_file(&self, path: &AbsPath, ownership: Ownership, label: impl Into<LabelFor>) -> Result<()> {
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = parent.open(path.leaf(), flags).map_err(|errno| explain_write(errno, path))?;
        let status = FileStatus::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular || status.links != 1 {
            bail!("{path} is not a regular file with one name");
        }
        let owned = parent.act(|_| set_ownership(&fd, ownership));
        owned.with_context(|| format!("setting owner and mode of {path}"))?;
        let label = self.label_for(&parent.fd, path.leaf(), label)?;
        set_label(fd, label.as_deref()).with_context(|| path.to_string())
    }

    /// Makes a symbolic link. It replaces another link, but no other file.
    pub fn make_link(&self, path: &AbsPath, target: &str) -> Result<()> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, None)?;
        // A new link is made in one call. Only a replacement needs a temporary name.
        let made = match (parent.act(|fd| symlinkat(target, fd, path.leaf())), self.status(path)?) {
            (Err(Errno::EEXIST), Some(status)) if status.file_type == FileType::Link => {
                let name = hidden_name(path.leaf(), TEMPORARY_SUFFIX);
                parent.act(|fd| {
                    loop_until_free(fd, &name, || symlinkat(target, fd, name.as_str()))?;
                    renameat(fd, name.as_str(), fd, path.leaf())
                })
            }
            (made, _) => made,
        };
        made.map_err(|errno| explain_new(&parent.fd, errno, path))?;
        self.label_link(&parent, path)?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Removes a file or link, if it exists.
    pub fn remove(&self, path: &AbsPath) -> Result<()> {
        let parent = self.place_to_write(path, None)?;
        match parent.act(|fd| unlinkat(fd, path.leaf(), UnlinkatFlags::NoRemoveDir)) {
            Ok(()) => parent.flush().with_context(|| format!("flushing the directory of {path}")),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(explain_write(errno, path)),
        }
    }

    /// Makes a directory with the given mode, and its missing parents.
    ///
    /// They belong to root, or below a user's directory to that user.
    pub fn make_directories(&self, path: &AbsPath, mode: u32) -> Result<()> {
        if self.status(path)?.is_some() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_directories(&parent, 0o755)?;
        }
        let (uid, gid) = match self.place_to_write(path, None)?.user {
            Some(user) => (user.uid, user.gid),
            None => (geteuid().as_raw(), getegid().as_raw()),
        };
        self.make_directory(path, Ownership { uid, gid, mode })
    }

    /// Returns the file system of a path.
    pub fn file_system(&self, path: &AbsPath) -> Result<FileSystem> {
        let directory = path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let place = self.directory(&directory, WalkPurpose::Inspect)?;
        let place = place.with_context(|| format!("{directory} does not exist"))?;
        let readable = openat(&*place.fd, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Bits::empty())
            .with_context(|| format!("opening {directory}"))?;
        let stat = fstatfs(&readable).with_context(|| format!("asking for the file system of {directory}"))?;
        let read_only =
            fstatvfs(&readable).is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        let block = u64::try_from(stat.block_size()).unwrap_or_default();
        Ok(FileSystem {
            magic: stat.filesystem_type(),
            free: stat.blocks_available() * block,
            free_to_root: stat.blocks_free() * block,
            device: fstat(&readable).with_context(|| format!("asking for {directory}"))?.st_dev,
            read_only,
        })
    }

    /// Returns the directory of a path for writing a file of a user; without a user, of the directory's owner.
    fn place_to_write(&self, path: &AbsPath, uid: Option<u32>) -> Result<OpenDirectory> {
        let Some(place) = self.parent(path, WalkPurpose::Write)? else {
            let parent = path.parent().unwrap_or_else(|| AbsPath::from("/"));
            let hint = format!("declare the directory {parent} in an earlier resource");
            return Err(Fault::new(format!("the directory of {path} does not exist")).hint(hint).into());
        };
        place.way.admit(path.as_str(), uid.map(Owner::Id).as_ref())?;
        Ok(place)
    }
}

/// The properties of a file system that matter to a write.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Its magic number, as in statfs(2).
    pub magic: nix::sys::statfs::FsType,
    /// Free bytes for an unprivileged user.
    pub free: u64,
    /// Free bytes for root, with the reserved ones.
    pub free_to_root: u64,
    /// The number of its device, which identifies the file system.
    pub device: u64,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// Returns the name of a file or link until it is complete.
///
/// The name is hidden, so that it matches no `*.conf` glob. A name that would become too long is cut and gets its digest.
fn hidden_name(leaf: &str, ending: &str) -> String {
    if leaf.len() <= 200 {
        return [".", leaf, ending].concat();
    }
    let digest = Sha256::of(leaf.as_bytes()).to_string();
    format!(".{}-{}{ending}", leaf.chars().take(40).collect::<String>(), &digest[..16])
}

/// Fails for a name that is reserved for files while they are written.
pub fn check_name(name: &str) -> Result<()> {
    if name.starts_with('.') && [TEMPORARY_SUFFIX, PART_SUFFIX, NOTE_SUFFIX].iter().any(|ending| name.ends_with(ending))
    {
        let message = format!("the name `{name}` is reserved for files that are being written");
        return Err(Fault::new(message).hint("use another name").into());
    }
    Ok(())
}

/// Runs `make` again until its name is free, and removes a file that a killed run left there.
///
/// The attempts are limited: another user who may write to the directory could make the name again and again.
fn loop_until_free<T>(parent: &OwnedFd, name: &str, make: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    for _ in 0..16 {
        match make() {
            Err(Errno::EEXIST) => match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            },
            result => return result,
        }
    }
    Err(Errno::EEXIST)
}

/// Sets the owner, then the mode, because chown clears the set-id bits.
fn set_ownership(fd: impl std::os::fd::AsFd, ownership: Ownership) -> nix::Result<()> {
    let now = FileStatus::new(&fstat(&fd)?).ownership;
    if (now.uid, now.gid) != (ownership.uid, ownership.gid) {
        fchown(&fd, Some(Uid::from_raw(ownership.uid)), Some(Gid::from_raw(ownership.gid)))?;
    }
    if now == ownership {
        return Ok(());
    }
    fchmod(&fd, Bits::from_bits_truncate(ownership.mode))
}

/// Returns the error of a failed write, with a hint.
fn explain_write(errno: Errno, path: &AbsPath) -> anyhow::Error {
    let hint = match errno {
        Errno::ENOSPC | Errno::EDQUOT => "free space or inodes on the full file system; to find it: df -h; df -i",
        Errno::EROFS => "declare a path on another file system: this one is mounted read-only",
        Errno::EPERM => "run as root, and check that the file is not immutable (lsattr)",
        Errno::EACCES if !geteuid().is_root() => "run as root",
        Errno::EACCES => "check the owner and the mode of the directory, and of the file if it exists",
        Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY => "move the other file or directory at this path away",
        Errno::EFBIG => "raise the limit of the file size (ulimit -f), or use another file system",
        _ => return anyhow::Error::from(errno).context(format!("writing {path}")),
    };
    Fault::new(format!("writing {path}")).caused_by(errno).hint(hint).into()
}

/// Returns whether a write failed because the file system has no free space or inode, or because of a quota.
pub fn is_full(error: &anyhow::Error) -> bool {
    let mut errnos = error.chain().filter_map(|cause| cause.downcast_ref::<Errno>());
    errnos.any(|errno| matches!(errno, Errno::ENOSPC | Errno::EDQUOT))
}

/// Returns whether an error says that this user has no permission.
pub fn is_denied(error: &anyhow::Error) -> bool {
    let mut errnos = error.chain().filter_map(|cause| cause.downcast_ref::<Errno>());
    errnos.any(|errno| matches!(errno, Errno::EACCES | Errno::EPERM))
}

/// Returns a path from the command line as an absolute path of the host without links.
///
/// # Errors
/// If it does not exist.
pub fn host_path(path: &str) -> Result<AbsPath> {
    let resolved = canonicalize(path.as_ref()).with_context(|| format!("opening {path}"))?;
    let text = resolved.into_os_string().into_string();
    text.map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))?.parse()
}
