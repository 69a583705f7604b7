//! The installation of a package from a file.

use anyhow::{Context, Result, ensure};

use super::{installation, name::fits};
use crate::{
    error::Fault,
    host::command::{Program, with_tail},
    packages::{
        manager::{Installation, Update},
        name::PackageName,
        rpm::database::RpmPackage,
    },
    system::System,
    value::AbsPath,
};

/// Where a file is while it is installed. dnf takes a name that ends so as a file.
pub(crate) const PLACE: &str = "/var/cache/glovo-bootstrap.rpm";
/// The fields of [`check`]; rpm(8), `--queryformat`.
const FORMAT: &str = "%{NAME}\\n%{EPOCHNUM}\\n%{VERSION}\\n%{RELEASE}\\n%|SOURCEPACKAGE?{src}:{%{ARCH}}|\\n";

/// Fails unless a file holds a package of this name and version.
pub(crate) fn check(system: &System, path: &AbsPath, package: &PackageName) -> Result<()> {
    // Signature and digests are checked when it is installed. Without them, rpm does not open its database here. A text
    // file could name other files and URLs (a manifest of rpm), which rpm would open.
    let query = ["rpm", "--query", "--package", "--nosignature", "--nodigest", "--nomanifest", "--queryformat", FORMAT];
    let shown = system.host.run(&Program::new(query).args(["--", path.as_str()]))?;
    if !shown.status.success() {
        let message = with_tail("the package file is not an rpm, or it is damaged".into(), &shown.tail);
        return Err(Fault::new(message).hint("correct `source`").into());
    }
    let found = parse(&shown.stdout).context("the package file does not name its package, version and architecture")?;
    check_architecture(&found.architecture)?;
    if found.name == package.name
        && fits(package, &found)
        && package.architecture.as_ref().is_none_or(|declared| *declared == found.architecture)
    {
        return Ok(());
    }
    let declared = package.version.as_deref().unwrap_or_default();
    let message = format!(
        "the package file holds {} {} for {}, but {} {declared} is declared",
        found.name,
        found.evr(),
        found.architecture,
        package.without_version()
    );
    Err(Fault::new(message).hint("correct `name`, `version` or `source`").into())
}

/// Fails if this machine has no packages of an architecture.
fn check_architecture(architecture: &str) -> Result<()> {
    let own = std::env::consts::ARCH;
    let fits = match architecture {
        "src" => return Err(Fault::new("the package file is a source package").hint("correct `source`").into()),
        "noarch" => true,
        "i386" | "i486" | "i586" | "i686" => own == "x86_64",
        // Such as `x86_64_v2`.
        other => other.starts_with(own),
    };
    if fits {
        return Ok(());
    }
    let message = format!("the package file is for {architecture}, but this machine is {own}");
    Err(Fault::new(message).hint("correct `source`, or limit this resource to other machines with `where`").into())
}

fn parse(output: &str) -> Option<RpmPackage> {
    let mut lines = output.lines().map(str::to_owned);
    Some(RpmPackage {
        name: lines.next()?,
        epoch: lines.next()?.parse().ok()?,
        version: lines.next()?,
        release: lines.next()?,
        architecture: lines.next()?,
    })
}

/// Installs the package of the file at [`PLACE`], and its dependencies from the repositories.
pub(crate) fn install(system: &System, package: &PackageName, reinstall: bool) -> Result<()> {
    let path = PLACE.into();
    ensure!(package.version.is_some(), "a package file has a declared version");
    check(system, &path, package)?;
    let names = vec![package.clone()];
    let installation = Installation { names, reinstall, update: Update::IfNeeded, recommends: false };
    installation::install(system, &installation, Some(&path))
}

/// Removes the file that a killed installation left.
pub(crate) fn sweep(system: &System) -> Result<()> {
    system.root().remove(&PLACE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_file_are_read() {
        let found = parse("agent\n1\n2.0\n3.amzn2023\nx86_64\n").unwrap();
        assert_eq!((found.evr(), found.architecture), ("1:2.0-3.amzn2023".into(), "x86_64".into()));
        assert_eq!(parse("agent\n(none)\n"), None);
    }

    #[test]
    fn a_file_for_other_machines_is_refused() {
        assert!(check_architecture("noarch").is_ok() && check_architecture(std::env::consts::ARCH).is_ok());
        for other in ["src", "ppc64le", "x86", ""] {
            assert!(check_architecture(other).is_err(), "{other}");
        }
    }
}
