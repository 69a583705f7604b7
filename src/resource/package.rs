//! The kind `package`.

pub(super) mod hold;
mod removal;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    packages::{
        self,
        manager::{Choice, Family, Installation, InstalledPackage, Lack, Repair, Update},
        name::PackageName,
    },
    system::{Fact, System},
};

/// Limits the names in a title.
const MAX_TITLE_NAMES: usize = 4;

/// Packages of the distribution, which its package manager installs without questions. All of them are installed at once. Edited
/// configuration files are kept. Their services are not started; a `service` resource does that. RHEL 8 and Amazon Linux 2
/// are refused: their database of packages has an older format. If a package's script fails after its files are in place,
/// dnf calls the package installed. Each run then tells it until the package is installed again: `dnf reinstall NAME`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Names, each `name`, `name=version` (exactly this version, also if it is older than the installed one), `name=20.*`
    /// (a version that begins so, but none that is older than the installed one), or with an architecture:
    /// `name:architecture`, for dnf `name.architecture`. For dnf, a version may leave out its epoch and its release. Of a
    /// kernel that dnf has installed in several versions, one that fits is enough. A stream of a dnf module is not enabled.
    /// For a bare name, an installed package that provides it is enough.
    names: Vec<PackageName>,
    /// Whether the packages are removed. Their configuration files stay. `plan` names the packages that need them and are
    /// removed too. It is an error to remove the running kernel, a package that the system cannot work without, a held one,
    /// or one that another resource declares. For apt, the system cannot work without the packages that are marked
    /// Essential, Protected or Important. For dnf, these are the packages that /etc/dnf/protected.d names, bash, coreutils,
    /// dnf, filesystem, glibc, rpm, setup, systemd, and the one that provides `system-release`. Default: false.
    #[serde(default)]
    absent: bool,
    /// Whether the packages are held, so that no upgrade changes or removes them. With a version in `names`, this resource
    /// changes a held package to that version. `false` releases them. Default: a hold stays as it is, and a held package
    /// of another version than the declared one is an error. dnf needs its plugin versionlock for it. The package
    /// `python3-dnf-plugin-versionlock` has it; declare that in a resource before this one. With dnf 5, `hold` is an error.
    hold: Option<bool>,
    /// When to update the package lists before an installation: `always`, `never` or `if-needed` (if the lists are missing,
    /// more than a day old, older than the sources, or do not have a package). For dnf, `if-needed` leaves it to each
    /// repository's `metadata_expire`, and updates them if they do not have a package; `never` downloads only lists that
    /// are missing.
    update: Option<Update>,
    /// Whether to install recommended packages too. Default: false.
    recommends: Option<bool>,
}

impl Kind for Package {
    const NAME: &'static str = "package";
    const EXAMPLE: &'static str = r#"kind = "package"
names = ["nginx", "default-jre-headless"]"#;
}

impl Resource for Package {
    fn title(&self) -> String {
        let mut names: Vec<_> = self.names.iter().map(|package| package.name.clone()).collect();
        if names.len() > MAX_TITLE_NAMES {
            let more = names.split_off(MAX_TITLE_NAMES - 1).len();
            return format!("{} and {more} more", names.join(", "));
        }
        names.join(", ")
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let manager = packages::of(&system.host)?;
        let names = self.names.iter().map(|name| manager.read_name(&name.text)).collect::<Result<Vec<_>>>()?;
        if self.absent {
            return removal::plan(system, manager, names);
        }
        let (mut lacking, mut to_hold, mut to_release) = (vec![], vec![], vec![]);
        for package in names {
            let installed = manager.installed(&system.host, &package)?;
            match (self.hold, &installed) {
                (Some(true), Some(InstalledPackage { is_held: false, .. }) | None) => to_hold.push(package.clone()),
                (Some(false), Some(InstalledPackage { is_held: true, .. })) => to_release.push(package.clone()),
                _ => {}
            }
            if let Some(lack) = manager.lack(&system.host, &package)? {
                lacking.push(Lacking { package, lack, installed });
            }
        }
        let mut changes = repairs(system, manager, !lacking.is_empty())?;
        changes.extend(hold::release(manager, to_release));
        changes.extend(self.install(system, manager, lacking)?);
        changes.extend(hold::hold(system, manager, to_hold)?);
        Ok(changes)
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        let reads_all = |family: &&Family| self.names.iter().all(|name| family.read_name(&name.text).is_ok());
        Some(packages::FAMILIES.iter().filter(reads_all).copied().collect())
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        self.names.iter().filter(|name| !self.is_only_installed(name)).map(thing).collect()
    }

    fn shared_things(&self) -> Vec<(&'static str, String)> {
        self.names.iter().filter(|name| self.is_only_installed(name)).map(thing).collect()
    }

    fn packages(&self) -> Vec<PackageName> {
        if self.absent { vec![] } else { self.names.clone() }
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.names.is_empty() {
            findings.push(Finding::new("names", "`names` is empty"));
        }
        if self.package_managers().is_some_and(|families| families.is_empty()) {
            findings.push(Finding::new("names", "no package manager has packages of all these names"));
        }
        for (index, package) in self.names.iter().enumerate() {
            let same = |other: &&PackageName| other.name == package.name && other.architecture == package.architecture;
            if self.names[..index].iter().any(|other| same(&other)) {
                findings.push(Finding::new("names", format!("`{}` is named twice", package.name)));
            }
            if self.absent && package.version.is_some() {
                let message = format!("`{package}` has a version, but an absent package has none");
                findings.push(Finding::new("names", message).hint(format!("write \"{}\"", package.without_version())));
            }
        }
        let needless = [
            ("hold", self.hold.is_some()),
            ("update", self.update.is_some()),
            ("recommends", self.recommends.is_some()),
        ];
        for (field, _) in needless.into_iter().filter(|(_, is_given)| self.absent && *is_given) {
            let message = format!("`{field}` is about an installation, but `absent` removes the packages");
            findings.push(Finding::new(field, message));
        }
        findings
    }
}

/// Returns the name of a package as a thing that a resource manages.
fn thing(package: &PackageName) -> (&'static str, String) {
    ("names", format!("the package {}", package.without_version()))
}

/// Returns the repairs after an interrupted run of the package manager.
pub(super) fn repairs(system: &System, manager: Family, is_installing: bool) -> Result<Vec<Change>> {
    let change = |repair: Repair| {
        let change = Change::new(repair.summary, repair.make);
        if repair.brings_packages { change.brings([Fact::Packages]) } else { change }
    };
    Ok(manager.repairs(&system.host, is_installing)?.into_iter().map(change).collect())
}

/// A package that is not installed as declared.
struct Lacking {
    package: PackageName,
    lack: Lack,
    installed: Option<InstalledPackage>,
}

impl Package {
    /// Returns whether the declaration of a package says no more than that it is installed. Other resources may say that too.
    fn is_only_installed(&self, package: &PackageName) -> bool {
        !self.absent && self.hold.is_none() && package.version.is_none()
    }

    /// Returns one change for all packages, because the package manager resolves and installs them together.
    fn install(&self, system: &System, manager: Family, lacking: Vec<Lacking>) -> Result<Option<Change>> {
        let update = self.update.unwrap_or_default();
        let (mut install, mut reinstall, mut names) = (vec![], vec![], vec![]);
        let (mut held, mut expected) = (vec![], vec![]);
        for Lacking { package, lack, installed } in lacking {
            match lack {
                Lack::Package(now) => {
                    if installed.is_some_and(|installed| installed.is_held) && self.hold != Some(false) {
                        hold::check(manager, &package, now.as_deref(), self.hold)?;
                        held.push(package.clone());
                    }
                    let choice = if package.has_wildcard() { manager.choice(system, &package, update)? } else { None };
                    install.push(described(&package, choice.as_ref(), now.as_deref()));
                    expected
                        .extend(choice.filter(|choice| !choice.is_preliminary).map(|choice| (package.clone(), choice)));
                }
                Lack::Unpacking(state) => reinstall.push(format!("{package} ({state})")),
                Lack::Configuration => continue,
            }
            names.push(package);
        }
        let summaries = [("install", &install), ("reinstall", &reinstall)];
        let summaries = summaries.iter().filter(|(_, packages)| !packages.is_empty());
        let summary = summaries.map(|(verb, packages)| format!("{verb} {}", packages.join(", "))).collect::<Vec<_>>();
        if names.is_empty() {
            return Ok(None);
        }
        manager.check_tools(system)?;
        let brings: Vec<_> = names.iter().map(|package| Fact::Package(package.name.clone())).collect();
        let recommends = self.recommends.unwrap_or_default();
        let installation = Installation { names, reinstall: !reinstall.is_empty(), update, recommends };
        let change = Change::new(summary.join("; "), move |system| {
            hold::release_during(system, manager, &held, || manager.install(system, &installation))?;
            warn_of_others(system, manager, &expected)
        });
        Ok(Some(change.brings([Fact::Packages]).brings(brings)))
    }
}

/// Returns the words for a package that is installed, with the version that is chosen for a wildcard.
fn described(package: &PackageName, choice: Option<&Choice>, now: Option<&str>) -> String {
    let mut notes = vec![];
    let mut name = package.to_string();
    match choice {
        Some(choice) if choice.is_preliminary => {
            notes.push(format!("{}, unless the updated package lists have a better one", choice.version));
        }
        Some(choice) => {
            name = format!("{}={}", package.without_version(), choice.version);
            notes.extend(package.version.as_ref().map(|declared| format!("declared {declared}")));
        }
        None => {}
    }
    notes.extend(now.map(|now| format!("now {now}")));
    if notes.is_empty() { name } else { format!("{name} ({})", notes.join(", ")) }
}

/// Warns if another version was installed than the plan has named.
fn warn_of_others(system: &System, manager: Family, expected: &[(PackageName, Choice)]) -> Result<()> {
    system.host.forget();
    for (package, choice) in expected {
        let installed = manager.installed(&system.host, package)?;
        if let Some(installed) = installed.filter(|installed| installed.version != choice.version) {
            let name = package.without_version();
            system.warn(format!(
                "{name} {} was installed, not {}: the package lists were updated meanwhile",
                installed.version, choice.version
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::scratch::Scratch, stop::Interrupt, system::Mode};

    /// An image's tree with a dpkg record.
    struct PackageImage(Scratch);

    impl PackageImage {
        fn new(record: &str) -> Self {
            let tree = Scratch::of(&[("/var/lib/dpkg/status", record), ("/usr/bin/apt-get", "")]);
            tree.set_mode("/usr/bin/apt-get", 0o755);
            tree.make_directory("/var/lib/dpkg/updates");
            tree.make_directory("/usr/sbin");
            Self(tree)
        }

        fn plan(&self, names: &[&str]) -> Result<Vec<String>> {
            let names = names.iter().map(|name| name.parse().unwrap()).collect();
            let package = Package { names, absent: false, hold: None, update: None, recommends: None };
            let system = System::open(self.0.path(), Mode::Plan, Interrupt::default())?;
            Ok(package.plan(&system)?.into_iter().map(|change| change.summary).collect())
        }
    }

    const NONE: [&str; 0] = [];

    fn stanza(name: &str, status: &str) -> String {
        format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: 1.0-1\nProvides: virtual\n\n")
    }

    fn record(stanzas: &[(&str, &str)]) -> String {
        let dpkg = stanza("dpkg", "install ok installed").replace("virtual", "dpkg-virtual");
        stanzas.iter().fold(dpkg, |record, (name, status)| record + &stanza(name, status))
    }

    #[test]
    fn only_an_installed_package_is_as_declared() {
        let image = PackageImage::new(&record(&[
            ("here", "install ok installed"),
            ("held", "hold ok installed"),
            ("gone", "deinstall ok config-files"),
        ]));
        assert_eq!(image.plan(&["here", "held", "here=1.0-1", "here:amd64", "virtual"]).unwrap(), NONE);
        assert_eq!(image.plan(&["here", "gone", "new:i386"]).unwrap(), ["install gone, new:i386"]);
        assert_eq!(image.plan(&["here=0.9-1"]).unwrap(), ["install here=0.9-1 (now 1.0-1)"]);
        assert_eq!(image.plan(&["virtual=1.0-1"]).unwrap(), ["install virtual=1.0-1"]);
    }

    #[test]
    fn packages_of_an_interrupted_run_are_named_with_states() {
        let image = PackageImage::new(&record(&[
            ("here", "install ok installed"),
            ("half", "install ok half-configured"),
            ("torn", "install reinstreq half-installed"),
        ]));
        assert_eq!(image.plan(&["here"]).unwrap(), NONE, "other packages are left alone");
        assert_eq!(image.plan(&["half"]).unwrap(), ["finish the configuration of half (half-configured)"]);
        assert_eq!(
            image.plan(&["torn", "new"]).unwrap(),
            ["finish the configuration of half (half-configured)", "install new; reinstall torn (half-installed)"]
        );
        image.0.write("/var/lib/dpkg/updates/tmp.i", "");
        assert_eq!(image.plan(&["here"]).unwrap(), NONE);
        image.0.write("/var/lib/dpkg/updates/0001", stanza("here", "install ok unpacked"));
        assert_eq!(
            image.plan(&["here"]).unwrap(),
            ["finish the configuration of half (half-configured), here (unpacked)"]
        );
        image.0.write("/var/lib/dpkg/status", record(&[]));
        image.0.write("/var/lib/dpkg/updates/0001", stanza("here", "install ok installed"));
        assert_eq!(image.plan(&["here"]).unwrap(), ["finish the interrupted dpkg run"]);
    }

    #[test]
    fn our_own_policy_is_removed_and_a_foreign_one_is_not() {
        let image = PackageImage::new(&record(&[("here", "install ok installed")]));
        let path = "/usr/sbin/policy-rc.d";
        image.0.write(path, "#!/bin/sh\nexit 101\n");
        assert_eq!(image.plan(&["here"]).unwrap(), NONE);
        image.0.write(path, "#!/bin/sh\n# glovo-bootstrap: of an older release\nexit 101\n");
        assert_eq!(image.plan(&["here"]).unwrap().len(), 1);
    }

    #[test]
    fn a_system_without_dpkg_is_named() {
        let image = PackageImage::new("");
        image.0.remove("/var/lib/dpkg/status");
        let error = image.plan(&["here"]).unwrap_err().to_string();
        assert!(error.contains("this is not a Debian, Ubuntu, Amazon Linux 2023"), "{error}");
    }

    /// Returns the planned changes of other fields than `names`. The image has no program to run.
    fn plan(record: &str, fields: &serde_json::Value) -> Result<Vec<String>> {
        let image = PackageImage::new(record);
        let package: Package = serde_json::from_value(fields.clone())?;
        let system = System::open(image.0.path(), Mode::Plan, Interrupt::default())?;
        Ok(package.plan(&system)?.into_iter().map(|change| change.summary).collect())
    }

    #[test]
    fn a_hold_is_read_without_a_program() {
        let record = record(&[("here", "install ok installed"), ("held", "hold ok installed")]);
        let plan = |names: &[&str], hold: Option<bool>| {
            plan(&record, &serde_json::json!({ "names": names, "hold": hold })).map_err(|error| error.to_string())
        };
        let both = ["here", "held"];
        assert_eq!(plan(&both, None).unwrap(), NONE);
        assert_eq!(plan(&both, Some(true)).unwrap(), ["hold here"]);
        assert_eq!(plan(&both, Some(false)).unwrap(), ["release held from the hold"]);
        assert_eq!(plan(&["new"], Some(true)).unwrap(), ["install new", "hold new"]);
        let held = "held is held at version 1.0-1, but 2.0 is declared";
        assert_eq!(plan(&["held=2.0"], None).unwrap_err(), held);
        assert_eq!(plan(&["held=2.0"], Some(true)).unwrap(), ["install held=2.0 (now 1.0-1)"]);
        assert_eq!(
            plan(&["held=2.0"], Some(false)).unwrap(),
            ["release held from the hold", "install held=2.0 (now 1.0-1)"]
        );
        assert_eq!(plan(&["held=1.0-1", "here=1.*"], Some(true)).unwrap(), ["hold here"]);
        let provided = "virtual cannot be held: another package provides it";
        assert_eq!(plan(&["virtual"], Some(true)).unwrap_err(), provided);
    }

    #[test]
    fn an_absent_package_is_seen_without_a_program() {
        let gone = record(&[("gone", "deinstall ok config-files"), ("here", "install ok installed")]);
        let plan = |name: &str| plan(&gone, &serde_json::json!({ "names": [name], "absent": true }));
        assert_eq!(plan("gone").unwrap(), NONE);
        assert_eq!(plan("new").unwrap(), NONE);
        assert_eq!(plan("virtual").unwrap(), NONE, "only a warning names the package that provides it");
        assert!(plan("here").is_err(), "the image's apt-get cannot tell what else is removed");
    }

    #[test]
    fn a_package_that_is_named_twice_is_refused() {
        let table: toml::Table = Package::EXAMPLE.parse().unwrap();
        let fields: toml::Table = table.into_iter().filter(|(name, _)| name != "kind").collect();
        let mut package: Package = fields.try_into().unwrap();
        assert_eq!(package.check(), []);
        package.names.push("nginx=1.0".parse().unwrap());
        assert_eq!(package.check(), [Finding::new("names", "`nginx` is named twice")]);
    }
}
