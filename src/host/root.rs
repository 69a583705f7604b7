//! The file system below the root acted on: `/`, or an image's tree with `--root`.
//!
//! Every path is walked component by component from the root's descriptor, and symbolic links are
//! followed by hand, so that no link, `..` or race leads outside (what openat2's `RESOLVE_IN_ROOT`
//! does, on every kernel and with one more check): to write, each directory on the way must be root's or, from one of them
//! on, one user's ([`way`]), with whose rights alone the rest is done ([`identity`]); or else another local user could put
//! a link or another directory in its place. What is written appears whole and durable or not at all: temporary file in
//! the same directory, fsync, rename, fsync of the directory.

mod acl;
pub mod identity;
mod obeyed;
mod removal;
mod staged;
mod status;
pub mod trusted;
mod walk;
pub mod way;
mod writable;

use std::{
    cell::RefCell,
    ffi::OsString,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    sys::stat::Mode as Bits,
    unistd::{Gid, Uid, UnlinkatFlags, getegid, geteuid},
};

pub use self::{
    removal::is_match,
    staged::Staged,
    status::{FileType, Ownership, Status},
    walk::Survey,
};
use self::{
    walk::{MAX_LINKS, Place, Purpose},
    way::Owner,
    writable::explain_new,
};
use super::calls::{
    canonicalize, fchmod, fchown, fstat, fstatat, fstatfs, fstatvfs, list, mkdirat, openat, readlinkat, renameat,
    symlinkat, unlinkat,
};
use crate::{
    error::Fault,
    value::{AbsPath, Sha256},
};

/// The endings of the names that a file has while it is written, while it is downloaded, and of the note on a download.
const TEMPORARY: &str = ".glovo-bootstrap";
const PART: &str = ".part";
const NOTE: &str = ".part.map";

/// More than any small text file has that the distribution keeps.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;

/// The root acted on.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: Arc<OwnedFd>,
    /// With whose rights it is read.
    reads: Purpose,
    /// The directory of the last walk: a thousand files of one directory cost one walk.
    last: RefCell<Option<(Purpose, AbsPath, Place)>>,
}

impl Root {
    /// Opens a root.
    ///
    /// # Errors
    /// If it isn't a directory that can be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Bits::empty())
            .with_context(|| format!("opening the root {}", path.display()))?;
        let path = canonicalize(path).with_context(|| format!("resolving {}", path.display()))?;
        Ok(Self { path, fd: Arc::new(fd), reads: Purpose::Read, last: RefCell::new(None) })
    }

    /// The same root, to look everything over with root's rights, also below users' directories, where it follows no link.
    #[must_use]
    pub fn to_inspect(&self) -> Self {
        Self { path: self.path.clone(), fd: self.fd.clone(), reads: Purpose::Inspect, last: RefCell::new(None) }
    }

    /// Where the root is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the root is the host's own `/`.
    pub fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    /// Forgets the directory that the last walk found: something was changed.
    pub fn forget(&self) {
        *self.last.borrow_mut() = None;
    }

    /// The status of what stands at a path, or `None` where nothing does.
    pub fn status(&self, path: &AbsPath) -> Result<Option<Status>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        let leaf = if path.leaf().is_empty() { "." } else { path.leaf() };
        match parent.act(|fd| fstatat(fd, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(Status::new(&stat))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("reading the status of {path}")),
        }
    }

    /// Opens a regular file for reading, or `None` where there is nothing. A link is not followed.
    pub fn open_file(&self, path: &AbsPath) -> Result<Option<(File, Status)>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = match parent.act(|fd| openat(fd, path.leaf(), flags, Bits::empty())) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("opening {path}")),
        };
        let status = Status::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular {
            bail!("{path} is not a regular file");
        }
        Ok(Some((File::from(fd), status)))
    }

    /// The bytes of a file, or `None` where there is none. Refuses to read more than `limit` bytes.
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

    /// A small text file that the distribution keeps (`/etc/passwd`, `/proc/swaps`); empty where there is none. Others
    /// write into it in other encodings: what is not UTF-8 is replaced, so that this text must never be written back.
    pub fn read_text(&self, path: &AbsPath) -> Result<String> {
        let bytes = self.read(path, MAX_TEXT_BYTES)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where a symbolic link points, or `None` where nothing or something else stands.
    pub fn read_link(&self, path: &AbsPath) -> Result<Option<OsString>> {
        let Some(parent) = self.parent(path, self.reads)? else { return Ok(None) };
        match parent.act(|fd| readlinkat(fd, path.leaf())) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("reading the link {path}")),
        }
    }

    /// The path that a path means once every symbolic link in it, the last component's too, is followed.
    pub fn resolve(&self, path: &AbsPath) -> Result<AbsPath> {
        self.follow(path, |_| Ok(()))
    }

    /// The same for a path that root changes in consequence.
    ///
    /// # Errors
    /// Also for a link that a user may have put there: the path that it leads to would be taken for root's choice.
    pub fn resolve_trusted(&self, path: &AbsPath) -> Result<AbsPath> {
        self.follow(path, |link| {
            let Some(uid) = self.owner_of_link(link)? else { return Ok(()) };
            let message = format!("{link} is a symbolic link of uid {uid}: links of users are not followed");
            Err(Fault::new(message).hint("declare the path that the link leads to").into())
        })
    }

    fn follow(&self, path: &AbsPath, check: impl Fn(&AbsPath) -> Result<()>) -> Result<AbsPath> {
        let mut path = path.clone();
        for _ in 0..MAX_LINKS {
            let Some(target) = self.read_link(&path)? else { return Ok(path) };
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

    /// The user that decides where a link leads, where that is neither root nor the caller.
    fn owner_of_link(&self, path: &AbsPath) -> Result<Option<u32>> {
        let (Some(parent), Some(status)) = (self.parent(path, self.reads)?, self.status(path)?) else {
            return Ok(None);
        };
        let uid = parent.user.map_or(status.ownership.uid, |user| user.uid);
        Ok((geteuid().is_root() && uid != 0).then_some(uid))
    }

    /// The names in a directory, sorted; empty where there is none.
    pub fn list(&self, path: &AbsPath) -> Result<Vec<String>> {
        let Some(place) = self.directory(path, self.reads)? else { return Ok(vec![]) };
        place.act(|fd| list(fd)).with_context(|| format!("listing {path}"))
    }

    /// Puts these bytes at a path, atomically and durably.
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
        let owned = parent.act(|fd| set_ownership(openat(fd, leaf, flags, Bits::empty())?, ownership));
        owned.map_err(|errno| explain_write(errno, path).context(format!("setting owner and mode of {path}")))
    }

    /// Opens a regular file that has one name to read and write it in place, or makes it, with mode 0600.
    pub fn open_own(&self, path: &AbsPath) -> Result<File> {
        let parent = self.place_to_write(path, Some(geteuid().as_raw()))?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = openat(&*parent.fd, path.leaf(), flags, Bits::from_bits_truncate(0o600));
        let fd = fd.map_err(|errno| explain_write(errno, path))?;
        let status = Status::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular || status.links != 1 {
            bail!("{path} is not a regular file with one name");
        }
        Ok(File::from(fd))
    }

    /// Sets owner and mode of a regular file that has one name, through its descriptor.
    pub fn own_file(&self, path: &AbsPath, ownership: Ownership) -> Result<()> {
        let parent = self.place_to_write(path, Some(ownership.uid))?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = parent.act(|fd| openat(fd, path.leaf(), flags, Bits::empty()));
        let fd = opened.map_err(|errno| explain_write(errno, path))?;
        let status = Status::new(&fstat(&fd).with_context(|| format!("reading the status of {path}"))?);
        if status.file_type != FileType::Regular || status.links != 1 {
            bail!("{path} is not a regular file with one name");
        }
        let owned = parent.act(|_| set_ownership(&fd, ownership));
        owned.with_context(|| format!("setting owner and mode of {path}"))
    }

    /// Makes a symbolic link, replacing another link (and nothing else) that stands there.
    pub fn make_link(&self, path: &AbsPath, target: &str) -> Result<()> {
        check_name(path.leaf())?;
        let parent = self.place_to_write(path, None)?;
        // A new link is there at once and whole. Only to replace one takes a second name.
        let made = match (parent.act(|fd| symlinkat(target, fd, path.leaf())), self.status(path)?) {
            (Err(Errno::EEXIST), Some(status)) if status.file_type == FileType::Link => {
                let name = hidden_name(path.leaf(), TEMPORARY);
                parent.act(|fd| {
                    loop_until_free(fd, &name, || symlinkat(target, fd, name.as_str()))?;
                    renameat(fd, name.as_str(), fd, path.leaf())
                })
            }
            (made, _) => made,
        };
        made.map_err(|errno| explain_new(&parent.fd, errno, path))?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))
    }

    /// Removes a file or link; nothing there is fine.
    pub fn remove(&self, path: &AbsPath) -> Result<()> {
        let parent = self.place_to_write(path, None)?;
        match parent.act(|fd| unlinkat(fd, path.leaf(), UnlinkatFlags::NoRemoveDir)) {
            Ok(()) => parent.flush().with_context(|| format!("flushing the directory of {path}")),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(explain_write(errno, path)),
        }
    }

    /// Makes a directory with the given mode and its missing parents, all of them root's, or the user's below a user's
    /// directory.
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

    /// Free space for a file at `path`, in bytes, and the magic number of its file system.
    pub fn file_system(&self, path: &AbsPath) -> Result<FileSystem> {
        let directory = path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let place = self.directory(&directory, Purpose::Inspect)?;
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

    /// The directory of a path at which something of this user is to be written; without one, of its owner.
    fn place_to_write(&self, path: &AbsPath, uid: Option<u32>) -> Result<Place> {
        let Some(place) = self.parent(path, Purpose::Write)? else {
            let parent = path.parent().unwrap_or_else(|| AbsPath::from("/"));
            let hint = format!("declare the directory {parent} in an earlier resource");
            return Err(Fault::new(format!("the directory of {path} does not exist")).hint(hint).into());
        };
        place.way.admit(path.as_str(), uid.map(Owner::Id).as_ref())?;
        Ok(place)
    }

    fn parent(&self, path: &AbsPath, purpose: Purpose) -> Result<Option<Place>> {
        self.directory(&path.parent().unwrap_or_else(|| AbsPath::from("/")), purpose)
    }

    fn directory(&self, path: &AbsPath, purpose: Purpose) -> Result<Option<Place>> {
        if let Some((for_purpose, last, place)) = &*self.last.borrow()
            && *for_purpose == purpose
            && last == path
        {
            return Ok(Some(place.clone()));
        }
        let found = self.walk(path, purpose)?;
        if let Some(place) = &found {
            *self.last.borrow_mut() = Some((purpose, path.clone(), place.clone()));
        }
        Ok(found)
    }
}

/// What a file system offers to a file about to be written.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Its magic number, as in statfs(2).
    pub magic: nix::sys::statfs::FsType,
    /// Free bytes for an unprivileged user.
    pub free: u64,
    /// Free bytes for root, who may use what is reserved.
    pub free_to_root: u64,
    /// The number of its device: the same one is the same file system.
    pub device: u64,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// What a file or link is called until it is whole. Hidden, so that no `*.conf` glob picks it up. A name too long for that
/// is cut, and told from others by its digest.
fn hidden_name(leaf: &str, ending: &str) -> String {
    if leaf.len() <= 200 {
        return format!(".{leaf}{ending}");
    }
    let digest = Sha256::of(leaf.as_bytes()).to_string();
    format!(".{}-{}{ending}", leaf.chars().take(40).collect::<String>(), &digest[..16])
}

/// Fails for a name that files have while they are written: what gets it could take another file's place.
///
/// # Errors
/// Naming it.
pub fn check_name(name: &str) -> Result<()> {
    if name.starts_with('.') && [TEMPORARY, PART, NOTE].iter().any(|ending| name.ends_with(ending)) {
        let message = format!("the name `{name}` is reserved for files that are being written");
        return Err(Fault::new(message).hint("use another name").into());
    }
    Ok(())
}

/// Runs `make` until its name is free, removing what a killed run left there. Bounded: somebody who
/// keeps taking the name in a directory they may write to gets an error, not a loop.
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

/// Owner first, then mode: chown clears the set-id bits.
fn set_ownership(fd: impl std::os::fd::AsFd, ownership: Ownership) -> nix::Result<()> {
    let now = Status::new(&fstat(&fd)?).ownership;
    if (now.uid, now.gid) != (ownership.uid, ownership.gid) {
        fchown(&fd, Some(Uid::from_raw(ownership.uid)), Some(Gid::from_raw(ownership.gid)))?;
    }
    if now == ownership {
        return Ok(());
    }
    fchmod(&fd, Bits::from_bits_truncate(ownership.mode))
}

/// An errno of a write in words that say what to do.
fn explain_write(errno: Errno, path: &AbsPath) -> anyhow::Error {
    let hint = match errno {
        Errno::ENOSPC | Errno::EDQUOT => "the file system is full: free space or inodes on it (df -h, df -i)",
        Errno::EROFS => "the file system is mounted read-only",
        Errno::EPERM => "the file may be immutable (lsattr), or this is not root",
        Errno::EACCES => "run as root",
        Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY => "something else stands there: move it away first",
        Errno::EFBIG => "the file is larger than the file system or a limit (ulimit -f) allows",
        _ => return anyhow::Error::from(errno).context(format!("writing {path}")),
    };
    Fault::new(format!("writing {path}")).caused_by(errno).hint(hint).into()
}

/// Whether a write failed because the file system has no space or no inode left, or the quota is used up.
pub fn is_full(error: &anyhow::Error) -> bool {
    let mut errnos = error.chain().filter_map(|cause| cause.downcast_ref::<Errno>());
    errnos.any(|errno| matches!(errno, Errno::ENOSPC | Errno::EDQUOT))
}

/// A path that the operator typed, made absolute and free of links, on the host.
///
/// # Errors
/// If nothing is there.
pub fn host_path(path: &str) -> Result<AbsPath> {
    let resolved = canonicalize(path.as_ref()).with_context(|| format!("opening {path}"))?;
    let text = resolved.into_os_string().into_string();
    text.map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))?.parse()
}
