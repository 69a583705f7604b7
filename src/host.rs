//! The machine: its files, programs, accounts, services and facts.
//!
//! Only this room opens files of the machine and starts programs on it (clippy enforces that). So everything that a kind
//! can do to a machine, and everything that `--root` must redirect, is in here.

pub mod account_changes;
pub mod accounts;
pub mod authorized_keys;
pub mod boot;
pub(crate) mod bus;
pub mod calls;
pub mod command;
pub mod console;
pub mod declared;
pub mod disks;
pub mod ec2;
pub mod edited;
pub mod facts;
pub mod file_lock;
pub mod journal;
pub mod launch;
pub mod memory;
pub mod mountinfo;
pub mod mounts;
pub(crate) mod operator;
pub mod output;
pub mod process;
pub mod rerun;
pub mod root;
pub mod run_command;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a panic fails the test")]
#[cfg_attr(fuzzing, allow(dead_code, reason = "the fuzz targets use a part of it"))]
pub(crate) mod scratch;
pub mod selinux;
pub mod state;
pub mod sysctl;
pub mod systemd;
pub mod tree;
pub(crate) mod unswapped;
pub mod wait;

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::BTreeMap,
    path::Path,
    rc::Rc,
};

use anyhow::{Context, Result};

use self::{accounts::Accounts, root::Root, run_command::RunCommand, systemd::KnownUnits};
use crate::{
    stop::{Interrupt, Stop},
    value::{AbsPath, Sha256},
};

/// Limits one read of a file for its digest.
const MAX_READ_BYTES: usize = 128 << 10;

/// The target of a run: the machine itself (`/`) or an image's tree.
pub struct Host {
    root: Root,
    /// The signals and deadlines that end a wait early.
    pub stop: Stop,
    has_systemd: bool,
    progress: RefCell<ShowProgress>,
    wait: RefCell<ShowProgress>,
    run_command: RefCell<RunCommand>,
    cache: RefCell<Cache>,
    units: RefCell<KnownUnits>,
}

/// A function that shows a line of progress.
type ShowProgress = Box<dyn Fn(&str)>;

/// The values that were read from the machine since the last change.
#[derive(Default)]
struct Cache {
    digests: BTreeMap<[i64; 7], Sha256>,
    /// One value of each type; see [`Host::read_once`].
    values: BTreeMap<TypeId, Rc<dyn Any>>,
}

impl Host {
    /// Opens the machine (`/`) or an image's tree.
    pub fn open(root: &Path, interrupt: Interrupt) -> Result<Self> {
        let root = Root::open(root)?;
        // The same check as sd_booted(3). A container or chroot without systemd cannot start services.
        let has_systemd = root.is_host() && root.status(&"/run/systemd/system".into())?.is_some();
        Ok(Self {
            root,
            stop: Stop::new(interrupt),
            has_systemd,
            progress: RefCell::new(Box::new(|_| {})),
            wait: RefCell::new(Box::new(|_| {})),
            run_command: RefCell::default(),
            cache: RefCell::default(),
            units: RefCell::default(),
        })
    }

    /// Returns the file system.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Returns whether systemd is the init system of this machine; false for an image's tree.
    pub fn has_systemd(&self) -> bool {
        self.has_systemd
    }

    /// Sets the function that shows progress.
    pub fn on_progress(&self, show: impl Fn(&str) + 'static) {
        *self.progress.borrow_mut() = Box::new(show);
    }

    /// Shows a line of progress.
    pub fn progress(&self, line: &str) {
        (self.progress.borrow())(line);
    }

    /// Sets the function that tells a long wait.
    pub fn on_wait(&self, tell: impl Fn(&str) + 'static) {
        *self.wait.borrow_mut() = Box::new(tell);
    }

    fn tell_wait(&self, line: &str) {
        (self.wait.borrow())(line);
    }

    /// Returns the command that runs the steps again, for hints.
    pub fn run_command(&self) -> RunCommand {
        self.run_command.borrow().clone()
    }

    /// Sets the command that runs the steps again.
    pub fn set_run_command(&self, command: RunCommand) {
        *self.run_command.borrow_mut() = command;
    }

    /// Forgets all values that were read. Every change calls this.
    pub fn forget(&self) {
        self.root.forget();
        self.units.borrow_mut().forget();
        *self.cache.borrow_mut() = Cache::default();
    }

    /// Returns the value that `read` reads from the file system.
    ///
    /// The value is kept until the next change. There is one value for each type.
    pub fn read_once<T: 'static>(&self, read: impl FnOnce(&Root) -> Result<T>) -> Result<Rc<T>> {
        let known = self.cache.borrow().values.get(&TypeId::of::<T>()).cloned();
        if let Some(known) = known.and_then(|value| value.downcast().ok()) {
            return Ok(known);
        }
        let value = Rc::new(read(&self.root)?);
        _ = self.cache.borrow_mut().values.insert(TypeId::of::<T>(), value.clone());
        Ok(value)
    }

    /// Returns the users and groups.
    pub fn accounts(&self) -> Result<Rc<Accounts>> {
        self.read_once(Root::accounts)
    }

    /// Returns the digest of a regular file; `None` if it does not exist. The digest is kept until the file changes.
    pub fn digest(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        use sha2::Digest;
        let Some((mut file, status)) = self.root.open_file(path)? else { return Ok(None) };
        if let Some(digest) = self.cache.borrow().digests.get(&status.identity) {
            return Ok(Some(*digest));
        }
        let mut hasher = sha2::Sha256::new();
        // One byte more than the file has, so that a whole file is one read, and its end the next one.
        let mut buffer = vec![
            0;
            usize::try_from(status.size)
                .map_or(MAX_READ_BYTES, |size| size.saturating_add(1).min(MAX_READ_BYTES))
        ];
        loop {
            self.stop.check()?;
            match calls::read(&mut file, &mut buffer).with_context(|| format!("reading {path}"))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let digest = Sha256(hasher.finalize().into());
        _ = self.cache.borrow_mut().digests.insert(status.identity, digest);
        Ok(Some(digest))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("root", &self.root).field("has_systemd", &self.has_systemd).finish_non_exhaustive()
    }
}
