//! The manifest language: parses texts into a [`Manifest`], or reports all of their faults.
//!
//! Pure: it takes `&str` and touches no machine, except through the facts of [`Variables`]. Each text is
//! parsed to a table with spans, the variables in its strings are replaced, and each resource is handed
//! to its kind's `Deserialize`, so that every fault has its own place. (serde's tagged enums and
//! `flatten` would lose the spans.)

pub mod archive;
pub mod built_in;
mod expected;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod given;
pub mod location;
pub mod places;
mod reader;
pub mod schema;
mod scope;
pub mod secrets;
pub mod texts;
pub mod vault;

use std::time::Duration;

use toml::de::DeTable;

use self::{reader::Reader, secrets::NamedSecrets};
use crate::{
    diagnostic::{Diagnostic, Faults, Text},
    resource::Resource,
    system::Phase,
    variables::Variables,
};

/// The fields that every resource may have besides those of its kind.
pub const COMMON_FIELDS: [&str; 5] = ["kind", "retries", "timeout", "phase", "where"];

/// The fields that may be a table of values by architecture, of any kind.
pub const BY_ARCHITECTURE: [&str; 2] = ["source", "sha256"];
/// The architectures, as `host.architecture` has them.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// A manifest: its declared steps.
#[derive(Debug)]
pub struct Manifest {
    /// In the order in which they take effect.
    pub steps: Vec<Step>,
    /// What is probably meant otherwise.
    pub warnings: Vec<Diagnostic>,
    /// The secrets that it names for this machine; for each machine, where facts are unknown.
    pub secrets: NamedSecrets,
}

/// A named, ordered list of resources.
#[derive(Debug)]
pub struct Step {
    /// Its name, as typed on the command line.
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// Deadline of the whole step.
    pub timeout: Option<Duration>,
    /// The reason why it does not apply on this machine.
    pub not_here: Option<String>,
    /// Whether the machine reboots after it if its packages require that.
    pub reboot: bool,
    /// In the order in which they take effect.
    pub resources: Vec<Declared>,
}

/// A resource with the fields that every kind has.
#[derive(Debug)]
pub struct Declared {
    /// Name of its kind.
    pub kind: &'static str,
    /// The place of its declaration: the name of its text and the line, `30-web.toml:12`.
    pub place: String,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// Deadline of each try.
    pub timeout: Option<Duration>,
    /// The reason why it does not apply on this machine. Its kind's resource is replaced then.
    pub not_here: Option<String>,
    /// The resource.
    pub resource: Box<dyn Resource>,
}

impl Declared {
    /// Returns the kind and the identifying field: `file /etc/hosts`.
    pub fn title(&self) -> String {
        [self.kind, " ", &self.resource.title()].concat()
    }
}

/// Reads a manifest: its step texts in their order. Where an image is made, what only the machine that boots it can
/// ensure stands in it as [`Deferred`]. So does what uses a variable that is not set, in a step that is not picked:
/// `picks` is asked once for the name of each step, in their order.
///
/// # Errors
/// All faults of the texts.
pub fn parse<'a>(
    texts: &'a [Text],
    variables: &'a mut Variables,
    phase: Phase,
    picks: &'a mut dyn FnMut(&str) -> bool,
) -> Result<Manifest, Faults> {
    let mut faults = Faults::default();
    let mut parsed = vec![];
    for text in texts {
        let (table, errors) = DeTable::parse_recoverable(&text.text);
        for error in &errors {
            faults.add(|| Diagnostic::syntax(text, error));
        }
        if errors.is_empty() {
            parsed.push((text, table));
        }
    }
    let mut reader = Reader::new(variables, phase, faults, picks);
    for (text, table) in parsed {
        reader.text(text, table);
    }
    reader.finish()
}
