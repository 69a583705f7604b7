//! The kind `package`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    packages::{
        self,
        manager::{Family, Installation, Lack, Update},
        name::PackageName,
    },
    system::{Fact, System},
};

/// Packages of the distribution, which its package manager installs without questions. All of them are installed at once. Edited
/// configuration files are kept. Their services are not started; a `service` resource does that.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Names, each `name`, `name=version` (exactly this version, also if it is older than the installed one) or
    /// `name:architecture`. For a bare name, an installed package that provides it is enough.
    names: Vec<PackageName>,
    /// When to update the package lists before an installation: `always`, `never` or `if-needed` (if the lists are missing,
    /// more than a day old, older than the sources, or do not have a package).
    #[serde(default)]
    update: Update,
    /// Whether to install recommended packages too.
    #[serde(default)]
    recommends: bool,
}

impl Kind for Package {
    const NAME: &'static str = "package";
    const EXAMPLE: &'static str = r#"kind = "package"
names = ["nginx", "default-jre-headless"]"#;
}

impl Resource for Package {
    fn title(&self) -> String {
        self.names.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let manager = packages::of(&system.host)?;
        let mut lacking = vec![];
        for package in &self.names {
            let package = manager.read_name(&package.text)?;
            if let Some(lack) = manager.lack(&system.host, &package)? {
                lacking.push((package, lack));
            }
        }
        let repairs = manager.repairs(&system.host, !lacking.is_empty())?.into_iter().map(|repair| {
            let change = Change::new(repair.summary, repair.make);
            if repair.brings_packages { change.brings([Fact::Packages]) } else { change }
        });
        Ok(repairs.chain(self.install(manager, &lacking)).collect())
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        let reads_all = |family: &&Family| self.names.iter().all(|name| family.read_name(&name.text).is_ok());
        Some(packages::FAMILIES.iter().filter(reads_all).copied().collect())
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
        }
        findings
    }
}

impl Package {
    /// Returns one change for all packages, because the package manager resolves and installs them together.
    fn install(&self, manager: Family, lacking: &[(PackageName, Lack)]) -> Option<Change> {
        let (mut install, mut reinstall, mut names) = (vec![], vec![], vec![]);
        for (package, lack) in lacking {
            match lack {
                Lack::Package(None) => install.push(package.to_string()),
                Lack::Package(Some(version)) => install.push(format!("{package} (now {version})")),
                Lack::Unpacking(state) => reinstall.push(format!("{package} ({state})")),
                Lack::Configuration => continue,
            }
            names.push(package.clone());
        }
        let summaries = [("install", &install), ("reinstall", &reinstall)];
        let summaries = summaries.iter().filter(|(_, packages)| !packages.is_empty());
        let summary = summaries.map(|(verb, packages)| format!("{verb} {}", packages.join(", "))).collect::<Vec<_>>();
        if names.is_empty() {
            return None;
        }
        let installation =
            Installation { names, reinstall: !reinstall.is_empty(), update: self.update, recommends: self.recommends };
        let change = Change::new(summary.join("; "), move |system| manager.install(system, &installation));
        Some(change.brings([Fact::Packages]))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{stop::Interrupt, system::Mode};

    /// An image's tree with a dpkg record, removed when dropped.
    struct PackageImage(PathBuf);

    impl PackageImage {
        fn new(name: &str, record: &str) -> Self {
            let path = std::env::temp_dir().join(format!("glovo-bootstrap-package-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("var/lib/dpkg/updates")).unwrap();
            fs::create_dir_all(path.join("usr/sbin")).unwrap();
            fs::write(path.join("var/lib/dpkg/status"), record).unwrap();
            Self(path)
        }

        fn plan(&self, names: &[&str]) -> Result<Vec<String>> {
            let names = names.iter().map(|name| name.parse().unwrap()).collect();
            let package = Package { names, update: Update::IfNeeded, recommends: false };
            let system = System::open(&self.0, Mode::Plan, Interrupt::default())?;
            Ok(package.plan(&system)?.into_iter().map(|change| change.summary).collect())
        }
    }

    impl Drop for PackageImage {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
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
        let image = PackageImage::new(
            "states",
            &record(&[
                ("here", "install ok installed"),
                ("held", "hold ok installed"),
                ("gone", "deinstall ok config-files"),
            ]),
        );
        assert_eq!(image.plan(&["here", "held", "here=1.0-1", "here:amd64", "virtual"]).unwrap(), NONE);
        assert_eq!(image.plan(&["here", "gone", "new:i386"]).unwrap(), ["install gone, new:i386"]);
        assert_eq!(image.plan(&["here=0.9-1"]).unwrap(), ["install here=0.9-1 (now 1.0-1)"]);
        assert_eq!(image.plan(&["virtual=1.0-1"]).unwrap(), ["install virtual=1.0-1"]);
    }

    #[test]
    fn packages_of_an_interrupted_run_are_named_with_states() {
        let image = PackageImage::new(
            "unfinished",
            &record(&[
                ("here", "install ok installed"),
                ("half", "install ok half-configured"),
                ("torn", "install reinstreq half-installed"),
            ]),
        );
        assert_eq!(image.plan(&["here"]).unwrap(), NONE, "other packages are left alone");
        assert_eq!(image.plan(&["half"]).unwrap(), ["finish the configuration of half (half-configured)"]);
        assert_eq!(
            image.plan(&["torn", "new"]).unwrap(),
            ["finish the configuration of half (half-configured)", "install new; reinstall torn (half-installed)"]
        );
        fs::write(image.0.join("var/lib/dpkg/updates/tmp.i"), "").unwrap();
        assert_eq!(image.plan(&["here"]).unwrap(), NONE);
        fs::write(image.0.join("var/lib/dpkg/updates/0001"), stanza("here", "install ok unpacked")).unwrap();
        assert_eq!(
            image.plan(&["here"]).unwrap(),
            ["finish the configuration of half (half-configured), here (unpacked)"]
        );
        fs::write(image.0.join("var/lib/dpkg/status"), record(&[])).unwrap();
        fs::write(image.0.join("var/lib/dpkg/updates/0001"), stanza("here", "install ok installed")).unwrap();
        assert_eq!(image.plan(&["here"]).unwrap(), ["finish the interrupted dpkg run"]);
    }

    #[test]
    fn our_own_policy_is_removed_and_a_foreign_one_is_not() {
        let image = PackageImage::new("policy", &record(&[("here", "install ok installed")]));
        let path = image.0.join("usr/sbin/policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 101\n").unwrap();
        assert_eq!(image.plan(&["here"]).unwrap(), NONE);
        fs::write(&path, "#!/bin/sh\n# glovo-bootstrap: of an older release\nexit 101\n").unwrap();
        assert_eq!(image.plan(&["here"]).unwrap().len(), 1);
    }

    #[test]
    fn a_system_without_dpkg_is_named() {
        let image = PackageImage::new("foreign", "");
        fs::remove_file(image.0.join("var/lib/dpkg/status")).unwrap();
        let error = image.plan(&["here"]).unwrap_err().to_string();
        assert!(error.contains("this is not a Debian or Ubuntu"), "{error}");
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
