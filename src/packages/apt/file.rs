//! The installation of a package from a file.

use anyhow::{Context, Result, ensure};

use super::{archives, dpkg::DpkgStatus, installation, name::fits};
use crate::{
    error::Fault,
    host::command::Program,
    packages::{
        manager::{Installation, Update},
        name::PackageName,
    },
    system::System,
    value::AbsPath,
};

/// Where a file is while it is installed. The user `_apt` can read it there.
pub(crate) fn place() -> AbsPath {
    AbsPath::from(archives::DIRECTORY).join("glovo-bootstrap.deb").unwrap_or_else(|_| archives::DIRECTORY.into())
}

/// Fails unless a file holds a package of this name and version.
pub(crate) fn check(system: &System, path: &AbsPath, package: &PackageName) -> Result<()> {
    let show = Program::new(["dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${Architecture}\n"]);
    let shown = system.host.run_checked(&show.arg(path.as_str())).context("reading the package file")?;
    let fields: Vec<&str> = shown.stdout.lines().collect();
    let [name, version, architecture] = fields[..] else {
        return Err(Fault::new("the package file does not name its package, version and architecture").into());
    };
    let status = system.host.read_once(DpkgStatus::read)?;
    // Without a declared one, it is the machine's: dpkg refuses the file of another.
    let declared = package.architecture.as_deref().or_else(|| status.architecture());
    let has_architecture = architecture == "all" || declared.is_none_or(|declared| declared == architecture);
    if name == package.name && fits(package, version) && has_architecture {
        return Ok(());
    }
    let version_declared = package.version.as_deref().unwrap_or_default();
    let message = format!(
        "the package file holds {name} {version} for {architecture}, but {} {version_declared} for {} is declared",
        package.name,
        declared.unwrap_or("this machine")
    );
    Err(Fault::new(message).hint("correct `name`, `version` or `source`").into())
}

/// Installs the package of the file at [`place`], and its dependencies from the repositories.
pub(crate) fn install(system: &System, package: &PackageName, reinstall: bool) -> Result<()> {
    let path = place();
    ensure!(package.version.is_some(), "a package file has a declared version");
    check(system, &path, package)?;
    let names = vec![package.clone()];
    let installation = Installation { names, reinstall, update: Update::IfNeeded, recommends: false };
    installation::install(system, &installation, Some(&path))
}

/// Removes the file that a killed installation left.
pub(crate) fn sweep(system: &System) -> Result<()> {
    system.root().remove(&place())
}
