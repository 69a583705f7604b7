//! What dpkg has installed, read from its own record: no process, and the truth about packages that an
//! interrupted run left half-way (`dpkg --audit` and `apt-get check` both exit 0 for those).

use std::{collections::HashMap, fmt};

use anyhow::{Context, Result};

use crate::{error::Fault, host::root::Root};

/// The record: one stanza for each package that dpkg knows.
pub const STATUS: &str = "/var/lib/dpkg/status";
/// What dpkg did since it last wrote the record as a whole: one numbered file for each step.
const UPDATES: &str = "/var/lib/dpkg/updates";
/// More than any record has.
const LIMIT: u64 = 256 << 20;

/// How far a package got; dpkg(1), "Package states".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not there.
    NotInstalled,
    /// Removed; its configuration files are still there.
    ConfigFiles,
    /// Its unpacking began and did not end.
    HalfInstalled,
    /// Unpacked, not configured.
    Unpacked,
    /// Its configuration began and did not end.
    HalfConfigured,
    /// Waits for a trigger in another package.
    TriggersAwaited,
    /// Has triggers still to run.
    TriggersPending,
    /// Unpacked and configured.
    Installed,
}

impl State {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "not-installed" => Self::NotInstalled,
            "config-files" => Self::ConfigFiles,
            "half-installed" => Self::HalfInstalled,
            "unpacked" => Self::Unpacked,
            "half-configured" => Self::HalfConfigured,
            "triggers-awaited" => Self::TriggersAwaited,
            "triggers-pending" => Self::TriggersPending,
            "installed" => Self::Installed,
            _ => return None,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInstalled => "not installed",
            Self::ConfigFiles => "removed",
            Self::HalfInstalled => "half-installed",
            Self::Unpacked => "unpacked",
            Self::HalfConfigured => "half-configured",
            Self::TriggersAwaited => "triggers-awaited",
            Self::TriggersPending => "triggers-pending",
            Self::Installed => "installed",
        })
    }
}

/// A package as dpkg records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// How far it got.
    pub state: State,
    /// dpkg's `reinstreq` flag: what is there can't be trusted, only unpacking it again helps.
    pub reinstall: bool,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Its version.
    pub version: String,
    provides: String,
}

impl Package {
    fn is_absent(&self) -> bool {
        matches!(self.state, State::NotInstalled | State::ConfigFiles)
    }

    fn is_unconfigured(&self) -> bool {
        let unpacked = matches!(
            self.state,
            State::Unpacked | State::HalfConfigured | State::TriggersAwaited | State::TriggersPending
        );
        unpacked && !self.reinstall
    }

    fn provides(&self, name: &str) -> bool {
        let mut names = self.provides.split(',').filter_map(|provided| provided.split_whitespace().next());
        names.any(|provided| provided == name)
    }
}

/// What dpkg has installed.
#[derive(Debug, Default)]
pub struct Status {
    /// The packages of each name: one, or one for each architecture.
    packages: HashMap<String, Vec<Package>>,
    interrupted: bool,
}

impl Status {
    /// Reads the record.
    ///
    /// # Errors
    /// If there is none: the root is not of the Debian family.
    pub fn read(root: &Root) -> Result<Self> {
        let Some(bytes) = root.read(&STATUS.into(), LIMIT)? else {
            return Err(Fault::new(format!("{STATUS} is missing: this is not a Debian or Ubuntu system"))
                .hint("packages are installed by dpkg and apt only; leave this resource out here")
                .into());
        };
        let mut status = Self::default();
        status.merge(&text(bytes));
        // As apt looks for them (debSystem::CheckUpdates): `tmp.i` and the like don't count.
        for name in root.list(&UPDATES.into())?.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            let path = format!("{UPDATES}/{name}").parse().context("naming a file of dpkg's")?;
            status.merge(&text(root.read(&path, LIMIT)?.unwrap_or_default()));
            status.interrupted = true;
        }
        Ok(status)
    }

    /// Takes stanzas in; a later one about the same package replaces an earlier one, as in dpkg.
    fn merge(&mut self, text: &str) {
        for stanza in text.split("\n\n") {
            let Some((name, package)) = parse(stanza) else { continue };
            let packages = self.packages.entry(name.to_owned()).or_default();
            match packages.iter_mut().find(|other| other.architecture == package.architecture) {
                Some(other) => *other = package,
                None => packages.push(package),
            }
        }
    }

    /// Whether a dpkg run was cut off. Nothing can be installed before `dpkg --configure -a` has ended it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Whether nothing is left that `dpkg --configure --pending` would mend.
    pub fn is_finished(&self) -> bool {
        !self.interrupted && !self.packages.values().flatten().any(Package::is_unconfigured)
    }

    /// The packages that `dpkg --configure --pending` would go on with, by name.
    pub fn unconfigured(&self) -> Vec<(&str, State)> {
        let mut unconfigured = vec![];
        for (name, packages) in &self.packages {
            let of_name = packages.iter().filter(|package| package.is_unconfigured());
            unconfigured.extend(of_name.map(|package| (name.as_str(), package.state)));
        }
        unconfigured.sort_unstable_by_key(|(name, _)| *name);
        unconfigured
    }

    /// The package of that name, if it is at least partly there. Without an architecture it is the machine's
    /// own (or `all`), as for apt.
    pub fn package(&self, name: &str, architecture: Option<&str>) -> Option<&Package> {
        let architecture = architecture.or_else(|| self.architecture())?;
        let fits = |package: &&Package| package.architecture == architecture || package.architecture == "all";
        self.packages.get(name)?.iter().filter(|package| !package.is_absent()).find(fits)
    }

    /// Whether an installed package provides that name: `mail-transport-agent`, `java-runtime-headless`.
    pub fn is_provided(&self, name: &str) -> bool {
        let mut packages = self.packages.values().flatten();
        packages.any(|package| package.state == State::Installed && !package.reinstall && package.provides(name))
    }

    /// The machine's own architecture: dpkg's, who must run on it.
    fn architecture(&self) -> Option<&str> {
        Some(&self.packages.get("dpkg")?.first()?.architecture)
    }
}

/// A maintainer's name in another encoding must not hide the packages.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads a stanza; deb822(5). `None` where it is none that dpkg could have written.
fn parse(stanza: &str) -> Option<(&str, Package)> {
    let (mut name, mut status) = (None, None);
    let (mut architecture, mut version, mut provides) = ("", "", "");
    for line in stanza.split('\n') {
        // Most of a megabyte is other fields and what goes on with them.
        if !line.starts_with(['A', 'P', 'S', 'V']) {
            continue;
        }
        let Some((field, value)) = line.split_once(": ") else { continue };
        match field {
            "Package" => name = Some(value),
            "Status" => status = Some(value),
            "Architecture" => architecture = value,
            "Version" => version = value,
            "Provides" => provides = value,
            _ => {}
        }
    }
    // What is wanted (`install`, `hold`, …), a flag, how far it got.
    let mut words = status?.split(' ').skip(1);
    let (flag, state) = (words.next()?, words.next()?);
    let package = Package {
        state: State::parse(state)?,
        reinstall: flag == "reinstreq",
        architecture: architecture.into(),
        version: version.into(),
        provides: provides.into(),
    };
    Some((name?, package))
}

/// Returns what a plan shows of packages whose configuration is to be finished.
pub(super) fn to_finish(unconfigured: &[(&str, State)]) -> String {
    let named: Vec<_> = unconfigured.iter().take(3).map(|(name, state)| format!("{name} ({state})")).collect();
    match unconfigured.len() - named.len() {
        _ if named.is_empty() => "finish the interrupted dpkg run".into(),
        0 => format!("finish the configuration of {}", named.join(", ")),
        more => format!("finish the configuration of {} and {more} more", named.join(", ")),
    }
}

/// A record is read to its end, its packages are found under their names, and the same record once more changes nothing.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let record = text(input.to_vec());
    let mut status = Status::default();
    status.merge(&record);
    let said = |status: &Status| {
        let names: std::collections::BTreeMap<_, _> = status.packages.iter().collect();
        (format!("{names:?}"), status.unconfigured().len(), status.is_finished())
    };
    let before = said(&status);
    status.merge(&record);
    assert_eq!(said(&status), before);
    assert_eq!(status.is_finished(), status.unconfigured().is_empty());
    for (name, packages) in &status.packages {
        for package in packages {
            let found = status.package(name, Some(&package.architecture));
            assert!(package.is_absent() || found.is_some());
            assert!(!name.contains('\n') && !package.version.contains('\n'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u10
Description: GNU C Library
 Status: deinstall ok config-files
 .
 Package: not-one

Package: libc6
Status: install ok unpacked
Architecture: i386
Version: 2.36-9+deb12u10

Package: nginx
Status: hold ok installed
Architecture: all
Version: 1.22.1-9
Provides: httpd, httpd-cgi (= 1.22.1-9)

Package: half
Status: install reinstreq half-installed
Architecture: amd64
Version: 1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: never
Status: unknown ok not-installed

Package: odd
Status: install ok sideways
Architecture: amd64
";

    fn record(text: &str) -> Status {
        let mut status = Status::default();
        status.merge(text);
        status
    }

    #[test]
    fn the_record_is_read_as_dpkg_wrote_it() {
        let status = record(RECORD);
        let state = |name, architecture| status.package(name, architecture).map(|package| package.state);
        assert_eq!(state("libc6", None), Some(State::Installed));
        assert_eq!(state("libc6", Some("i386")), Some(State::Unpacked));
        assert_eq!(state("libc6", Some("arm64")), None);
        assert_eq!(state("nginx", Some("amd64")), Some(State::Installed), "an `all` package is of every architecture");
        assert_eq!(state("gone", None), None, "configuration files are no package");
        assert_eq!(state("never", None), None);
        assert_eq!(state("odd", None), None);
        assert_eq!(state("not-one", None), None);
        assert!(status.package("half", None).unwrap().reinstall);
        assert_eq!(status.package("libc6", None).unwrap().version, "2.36-9+deb12u10");
        assert_eq!(status.unconfigured(), [("libc6", State::Unpacked)]);
        assert!(!status.is_interrupted() && !status.is_finished());
        let status = record(&RECORD.replace("install ok unpacked", "install reinstreq unpacked"));
        assert!(status.is_finished(), "what must be unpacked again is not finished by configuring it");
    }

    #[test]
    fn a_name_can_be_provided_by_an_installed_package() {
        let status = record(RECORD);
        assert!(status.is_provided("httpd") && status.is_provided("httpd-cgi"));
        assert!(!status.is_provided("http") && !status.is_provided("nginx"));
        let status = record(&RECORD.replace("hold ok installed", "deinstall ok config-files"));
        assert!(!status.is_provided("httpd"));
    }

    #[test]
    fn a_later_stanza_replaces_an_earlier_one() {
        let mut status = record(RECORD);
        status.merge("Package: libc6\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 3\n");
        assert_eq!(status.package("libc6", None).unwrap().state, State::HalfConfigured);
        assert_eq!(status.package("libc6", Some("i386")).unwrap().state, State::Unpacked);
    }
}
