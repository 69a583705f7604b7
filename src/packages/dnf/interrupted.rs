//! Transactions that died. rpm calls a package installed before its scripts have run, and until its removal has ended, so
//! that only dnf's history shows it.

use std::{cell::Cell, collections::BTreeSet};

use anyhow::Result;

use super::{
    TOOLS, lock,
    transaction::{COMMENT, protect_declared, run, with_repositories},
};
use crate::{
    error::Fault,
    host::{Host, root::Root},
    packages::{
        cause::Cause,
        manager::Repair,
        rpm::{
            database::{RpmDatabase, RpmPackage},
            history::unfinished,
        },
    },
    system::System,
};

/// The installed packages of transactions that died.
#[derive(Debug, Default)]
pub(crate) struct Interrupted {
    /// Those of all transactions.
    all: Vec<RpmPackage>,
    /// Those of this program's transactions.
    own: Vec<RpmPackage>,
    /// Those whose removal died. Their files may be gone.
    leaving: Vec<RpmPackage>,
}

impl Interrupted {
    fn read(root: &Root, database: &RpmDatabase) -> Result<Self> {
        let mut interrupted = Self::default();
        for transaction in unfinished(root)? {
            let is_installed = |package: &RpmPackage| database.instances(&package.name).contains(package);
            interrupted.leaving.extend(transaction.removals.into_iter().filter(|package| is_installed(package)));
            let packages = transaction.packages.into_iter().map(|unfinished| unfinished.package);
            // What is not installed is missing, and an ordinary installation brings it.
            let installed: Vec<_> = packages.filter(|package| is_installed(package)).collect();
            if transaction.command_line.contains(COMMENT) {
                interrupted.own.extend(installed.iter().cloned());
            }
            interrupted.all.extend(installed);
        }
        Ok(interrupted)
    }

    /// Returns what died before its end, if it was about this package: the installation or the removal.
    pub(crate) fn what_died(&self, package: &RpmPackage) -> Option<&'static str> {
        [("installation", &self.all), ("removal", &self.leaving)]
            .into_iter()
            .find_map(|(what, packages)| packages.contains(package).then_some(what))
    }
}

/// Returns the installed packages of transactions that died.
pub(crate) fn of(host: &Host) -> Result<std::rc::Rc<Interrupted>> {
    let database = host.read_once(RpmDatabase::read)?;
    host.read_once(|root| Interrupted::read(root, &database))
}

/// Returns the repairs: first of upgrades that left two versions, then of packages that only dependencies brought.
///
/// A declared package is installed again by its own resource.
pub(crate) fn repairs(host: &Host) -> Result<Vec<Repair>> {
    let mut repairs = vec![];
    let doubled = doubled(host)?;
    if !doubled.is_empty() {
        let summary = format!("remove the old versions of {}, which an interrupted upgrade left", listed(&doubled));
        repairs.push(Repair { summary, brings_packages: true, make: remove_old_versions });
    }
    let torn: BTreeSet<_> = of(host)?.own.iter().map(|package| package.name.clone()).collect();
    let torn: BTreeSet<_> = torn.difference(&doubled).cloned().collect();
    if !torn.is_empty() {
        let summary = format!("reinstall {}, whose installation was interrupted", listed(&torn));
        repairs.push(Repair { summary, brings_packages: true, make: reinstall });
    }
    Ok(repairs)
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Returns the names of which an interrupted upgrade left two versions.
fn doubled(host: &Host) -> Result<BTreeSet<String>> {
    let database = host.read_once(RpmDatabase::read)?;
    let interrupted = of(host)?;
    let has_other = |package: &&RpmPackage| {
        let instances = database.instances(&package.name).iter();
        instances.filter(|other| other.architecture == package.architecture).count() > 1
    };
    // dnf keeps several kernels.
    let doubled = interrupted.all.iter().filter(|package| !package.name.starts_with("kernel")).filter(has_other);
    Ok(doubled.map(|package| package.name.clone()).collect())
}

/// Removes the older ones of two versions, and installs the newest again.
fn remove_old_versions(system: &System) -> Result<()> {
    let command = with_repositories(system, "remove")?.arg("--duplicates");
    make(system, |host| Ok(if doubled(host)?.is_empty() { None } else { Some(command.clone()) }))
}

fn reinstall(system: &System) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    renew(system, &of(&system.host)?.own, true)
}

/// Installs interrupted packages again. Where the repositories no longer have the version, and if `may_upgrade`, it
/// installs a newer one, whose scripts run too.
///
/// With several packages, dnf reinstalls those that it finds, and succeeds.
pub(crate) fn renew(system: &System, packages: &[RpmPackage], may_upgrade: bool) -> Result<()> {
    for operation in ["reinstall", "upgrade"] {
        let left = left(system, packages)?;
        let Some(first) = left.first() else { return Ok(()) };
        if operation == "upgrade" && !may_upgrade {
            return Err(gone(first));
        }
        let argument = |package: &RpmPackage| match operation {
            "reinstall" => nevra(package),
            _ => format!("{}.{}", package.name, package.architecture),
        };
        let command = with_repositories(system, operation)?
            .arg(protect_declared(system))
            .arg("--")
            .args(left.iter().map(argument));
        let is_gone = Cell::new(false);
        let note = |cause| {
            is_gone.set(cause == Cause::Unknown);
            Ok(false)
        };
        let what = "repairing an interrupted installation";
        TOOLS
            .persevere(system, what, || run(system, &command), note)
            .or_else(|error| if is_gone.get() { Ok(()) } else { Err(error) })?;
    }
    left(system, packages)?.first().map_or(Ok(()), |first| Err(gone(first)))
}

/// Returns the packages that are still interrupted.
fn left(system: &System, packages: &[RpmPackage]) -> Result<Vec<RpmPackage>> {
    system.host.forget();
    let interrupted = of(&system.host)?;
    Ok(packages.iter().filter(|package| interrupted.what_died(package).is_some()).cloned().collect())
}

fn gone(package: &RpmPackage) -> anyhow::Error {
    let version = nevra(package);
    let message = format!("the installation of {version} was interrupted, and the repositories no longer have it");
    let hint = format!("declare a repository that has it, or remove the package: dnf remove {}", package.name);
    Fault::new(message).hint(hint).into()
}

/// Runs the command of a repair, if it is still needed when no other process holds a lock.
fn make(system: &System, command: impl Fn(&Host) -> Result<Option<crate::host::command::Program>>) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    let Some(command) = command(&system.host)? else { return Ok(()) };
    TOOLS.persevere(system, "repairing an interrupted installation", || run(system, &command), |_| Ok(false))
}

fn nevra(package: &RpmPackage) -> String {
    format!("{}-{}.{}", package.name, package.evr(), package.architecture)
}
