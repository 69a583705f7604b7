//! The only door to the machine: files, programs, downloads, accounts, services.
//!
//! Nothing outside this module opens a file or starts a process (clippy enforces it), so what a kind may
//! do to a host, and what `--root` must redirect, is all in here.

pub mod places;
mod previous;

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    error::Fault,
    host::{
        accounts::Accounts,
        root::{
            Root,
            way::{Owner, Writers},
        },
        systemd::Units,
    },
    manifest::variables::{OfEachInstance, Variables},
    stop::{Deadlines, Interrupt},
    value::{AbsPath, Sha256},
};

/// Something that a change which was planned but not made would bring about. In a dry run, what depends
/// on it is a pending change, not an error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// A user of this name.
    User(String),
    /// A group of this name.
    Group(String),
    /// Something new at this path.
    Path(AbsPath),
    /// A file with these bytes at this path.
    Bytes(AbsPath, Sha256),
    /// A directory at this path, which has no link in it, with this owner and these others that may write to it.
    Directory(AbsPath, Owner, Writers),
    /// Something at this path that is left to the boot.
    AtBoot(AbsPath),
    /// Packages, and so anything that they may bring: files, users, units.
    Packages,
}

/// Whether changes are made or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `plan`: nothing is changed.
    Plan,
    /// `run`.
    Run,
}

/// What a run is to end with: an image, or a machine that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// An image is made, of a tree or of the build instance this runs on: nothing is started, swapped on or checked, and
    /// what each instance has its own does not get into it.
    Bake,
    /// The machine itself, booted from a baked image or a stock one.
    Boot,
}

/// The machine or image acted on.
pub struct System {
    pub(crate) root: Root,
    pub(crate) mode: Mode,
    pub(crate) phase: Phase,
    pub(crate) live: bool,
    pub(crate) interrupt: Interrupt,
    pub(crate) deadlines: Deadlines,
    pub(crate) progress: RefCell<Progress>,
    pub(crate) warnings: RefCell<Vec<String>>,
    pub(crate) expected: RefCell<BTreeSet<Fact>>,
    pub(crate) cache: RefCell<Rc<Cache>>,
    pub(crate) watched_units: RefCell<BTreeSet<String>>,
    /// The units that this run has started, each with the invocation that is known of.
    pub(crate) started_units: RefCell<BTreeMap<String, String>>,
    pub(crate) kept: previous::KeptCell,
    pub(crate) variables: RefCell<Option<Rc<Variables>>>,
    pub(crate) run_command: RefCell<RunCommand>,
    pub(crate) fetcher: crate::fetch::Fetcher,
}

/// A command that runs the steps again, as a person types it.
#[derive(Debug, Clone)]
pub struct RunCommand {
    /// `glovo-bootstrap run`
    pub verb: String,
    /// Which steps; empty, or it begins with a space.
    pub selection: String,
    /// Manifest, variables and more; empty, or it begins with a space.
    pub options: String,
}

impl RunCommand {
    /// The same of only this step.
    pub fn only(&self, step: &str) -> String {
        format!("{} {step}{}", self.verb, self.options)
    }
}

impl Default for RunCommand {
    fn default() -> Self {
        Self { verb: "glovo-bootstrap run".into(), selection: String::new(), options: String::new() }
    }
}

impl std::fmt::Display for RunCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.verb, self.selection, self.options)
    }
}

/// Shows a line about what is going on.
pub(crate) type Progress = Box<dyn Fn(&str)>;

/// What was read from the machine since the last change.
#[derive(Default)]
pub(crate) struct Cache {
    pub(crate) accounts: OnceCell<Rc<Accounts>>,
    pub(crate) units: RefCell<Option<Units>>,
    pub(crate) digests: RefCell<BTreeMap<[i64; 7], Sha256>>,
    pub(crate) packages: OnceCell<Rc<crate::packages::dpkg::Status>>,
    /// The directory that was looked at last, to be written to: a thousand files of one directory cost one walk.
    pub(crate) survey: RefCell<Option<(AbsPath, crate::host::root::Survey)>>,
}

impl System {
    /// Opens the machine (`/`) or an image's tree.
    pub fn open(root: &Path, mode: Mode, interrupt: Interrupt) -> Result<Self> {
        let root = Root::open(root)?;
        // As sd_booted(3) asks; a container or chroot without systemd can't start services.
        let live = root.is_host() && root.status(&"/run/systemd/system".into())?.is_some();
        Ok(Self {
            root,
            mode,
            phase: Phase::Boot,
            live,
            interrupt,
            deadlines: Deadlines::default(),
            progress: RefCell::new(Box::new(|_| {})),
            warnings: RefCell::default(),
            expected: RefCell::default(),
            cache: RefCell::default(),
            watched_units: RefCell::default(),
            started_units: RefCell::default(),
            kept: RefCell::default(),
            variables: RefCell::default(),
            run_command: RefCell::default(),
            fetcher: crate::fetch::Fetcher::default(),
        })
    }

    /// The files.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Whether services can be started and swap turned on: false while an image is made, and where systemd is not
    /// the init system. What then can't be done is reported as deferred.
    pub fn is_live(&self) -> bool {
        self.live && self.phase == Phase::Boot
    }

    /// Returns why nothing can be started, where [`System::is_live`] is false.
    pub fn why_not_live(&self) -> &'static str {
        if self.phase == Phase::Boot && self.root.is_host() {
            "systemd does not run on this machine"
        } else {
            "nothing is started in an image"
        }
    }

    /// Makes an image, or a machine that serves.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// What the run is to end with.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Fails while an image is made: asked before a fact that would be the build machine's.
    pub(crate) fn leave_to_instances(&self) -> Result<()> {
        if self.phase == Phase::Bake { Err(OfEachInstance.into()) } else { Ok(()) }
    }

    /// Whether changes are made or only planned.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The signal flag, to be shared with threads.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The deadlines in force.
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Fails if a signal or a deadline asks to stop.
    pub fn check(&self) -> Result<()> {
        self.interrupt.check()?;
        self.deadlines.check()
    }

    /// Waits, but not beyond a signal or a deadline.
    pub fn wait(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            crate::stop::sleep(left);
        }
    }

    /// Waits until there is something to read, but not beyond a signal or a deadline.
    pub fn await_input(&self, input: &impl AsFd) -> Result<()> {
        loop {
            self.check()?;
            let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            let tick = PollTimeout::try_from(crate::stop::TICK).unwrap_or(PollTimeout::ZERO);
            // Interrupted by a signal it is looked at above.
            if poll(&mut ready, tick).is_ok_and(|ready| ready > 0) {
                return Ok(());
            }
        }
    }

    /// Where a line about what is going on is shown while it goes on.
    pub fn on_progress(&self, show: impl Fn(&str) + 'static) {
        *self.progress.borrow_mut() = Box::new(show);
    }

    /// Shows what is going on.
    pub fn progress(&self, line: &str) {
        (self.progress.borrow())(line);
    }

    /// Notes what did not fail the change that is being made, but belongs into the report.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// Takes the warnings since the last call.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Everything read is read again: a change was made.
    pub fn forget(&self) {
        self.root.forget();
        *self.cache.borrow_mut() = Rc::default();
    }

    pub(crate) fn cache(&self) -> Rc<Cache> {
        self.cache.borrow().clone()
    }

    /// The digest of a regular file, read once as long as nothing is changed; `None` where there is none.
    pub fn digest(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        use sha2::Digest;
        let Some((mut file, status)) = self.root.open_file(path)? else { return Ok(None) };
        let cache = self.cache();
        if let Some(digest) = cache.digests.borrow().get(&status.identity) {
            return Ok(Some(*digest));
        }
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            self.check()?;
            match crate::host::calls::read(&mut file, &mut buffer).with_context(|| format!("reading {path}"))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let digest = Sha256(hasher.finalize().into());
        _ = cache.digests.borrow_mut().insert(status.identity, digest);
        Ok(Some(digest))
    }

    /// What a person types to run the steps again.
    pub fn run_command(&self) -> RunCommand {
        self.run_command.borrow().clone()
    }

    /// Says what a person types to run the steps again.
    pub fn set_run_command(&self, command: RunCommand) {
        *self.run_command.borrow_mut() = command;
    }

    /// The variables that templates are filled in with.
    pub fn set_variables(&self, variables: Rc<Variables>) {
        *self.variables.borrow_mut() = Some(variables);
    }

    /// Replaces `{{ name }}` in a template.
    pub fn render(&self, template: &str) -> Result<String> {
        match &*self.variables.borrow() {
            None => Ok(template.to_owned()),
            Some(variables) => variables.substitute(template).map_err(|unresolved| {
                let fault = Fault::new(unresolved.message());
                match unresolved.hint(variables) {
                    Some(hint) => fault.hint(hint).into(),
                    None => fault.into(),
                }
            }),
        }
    }

    /// Users and groups.
    pub fn accounts(&self) -> Result<Rc<Accounts>> {
        let cache = self.cache();
        if let Some(accounts) = cache.accounts.get() {
            return Ok(accounts.clone());
        }
        let accounts = Rc::new(Accounts::read(&self.root)?);
        Ok(cache.accounts.get_or_init(|| accounts).clone())
    }

    /// What dpkg has installed.
    pub fn packages(&self) -> Result<Rc<crate::packages::dpkg::Status>> {
        let cache = self.cache();
        if let Some(packages) = cache.packages.get() {
            return Ok(packages.clone());
        }
        let packages = Rc::new(crate::packages::dpkg::Status::read(&self.root)?);
        Ok(cache.packages.get_or_init(|| packages).clone())
    }

    /// In a dry run: this will be so once the changes planned so far are made.
    pub fn expect(&self, facts: impl IntoIterator<Item = Fact>) {
        *self.cache().survey.borrow_mut() = None;
        self.expected.borrow_mut().extend(facts);
    }

    /// The digest of the bytes that a change planned earlier puts at a path.
    pub fn expected_digest(&self, path: &AbsPath) -> Option<Sha256> {
        self.expected.borrow().iter().find_map(|fact| match fact {
            Fact::Bytes(at, digest) if at == path => Some(*digest),
            _ => None,
        })
    }

    /// What a change planned earlier makes of a directory: its owner, and who else may write to it.
    fn expected_directory(&self, path: &Path) -> Option<(Owner, Writers)> {
        self.expected.borrow().iter().find_map(|fact| match fact {
            Fact::Directory(at, owner, writers) if Path::new(at.as_str()) == path => Some((owner.clone(), *writers)),
            _ => None,
        })
    }

    /// Whether a change planned earlier brings this about.
    pub fn expects(&self, fact: &Fact) -> bool {
        self.expected.borrow().contains(fact)
    }
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System")
            .field("root", &self.root)
            .field("mode", &self.mode)
            .field("phase", &self.phase)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
