//! Walking to a path, component by component, each checked through its descriptor.

use std::{
    cell::RefCell,
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode as Bits, unistd::geteuid};

use super::{
    FileType, Root, Status,
    identity::Identity,
    obeyed,
    way::{Owner, Part, Way, Writers},
};
use crate::{
    error::Fault,
    host::{
        accounts::Accounts,
        calls::{fstat, fsync, openat, readlinkat},
    },
    value::AbsPath,
};

/// How many symbolic links one path may lead through, as in the kernel (`ELOOP` beyond).
pub(crate) const MAX_LINKS: usize = 40;

/// What a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read: from the first directory of a user on with that user's rights.
    Read,
    /// To write, by the rule of [`Way`], below a user's directory with that user's rights.
    Write,
    /// To look everything over or to remove it, with root's rights: no link is followed below the first directory that
    /// [`Way`] would not have root write to.
    Inspect,
    /// To read what decides about this program's work: no other user may replace or write any of it.
    Obey,
}

/// A directory that a walk has reached.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) way: Way,
    /// Whose rights count in it, where not root's or the caller's.
    pub(crate) user: Option<Arc<Identity>>,
}

impl Place {
    /// Does something in this directory, with the rights that count in it.
    pub(crate) fn act<T: Send>(&self, work: impl FnOnce(&OwnedFd) -> nix::Result<T> + Send) -> nix::Result<T> {
        match &self.user {
            None => work(&self.fd),
            Some(user) => user.act(|| work(&self.fd))?,
        }
    }

    /// Makes the names in it durable.
    pub(crate) fn flush(&self) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        self.act(|fd| fsync(openat(fd, ".", flags, Bits::empty())?))
    }
}

/// Where a walk has ended.
#[derive(Debug)]
pub(crate) enum End {
    /// At the directory.
    Directory,
    /// At the directory of a file of this name.
    File(OsString),
    /// At the last directory that is there, with these components left.
    Missing(Vec<OsString>),
}

/// A walk that has ended.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) place: Place,
    /// Its path, without any link in it.
    pub(crate) path: PathBuf,
    pub(crate) end: End,
}

/// How far a path leads.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Who decides about it so far.
    pub way: Way,
    /// The last directory that is there, without any link in its path.
    pub path: PathBuf,
    /// The components that are missing.
    pub missing: Vec<OsString>,
}

/// What a plan expects of a directory once the changes before are made.
pub type Expected<'a> = &'a dyn Fn(&Path) -> Option<(Owner, Writers)>;

/// How accounts are had, where a group's members matter.
type Load<'a> = &'a (dyn Fn() -> Result<Arc<Accounts>> + Sync);

/// A walk under way.
pub(crate) struct Walk<'a> {
    purpose: Purpose,
    /// The path that is walked, for messages.
    path: &'a Path,
    pending: VecDeque<OsString>,
    /// The directories from the root on, and their names.
    stack: Vec<Arc<OwnedFd>>,
    names: Vec<OsString>,
    links: usize,
    way: Way,
    is_trusted: bool,
}

/// What a walk comes to.
enum Step {
    End(End),
    /// From here on these are a user's directories.
    Enter(u32),
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: Arc<OwnedFd>, path: &'a Path, purpose: Purpose) -> Self {
        let pending = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let pending = pending.map(|component| OsStr::from_bytes(component).to_owned()).collect();
        let (stack, way) = (vec![root], Way::default());
        Self { purpose, path, pending, stack, names: vec![], links: 0, way, is_trusted: true }
    }

    /// Walks as far as there is something.
    pub(crate) fn run(mut self, root: &Root) -> Result<Reached> {
        let load = root.loader();
        let mut user = None;
        let end = match self.advance(&load, None)? {
            Step::End(end) => end,
            Step::Enter(uid) => {
                let accounts = load()?;
                let identity = Arc::new(Identity::of(uid, &accounts));
                let ended = identity.act(|| self.advance(&|| Ok(accounts.clone()), None));
                user = Some(identity);
                match ended.with_context(|| format!("acting as uid {uid}"))?? {
                    Step::End(end) => end,
                    Step::Enter(_) => bail!("{}: entered twice", self.path.display()),
                }
            }
        };
        self.reached(user, end)
    }

    /// Only looks whether something may be written there, once what is expected is so. Nothing is read but the status of
    /// directories, and that with root's rights.
    pub(crate) fn survey(mut self, root: &Root, expected: Expected<'_>) -> Result<Reached> {
        match self.advance(&root.loader(), Some(expected))? {
            Step::End(end) => self.reached(None, end),
            Step::Enter(_) => bail!("{}: entered", self.path.display()),
        }
    }

    fn reached(mut self, user: Option<Arc<Identity>>, end: End) -> Result<Reached> {
        let path = self.real(OsStr::new(""));
        let fd = self.stack.pop().context("a walk without a root")?;
        Ok(Reached { place: Place { fd, way: self.way, user }, path, end })
    }

    fn advance(&mut self, load: Load<'_>, expected: Option<Expected<'_>>) -> Result<Step> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        while let Some(component) = self.pending.pop_front() {
            let here = self.stack.last().cloned().context("a walk without a root")?;
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
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(self.missing(component)),
                Err(errno) => {
                    let what = self.real(&component);
                    return Err(errno).with_context(|| format!("opening the directory {}", what.display()));
                }
            };
            let status = fstat(&fd).with_context(|| format!("reading the status of {}", self.path.display()))?;
            let status = Status::new(&status);
            let enters = self.meet(&component, (&fd, &status), load, expected)?;
            match status.file_type {
                FileType::Directory => {
                    self.stack.push(Arc::new(fd));
                    self.names.push(component);
                }
                FileType::Link if !self.is_trusted => return Ok(self.missing(component)),
                FileType::Link => self.follow(&fd)?,
                _ if self.pending.iter().all(|component| component.is_empty()) => {
                    return Ok(Step::End(End::File(component)));
                }
                _ => return Ok(self.missing(component)),
            }
            if let Some(uid) = enters {
                return Ok(Step::Enter(uid));
            }
        }
        Ok(Step::End(End::Directory))
    }

    /// Looks at a component by what the walk is for. The user whose directories begin with it, if they do.
    fn meet(
        &mut self,
        component: &OsStr,
        (fd, status): (&OwnedFd, &Status),
        load: Load<'_>,
        expected: Option<Expected<'_>>,
    ) -> Result<Option<u32>> {
        let path = self.real(component);
        let uid = status.ownership.uid;
        match self.purpose {
            Purpose::Obey => return obeyed::check(fd, status, &path, load).map(|()| None),
            // Another user's rights only root can take.
            Purpose::Read => {
                let enters = uid != 0 && geteuid().is_root() && self.way.user().is_none();
                if enters {
                    self.way = Way::of(Owner::Id(uid), &path.to_string_lossy());
                }
                return Ok(enters.then_some(uid));
            }
            Purpose::Write | Purpose::Inspect => {}
        }
        // To look things over takes no accounts: they are read in this way.
        let load: Load<'_> = if self.purpose == Purpose::Inspect { &|| Ok(Arc::default()) } else { load };
        let (owner, writers) = match expected.and_then(|expected| expected(&path)) {
            Some(expected) => expected,
            None => (Owner::Id(uid), Writers::found(fd, status, &path, load)?),
        };
        let was_ours = self.way.user().is_none();
        let is_link = status.file_type == FileType::Link;
        let passed = self.way.pass(&Part { path: &path.to_string_lossy(), owner, writers, is_link });
        if self.purpose == Purpose::Inspect {
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

    fn missing(&mut self, component: OsString) -> Step {
        Step::End(End::Missing(std::iter::once(component).chain(self.pending.drain(..)).collect()))
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

impl Root {
    /// Walks to a directory. `None` where a component is missing or no directory.
    pub(crate) fn walk(&self, path: &AbsPath, purpose: Purpose) -> Result<Option<Place>> {
        let reached = Walk::new(self.fd.clone(), Path::new(path.as_str()), purpose).run(self)?;
        Ok(matches!(reached.end, End::Directory).then_some(reached.place))
    }

    /// How far a path leads, once what is expected is so, if something may be written there.
    ///
    /// # Errors
    /// Where a walk to write would fail.
    pub fn survey(&self, path: &AbsPath, expected: Expected<'_>) -> Result<Survey> {
        let walk = Walk::new(self.fd.clone(), Path::new(path.as_str()), Purpose::Write);
        let Reached { place, path, end } = walk.survey(self, expected)?;
        let missing = match end {
            End::Directory => vec![],
            End::File(name) => vec![name],
            End::Missing(names) => names,
        };
        Ok(Survey { way: place.way, path, missing: missing.into_iter().filter(|name| !name.is_empty()).collect() })
    }

    /// Reads the accounts.
    pub fn accounts(&self) -> Result<Accounts> {
        Ok(Accounts::parse(&self.read_text(&"/etc/passwd".into())?, &self.read_text(&"/etc/group".into())?))
    }

    /// How a walk, on whatever thread it goes on, reads the accounts.
    pub(crate) fn loader(&self) -> impl Fn() -> Result<Arc<Accounts>> + Sync + use<> {
        let (path, fd) = (self.path.clone(), self.fd.clone());
        move || {
            let root = Self { path: path.clone(), fd: fd.clone(), reads: Purpose::Inspect, last: RefCell::new(None) };
            Ok(Arc::new(root.accounts()?))
        }
    }
}
