//! The removal of packages, with the changes of other packages that apt-get makes for it.

use anyhow::Result;

use super::{
    TOOLS, apt_get,
    dpkg::{DpkgStatus, PackageRecord},
    finish,
    hold::release_command,
    judge, keep_configuration, lock, policy, reboot, run_held,
    transaction::simulated,
};
use crate::{
    error::Fault,
    host::command::Program,
    packages::{cause::Cause, manager::PackageChange, name::PackageName, running_kernel},
    system::System,
};

/// The options of a simulation. It shows also removals that apt-get refuses, so that the error can name the reason.
const SIMULATE: [&str; 4] = ["--simulate", "--ignore-hold", "--allow-change-held-packages", "--allow-remove-essential"];

/// Returns all changes that the removal of packages would make; none if none of them is installed.
pub(crate) fn planned(system: &System, packages: &[PackageName]) -> Result<Vec<PackageChange>> {
    let status = system.host.read_once(DpkgStatus::read)?;
    for package in packages {
        match status.package(&package.name, package.architecture.as_deref()) {
            // Without this, the simulation fails with the names of all packages that need it.
            Some(record) => check(system, &package.name, record)?,
            None => warn_of_provider(system, &status, package),
        }
    }
    let installed = names(&status, packages);
    if installed.is_empty() {
        return Ok(vec![]);
    }
    let changes = match simulated(system, "planning the removal", &command(installed, &SIMULATE)) {
        // Until its run is finished, apt does not know what dpkg was doing. Another change finishes it before, and the
        // removal then refuses to remove anything else.
        Err(_) if status.is_interrupted() => return Ok(of_named(&status, packages)),
        changes => changes?,
    };
    for change in changes.iter().filter(|change| change.to.is_none()) {
        let (name, architecture) = match change.name.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (&*change.name, None),
        };
        if let Some(record) = status.package(name, architecture) {
            check(system, &change.name, record)?;
        }
    }
    Ok(changes)
}

/// Returns the removals of the packages that are installed, without those that need them.
fn of_named(status: &DpkgStatus, packages: &[PackageName]) -> Vec<PackageChange> {
    let removal = |package: &PackageName| {
        let record = status.package(&package.name, package.architecture.as_deref())?;
        Some(PackageChange { name: package.without_version().to_owned(), from: Some(record.version.clone()), to: None })
    };
    packages.iter().filter_map(removal).collect()
}

/// Returns the packages that are installed, as apt-get takes them.
fn names(status: &DpkgStatus, packages: &[PackageName]) -> Vec<String> {
    let is_installed =
        |package: &&PackageName| status.package(&package.name, package.architecture.as_deref()).is_some();
    packages.iter().filter(is_installed).map(ToString::to_string).collect()
}

/// Removes packages, if that changes what was planned and nothing else.
pub(crate) fn remove(system: &System, packages: &[PackageName], expected: &[PackageChange]) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    let now = planned(system, packages)?;
    if let Some(other) = now.iter().find(|change| !expected.contains(change)) {
        let message = format!("the removal would now also change {}, so that nothing was removed", other.name);
        return Err(Fault::new(message).hint("see what it would change now: glovo-bootstrap plan").transient().into());
    }
    let status = system.host.read_once(DpkgStatus::read)?;
    let command = command(names(&status, packages), &[]);
    TOOLS.persevere(
        system,
        "removing packages",
        || run_held(system, &command).map(judge),
        |cause| if cause == Cause::Interrupted { finish(system).map(|()| true) } else { Ok(false) },
    )
}

/// Returns the command of a removal. It leaves the dependencies of the removed packages alone.
fn command(names: Vec<String>, options: &[&str]) -> Program {
    apt_get("remove")
        .args(options.iter().copied())
        .arg("-oAPT::Get::AutomaticRemove=false")
        // An installation may make up for a removed dependency.
        .arg("-oAPT::Install-Recommends=false")
        .args(keep_configuration())
        .arg(format!("-oDPkg::Post-Invoke::={}", policy::SWEEP))
        .arg("--")
        .args(names)
}

/// Fails if a package must not be removed.
fn check(system: &System, name: &str, package: &PackageRecord) -> Result<()> {
    // The package's own script would refuse it.
    if running_kernel(&system.host).is_some_and(|running| reboot::has_kernel(name, &running)) {
        let message = format!("the removal would remove {name}, which has the running kernel");
        return Err(Fault::new(message).hint("boot another kernel before, or leave out this package").into());
    }
    if package.is_essential {
        let message = format!("the removal would remove {name}, but the system cannot work without it");
        return Err(Fault::new(message).hint("leave out this package").into());
    }
    if package.is_held {
        let message = format!("the removal would remove {name}, but it is held");
        return Err(Fault::new(message).hint(format!("release it: {}", release_command(name))).into());
    }
    Ok(())
}

/// Warns if a name is not installed, but an installed package provides it.
fn warn_of_provider(system: &System, status: &DpkgStatus, package: &PackageName) {
    if let Some(provider) = status.provider(&package.name).filter(|_| package.architecture.is_none()) {
        system.warn(format!("{} is provided by {provider}, which stays installed", package.name));
    }
}
