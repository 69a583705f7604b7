//! What a kind works with: the machine, its downloads, and what a plan knows of the changes before.

pub mod places;
mod previous;
pub(crate) mod remote;

use std::{cell::RefCell, collections::BTreeSet, path::Path, rc::Rc};

use anyhow::{Result, bail};

use crate::{
    aws::{Aws, account::AwsSettings, metadata::InstanceFact},
    error::Fault,
    fetch::Fetcher,
    host::{
        Host,
        facts::{FACTS, FACTS_OF_EACH_INSTANCE},
        root::{
            Root, Survey,
            way::{Owner, Writers},
        },
    },
    net::settings::NetworkSettings,
    stop::Interrupt,
    value::{AbsPath, Sha256},
    variables::{OfEachInstance, Variables},
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

/// What a kind works with: the machine, its downloads, and what a plan knows of the changes before.
pub struct System {
    /// The machine or image acted on.
    pub host: Host,
    /// Calls of AWS.
    pub aws: Aws,
    /// Downloads.
    pub fetcher: Fetcher,
    mode: Mode,
    phase: Phase,
    warnings: RefCell<Vec<String>>,
    expected: RefCell<BTreeSet<Fact>>,
    /// The directory that was looked at last, to be written to: a thousand files of one directory cost one walk.
    survey: RefCell<Option<(AbsPath, Survey)>>,
    kept: previous::KeptCell,
    variables: RefCell<Option<Rc<Variables>>>,
}

impl System {
    /// Opens the machine (`/`) or an image's tree.
    pub fn open(root: &Path, mode: Mode, interrupt: Interrupt) -> Result<Self> {
        let (aws, fetcher) = remote::connections(mode, NetworkSettings::default(), AwsSettings::default());
        Ok(Self {
            host: Host::open(root, interrupt)?,
            aws,
            fetcher,
            mode,
            phase: Phase::Boot,
            warnings: RefCell::default(),
            expected: RefCell::default(),
            survey: RefCell::default(),
            kept: RefCell::default(),
            variables: RefCell::default(),
        })
    }

    /// Returns the files.
    pub fn root(&self) -> &Root {
        self.host.root()
    }

    /// Returns whether services can be started and swap turned on: false while an image is made, and where systemd is
    /// not the init system. A change that needs it is then reported as deferred.
    pub fn is_live(&self) -> bool {
        self.host.has_systemd() && self.phase == Phase::Boot
    }

    /// Returns why nothing can be started, where [`System::is_live`] is false.
    pub fn why_not_live(&self) -> &'static str {
        if self.phase == Phase::Boot && self.root().is_host() {
            "systemd does not run on this machine"
        } else {
            "nothing is started in an image"
        }
    }

    /// Makes an image, or a machine that serves.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Returns what the run is to end with.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns whether changes are made or only planned.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns a fact, such as `instance.region` or `host.codename`.
    ///
    /// # Errors
    /// If there is none of this name, if it can't be found out, or, with [`OfEachInstance`], if it differs between the
    /// instances of the image that is made.
    pub fn fact(&self, name: &str) -> Result<String> {
        check_fact(name)?;
        if let Some(name) = name.strip_prefix("instance.") {
            return self.instance(name);
        }
        let name = name.trim_start_matches("host.");
        if FACTS_OF_EACH_INSTANCE.contains(&name) {
            self.leave_to_instances()?;
        }
        self.host.fact(name)
    }

    /// Fails while an image is made: asked before a fact that would be the build machine's.
    pub(crate) fn leave_to_instances(&self) -> Result<()> {
        if self.phase == Phase::Bake { Err(OfEachInstance.into()) } else { Ok(()) }
    }

    /// Notes what did not fail the change that is being made, but belongs into the report.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// Takes the warnings since the last call.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Reads everything again from now on: a change was made.
    pub fn forget(&self) {
        self.host.forget();
        *self.survey.borrow_mut() = None;
    }

    /// Sets the variables that templates are filled in with.
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

    /// In a dry run: this will be so once the changes planned so far are made.
    pub fn expect(&self, facts: impl IntoIterator<Item = Fact>) {
        *self.survey.borrow_mut() = None;
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

/// Fails if there is no fact of this name, such as `instance.region` or `host.codename`.
pub fn check_fact(name: &str) -> Result<()> {
    match name.split_once('.') {
        Some(("instance", name)) => Ok(InstanceFact::parse(name).map(drop)?),
        Some(("host", name)) if FACTS.contains(&name) => Ok(()),
        _ => bail!("there is no {name}: the facts are {}", FACTS.map(|fact| format!("host.{fact}")).join(", ")),
    }
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System")
            .field("host", &self.host)
            .field("mode", &self.mode)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
