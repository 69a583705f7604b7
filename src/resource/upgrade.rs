//! The kind `upgrade`.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource, package::repairs};
use crate::{
    error::Fault,
    packages::{
        self,
        manager::{Family, PackageChange, UpgradeRequest, UpgradeScope},
        name::PackageName,
    },
    system::{Fact, Mode, System},
};

/// Limits the packages that a summary names.
const MAX_NAMED: usize = 10;

/// The installed packages at the newest versions of their repositories. It is a part of an image. A booted machine
/// upgrades only if the resource or its step says `phase = "boot"`. No package is removed, except with dnf one that
/// a new package replaces (`Obsoletes`) and that no resource declares. Held packages and those that another resource
/// declares with a version stay as declared. Configuration files that were edited are kept. A run updates old package
/// lists first, and then names each upgrade. A plan uses the present lists. It warns if the machine needs a reboot.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Which upgrades: `all`, or `security`: those of the distribution's security repository, for dnf those that a security
    /// advisory of a repository names.
    scope: UpgradeScope,
    /// The release whose packages are the new ones, such as `2023.10.20260105`. Amazon Linux 2023 locks a machine at the
    /// release of its image, so that without this field an upgrade finds nothing. A machine at this release or at a newer
    /// one is left as it is. Later packages come from this release if the upgrade includes its package `system-release`, which
    /// `scope = "security"` may leave out. Only for dnf.
    release: Option<ReleaseVersion>,
    /// Packages that are not upgraded, beside those that the machine holds. Names without a version.
    #[serde(default)]
    hold: Vec<PackageName>,
}

/// The version of a release: numbers with dots between them. Those of Amazon Linux begin with a year and end with a date.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^([0-9]{1,3}([.][0-9]+)*|[0-9]{4}[.][0-9]+[.][0-9]{8})$"))]
pub(super) struct ReleaseVersion(String);

impl TryFrom<String> for ReleaseVersion {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let parts: Vec<_> = text.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_whole = parts[0].len() < 4 || matches!(parts[..], [year, _, date] if (year.len(), date.len()) == (4, 8));
        ensure!(parts.iter().all(is_number) && is_whole, "`{text}` is not a release, such as 2023.10.20260105");
        Ok(Self(text))
    }
}

impl Kind for Upgrade {
    const NAME: &'static str = "upgrade";
    const EXAMPLE: &'static str = r#"kind = "upgrade"
scope = "security"
hold = ["docker-ce"]"#;
}

impl Resource for Upgrade {
    fn title(&self) -> String {
        self.scope.to_string()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("scope", "the upgrade of this machine".into())]
    }

    fn only_in_images(&self) -> Option<&'static str> {
        Some("a booted machine upgrades only with phase = \"boot\"")
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        let reads_all = |family: &&Family| {
            self.hold.iter().all(|name| family.read_name(&name.text).is_ok())
                && (self.release.is_none() || family.has_releases())
        };
        Some(packages::FAMILIES.iter().filter(reads_all).copied().collect())
    }

    fn check(&self) -> Vec<Finding> {
        let versioned = self.hold.iter().filter(|name| name.version.is_some());
        let finding = |name: &PackageName| {
            let message = format!("`{name}` has a version, but a held package stays at its installed one");
            Finding::new("hold", message).hint(format!("write \"{}\"", name.without_version()))
        };
        versioned.map(finding).collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let manager = packages::of(&system.host)?;
        if self.release.is_some() && !manager.has_releases() {
            let message = format!("this machine installs packages with {}, which has no `release`", manager.name());
            return Err(Fault::new(message)
                .hint("leave out `release`, or limit it to other machines with `where`")
                .into());
        }
        if system.is_live() {
            for reason in manager.reboot_reasons(&system.host)? {
                system.warn(format!("this machine needs a reboot: {reason}"));
            }
        }
        let request = self.request(system, manager)?;
        let upgrades = manager.upgrades(system, &request)?;
        let mut changes = repairs(system, manager, upgrades.are_lists_old || !upgrades.changes.is_empty())?;
        let to = self.release.as_ref().map(|release| format!(" of release {}", release.0)).unwrap_or_default();
        let summary = match (upgrades.are_lists_old, upgrades.changes.is_empty()) {
            (false, true) => return Ok(changes),
            (true, true) => format!("update the package lists{to}, and install the upgrades that they have then"),
            (false, false) => described(&upgrades.changes),
            (true, false) => {
                format!(
                    "update the package lists{to}, and install the upgrades that they have then; now: {}",
                    described(&upgrades.changes)
                )
            }
        };
        let diff = (system.mode() == Mode::Plan && !upgrades.changes.is_empty()).then(|| diff(&upgrades.changes));
        let change = Change::new(summary, move |system| manager.upgrade(system, &request));
        changes.push(change.diff(diff).brings([Fact::Packages]));
        Ok(changes)
    }
}

impl Upgrade {
    fn request(&self, system: &System, manager: Family) -> Result<UpgradeRequest> {
        let hold = self.hold.iter().map(|name| manager.read_name(&name.text)).collect::<Result<_>>()?;
        let declared = system.declared_packages();
        let declared = declared.iter().filter_map(|declared| manager.read_name(declared).ok());
        let declared = declared.filter(|declared| declared.version.is_some()).collect();
        let release = self.release.as_ref().map(|release| release.0.clone());
        Ok(UpgradeRequest { scope: self.scope, release, hold, declared })
    }
}

/// Returns the words for upgrades and new packages. Of many, it names some.
fn described(changes: &[PackageChange]) -> String {
    let words = |change: &PackageChange| match (&change.from, &change.to) {
        (Some(from), Some(to)) => format!("{} {to} (now {from})", change.name),
        (None, Some(to)) => format!("{} {to} (new)", change.name),
        (_, None) => format!("{} (removed)", change.name),
    };
    let mut named = changes.iter().take(MAX_NAMED).map(words).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = changes.len().checked_sub(MAX_NAMED) {
        named += &format!(" and {more} more");
    }
    let plural = if changes.len() == 1 { "" } else { "s" };
    format!("upgrade {} package{plural}: {named}", changes.len())
}

/// Returns a diff of the lists of packages, with one line for each version.
fn diff(changes: &[PackageChange]) -> String {
    let list = |version: &dyn Fn(&PackageChange) -> Option<String>| -> String {
        let mut lines: Vec<_> =
            changes.iter().filter_map(|change| Some(format!("{} {}\n", change.name, version(change)?))).collect();
        lines.sort_unstable();
        lines.concat()
    };
    let (now, then) = (list(&|change| change.from.clone()), list(&|change| change.to.clone()));
    let mut diff = diffy::DiffOptions::new();
    let diff = diff.set_original_filename("packages (now)").set_modified_filename("packages (upgraded)");
    diff.create_patch(&now, &then).to_string()
}
