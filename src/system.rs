//! The environment of a kind: the machine, its downloads, and the expected facts of a plan.

pub mod ahead;
pub mod command_record;
pub mod device;
mod facts;
pub mod making;
pub mod ownership;
pub mod places;
mod previous;
pub(crate) mod remote;
mod secret_files;
mod stamp;
pub mod wait;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
};

use anyhow::{Result, bail};

pub use self::facts::Fact;
use crate::{
    aws::{Aws, account::AwsSettings, metadata::InstanceFact},
    error::{self, Fault},
    fetch::Fetcher,
    host::{
        Host,
        command::{candidates, not_executable},
        declared::replaceable,
        ec2::is_untrusted_error,
        facts::{FACTS, FACTS_OF_EACH_INSTANCE},
        root::{Root, Survey, way::Owner},
    },
    net::settings::NetworkSettings,
    secrets::Secrets,
    stop::Interrupt,
    value::AbsPath,
    variables::{OfEachInstance, Variables},
};

/// Says whether changes are made or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `plan`: nothing is changed.
    Plan,
    /// `run`.
    Run,
}

/// The result of a run: an image, or a machine that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// An image, made of a tree or of this build instance. Services, swap and checks do not start. Values that differ between
    /// instances are not written to it.
    Bake,
    /// A machine, booted from a baked or stock image.
    Boot,
}

/// The environment of a kind: the machine, its downloads, and the expected facts of a plan.
pub struct System {
    /// The machine or the image's tree.
    pub host: Host,
    /// Calls of AWS.
    pub aws: Aws,
    /// Downloads.
    pub fetcher: Fetcher,
    secrets: Secrets,
    mode: Mode,
    phase: Phase,
    /// Whether Auto Scaling prepares this machine for a warm pool.
    is_warmed: bool,
    warnings: RefCell<Vec<String>>,
    expected: RefCell<BTreeSet<Fact>>,
    /// The last surveyed directory. A thousand files of one directory need one walk.
    survey: RefCell<Option<(AbsPath, Survey)>>,
    kept: previous::KeptCell,
    ahead: RefCell<ahead::Ahead>,
    /// The packages that resources of the manifest keep installed, as declared.
    declared_packages: RefCell<Vec<String>>,
    /// The paths that resources of this machine manage.
    declared_paths: RefCell<BTreeMap<AbsPath, bool>>,
    variables: RefCell<Option<Rc<Variables>>>,
    /// The previous directories of archives, which go at the end of the run, each with the paths that it keeps.
    leaving: RefCell<BTreeMap<AbsPath, Vec<String>>>,
}

impl System {
    /// Opens the machine (`/`) or an image's tree.
    pub fn open(root: &Path, mode: Mode, interrupt: Interrupt) -> Result<Self> {
        let (aws, fetcher) = remote::connections(mode, NetworkSettings::default(), AwsSettings::default());
        Ok(Self {
            host: Host::open(root, interrupt)?,
            aws,
            fetcher,
            secrets: Secrets::default(),
            mode,
            phase: Phase::Boot,
            is_warmed: false,
            warnings: RefCell::default(),
            expected: RefCell::default(),
            survey: RefCell::default(),
            kept: RefCell::default(),
            ahead: RefCell::default(),
            declared_packages: RefCell::default(),
            declared_paths: RefCell::default(),
            variables: RefCell::default(),
            leaving: RefCell::default(),
        })
    }

    /// Returns the file system.
    pub fn root(&self) -> &Root {
        self.host.root()
    }

    /// Returns whether services can be started and swap can be turned on.
    ///
    /// It is false for an image, and if systemd is not the init system. Then changes that need it are deferred.
    pub fn is_live(&self) -> bool {
        self.host.has_systemd() && self.phase == Phase::Boot
    }

    /// Returns whether Auto Scaling prepares this machine for a warm pool, so that it must take no work.
    pub fn is_warmed(&self) -> bool {
        self.is_warmed
    }

    /// Notes that Auto Scaling prepares this machine for a warm pool.
    pub fn set_warmed(&mut self) {
        self.is_warmed = true;
    }

    /// Returns whether services run as declared, so that they can be checked.
    pub fn is_serving(&self) -> bool {
        self.is_live() && !self.is_warmed
    }

    /// Returns whether the result of the run is an image.
    fn is_image(&self) -> bool {
        self.phase != Phase::Boot || !self.root().is_host()
    }

    /// Returns the reason if [`System::is_live`] or [`System::is_serving`] is false.
    pub fn why_not_live(&self) -> &'static str {
        self.why_not_live_or("an image starts no services")
    }

    /// Returns the reason if [`System::is_live`] is false, with this one for an image.
    pub fn why_not_live_or(&self, of_image: &'static str) -> &'static str {
        if self.is_image() {
            of_image
        } else if self.is_warmed {
            "this machine enters a warm pool"
        } else {
            "systemd does not run on this machine"
        }
    }

    /// Sets the result of the run.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Returns the result of the run.
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
    /// If the fact does not exist or cannot be read. If it differs between the instances of an image, the error is
    /// [`OfEachInstance`].
    pub fn fact(&self, name: &str) -> Result<String> {
        check_fact(name)?;
        if let Some(name) = name.strip_prefix("instance.") {
            return self.instance(name).map_err(|error| {
                if self.mode == Mode::Run || !is_untrusted_error(&error) {
                    return error;
                }
                let hint = format!("suppose a value: --set instance.{name}=VALUE");
                Fault::new(format!("instance.{name} is unknown on this machine")).hint(hint).caused_by(error).into()
            });
        }
        let name = name.trim_start_matches("host.");
        if FACTS_OF_EACH_INSTANCE.contains(&name) {
            self.leave_to_instances()?;
        }
        self.host.fact(name)
    }

    /// Fails for an image, because the fact would be the build machine's.
    pub(crate) fn leave_to_instances(&self) -> Result<()> {
        if self.phase == Phase::Bake { Err(OfEachInstance.into()) } else { Ok(()) }
    }

    /// Fails if a program is not installed and no earlier planned change installs it, or if a user other than root and the
    /// one whose rights it gets could replace it.
    pub fn check_program(&self, name: &str, uid: u32) -> Result<()> {
        self.check_program_exists(name)?;
        if let Some(path) = candidates(name).find(|path| self.expects(&Fact::Path(path.clone()))) {
            self.check_coming_program(&path, uid)?;
        }
        self.host.check_program_owners(name, uid)
    }

    /// Fails if a program is not installed or cannot be executed, and no earlier planned change installs it.
    pub fn check_program_exists(&self, name: &str) -> Result<()> {
        if self.check_executable(name)? || self.host.has_program(name) {
            Ok(())
        } else {
            Err(self.host.no_program(name))
        }
    }

    /// Returns whether an earlier planned change brings a program or makes it executable.
    ///
    /// # Errors
    /// If what is in its place after these changes cannot be executed.
    pub fn check_executable(&self, name: &str) -> Result<bool> {
        match self.expected_mode(|path| candidates(name).any(|candidate| self.root().real(&candidate) == *path)) {
            Some((path, mode)) if mode & 0o111 == 0 => Err(not_executable(&path, mode)),
            Some(_) => Ok(true),
            None if self.expects(&Fact::Packages) => Ok(true),
            None if candidates(name).any(|path| self.expects(&Fact::Path(path))) => Ok(true),
            None => self.host.check_executable(name).map(|()| false),
        }
    }

    /// Fails if a program that an earlier planned change makes will be in a directory of a user other than root and the one
    /// whose rights it gets.
    fn check_coming_program(&self, path: &AbsPath, uid: u32) -> Result<()> {
        let claim = places::Claim { path, owner: None, gid: None, makes_parents: true };
        match self.check_place(claim)?.user {
            Some(owner) if owner != Owner::Id(0) && owner != Owner::Id(uid) => {
                let directory = path.parent().unwrap_or_else(|| AbsPath::from("/"));
                let cause = Fault::new(format!("{directory} will belong to {owner}"));
                let cause = cause.hint("declare a directory of root for it, or `user` as its owner");
                Err(anyhow::Error::from(cause).context(replaceable(path, uid)))
            }
            _ => Ok(()),
        }
    }

    /// Sets the packages that resources of the manifest keep installed on this machine, as declared.
    pub fn declare_packages(&self, packages: Vec<String>) {
        *self.declared_packages.borrow_mut() = packages;
    }

    /// Returns the packages that resources of the manifest keep installed on this machine, as declared.
    pub fn declared_packages(&self) -> Vec<String> {
        self.declared_packages.borrow().clone()
    }

    /// Adds a warning to the report of the change that is being made.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// Returns the warnings since the last call.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Forgets all values that were read. Every change calls this.
    pub fn forget(&self) {
        self.host.forget();
        self.fetcher.forget_answers();
        *self.survey.borrow_mut() = None;
    }

    /// Sets the variables for templates.
    pub fn set_variables(&self, variables: Rc<Variables>) {
        *self.variables.borrow_mut() = Some(variables);
    }

    /// Sets the paths that the resources of this machine manage, each with whether its resource fills it as a directory.
    pub fn set_declared(&self, paths: impl IntoIterator<Item = (AbsPath, bool)>) {
        *self.declared_paths.borrow_mut() = paths.into_iter().collect();
    }

    /// Returns the closest directory above a path that a resource of this machine fills.
    pub fn filled_above(&self, path: &AbsPath) -> Option<AbsPath> {
        let declared = self.declared_paths.borrow();
        let mut above = std::iter::successors(path.parent(), AbsPath::parent);
        above.find(|above| declared.get(above) == Some(&true))
    }

    /// Returns whether a resource of this machine manages a path.
    pub fn is_declared(&self, path: &AbsPath) -> bool {
        self.declared_paths.borrow().contains_key(path)
    }

    /// Returns a variable of a template whose value is the secret of a store.
    pub fn stored_in(&self, template: &str) -> Option<String> {
        let variables = self.variables.borrow();
        let variables = variables.as_ref()?;
        variables.secrets_in(template).into_iter().find(|name| variables.is_certainly_secret(name))
    }

    /// Replaces `{{ name }}` in a template.
    pub fn render(&self, template: &str) -> Result<String> {
        match &*self.variables.borrow() {
            None => Ok(template.to_owned()),
            Some(variables) => variables.substitute(template).map_err(|unresolved| {
                if let Some(error) = variables.unread(unresolved.name()) {
                    return error::again(&error);
                }
                let fault = Fault::new(unresolved.message());
                match unresolved.hint(variables) {
                    Some(hint) => fault.hint(hint).into(),
                    None => fault.into(),
                }
            }),
        }
    }

    /// Keeps the previous directory of an archive until the end of the run: services still use it.
    pub fn leave_tree(&self, path: AbsPath, kept: Vec<String>) {
        _ = self.leaving.borrow_mut().insert(path, kept);
    }

    /// Returns whether the previous directory beside a path goes at the end of this run.
    pub fn is_leaving(&self, path: &AbsPath) -> bool {
        self.leaving.borrow().contains_key(path)
    }

    /// Returns the directories that go at the end of the run, each with the paths that are kept.
    pub fn leaving(&self) -> BTreeMap<AbsPath, Vec<String>> {
        self.leaving.take()
    }
}

/// Fails if a fact does not exist. Its name has a prefix, such as `instance.region` or `host.codename`.
pub fn check_fact(name: &str) -> Result<()> {
    match name.split_once('.') {
        Some(("instance", name)) => Ok(InstanceFact::parse(name).map(drop)?),
        Some(("host", name)) if FACTS.contains(&name) => Ok(()),
        _ => bail!("{name} does not exist: the facts are {}", FACTS.map(|fact| format!("host.{fact}")).join(", ")),
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
