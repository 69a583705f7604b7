//! The interface of a package manager family. A kind states the desired packages; a family installs them.

use std::fmt;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::name::PackageName;
use crate::{
    host::{Host, root::Root},
    system::System,
    value::AbsPath,
};

/// A family of package managers: its tools, its record of packages, its rules of names.
pub trait PackageManager: Sync {
    /// Returns its name, for messages.
    fn name(&self) -> &'static str;

    /// Returns the names of its distributions, for messages.
    fn distributions(&self) -> &'static [&'static str];

    /// Returns the `ID` of each of its distributions; os-release(5).
    fn distribution_ids(&self) -> &'static [&'static str];

    /// Returns the beginnings of the names of those images of its distributions whose releases are too old for this family.
    fn old_images(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the files of which each machine of this family has one, and other machines none.
    fn databases(&self) -> &'static [&'static str];

    /// Reads a package's name as this family writes it.
    ///
    /// # Errors
    /// If no package of this family can have this name.
    fn read_name(&self, text: &str) -> Result<PackageName>;

    /// Returns the pattern of these names, a regular expression of ECMA 262.
    fn name_pattern(&self) -> &'static str;

    /// Returns the traces that this family leaves on a machine and that must not get into an image.
    fn traces(&self) -> ImageTraces;

    /// Fails if this family's programs could not change packages here. In a plan, an earlier change may bring the programs.
    fn check_tools(&self, _system: &System) -> Result<()> {
        Ok(())
    }

    /// Returns the difference between a declared package and the machine; `None` if it is installed as declared.
    fn lack(&self, host: &Host, package: &PackageName) -> Result<Option<Lack>>;

    /// Returns the package of a name, if it is at least partly installed. A version in the name does not count.
    fn installed(&self, host: &Host, package: &PackageName) -> Result<Option<InstalledPackage>>;

    /// Returns the version that an installation would choose for a version with a wildcard; `None` if the present
    /// package lists have none that fits.
    ///
    /// # Errors
    /// If the chosen version is older than the installed one.
    fn choice(&self, system: &System, package: &PackageName, update: Update) -> Result<Option<Choice>>;

    /// Returns the repairs that are needed after an interrupted run of the package manager.
    ///
    /// Packages that only wait for their configuration are repaired only if `is_installing`.
    fn repairs(&self, host: &Host, is_installing: bool) -> Result<Vec<Repair>>;

    /// Installs packages.
    ///
    /// # Errors
    /// If the package manager fails. The error has the last lines of its output, their cause and a hint. It is a
    /// temporary failure if a later run may succeed.
    fn install(&self, system: &System, installation: &Installation) -> Result<()>;

    /// Returns the path of a package file while it is installed.
    fn file_place(&self) -> AbsPath;

    /// Fails unless a file holds a package of this name and version.
    fn check_file(&self, system: &System, path: &AbsPath, package: &PackageName) -> Result<()>;

    /// Checks the file at [`PackageManager::file_place`], and installs its package with its dependencies.
    ///
    /// # Errors
    /// Those of [`PackageManager::check_file`] and [`PackageManager::install`].
    fn install_file(&self, system: &System, package: &PackageName, reinstall: bool) -> Result<()>;

    /// Returns the upgrades of the installed packages that the package lists have. A run updates old lists first.
    fn upgrades(&self, system: &System, request: &UpgradeRequest) -> Result<Upgrades>;

    /// Installs the upgrades that the present package lists have. No package is removed, unless another one replaces it.
    fn upgrade(&self, system: &System, request: &UpgradeRequest) -> Result<()>;

    /// Returns all changes that the removal of packages would make; none if none of them is installed.
    ///
    /// # Errors
    /// If it would remove a held package, the running kernel, or a package that the system cannot work without.
    fn removal(&self, system: &System, packages: &[PackageName]) -> Result<Vec<PackageChange>>;

    /// Removes packages. Their configuration files stay.
    ///
    /// # Errors
    /// If the removal would make other changes than the planned ones. Then it makes none.
    fn remove(&self, system: &System, packages: &[PackageName], planned: &[PackageChange]) -> Result<()>;

    /// Fails if packages could not be held here. `coming` are those that are held, and installed before.
    ///
    /// Returns the package that must be installed before, and that an earlier change or `coming` brings.
    fn check_hold(&self, _system: &System, _coming: &[PackageName]) -> Result<Option<&'static str>> {
        Ok(None)
    }

    /// Holds packages at their installed version, or releases them.
    fn hold(&self, system: &System, packages: &[PackageName], is_held: bool) -> Result<()>;

    /// Returns the command line that releases a held package, for hints.
    fn release_command(&self, package: &str) -> String;

    /// Returns whether an upgrade can name a release of the distribution; [`UpgradeRequest::release`].
    fn has_releases(&self) -> bool {
        false
    }

    /// Returns the warnings of earlier runs that still hold.
    fn open_warnings(&self, _host: &Host) -> Result<Vec<String>> {
        Ok(vec![])
    }

    /// Returns the reasons why this machine needs a reboot, one sentence each; none if it needs no reboot.
    ///
    /// They may hold after a reboot too, such as a newer kernel that the boot loader does not select.
    fn reboot_reasons(&self, host: &Host) -> Result<Vec<String>>;
}

/// One of the families that this program supports.
pub type Family = &'static dyn PackageManager;

/// The traces that a family leaves on a machine and that must not get into an image. Paths are patterns of
/// [`Root::matching`].
#[derive(Debug, Clone, Copy)]
pub struct ImageTraces {
    /// The data of one machine, which the seal removes: a description and its paths.
    pub of_machine: &'static [(&'static str, &'static [&'static str])],
    /// The files with passwords.
    pub passwords: &'static [PasswordFiles],
    /// The private keys that packages make on each machine and that no client trusts.
    pub harmless_keys: &'static [&'static str],
}

/// Files of one format that may have passwords.
#[derive(Debug, Clone, Copy)]
pub struct PasswordFiles {
    /// Their paths.
    pub patterns: &'static [&'static str],
    /// Returns the position of the first password in their text.
    pub find: fn(&str) -> Option<usize>,
}

/// The difference between a declared package and the machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Lack {
    /// The package or the declared version is missing; the version that is installed instead, if any.
    Package(Option<String>),
    /// Its files are incomplete and must be unpacked again; its state, for messages.
    Unpacking(String),
    /// It is unpacked, but not configured, or its triggers have not run.
    Configuration,
}

/// A package that is at least partly installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// Its version.
    pub version: String,
    /// Whether it is held at this version.
    pub is_held: bool,
}

/// The version that an installation would choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The version.
    pub version: String,
    /// Whether the package lists are updated first, so that another version may be chosen.
    pub is_preliminary: bool,
}

/// A change of one package that the package manager would make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// The name of the package, with an architecture if it is not the machine's.
    pub name: String,
    /// The installed version; `None` if it is new.
    pub from: Option<String>,
    /// The new version; `None` if it is removed.
    pub to: Option<String>,
}

/// Which packages are upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpgradeScope {
    /// Those whose new version the distribution's security repository or a security advisory has.
    Security,
    /// All with a new version.
    All,
}

impl fmt::Display for UpgradeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Security => "security",
            Self::All => "all",
        })
    }
}

/// The parameters of an upgrade.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    /// Which packages are upgraded.
    pub scope: UpgradeScope,
    /// The release of the distribution whose packages are the new ones; `None` for the machine's.
    pub release: Option<String>,
    /// The packages that stay at their installed versions, beside those that the machine holds.
    pub hold: Vec<PackageName>,
    /// The packages with declared versions. They are not upgraded to others.
    pub declared: Vec<PackageName>,
}

/// The upgrades that the package lists have.
#[derive(Debug)]
pub struct Upgrades {
    /// Whether a run updates the lists first, so that it may make other changes. Only in a plan.
    pub are_lists_old: bool,
    /// Upgraded packages, and new ones that they need.
    pub changes: Vec<PackageChange>,
}

/// A repair that must be made before packages can be installed.
pub struct Repair {
    /// The text that a plan shows.
    pub summary: String,
    /// Whether the repair may install packages.
    pub brings_packages: bool,
    /// Makes the repair.
    pub make: fn(&System) -> Result<()>,
}

/// Says when the package lists are updated before an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// If the lists are missing, old, older than the sources, or not sufficient for the installation.
    #[default]
    IfNeeded,
    /// Before every installation. If all packages are installed already, the lists are not updated.
    Always,
    /// Never. The machine's present lists are used.
    Never,
}

/// The parameters of an installation.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The packages.
    pub names: Vec<PackageName>,
    /// Whether to unpack installed packages again.
    pub reinstall: bool,
    /// When to update the lists first.
    pub update: Update,
    /// Whether to install recommended packages too.
    pub recommends: bool,
}

/// Returns whether a root file system has a database of this family.
pub(super) fn is_of(manager: &dyn PackageManager, root: &Root) -> Result<bool> {
    for path in manager.databases() {
        if root.status(&(*path).into())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
