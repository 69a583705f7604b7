//! Installed packages of a Debian or Ubuntu system.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    packages::{
        apt::{self, Installation, Update},
        dpkg::{State, Status},
    },
    system::{Fact, System},
};

/// Packages of the distribution, installed by apt-get without asking. All of them are installed at once,
/// edited configuration files are kept, and a service is not started before its `service` resource says so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Names, each `name`, `name=version` (exactly that one, be it older than the one installed) or
    /// `name:architecture`. A bare name is also satisfied by an installed package that provides it.
    names: Vec<PackageName>,
    /// When to update the package lists before installing: `if-needed` (there are none, they are a day
    /// old or older than the sources, or they lack what is asked for), `always` or `never`.
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

/// What names a package: `name`, `name:architecture`, either with `=version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$"))]
struct PackageName {
    name: String,
    architecture: Option<String>,
    version: Option<String>,
}

impl FromStr for PackageName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (package, version) = match text.split_once('=') {
            Some((package, version)) => (package, Some(version)),
            None => (text, None),
        };
        let (name, architecture) = match package.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (package, None),
        };
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        // Debian Policy 5.6.1 (names), 5.6.12 (versions). For apt-get a trailing `-` means: remove it.
        if name.len() < 2 || !name.starts_with(lower) || !name.chars().all(|c| lower(c) || "+-.".contains(c)) {
            bail!("`{name}` is not a package name: lower-case letters, digits and `+-.`, at least two");
        }
        ensure!(!name.ends_with('-'), "`{name}` ends in `-`, which would ask apt-get to remove it");
        if let Some(architecture) = architecture {
            let valid = architecture.starts_with(lower) && architecture.chars().all(|c| lower(c) || c == '-');
            ensure!(valid, "`{architecture}` is not an architecture, such as `amd64`");
        }
        if let Some(version) = version {
            let valid = version.starts_with(|c: char| c.is_ascii_alphanumeric())
                && version.chars().all(|c| c.is_ascii_alphanumeric() || ".+:~-".contains(c));
            ensure!(valid, "`{version}` is not a version, such as `1.22.1-9`");
        }
        Ok(Self { name: name.into(), architecture: architecture.map(Into::into), version: version.map(Into::into) })
    }
}

impl TryFrom<String> for PackageName {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// As apt-get takes it.
impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.architecture.iter().try_for_each(|architecture| write!(f, ":{architecture}"))?;
        self.version.iter().try_for_each(|version| write!(f, "={version}"))
    }
}

/// What a declared package lacks.
#[derive(Debug, PartialEq, Eq)]
enum Lack {
    /// All of it, or the version asked for; the one that is there instead.
    Package(Option<String>),
    /// What is there can't be trusted.
    Unpacking(State),
    /// It is unpacked; to be configured or to run its triggers is what remains.
    Configuration,
}

impl PackageName {
    fn lack(&self, status: &Status) -> Option<Lack> {
        let Some(package) = status.package(&self.name, self.architecture.as_deref()) else {
            let bare = self.architecture.is_none() && self.version.is_none();
            return (!bare || !status.is_provided(&self.name)).then_some(Lack::Package(None));
        };
        match package.state {
            state if package.reinstall || state == State::HalfInstalled => Some(Lack::Unpacking(state)),
            _ if self.version.as_ref().is_some_and(|version| *version != package.version) => {
                Some(Lack::Package(Some(package.version.clone())))
            }
            State::Installed => None,
            _ => Some(Lack::Configuration),
        }
    }
}

impl Resource for Package {
    fn title(&self) -> String {
        self.names.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let status = system.host.read_once(Status::read)?;
        let mut changes = vec![];
        if apt::is_policy_left_behind(system)? {
            changes.push(Change::new("remove the policy-rc.d of an installation that was killed", apt::sweep_policy));
        }
        let lacking: Vec<_> = self.names.iter().filter_map(|package| Some((package, package.lack(&status)?))).collect();
        // Of what is not declared here, dpkg and apt would insist on the same.
        let unconfigured = if lacking.is_empty() { vec![] } else { status.unconfigured() };
        if status.is_interrupted() || !unconfigured.is_empty() {
            changes.push(Change::new(finish(&unconfigured), apt::finish).brings([Fact::Packages]));
        }
        changes.extend(self.install(&lacking));
        Ok(changes)
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.names.is_empty() {
            findings.push(Finding::new("names", "names no package"));
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
    /// One change for all packages, because apt-get resolves and installs them together.
    fn install(&self, lacking: &[(&PackageName, Lack)]) -> Option<Change> {
        let (mut install, mut reinstall, mut names) = (vec![], vec![], vec![]);
        for (package, lack) in lacking {
            match lack {
                Lack::Package(None) => install.push(package.to_string()),
                Lack::Package(Some(version)) => install.push(format!("{package} (now {version})")),
                Lack::Unpacking(state) => reinstall.push(format!("{package} ({state})")),
                Lack::Configuration => continue,
            }
            names.push(package.to_string());
        }
        let summaries = [("install", &install), ("reinstall", &reinstall)];
        let summaries = summaries.iter().filter(|(_, packages)| !packages.is_empty());
        let summary = summaries.map(|(verb, packages)| format!("{verb} {}", packages.join(", "))).collect::<Vec<_>>();
        if names.is_empty() {
            return None;
        }
        let installation =
            Installation { names, reinstall: !reinstall.is_empty(), update: self.update, recommends: self.recommends };
        let change = Change::new(summary.join("; "), move |system| apt::install(system, &installation));
        Some(change.brings([Fact::Packages]))
    }
}

/// What is to be finished before anything else can be installed.
fn finish(unconfigured: &[(&str, State)]) -> String {
    let named: Vec<_> = unconfigured.iter().take(3).map(|(name, state)| format!("{name} ({state})")).collect();
    match unconfigured.len() - named.len() {
        _ if named.is_empty() => "finish the interrupted dpkg run".into(),
        0 => format!("finish the configuration of {}", named.join(", ")),
        more => format!("finish the configuration of {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{stop::Interrupt, system::Mode};

    /// An image's tree with that dpkg record, gone when dropped.
    struct Image(PathBuf);

    impl Image {
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

    impl Drop for Image {
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
    fn only_an_installed_package_is_no_difference() {
        let image = Image::new(
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
    fn what_an_interrupted_run_left_is_said_in_words() {
        let image = Image::new(
            "unfinished",
            &record(&[
                ("here", "install ok installed"),
                ("half", "install ok half-configured"),
                ("torn", "install reinstreq half-installed"),
            ]),
        );
        assert_eq!(image.plan(&["here"]).unwrap(), NONE, "what is not declared is not ours to mend");
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
    fn a_policy_left_behind_is_swept_and_a_foreign_one_is_not() {
        let image = Image::new("policy", &record(&[("here", "install ok installed")]));
        let path = image.0.join("usr/sbin/policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 101\n").unwrap();
        assert_eq!(image.plan(&["here"]).unwrap(), NONE);
        fs::write(&path, "#!/bin/sh\n# glovo-bootstrap: of an older release\nexit 101\n").unwrap();
        assert_eq!(image.plan(&["here"]).unwrap().len(), 1);
    }

    #[test]
    fn a_system_without_dpkg_is_named() {
        let image = Image::new("foreign", "");
        fs::remove_file(image.0.join("var/lib/dpkg/status")).unwrap();
        assert!(image.plan(&["here"]).unwrap_err().to_string().ends_with("this is not a Debian or Ubuntu system"));
    }

    #[test]
    fn names_are_debians() {
        for name in ["nginx", "g++", "python3.11", "libc6:i386", "nginx=1.22.1-9+deb12u1", "a0:amd64=1:2~rc-1"] {
            assert_eq!(name.parse::<PackageName>().unwrap().to_string(), name);
        }
        let bad =
            ["", "x", "Nginx", "nginx-", "-y", "ngin*", "a b", "nginx=", "nginx/sid", "nginx:", "a0=-1", "a0=1;2"];
        for name in bad {
            assert!(name.parse::<PackageName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_example_is_one_and_a_name_appears_once() {
        let table: toml::Table = Package::EXAMPLE.parse().unwrap();
        let fields: toml::Table = table.into_iter().filter(|(name, _)| name != "kind").collect();
        let mut package: Package = fields.try_into().unwrap();
        assert_eq!(package.check(), []);
        package.names.push("nginx=1.0".parse().unwrap());
        assert_eq!(package.check(), [Finding::new("names", "`nginx` is named twice")]);
    }
}
