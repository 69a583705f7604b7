//! Resources: the declared parts of a machine, and their kinds.
//!
//! A kind is one file below, its `mod` line and one line in [`KINDS`]. Its method [`Resource::plan`] reads the machine and returns the
//! differences. Each difference is a [`Change`]: a sentence and the code that makes it. `plan` prints the changes. `run`
//! prints and makes them, then plans again.

pub mod absent;
mod account_change;
pub mod apt_repository;
pub mod archive;
pub mod command;
pub mod credential;
pub mod deferred;
pub mod directory;
pub mod environment;
pub mod file;
pub mod filesystem;
pub mod group;
pub mod host;
pub mod http_check;
pub mod link;
pub mod log_forward;
pub mod mount;
pub mod package;
pub mod package_file;
mod repository;
pub mod selinux_boolean;
pub mod service;
pub mod swap;
pub mod sysctl;
pub mod tcp_check;
pub mod tree;
pub mod unread;
pub mod upgrade;
pub mod user;
pub mod yum_repository;

use std::fmt;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::{
    host::root::{check_name, way::Writers},
    packages::{manager::Family, name::PackageName},
    system::{Fact, System, device, ownership, wait},
    value::AbsPath,
};

/// A declared part of a machine.
pub trait Resource: fmt::Debug {
    /// Returns its name for messages: a path or a name. It is shown after its kind.
    fn title(&self) -> String;

    /// Returns the differences between the machine and the declaration, in the order of the changes.
    ///
    /// It changes nothing.
    fn plan(&self, system: &System) -> Result<Vec<Change>>;

    /// Returns the faults of the declaration that concern several fields.
    fn check(&self) -> Vec<Finding> {
        vec![]
    }

    /// Returns what the declaration says, but probably should not. It is valid.
    fn doubts(&self) -> Vec<Finding> {
        vec![]
    }

    /// Returns the path that only this resource may manage.
    fn owned_path(&self) -> Option<&AbsPath> {
        None
    }

    /// Returns the paths that it makes: its own, and those of units.
    fn made_paths(&self) -> Vec<AbsPath> {
        self.owned_path().cloned().into_iter().collect()
    }

    /// Returns the numeric id that only this account may have: `uid 1500`.
    fn owned_id(&self) -> Option<String> {
        None
    }

    /// Returns the other things that only this resource may manage, each with the field that names it.
    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// Returns the things that several resources may manage if all of them return it here, each with the field that names
    /// it.
    fn shared_things(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// Returns the packages that it keeps installed.
    fn packages(&self) -> Vec<PackageName> {
        vec![]
    }

    /// Returns its fields that other users of the machine can read. No secret variable may be in them.
    fn public_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns its fields that may hold a secret of a store, because no other user of the machine can read them.
    fn secret_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the declared content of its secret, which other programs may print.
    fn private_bytes(&self) -> Option<Vec<u8>> {
        None
    }

    /// Returns why a secret of a store may not be in any of its fields, and where it may be; `None` for the usual words.
    fn place_of_secrets(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Returns the path of its secret. Secrets are not written to an image, but at boot.
    fn secret(&self) -> Option<&AbsPath> {
        None
    }

    /// Returns the paths of all its secrets, which no image may hold.
    fn secrets(&self) -> Vec<&AbsPath> {
        self.secret().into_iter().collect()
    }

    /// Returns the service that gets its files at each start, with these files. A change of one of them restarts it.
    fn given_to_service(&self) -> Option<(&str, Vec<AbsPath>)> {
        None
    }

    /// Returns the services whose start needs it, so that they are declared after it.
    fn services_after(&self) -> Vec<&str> {
        vec![]
    }

    /// Makes a service restart for more files, if it has this name.
    fn restart_on_files_of(&mut self, _service: &str, _files: &[AbsPath]) {}

    /// Returns the reason why a booted machine ensures it only if its declaration says `phase = "boot"`; `None` if it
    /// always does.
    fn only_in_images(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether nothing may exist at its path.
    fn removes_its_path(&self) -> bool {
        false
    }

    /// Returns the target of the symbolic link that it is.
    fn link_target(&self) -> Option<&str> {
        None
    }

    /// Returns the paths below its own that it leaves to other resources; `None` if it leaves all of them.
    fn kept_paths(&self) -> Option<Vec<AbsPath>> {
        None
    }

    /// Returns whether it fills the directory at its path from a source.
    fn fills(&self) -> bool {
        self.kept_paths().is_some()
    }

    /// Returns the files of this machine that its changes read, each with the field that names it.
    fn needed_files(&self) -> Vec<(&'static str, &AbsPath)> {
        vec![]
    }

    /// Returns the names of the device that it makes a file system on.
    fn formatted_devices(&self) -> Vec<String> {
        vec![]
    }

    /// Returns the units that need it.
    fn required_by(&self) -> &[service::UnitName] {
        &[]
    }

    /// Returns the name of the device that it mounts.
    fn mounted_device(&self) -> Option<&str> {
        None
    }

    /// Returns the path at which it mounts a file system.
    fn mount_point(&self) -> Option<&AbsPath> {
        None
    }

    /// Returns the declared owner of its path.
    fn owner(&self) -> Option<&str> {
        None
    }

    /// Returns the declared writers of its directory; `None` if it is not a directory.
    fn writers(&self) -> Option<Writers> {
        None
    }

    /// Returns the download that it needs in the machine's present state.
    ///
    /// A run calls it at its start, so that downloads overlap with earlier steps.
    fn prefetch(&self, _system: &System) -> Option<crate::fetch::pull::Download> {
        None
    }

    /// Returns the source whose validator (`ETag`) its plan asks for.
    ///
    /// It is called at the start, so that all sources are asked at once.
    fn etag_source(&self, _system: &System) -> Option<crate::fetch::source::Source> {
        None
    }

    /// Begins in the background what its plan will need. It is called at the start, before the first plan.
    fn prepare(&self, _system: &System) {}

    /// A text that variables are filled into once the resource has its turn.
    fn template(&self) -> Option<Template<'_>> {
        None
    }

    /// The files that it reads once it starts. While a run changes them, what they were before is kept.
    fn files(&self) -> Vec<AbsPath> {
        vec![]
    }

    /// The service that it is, if it is one: what a run changes of its files can be put back.
    fn service(&self) -> Option<&service::Service> {
        None
    }

    /// Returns the file that it is, if its change starts no program and needs no download. Such files next to each other
    /// share their flushes.
    fn plain_file(&self, _system: &System) -> Option<&file::File> {
        None
    }

    /// Returns whether the machine needs no change of it that its secret is for: its file, its account or its effect is there.
    ///
    /// Called if the secret cannot be read now.
    fn can_wait_for_secret(&self, system: &System) -> Result<bool> {
        match self.owned_path() {
            Some(path) => Ok(system.root().status(path)?.is_some()),
            None => Ok(false),
        }
    }

    /// Returns the differences that its secret does not matter for, such as the mode of a file with the secret.
    ///
    /// Called if the secret cannot be read now, and [`Self::can_wait_for_secret`] holds.
    fn plan_without_secret(&self, _system: &System) -> Result<Vec<Change>> {
        Ok(vec![])
    }

    /// Returns a text that differs if its changes would put something else at its paths: a digest, or the version of a
    /// secret. `None` if that is unknown.
    ///
    /// Called for what a service has refused, so that it is not tried again and again.
    fn version_to_come(&self, _system: &System) -> Result<Option<String>> {
        Ok(None)
    }

    /// Returns the package managers that it can work with; `None` if it needs none.
    fn package_managers(&self) -> Option<Vec<Family>> {
        None
    }

    /// Returns the reason why there is nothing to do for it on this machine as it is now.
    fn why_not_here(&self, _system: &System) -> Option<&'static str> {
        None
    }

    /// Returns its systemd unit. A run calls it at its start, and reads the states of all units with one `systemctl`.
    fn unit(&self) -> Option<&str> {
        None
    }
}

/// Where the text of a template is.
#[derive(Debug, Clone, Copy)]
pub enum Template<'a> {
    /// In a file of this machine.
    Local(&'a AbsPath),
    /// In a source that cannot be read now.
    Elsewhere,
}

/// A fault of a declaration, at one of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field that a diagnostic shows; the resource itself if it does not have this field.
    pub field: &'static str,
    /// The message.
    pub message: String,
    /// The correction.
    pub hint: Option<String>,
}

impl Finding {
    /// Makes a finding at a field.
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into(), hint: None }
    }

    /// Returns a finding if the last component of a path is reserved.
    pub fn of_name(path: &AbsPath) -> Option<Self> {
        check_name(path.leaf()).err().map(|reserved| Self::new("path", reserved.to_string()).hint("use another name"))
    }

    /// Sets the correction.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A difference and the code that removes it.
pub struct Change {
    /// A sentence without a subject: `install nginx`, `set mode 0644 (now 0600)`.
    pub summary: String,
    /// A unified diff of a text file.
    pub diff: Option<String>,
    /// The facts that hold after the change; see [`Fact`].
    pub brings: Vec<Fact>,
    /// The code; `None` if the change must wait for the boot of the image or for the end of the run.
    pub action: Option<Action>,
}

/// The code that makes a change.
pub type Action = Box<dyn FnOnce(&System) -> Result<()>>;

impl Change {
    /// Makes a change from its summary and its code.
    pub fn new(summary: impl Into<String>, action: impl FnOnce(&System) -> Result<()> + 'static) -> Self {
        Self { summary: summary.into(), diff: None, brings: vec![], action: Some(Box::new(action)) }
    }

    /// Makes a change that this run cannot make. The summary has the reason.
    pub fn deferred(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), diff: None, brings: vec![], action: None }
    }

    /// Sets the diff of a text file.
    #[must_use]
    pub fn diff(mut self, diff: Option<String>) -> Self {
        self.diff = diff;
        self
    }

    /// Adds facts that hold after the change.
    #[must_use]
    pub fn brings(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.brings.extend(facts);
        self
    }

    /// Returns whether this run cannot make it.
    pub fn is_deferred(&self) -> bool {
        self.action.is_none()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("summary", &self.summary)
            .field("deferred", &self.is_deferred())
            .finish_non_exhaustive()
    }
}

/// A type of resource. Its doc comments are its reference manual, and its fields are its schema.
pub trait Kind: Resource + DeserializeOwned + schemars::JsonSchema + 'static {
    /// The value of `kind`.
    const NAME: &'static str;
    /// A complete example for the manual. A test parses it.
    const EXAMPLE: &'static str;
}

/// One line of [`KINDS`]: the only access of the rest of the program to a kind.
pub struct KindEntry {
    /// The value of `kind`.
    pub name: &'static str,
    /// A complete example.
    pub example: &'static str,
    /// Its `Deserialize`.
    pub parse: fn(toml::de::ValueDeserializer<'_>) -> Result<Box<dyn Resource>, toml::de::Error>,
    /// Its JSON Schema, from the doc comments and types of its fields.
    pub schema: fn() -> schemars::Schema,
}

const fn kind<K: Kind>() -> KindEntry {
    KindEntry {
        name: K::NAME,
        example: K::EXAMPLE,
        parse: |value| Ok(Box::new(K::deserialize(value)?)),
        schema: || schemars::schema_for!(K),
    }
}

/// All kinds. The parser, the JSON Schema and the reference manual come from this table.
pub static KINDS: &[KindEntry] = &[
    kind::<package::Package>(),
    kind::<package_file::PackageFile>(),
    kind::<upgrade::Upgrade>(),
    kind::<apt_repository::AptRepository>(),
    kind::<yum_repository::YumRepository>(),
    kind::<directory::Directory>(),
    kind::<file::File>(),
    kind::<credential::ServiceCredential>(),
    kind::<archive::UnpackedArchive>(),
    kind::<tree::PrefixTree>(),
    kind::<link::Link>(),
    kind::<absent::Absent>(),
    kind::<user::User>(),
    kind::<group::Group>(),
    kind::<swap::Swap>(),
    kind::<filesystem::DiskFormat>(),
    kind::<mount::MountPoint>(),
    kind::<sysctl::Sysctl>(),
    kind::<host::HostSettings>(),
    kind::<selinux_boolean::SelinuxBoolean>(),
    kind::<environment::ServiceEnvironment>(),
    kind::<service::Service>(),
    kind::<log_forward::LogForward>(),
    kind::<http_check::HttpCheck>(),
    kind::<tcp_check::TcpCheck>(),
    kind::<command::GuardedCommand>(),
];
