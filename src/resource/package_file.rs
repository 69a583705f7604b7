//! The kind `package_file`.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Finding, Kind, Resource,
    file::empty_is_none,
    package::{hold, repairs},
};
use crate::{
    fetch::{
        pull::Download,
        source::{Source, Sources},
        spool::other_bytes,
    },
    host::root::Ownership,
    packages::{
        self,
        manager::{Family, Lack},
        name::PackageName,
    },
    system::{Fact, Mode, System},
    value::{AbsPath, Sha256},
};

/// A package that is installed from a vendor's file. It is downloaded only if this version is not
/// installed. Its dependencies come from the machine's repositories. As with `package`, there are no questions, edited
/// configuration files are kept, and its services are not started.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// The name of the package in the file.
    name: PackageName,
    /// The version of the package in the file, in full. A file with another name or version is never installed. An
    /// installed newer version is downgraded.
    version: String,
    /// The source of the file: an https, http, s3 or file URL. It may be a list of URLs: after a failure of one, the next
    /// one is tried. A table has the source of each architecture.
    source: Sources,
    /// SHA-256 of the file. Required for https, http and a list. It may be a table by architecture, as `source`.
    #[serde(default, deserialize_with = "empty_is_none")]
    #[schemars(with = "String", extend("pattern" = "^([0-9A-Fa-f]{64})?$"))]
    sha256: Option<Sha256>,
}

impl Kind for PackageFile {
    const NAME: &'static str = "package_file";
    const EXAMPLE: &'static str = r#"kind = "package_file"
name = "example-agent"
version = "1.4.0-1"
source = "https://downloads.example.com/example-agent_1.4.0-1_amd64.deb"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855""#;
}

impl Resource for PackageFile {
    fn title(&self) -> String {
        self.name.to_string()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("name", format!("the package {}", self.name.without_version()))]
    }

    fn packages(&self) -> Vec<PackageName> {
        self.text().parse().into_iter().collect()
    }

    fn needed_files(&self) -> Vec<(&'static str, &AbsPath)> {
        self.source.local().map(|path| ("source", path)).into_iter().collect()
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        let text = self.text();
        Some(packages::FAMILIES.iter().filter(|family| family.read_name(&text).is_ok()).copied().collect())
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.name.version.is_some() {
            let message = format!("`{}` has a version, which is in `version`", self.name);
            findings.push(Finding::new("name", message).hint(format!("write \"{}\"", self.name.without_version())));
        } else if self.version.ends_with('*') {
            findings.push(Finding::new("version", "a package file has one version, without a wildcard"));
        } else if let Err(error) = self.text().parse::<PackageName>() {
            findings.push(Finding::new("version", format!("{error:#}")));
        }
        let hint = "print it: sha256sum FILE";
        match self.source.all() {
            _ if self.sha256.is_some() => {}
            [_, _, ..] => findings.push(Finding::new("source", "several sources need `sha256`").hint(hint)),
            [Source::Http(_)] => {
                findings.push(Finding::new("source", "a package file from https or http needs `sha256`").hint(hint));
            }
            _ => {}
        }
        findings
    }

    fn prefetch(&self, system: &System) -> Option<Download> {
        // An error is reported later, when the run plans this resource.
        let manager = packages::of(&system.host).ok()?;
        let lack = manager.lack(&system.host, &self.package(manager).ok()?).ok()??;
        let is_needed = self.source.local().is_none() && lack != Lack::Configuration;
        is_needed.then(|| self.download())
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let manager = packages::of(&system.host)?;
        let package = self.package(manager)?;
        let lack = manager.lack(&system.host, &package)?;
        let mut changes = repairs(system, manager, lack.is_some())?;
        let (now, is_torn) = match lack {
            None | Some(Lack::Configuration) => return Ok(changes),
            Some(Lack::Package(now)) => (now.map(|now| format!(" (now {now})")), false),
            Some(Lack::Unpacking(state)) => (Some(format!(" ({state})")), true),
        };
        manager.check_tools(system)?;
        let installed = manager.installed(&system.host, &package)?;
        if let Some(installed) = installed.filter(|installed| installed.is_held && !is_torn) {
            hold::check(manager, &package, Some(&installed.version), None)?;
        }
        if system.mode() == Mode::Plan {
            self.foresee(system, manager, &package)?;
        }
        let verb = if is_torn { "reinstall" } else { "install" };
        let summary = format!("{verb} {}{} from {}", self.version, now.unwrap_or_default(), self.source);
        let file = self.clone();
        let change = Change::new(summary, move |system| file.install(system, manager, &package, is_torn));
        changes.push(change.brings([Fact::Packages]));
        Ok(changes)
    }
}

impl PackageFile {
    /// Returns the name with the version.
    fn text(&self) -> String {
        format!("{}={}", self.name.without_version(), self.version)
    }

    fn package(&self, manager: Family) -> Result<PackageName> {
        manager.read_name(&self.text())
    }

    fn download(&self) -> Download {
        Download::new(self.source.clone(), self.sha256)
    }

    /// Fails if this machine already shows that a run would refuse the file. An earlier planned change may write it.
    fn foresee(&self, system: &System, manager: Family, package: &PackageName) -> Result<()> {
        let Some(path) = self.source.local() else { return Ok(()) };
        if system.expects(&Fact::Path(path.clone())) || system.expects(&Fact::Packages) {
            return Ok(());
        }
        let actual = system.digest(path)?.with_context(|| format!("{path} does not exist"))?;
        if let Some(wanted) = self.sha256.filter(|wanted| *wanted != actual) {
            let size = system.root().status(path)?.map_or(0, |status| status.size);
            return Err(anyhow::Error::from(other_bytes(size, actual, wanted)).context(format!("verifying {path}")));
        }
        manager.check_file(system, path, package).with_context(|| format!("verifying {path}"))
    }

    /// Downloads the file and installs its package.
    fn install(&self, system: &System, manager: Family, package: &PackageName, reinstall: bool) -> Result<()> {
        let place = manager.file_place();
        let mut fetched = system.fetch(&self.download())?;
        let mut staged = system.root().stage(&place, Ownership { uid: 0, gid: 0, mode: 0o644 })?;
        fetched.hand_over(&mut staged)?;
        staged.publish()?;
        let installed = manager.install_file(system, package, reinstall);
        let removed = system.root().remove(&place);
        installed.with_context(|| format!("the file from {} was not installed", self.source))?;
        removed
    }
}
