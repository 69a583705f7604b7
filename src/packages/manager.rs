//! What a family of package managers must be able to do. A kind says what is wanted, a family how.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::name::PackageName;
use crate::{
    host::{Host, root::Root},
    system::System,
};

/// A family of package managers, such as apt with dpkg.
pub trait PackageManager: Sync {
    /// Returns the distributions that have it, as a sentence names them.
    fn distributions(&self) -> &'static str;

    /// Returns the file that only machines of this family have.
    fn database(&self) -> &'static str;

    /// Returns what a declared package lacks; `None` where it is installed as declared.
    fn lack(&self, host: &Host, package: &PackageName) -> Result<Option<Lack>>;

    /// Returns what an interrupted run of the package manager left to do before anything can be installed; less where
    /// nothing is to be installed.
    fn repairs(&self, host: &Host, is_installing: bool) -> Result<Vec<Repair>>;

    /// Installs packages.
    ///
    /// # Errors
    /// With the last lines of the package manager, their cause and what to do about it; temporary where the cause may
    /// pass.
    fn install(&self, system: &System, installation: &Installation) -> Result<()>;
}

/// What a declared package lacks.
#[derive(Debug, PartialEq, Eq)]
pub enum Lack {
    /// All of it, or the version asked for; the one that is there instead.
    Package(Option<String>),
    /// What is there can't be trusted, and how far it got in words.
    Unpacking(String),
    /// It is unpacked; to be configured or to run its triggers is what remains.
    Configuration,
}

/// Something to do before anything can be installed.
pub struct Repair {
    /// What it does, as a plan shows it.
    pub summary: String,
    /// Whether packages may come with it.
    pub brings_packages: bool,
    /// Does it.
    pub make: fn(&System) -> Result<()>,
}

/// When the package lists are updated before an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// Where there are none, where they are a day old or older than the sources, or fail to do.
    #[default]
    IfNeeded,
    /// Before every installation. Nothing is installed, and so nothing updated, where all is there.
    Always,
    /// Never: the lists of the image are used.
    Never,
}

/// What a package manager is asked to install.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The packages.
    pub names: Vec<PackageName>,
    /// Whether to unpack again what is there.
    pub reinstall: bool,
    /// When to update the lists first.
    pub update: Update,
    /// Whether to install recommended packages too.
    pub recommends: bool,
}

/// Returns whether a root has this family's database.
pub(super) fn is_of(manager: &dyn PackageManager, root: &Root) -> Result<bool> {
    Ok(root.status(&manager.database().into())?.is_some())
}
