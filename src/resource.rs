//! Resources: the things that must be so, and the kinds of them.
//!
//! A kind is one file below and one line in [`KINDS`]. It has one method, [`Resource::plan`], which reads
//! the machine and says what differs; each difference is a [`Change`], a sentence and the code that makes
//! it so. `plan` prints the changes, `run` prints and makes them and plans again.

pub mod apt_repository;
pub mod deferred;
pub mod directory;
pub mod file;
pub mod group;
pub mod http_check;
pub mod link;
pub mod ownership;
pub mod package;
pub mod service;
pub mod swap;
pub mod user;

use std::fmt;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::{
    host::root::{check_name, way::Writers},
    system::{Fact, System},
    value::AbsPath,
};

/// One thing that must be so.
pub trait Resource: fmt::Debug {
    /// What identifies it to a person: a path, a name. Shown behind its kind.
    fn title(&self) -> String;

    /// What differs between the machine and the declaration, in the order in which it will be changed.
    /// Reads only.
    fn plan(&self, system: &System) -> Result<Vec<Change>>;

    /// Faults of the declaration that no single field shows.
    fn check(&self) -> Vec<Finding> {
        vec![]
    }

    /// The path that this resource alone decides about.
    fn owned_path(&self) -> Option<&AbsPath> {
        None
    }

    /// The numeric id that this account alone has: `uid 1500`.
    fn owned_id(&self) -> Option<String> {
        None
    }

    /// The path of the secret that it keeps, which is left to the boot while an image is made.
    fn secret(&self) -> Option<&AbsPath> {
        None
    }

    /// Whose the thing at that path is to be, as far as the declaration tells.
    fn owner(&self) -> Option<&str> {
        None
    }

    /// Who else than its owner may write to the directory that it declares, as far as the declaration tells; `None` for
    /// what is no directory.
    fn writers(&self) -> Option<Writers> {
        None
    }

    /// What it needs downloaded, as far as the machine alone tells; asked at the start of a run, so that
    /// downloads overlap with the steps before.
    fn prefetch(&self, _system: &System) -> Option<crate::fetch::pull::Download> {
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

    /// The systemd unit it is about; asked at the start, so that one call tells the state of all.
    fn unit(&self) -> Option<&str> {
        None
    }
}

/// A fault of a declaration, about one of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field to point at; the resource itself where that isn't there.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding about a field.
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into(), hint: None }
    }

    /// A finding about a path whose last component is reserved.
    pub fn of_name(path: &AbsPath) -> Option<Self> {
        check_name(path.leaf()).err().map(|reserved| Self::new("path", reserved.to_string()).hint("use another name"))
    }

    /// Says what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One difference, and how it is made to vanish.
pub struct Change {
    /// A sentence without a subject: `install nginx`, `set mode 0644 (now 0600)`.
    pub summary: String,
    /// A unified diff of a text file.
    pub diff: Option<String>,
    /// What will be so once it is made; see [`Fact`].
    pub brings: Vec<Fact>,
    /// How it is made; `None` where it must wait until the image boots or the run has ended.
    pub action: Option<Action>,
}

/// The code that makes a change.
pub type Action = Box<dyn FnOnce(&System) -> Result<()>>;

impl Change {
    /// A change and the code that makes it.
    pub fn new(summary: impl Into<String>, action: impl FnOnce(&System) -> Result<()> + 'static) -> Self {
        Self { summary: summary.into(), diff: None, brings: vec![], action: Some(Box::new(action)) }
    }

    /// A change that can't be made here and now, with the reason.
    pub fn deferred(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), diff: None, brings: vec![], action: None }
    }

    /// Shows the difference between two texts.
    #[must_use]
    pub fn diff(mut self, diff: Option<String>) -> Self {
        self.diff = diff;
        self
    }

    /// Says what will be so once this is made.
    #[must_use]
    pub fn brings(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.brings.extend(facts);
        self
    }

    /// Whether it waits for something outside this run.
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

/// A type of resource: its doc comments are its reference manual, its fields its schema.
pub trait Kind: Resource + DeserializeOwned + schemars::JsonSchema + 'static {
    /// The value of `kind`.
    const NAME: &'static str;
    /// A whole resource as one would write it, for the manual; a test parses it.
    const EXAMPLE: &'static str;
}

/// One line of [`KINDS`]: all that the rest of the program knows of a kind.
pub struct KindEntry {
    /// The value of `kind`.
    pub name: &'static str,
    /// A whole resource of it.
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

/// Every kind. The parser, the JSON Schema and the reference manual come from this table.
pub static KINDS: &[KindEntry] = &[
    kind::<package::Package>(),
    kind::<apt_repository::AptRepository>(),
    kind::<directory::Directory>(),
    kind::<file::File>(),
    kind::<link::Link>(),
    kind::<user::User>(),
    kind::<group::Group>(),
    kind::<swap::Swap>(),
    kind::<service::Service>(),
    kind::<http_check::HttpCheck>(),
];
