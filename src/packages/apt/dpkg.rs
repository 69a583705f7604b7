//! The installed packages, read from dpkg's own record.
//!
//! This needs no process. The record also shows the packages that an interrupted run left incomplete; `dpkg --audit`
//! and `apt-get check` exit with 0 for those.

use std::{cell::OnceCell, collections::HashMap, fmt, ops::Range};

use anyhow::{Context, Result};
use memchr::{memchr, memmem};

use crate::{error::Fault, host::root::Root};

/// dpkg's record: one stanza for each package.
pub const STATUS: &str = "/var/lib/dpkg/status";
/// The directory of dpkg's changes since it last wrote the whole record: one numbered file for each change.
const UPDATES: &str = "/var/lib/dpkg/updates";
/// Limits the size of a file of the record. Real records are smaller.
const MAX_BYTES: u64 = 256 << 20;

/// The state of a package; dpkg(1), "Package states".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageState {
    /// Not installed.
    NotInstalled,
    /// Removed, except for its configuration files.
    ConfigFiles,
    /// Partly unpacked: the unpacking was interrupted.
    HalfInstalled,
    /// Unpacked, but not configured.
    Unpacked,
    /// Partly configured: the configuration was interrupted.
    HalfConfigured,
    /// Waits for a trigger in another package.
    TriggersAwaited,
    /// Has triggers that have not run yet.
    TriggersPending,
    /// Unpacked and configured.
    Installed,
}

impl PackageState {
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

impl fmt::Display for PackageState {
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
pub struct PackageRecord {
    /// Its state.
    pub state: PackageState,
    /// dpkg's `reinstreq` flag: the package is broken and must be unpacked again.
    pub reinstall: bool,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// Whether it is held at this version; dpkg(1), "Package selection states".
    pub is_held: bool,
    /// Whether the system cannot work without it: `Essential`, `Protected` or apt's `Important`.
    pub is_essential: bool,
    provides: String,
}

impl PackageRecord {
    fn is_absent(&self) -> bool {
        matches!(self.state, PackageState::NotInstalled | PackageState::ConfigFiles)
    }

    fn is_unconfigured(&self) -> bool {
        let unpacked = matches!(
            self.state,
            PackageState::Unpacked
                | PackageState::HalfConfigured
                | PackageState::TriggersAwaited
                | PackageState::TriggersPending
        );
        unpacked && !self.reinstall
    }

    fn provides(&self, name: &str) -> bool {
        let mut names = self.provides.split(',').filter_map(|provided| provided.split_whitespace().next());
        names.any(|provided| provided == name)
    }
}

/// The content of dpkg's record.
///
/// A plan asks for a few packages of hundreds. So the names are found at once, and a package's fields when it is asked for.
#[derive(Debug, Default)]
pub struct DpkgStatus {
    texts: Vec<String>,
    packages: HashMap<String, NamedPackages>,
    interrupted: bool,
}

/// The packages of a name, one for each architecture.
#[derive(Debug, Default)]
struct NamedPackages {
    /// Their stanzas: the index of the text, and the place in it.
    stanzas: Vec<(usize, Range<usize>)>,
    records: OnceCell<Vec<PackageRecord>>,
}

impl NamedPackages {
    /// Returns the records. A later stanza of an architecture replaces an earlier one, as in dpkg.
    fn records(&self, texts: &[String]) -> &[PackageRecord] {
        self.records.get_or_init(|| {
            let mut records: Vec<PackageRecord> = vec![];
            for (text, place) in &self.stanzas {
                let Some(record) = parse(&texts[*text][place.clone()]) else { continue };
                match records.iter_mut().find(|other| other.architecture == record.architecture) {
                    Some(other) => *other = record,
                    None => records.push(record),
                }
            }
            records
        })
    }
}

impl DpkgStatus {
    /// Reads the record.
    ///
    /// # Errors
    /// If the record does not exist. Then the root is not a Debian or Ubuntu system.
    pub fn read(root: &Root) -> Result<Self> {
        let Some(bytes) = root.read(&STATUS.into(), MAX_BYTES)? else {
            return Err(Fault::new(format!("{STATUS} is missing: this is not a Debian or Ubuntu system"))
                .hint("leave this resource out on such systems; it needs dpkg and apt")
                .into());
        };
        let mut status = Self::default();
        status.merge(text(bytes));
        // Only names of digits count, as for apt (debSystem::CheckUpdates); `tmp.i` does not.
        for name in root.list(&UPDATES.into())?.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            let path = format!("{UPDATES}/{name}").parse().context("naming a file of dpkg's")?;
            status.merge(text(root.read(&path, MAX_BYTES)?.unwrap_or_default()));
            status.interrupted = true;
        }
        Ok(status)
    }

    /// Returns the record of a text, for tests.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        let mut status = Self::default();
        status.merge(text.to_owned());
        status
    }

    /// Adds stanzas.
    fn merge(&mut self, text: String) {
        let mut begin = 0;
        for end in memmem::find_iter(text.as_bytes(), "\n\n").chain([text.len()]) {
            let place = begin..end;
            if let Some(name) = field(&text[place.clone()], "Package: ") {
                let packages = self.packages.entry(name.to_owned()).or_default();
                packages.stanzas.push((self.texts.len(), place));
                packages.records = OnceCell::new();
            }
            begin = end + 2;
        }
        self.texts.push(text);
    }

    fn records(&self, name: &str) -> &[PackageRecord] {
        self.packages.get(name).map_or(&[], |packages| packages.records(&self.texts))
    }

    fn stanzas<'a>(&'a self, packages: &'a NamedPackages) -> impl Iterator<Item = &'a str> {
        packages.stanzas.iter().map(|(text, place)| &self.texts[*text][place.clone()])
    }

    /// Returns whether a dpkg run was interrupted. apt installs nothing before `dpkg --configure -a` has finished it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Returns whether `dpkg --configure --pending` would have nothing to do.
    pub fn is_finished(&self) -> bool {
        !self.interrupted && self.unconfigured().is_empty()
    }

    /// Returns the packages that `dpkg --configure --pending` would configure, sorted by name.
    pub fn unconfigured(&self) -> Vec<(&str, PackageState)> {
        let mut unconfigured = vec![];
        // Nearly all are installed, and their other fields do not matter.
        let is_installed = |stanza| field(stanza, "Status: ").is_some_and(|status| status.ends_with(" ok installed"));
        for (name, packages) in self.packages.iter().filter(|(_, packages)| !self.stanzas(packages).all(is_installed)) {
            let of_name = packages.records(&self.texts).iter().filter(|package| package.is_unconfigured());
            unconfigured.extend(of_name.map(|package| (name.as_str(), package.state)));
        }
        unconfigured.sort_unstable_by_key(|(name, _)| *name);
        unconfigured
    }

    /// Returns the package of a name, if it is at least partly installed.
    ///
    /// Without an architecture it is the one of the machine's architecture or of `all`, as for apt.
    pub fn package(&self, name: &str, architecture: Option<&str>) -> Option<&PackageRecord> {
        let architecture = architecture.or_else(|| self.architecture())?;
        let fits = |package: &&PackageRecord| package.architecture == architecture || package.architecture == "all";
        self.records(name).iter().filter(|package| !package.is_absent()).find(fits)
    }

    /// Returns the installed packages whose names begin with a prefix.
    pub fn installed_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &PackageRecord)> {
        let named = self.packages.iter().filter(move |(name, _)| name.starts_with(prefix));
        let each = named.flat_map(|(name, packages)| {
            packages.records(&self.texts).iter().map(move |package| (name.as_str(), package))
        });
        each.filter(|(_, package)| !package.is_absent())
    }

    /// Returns whether an installed package provides a name, such as `mail-transport-agent`.
    pub fn is_provided(&self, name: &str) -> bool {
        self.provider(name).is_some()
    }

    /// Returns the name of an installed package that provides a name.
    pub fn provider(&self, name: &str) -> Option<&str> {
        let is_provider = |package: &PackageRecord| {
            package.state == PackageState::Installed && !package.reinstall && package.provides(name)
        };
        let says_so = |stanza| field(stanza, "Provides: ").is_some_and(|provided| provided.contains(name));
        let mut named = self.packages.iter().filter(|(_, packages)| self.stanzas(packages).any(says_so));
        named.find(|(_, packages)| packages.records(&self.texts).iter().any(is_provider)).map(|(name, _)| name.as_str())
    }

    /// Returns the machine's architecture. It is the one of the package dpkg, which runs on the machine.
    pub fn architecture(&self) -> Option<&str> {
        Some(&self.records("dpkg").first()?.architecture)
    }
}

/// Returns bytes as text, with replacement characters, so that a name in another encoding does not hide packages.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Returns the value of a stanza's field. The name is given with its colon and space.
fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = stanza;
    loop {
        let end = memchr(b'\n', rest.as_bytes());
        if let Some(value) = rest[..end.unwrap_or(rest.len())].strip_prefix(name) {
            return Some(value);
        }
        rest = &rest[end? + 1..];
    }
}

/// Parses a stanza; deb822(5). Returns `None` if dpkg cannot have written it.
fn parse(stanza: &str) -> Option<PackageRecord> {
    // The selection (`install`, `hold`, …), a flag, the state.
    let mut words = field(stanza, "Status: ")?.split(' ');
    let (selection, flag, state) = (words.next()?, words.next()?, words.next()?);
    let owned = |name| field(stanza, name).unwrap_or_default().to_owned();
    let is_said = |name| field(stanza, name) == Some("yes");
    Some(PackageRecord {
        state: PackageState::parse(state)?,
        reinstall: flag == "reinstreq",
        architecture: owned("Architecture: "),
        version: owned("Version: "),
        is_held: selection == "hold",
        is_essential: ["Essential: ", "Protected: ", "Important: "].into_iter().any(is_said),
        provides: owned("Provides: "),
    })
}

/// Returns the text of a plan for packages that must still be configured.
pub(super) fn to_finish(unconfigured: &[(&str, PackageState)]) -> String {
    let named: Vec<_> = unconfigured.iter().take(3).map(|(name, state)| format!("{name} ({state})")).collect();
    match unconfigured.len() - named.len() {
        _ if named.is_empty() => "finish the interrupted dpkg run".into(),
        0 => format!("finish the configuration of {}", named.join(", ")),
        more => format!("finish the configuration of {} and {more} more", named.join(", ")),
    }
}

/// Checks that a record is read to its end, that its packages are found by name, and that adding it twice changes nothing.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let record = text(input.to_vec());
    let mut status = DpkgStatus::default();
    status.merge(record.clone());
    let summary = |status: &DpkgStatus| {
        let records = status.packages.iter().map(|(name, packages)| (name, packages.records(&status.texts)));
        let names: std::collections::BTreeMap<_, _> = records.collect();
        (format!("{names:?}"), status.unconfigured().len(), status.is_finished())
    };
    let before = summary(&status);
    status.merge(record.clone());
    assert_eq!(summary(&status), before);
    assert_eq!(status.is_finished(), status.unconfigured().is_empty());
    for (name, packages) in &status.packages {
        for package in packages.records(&status.texts) {
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
Essential: yes
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

    fn record(text: &str) -> DpkgStatus {
        DpkgStatus::of(text)
    }

    #[test]
    fn the_record_shows_states_and_versions() {
        let status = record(RECORD);
        let state = |name, architecture| status.package(name, architecture).map(|package| package.state);
        assert_eq!(state("libc6", None), Some(PackageState::Installed));
        assert_eq!(state("libc6", Some("i386")), Some(PackageState::Unpacked));
        assert_eq!(state("libc6", Some("arm64")), None);
        assert_eq!(
            state("nginx", Some("amd64")),
            Some(PackageState::Installed),
            "an `all` package has every architecture"
        );
        assert_eq!(state("gone", None), None, "configuration files are no package");
        assert_eq!(state("never", None), None);
        assert_eq!(state("odd", None), None);
        assert_eq!(state("not-one", None), None);
        assert!(status.package("half", None).unwrap().reinstall);
        let held = |name| status.package(name, None).unwrap().is_held;
        assert!(held("nginx") && !held("libc6"));
        let essential = |name| status.package(name, None).unwrap().is_essential;
        assert!(essential("dpkg") && !essential("libc6"));
        assert_eq!(status.package("libc6", None).unwrap().version, "2.36-9+deb12u10");
        assert_eq!(status.unconfigured(), [("libc6", PackageState::Unpacked)]);
        assert!(!status.is_interrupted() && !status.is_finished());
        let status = record(&RECORD.replace("install ok unpacked", "install reinstreq unpacked"));
        assert!(status.is_finished(), "a package that must be unpacked again cannot be finished by configuring it");
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
        let later = "Package: libc6\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 3\n";
        status.merge(later.to_owned());
        assert_eq!(status.package("libc6", None).unwrap().state, PackageState::HalfConfigured);
        assert_eq!(status.package("libc6", Some("i386")).unwrap().state, PackageState::Unpacked);
    }
}
