//! The walk to a path, component by component. Each one is checked through its descriptor.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode as Bits},
    unistd::geteuid,
};

use super::{
    FileStatus, FileType, Root,
    identity::UserIdentity,
    obeyed,
    opened::OpenedDirectories,
    planned::{Targets, among_missing},
    way::{Owner, PathPart, Way, Writers},
};
use crate::{
    error::Fault,
    host::{
        accounts::Accounts,
        calls::{fstat, fstatat, fsync, openat, readlinkat},
    },
    value::{AbsPath, MAX_LINKS, quoted},
};

/// The purpose of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkPurpose {
    /// Reading, with a user's rights from the user's first directory on.
    Read,
    /// Writing by the rule of [`Way`], with a user's rights below the user's directory.
    Write,
    /// Inspecting or removing with root's rights. No link is followed below the first directory that [`Way`] does not
    /// let root write to.
    Inspect,
    /// Reading a file that controls this program, or starting it. Only root, the caller and the user with this id may be
    /// able to replace or write any part of the path.
    Obey(Option<u32>),
}

/// A directory that a walk has reached.
#[derive(Debug, Clone)]
pub(crate) struct OpenDirectory {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) way: Way,
    /// The user whose rights are used in it; `None` for those of this process.
    pub(crate) user: Option<Arc<UserIdentity>>,
}

impl OpenDirectory {
    /// Does some work in this directory, with the rights that are used in it.
    pub(crate) fn act<T: Send>(&self, work: impl FnOnce(&OwnedFd) -> nix::Result<T> + Send) -> nix::Result<T> {
        match &self.user {
            None => work(&self.fd),
            Some(user) => user.act(|| work(&self.fd))?,
        }
    }

    /// Does longer work in this directory, with the rights that are used in it.
    pub(crate) fn act_on<T: Send>(&self, work: impl FnOnce(&OwnedFd) -> Result<T> + Send) -> Result<T> {
        match &self.user {
            None => work(&self.fd),
            Some(user) => user.act(|| work(&self.fd)).with_context(|| format!("acting as uid {}", user.uid))?,
        }
    }

    /// Opens a file or directory in it to read, with the rights that are used in it.
    ///
    /// A mode may deny a user to read what is its own. Root's rights open that: the user could change the mode. What
    /// belongs to another user stays closed, because a user may have put a name of it here.
    pub(crate) fn open(&self, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let opened = self.act(|fd| openat(fd, name, flags, Bits::empty()));
        let (Some(user), Err(Errno::EACCES)) = (&self.user, &opened) else { return opened };
        let is_own = |stat: FileStat| {
            let status = FileStatus::new(&stat);
            let is_plain = matches!(status.file_type, FileType::Regular | FileType::Directory);
            is_plain && status.ownership.uid == user.uid
        };
        if !is_own(fstatat(&*self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?) {
            return opened;
        }
        let own = openat(&*self.fd, name, flags, Bits::empty())?;
        if is_own(fstat(&own)?) { Ok(own) } else { opened }
    }

    /// Returns the error of a read at a path in it. The right that a user may lack is a verb: `read`.
    pub(crate) fn explain(&self, errno: Errno, right: &str, path: &AbsPath) -> anyhow::Error {
        match &self.user {
            Some(user) if errno == Errno::EACCES => denied(&Owner::Id(user.uid), right, path.as_str(), path.as_str()),
            _ => anyhow::Error::from(errno),
        }
    }

    /// Returns the error of a look at the status or the link at a path in it.
    pub(crate) fn explain_status(&self, errno: Errno, path: &AbsPath) -> anyhow::Error {
        self.explain(errno, "enter", &path.parent().unwrap_or_else(|| AbsPath::from("/")))
    }

    /// Makes the names in it durable.
    pub(crate) fn flush(&self) -> nix::Result<()> {
        fsync(self.open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?)
    }
}

/// Returns the error of a user that lacks a right to something on the way to a path.
fn denied(user: &Owner, right: &str, what: &str, path: &str) -> anyhow::Error {
    let fault = Fault::new(format!("{user} may not {right} {what}")).caused_by(Errno::EACCES);
    let hint = "change the owner or the mode: below a user's directory, a run has only the user's rights; to see them";
    fault.hint(format!("{hint}: namei -l {}", quoted(path))).into()
}

/// The end of a walk.
#[derive(Debug)]
pub(crate) enum WalkEnd {
    /// The path is a directory.
    Directory,
    /// The path is a file with this name.
    File(OsString),
    /// These components of the path do not exist.
    Missing(Vec<OsString>),
}

/// The result of a walk.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) place: OpenDirectory,
    /// Its path without links.
    pub(crate) path: PathBuf,
    pub(crate) end: WalkEnd,
}

/// The existing and the missing part of a path.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The owners of the existing part.
    pub way: Way,
    /// The last directory that exists, without links in its path.
    pub path: PathBuf,
    /// The components that do not exist.
    pub missing: Vec<OsString>,
}

/// A function that returns the owner and writers of a directory after the earlier changes of a plan.
pub type ExpectedDirectory<'a> = &'a dyn Fn(&Path) -> Option<(Owner, Writers)>;

/// A function that reads the accounts, if a group's members matter.
type LoadAccounts<'a> = &'a (dyn Fn() -> Result<Arc<Accounts>> + Sync);

/// An unfinished walk.
pub(crate) struct Walk<'a> {
    purpose: WalkPurpose,
    /// The whole path, for messages.
    path: &'a Path,
    pending: VecDeque<OsString>,
    /// The directories from the root on.
    stack: Vec<Arc<OwnedFd>>,
    names: Vec<OsString>,
    links: usize,
    way: Way,
    is_trusted: bool,
    /// The links that a plan makes.
    planned: Arc<Targets>,
}

/// The result of a part of a walk.
enum WalkStep {
    End(WalkEnd),
    /// The next directories belong to the user with this id.
    Enter(u32),
}

/// Returns the components of a path. Some may be empty.
fn components(path: &OsStr) -> impl DoubleEndedIterator<Item = OsString> {
    path.as_bytes().split(|byte| *byte == b'/').map(|component| OsStr::from_bytes(component).to_owned())
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: &Root, path: &'a Path, purpose: WalkPurpose) -> Self {
        let pending = components(path.as_os_str()).collect();
        let (stack, way, planned) = (vec![root.fd.clone()], Way::default(), root.planned.targets());
        Self { purpose, path, pending, stack, names: vec![], links: 0, way, is_trusted: true, planned }
    }

    /// Walks to the end of the path, or to the first component that does not exist.
    pub(crate) fn run(mut self, root: &Root) -> Result<Reached> {
        let load = root.loader();
        let mut user = None;
        let end = match self.advance(&load, None)? {
            WalkStep::End(end) => end,
            WalkStep::Enter(uid) => {
                let accounts = load()?;
                let identity = Arc::new(UserIdentity::of(uid, &accounts));
                let ended = identity.act(|| self.advance(&|| Ok(accounts.clone()), None));
                user = Some(identity);
                match ended.with_context(|| format!("acting as uid {uid}"))?? {
                    WalkStep::End(end) => end,
                    WalkStep::Enter(_) => bail!("{}: entered twice", self.path.display()),
                }
            }
        };
        self.reached(user, end)
    }

    /// Checks whether a file may be written at the path after the expected changes.
    ///
    /// It reads only the status of directories, with root's rights.
    pub(crate) fn survey(mut self, root: &Root, expected: ExpectedDirectory<'_>) -> Result<Reached> {
        match self.advance(&root.loader(), Some(expected))? {
            WalkStep::End(end) => self.reached(None, end),
            WalkStep::Enter(_) => bail!("{}: entered", self.path.display()),
        }
    }

    fn reached(mut self, user: Option<Arc<UserIdentity>>, end: WalkEnd) -> Result<Reached> {
        let path = self.real(OsStr::new(""));
        let fd = self.stack.pop().context("a walk without a root")?;
        Ok(Reached { place: OpenDirectory { fd, way: self.way, user }, path, end })
    }

    fn advance(&mut self, load: LoadAccounts<'_>, expected: Option<ExpectedDirectory<'_>>) -> Result<WalkStep> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        while let Some(component) = self.pending.pop_front() {
            let here = self.stack.last().cloned().context("a walk without a root")?;
            match component.as_bytes() {
                b"" | b"." => continue,
                // `..` of the root is the root, as in the kernel.
                b".." => {
                    if self.stack.len() > 1 {
                        _ = (self.stack.pop(), self.names.pop());
                    }
                    continue;
                }
                _ => {}
            }
            if self.takes_planned_link(&component)? {
                continue;
            }
            let fd = match openat(&*here, component.as_os_str(), flags, Bits::empty()) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR) if self.takes_link_below(&component, expected)? => continue,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(self.missing(component)),
                Err(errno) => {
                    let what = self.real(&component);
                    if let (Errno::EACCES, Some(user)) = (errno, self.way.user()) {
                        let here = self.real(OsStr::new(""));
                        return Err(denied(user, "enter", &here.to_string_lossy(), &what.to_string_lossy()));
                    }
                    return Err(errno).with_context(|| format!("opening the directory {}", what.display()));
                }
            };
            let status = fstat(&fd).with_context(|| format!("reading the status of {}", self.path.display()))?;
            let status = FileStatus::new(&status);
            let enters = self.meet(&component, (&fd, &status), load, expected)?;
            match status.file_type {
                FileType::Directory => {
                    self.stack.push(Arc::new(fd));
                    self.names.push(component);
                }
                FileType::Link if !self.is_trusted => return Ok(self.missing(component)),
                FileType::Link => self.follow(&fd)?,
                _ if self.pending.iter().all(|component| component.is_empty()) => {
                    return Ok(WalkStep::End(WalkEnd::File(component)));
                }
                _ => return Ok(self.missing(component)),
            }
            if let Some(uid) = enters {
                return Ok(WalkStep::Enter(uid));
            }
        }
        Ok(WalkStep::End(WalkEnd::Directory))
    }

    /// Checks a component for the purpose of the walk. Returns a user if that user's directories begin with it.
    fn meet(
        &mut self,
        component: &OsStr,
        (fd, status): (&OwnedFd, &FileStatus),
        load: LoadAccounts<'_>,
        expected: Option<ExpectedDirectory<'_>>,
    ) -> Result<Option<u32>> {
        let path = self.real(component);
        let uid = status.ownership.uid;
        match self.purpose {
            WalkPurpose::Obey(also) => return obeyed::check(fd, status, &path, load, also).map(|()| None),
            // Only root can take another user's rights.
            WalkPurpose::Read => {
                let enters = uid != 0 && geteuid().is_root() && self.way.user().is_none();
                if enters {
                    self.way = Way::of(Owner::Id(uid), &path.to_string_lossy());
                }
                return Ok(enters.then_some(uid));
            }
            WalkPurpose::Write | WalkPurpose::Inspect => {}
        }
        // An inspection must not load the accounts: they are read by an inspection.
        let load: LoadAccounts<'_> = if self.purpose == WalkPurpose::Inspect { &|| Ok(Arc::default()) } else { load };
        let (owner, writers) = match expected.and_then(|expected| expected(&path)) {
            Some(expected) => expected,
            None => (Owner::Id(uid), Writers::found(fd, status, &path, load)?),
        };
        let was_ours = self.way.user().is_none();
        let is_link = status.file_type == FileType::Link;
        let passed = self.way.pass(&PathPart { path: &path.to_string_lossy(), owner, writers, is_link });
        if self.purpose == WalkPurpose::Inspect {
            self.is_trusted &= passed.is_ok() && self.way.user().is_none();
            return Ok(None);
        }
        passed?;
        let Some(user) = self.way.user().filter(|_| was_ours) else { return Ok(None) };
        if !geteuid().is_root() {
            let message = format!("{} belongs to {user}, not to you or root", path.display());
            return Err(Fault::new(message).hint("name a directory of yours, or run as root").into());
        }
        Ok(if expected.is_none() { Some(uid) } else { None })
    }

    fn missing(&mut self, component: OsString) -> WalkStep {
        WalkStep::End(WalkEnd::Missing(std::iter::once(component).chain(self.pending.drain(..)).collect()))
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<()> {
        let target = readlinkat(link, "").with_context(|| format!("reading a link in {}", self.path.display()))?;
        self.lead(&target)
    }

    /// Goes on with the target of a link.
    fn lead(&mut self, target: &OsStr) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            bail!("{}: too many levels of symbolic links", self.path.display());
        }
        if target.as_bytes().starts_with(b"/") {
            self.stack.truncate(1);
            self.names.clear();
        }
        for component in components(target).rev() {
            self.pending.push_front(component);
        }
        Ok(())
    }

    /// Follows a planned link at a component. Returns whether there is one.
    fn takes_planned_link(&mut self, component: &OsStr) -> Result<bool> {
        if self.planned.is_empty() || !self.is_trusted {
            return Ok(false);
        }
        let (at, planned) = (self.real(component), self.planned.clone());
        let Some(target) = planned.get(&at) else { return Ok(false) };
        self.pass_planned(&at)?;
        self.lead(target)?;
        Ok(true)
    }

    /// Follows a planned link in a missing directory, which the plan makes before. Returns whether there is one.
    fn takes_link_below(&mut self, missing: &OsStr, expected: Option<ExpectedDirectory<'_>>) -> Result<bool> {
        if self.planned.is_empty() || !self.is_trusted {
            return Ok(false);
        }
        let rest = std::iter::once(missing).chain(self.pending.iter().map(|name| &**name));
        let Some(found) = among_missing(&self.planned, &self.real(OsStr::new("")), rest) else { return Ok(false) };
        for directory in &found.directories {
            let expected = expected.filter(|_| self.purpose == WalkPurpose::Write);
            if let Some((owner, writers)) = expected.and_then(|expected| expected(directory)) {
                self.way.pass(&PathPart { path: &directory.to_string_lossy(), owner, writers, is_link: false })?;
            }
        }
        self.pass_planned(&found.link)?;
        self.pending.clear();
        self.lead(found.leads_to.as_os_str())?;
        Ok(true)
    }

    /// Checks a planned link as a found one. It has the owner of its directory.
    fn pass_planned(&mut self, link: &Path) -> Result<()> {
        if self.purpose == WalkPurpose::Write {
            let owner = self.way.user().cloned().unwrap_or_else(|| Owner::Id(geteuid().as_raw()));
            let path = &link.to_string_lossy();
            self.way.pass(&PathPart { path, owner, writers: Writers::Owner, is_link: true })?;
        }
        Ok(())
    }

    /// Returns the path of a name in the directory that the walk has reached.
    fn real(&self, name: &OsStr) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(&self.names);
        if !name.is_empty() {
            path.push(name);
        }
        path
    }
}

impl Root {
    /// Walks to a directory; `None` if a component does not exist or is not a directory.
    pub(crate) fn walk(&self, path: &AbsPath, purpose: WalkPurpose) -> Result<Option<OpenDirectory>> {
        let reached = Walk::new(self, Path::new(path.as_str()), purpose).run(self)?;
        Ok(matches!(reached.end, WalkEnd::Directory).then_some(reached.place))
    }

    /// Returns the existing and the missing part of a path to write, after the expected changes.
    ///
    /// # Errors
    /// If a walk to write would fail.
    pub fn survey(&self, path: &AbsPath, expected: ExpectedDirectory<'_>) -> Result<Survey> {
        let walk = Walk::new(self, Path::new(path.as_str()), WalkPurpose::Write);
        let Reached { place, path, end } = walk.survey(self, expected)?;
        let missing = match end {
            WalkEnd::Directory => vec![],
            WalkEnd::File(name) => vec![name],
            WalkEnd::Missing(names) => names,
        };
        Ok(Survey { way: place.way, path, missing: missing.into_iter().filter(|name| !name.is_empty()).collect() })
    }

    /// Fails if a user other than root, the caller and the one with this id could replace the file at a path.
    pub fn check_trusted(&self, path: &AbsPath, uid: u32) -> Result<()> {
        Walk::new(self, Path::new(path.as_str()), WalkPurpose::Obey(Some(uid))).run(self).map(drop)
    }

    /// Reads the accounts.
    pub fn accounts(&self) -> Result<Accounts> {
        Ok(Accounts::parse(&self.read_text(&"/etc/passwd".into())?, &self.read_text(&"/etc/group".into())?))
    }

    /// Returns a function that reads the accounts, for a walk on any thread.
    pub(crate) fn loader(&self) -> impl Fn() -> Result<Arc<Accounts>> + Sync + use<> {
        let (path, fd, labels, planned) =
            (self.path.clone(), self.fd.clone(), self.labels.clone(), self.planned.clone());
        move || {
            let (path, fd, labels, planned) = (path.clone(), fd.clone(), labels.clone(), planned.clone());
            let (reads, opened) = (WalkPurpose::Inspect, OpenedDirectories::default());
            Ok(Arc::new(Self { path, fd, reads, opened, labels, planned }.accounts()?))
        }
    }
}
