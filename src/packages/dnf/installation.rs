//! The installation of packages.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use anyhow::Result;

use super::{
    TOOLS, choice, interrupted, lack, lock,
    name::argument,
    transaction::{lacks_ignored, protect_declared, run, with_repositories},
};
use crate::{
    error::{self, Class, Fault},
    host::command::Program,
    packages::{
        cause::Cause,
        manager::{Installation, Lack, Update},
        name::PackageName,
        rpm::database::{RpmDatabase, RpmPackage},
    },
    system::System,
    value::AbsPath,
};

/// Installs packages; from a file, if there is one, and else from the repositories.
pub(crate) fn install(system: &System, installation: &Installation, file: Option<&AbsPath>) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    // Another process may have made changes meanwhile.
    system.host.forget();
    let before = names(system)?;
    let (mut torn, mut missing) = (vec![], vec![]);
    for package in &installation.names {
        match lack(&system.host, package)? {
            Some(Lack::Package(_)) => missing.push(package.clone()),
            Some(_) => torn.push(package.clone()),
            None => {}
        }
    }
    let of = |names| Installation { names, ..installation.clone() };
    match file {
        Some(_) if !torn.is_empty() => make(system, "reinstall", &of(torn), file)?,
        _ => {
            for package in torn {
                interrupted::renew(system, &instances(system, &package)?, package.version.is_none())?;
            }
        }
    }
    if !missing.is_empty() {
        make(system, "install", &of(missing), file)?;
    }
    system.host.forget();
    let after = names(system)?;
    check(system, &installation.names, before == after)?;
    let removed: Vec<_> = before.difference(&after).map(String::as_str).collect();
    if !removed.is_empty() {
        system.warn(format!("the installation removed {}", removed.join(", ")));
    }
    Ok(())
}

/// Returns the installed packages that a declaration names.
fn instances(system: &System, package: &PackageName) -> Result<Vec<RpmPackage>> {
    let database = system.host.read_once(RpmDatabase::read)?;
    let is_named = |found: &&RpmPackage| package.architecture.as_ref().is_none_or(|name| *name == found.architecture);
    Ok(database.instances(&package.name).iter().filter(is_named).cloned().collect())
}

fn names(system: &System) -> Result<BTreeSet<String>> {
    let database = system.host.read_once(RpmDatabase::read)?;
    Ok(database.iter().map(|package| package.name.clone()).collect())
}

/// Fails if a package is not installed as declared, though dnf has succeeded.
///
/// dnf installs another package if that one replaces (`Obsoletes`) the named one, and reads `app-1.0` as version 1.0 of
/// `app` if no package has this name.
fn check(system: &System, packages: &[PackageName], are_names_same: bool) -> Result<()> {
    for package in packages {
        if lack(&system.host, package)?.is_some() {
            if are_names_same {
                let message = format!("dnf has succeeded, but {package} is not installed as declared");
                let hint =
                    "correct the options that dnf.conf(5) calls `strict` and `tsflags`; they are in /etc/dnf/dnf.conf";
                return Err(Fault::new(message).hint(hint).into());
            }
            let message = format!("dnf has installed another package for {package}");
            let hint = format!("declare that package by its own name; to see it: dnf install {}", argument(package));
            return Err(Fault::new(message).hint(hint).into());
        }
    }
    Ok(())
}

fn make(system: &System, operation: &str, installation: &Installation, file: Option<&AbsPath>) -> Result<()> {
    let choose = |refresh: bool| -> Result<Vec<String>> {
        match file {
            Some(file) => Ok(vec![file.to_string()]),
            None => choice::exact(system, &installation.names, lists_option(installation.update, refresh)),
        }
    };
    let command = |names: Vec<String>, refresh: bool| -> Result<Program> {
        let weak = u8::from(installation.recommends);
        Ok(with_repositories(system, operation)?
            .args(lists_option(installation.update, refresh))
            .arg(format!("--setopt=install_weak_deps={weak}"))
            .arg(protect_declared(system))
            .arg("--")
            .args(names))
    };
    let mut may_refresh = installation.update == Update::IfNeeded;
    let names = match choose(false) {
        Err(error) if may_refresh && error::class(&error) == Class::Permanent => {
            may_refresh = false;
            choose(true)
        }
        chosen => chosen,
    }?;
    let current: RefCell<Program> = RefCell::new(command(names, false)?);
    let lacks = Cell::new(false);
    TOOLS.persevere(
        system,
        "installing packages",
        || {
            let made = run(system, &current.borrow())?;
            lacks.set(made.as_ref().is_err_and(|finished| lacks_ignored(&finished.tail)));
            Ok(made)
        },
        |cause| {
            // A third party's repository fails, but another one may have the package.
            let may_help = matches!(cause, Cause::Stale | Cause::Unknown) || lacks.get();
            if may_refresh && may_help {
                may_refresh = false;
                *current.borrow_mut() = command(choose(true)?, true)?;
                return Ok(true);
            }
            Ok(false)
        },
    )
}

/// Returns the option that says when dnf updates its lists. By default each repository's `metadata_expire` does.
pub(crate) fn lists_option(update: Update, refresh: bool) -> Option<&'static str> {
    match update {
        Update::Never => Some("--setopt=*.metadata_expire=-1"),
        Update::Always => Some("--refresh"),
        Update::IfNeeded => refresh.then_some("--refresh"),
    }
}
