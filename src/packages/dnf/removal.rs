//! The removal of packages, with the changes of other packages that dnf makes for it.

use anyhow::Result;

use super::{
    TOOLS, hold, lists, lock, reboot,
    transaction::{dnf, run, simulated},
};
use crate::{
    error::Fault,
    packages::{
        manager::PackageChange,
        name::PackageName,
        rpm::database::{RpmDatabase, RpmProvides},
        running_kernel,
    },
    system::System,
    value::AbsPath,
};

/// The directories with the names of packages that must not be removed; dnf.conf(5), `protected_packages`.
const PROTECTED: [&str; 2] = ["/etc/dnf/protected.d", "/etc/yum/protected.d"];
/// The packages without which a machine does not boot, or cannot be repaired. They need not be in these directories. Of them,
/// RHEL and Fedora name dnf, setup and systemd. The others are those that Debian calls essential (Debian Policy 3.8), in
/// this family's packages.
const ESSENTIAL: [&str; 9] =
    ["bash", "coreutils", "coreutils-single", "dnf", "filesystem", "glibc", "rpm", "setup", "systemd"];
/// What the package provides that names the distribution's release and its repositories.
const RELEASE: &str = "system-release";

/// Returns all changes that the removal of packages would make; none if none of them is installed.
pub(crate) fn planned(system: &System, packages: &[PackageName]) -> Result<Vec<PackageChange>> {
    let installed = installed(system, packages)?;
    for package in packages.iter().filter(|package| !installed.contains(&package.without_version())) {
        warn_of_provider(system, package)?;
    }
    if installed.is_empty() {
        return Ok(vec![]);
    }
    for package in &installed {
        check(system, package)?;
    }
    let names: Vec<_> = ["--"].into_iter().chain(installed).map(str::to_owned).collect();
    let changes = simulated(system, "planning the removal", "remove", &names)?.ok_or_else(lists::missing)?.changes;
    for change in changes.iter().filter(|change| change.to.is_none()) {
        check(system, &change.name)?;
        check_kernel(system, change)?;
    }
    Ok(changes)
}

/// Returns the packages that are installed, as dnf takes them.
fn installed<'a>(system: &System, packages: &'a [PackageName]) -> Result<Vec<&'a str>> {
    let database = system.host.read_once(RpmDatabase::read)?;
    let is_there = |package: &&PackageName| database.package(&package.name, package.architecture.as_deref()).is_some();
    Ok(packages.iter().filter(is_there).map(PackageName::without_version).collect())
}

/// Removes packages, if that changes what was planned and nothing else.
pub(crate) fn remove(system: &System, packages: &[PackageName], expected: &[PackageChange]) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    let now = planned(system, packages)?;
    if let Some(other) = now.iter().find(|change| !expected.contains(change)) {
        let message = format!("the removal would now also change {}, so that nothing was removed", other.name);
        return Err(Fault::new(message).hint("see what it would change now: glovo-bootstrap plan").transient().into());
    }
    let names = installed(system, packages)?;
    if names.is_empty() {
        return Ok(());
    }
    let command = dnf("remove").arg("--").args(names);
    TOOLS.persevere(system, "removing packages", || run(system, &command), |_| Ok(false))
}

/// Fails if a package must not be removed.
fn check(system: &System, name: &str) -> Result<()> {
    let bare = bare(name);
    if ESSENTIAL.contains(&&*bare) || is_protected(system, &bare)? {
        let message = format!("the removal would remove {name}, but the system cannot work without it");
        return Err(Fault::new(message).hint("leave out this package").into());
    }
    if hold::is_held(system.root(), &bare)? {
        let message = format!("the removal would remove {name}, but it is held");
        return Err(Fault::new(message).hint(format!("release it: {}", hold::release_command(name))).into());
    }
    Ok(())
}

/// Fails if a change removes the running kernel. Others may go.
fn check_kernel(system: &System, change: &PackageChange) -> Result<()> {
    let Some(running) = running_kernel(&system.host) else { return Ok(()) };
    let database = system.host.read_once(RpmDatabase::read)?;
    let mut removed = database.instances(&bare(&change.name)).iter();
    if removed.any(|package| Some(package.evr()) == change.from && reboot::has_kernel(package, &running)) {
        let message = format!("the removal would remove {}, which has the running kernel", change.name);
        return Err(Fault::new(message).hint("boot another kernel before, or leave out this package").into());
    }
    Ok(())
}

/// Returns a name without its architecture.
fn bare(name: &str) -> String {
    super::name::read(name).map_or_else(|_| name.to_owned(), |read| read.name)
}

fn is_protected(system: &System, name: &str) -> Result<bool> {
    let provides = system.host.read_once(RpmProvides::read)?;
    if name == RELEASE || provides.provider(RELEASE) == Some(name) {
        return Ok(true);
    }
    let root = system.root();
    for directory in PROTECTED.map(AbsPath::from) {
        for file in root.list(&directory)?.iter().filter(|file| file.ends_with(".conf")) {
            if root.read_text(&directory.join(file)?)?.lines().any(|line| line.trim() == name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Warns if a name is not installed, but an installed package provides it.
fn warn_of_provider(system: &System, package: &PackageName) -> Result<()> {
    let provides = system.host.read_once(RpmProvides::read)?;
    if let Some(provider) = provides.provider(&package.name).filter(|_| package.architecture.is_none()) {
        system.warn(format!("{} is provided by {provider}, which stays installed", package.name));
    }
    Ok(())
}
