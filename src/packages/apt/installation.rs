//! The installation of packages.

use std::{cell::RefCell, time::SystemTime};

use anyhow::Result;

use super::{
    Apt, TOOLS, apt_get, archives, choice, finish, judge, keep_configuration, lists, lock, policy, run_held, space,
    transaction,
};
use crate::{
    error::Fault,
    host::command::{Finished, Program},
    packages::{
        cause::Cause,
        manager::{Installation, Update},
        name::is_declared,
    },
    system::System,
    value::AbsPath,
};

/// Installs packages; from a file, if there is one, and else from the repositories.
pub(crate) fn install(system: &System, installation: &Installation, file: Option<&AbsPath>) -> Result<()> {
    TOOLS.check_writable(system)?;
    // At a machine's first boot, the process that holds the locks may be updating the lists.
    lock::wait(system)?;
    let mut may_update = installation.update != Update::Never;
    let choose = || match file {
        Some(file) => Ok(vec![file.to_string()]),
        None => choice::exact(system, &installation.names),
    };
    let declared: Vec<String> = match file {
        Some(file) => vec![file.to_string()],
        None => installation.names.iter().map(ToString::to_string).collect(),
    };
    let print = install_command(installation, &declared, &archives::PRINT);
    if installation.update == Update::Always
        || may_update
            && (lists::needs_update(system.root(), SystemTime::now())? || lists::lack_what_is_needed(system, &print)?)
    {
        lists::update(system, &print)?;
    }
    let chosen = match choose() {
        Err(_) if may_update => {
            may_update = false;
            lists::update(system, &print)?;
            choose()
        }
        chosen => chosen,
    }?;
    prepare(system, &install_command(installation, &chosen, &archives::PRINT))?;
    let command = RefCell::new(install_command(installation, &chosen, &[]));
    TOOLS.persevere(
        system,
        "installing packages",
        || run_held(system, &command.borrow()).map(judge),
        |cause| match cause {
            Cause::Interrupted => finish(system).map(|()| true),
            Cause::Stale | Cause::Unknown if may_update => {
                may_update = false;
                lists::update(system, &print)?;
                *command.borrow_mut() = install_command(installation, &choose()?, &[]);
                Ok(true)
            }
            _ => Ok(false),
        },
    )
}

/// Checks that an installation fits on the disk, and downloads its archives.
///
/// `print` is its command with [`archives::PRINT`].
pub(crate) fn prepare(system: &System, print: &Program) -> Result<()> {
    let printed = system.host.run(print)?;
    // The installation fails for the same reason; it reports the cause or repairs it.
    if !printed.status.success() {
        return Ok(());
    }
    check_removals(system, &printed)?;
    space::check(system, &printed)?;
    archives::fetch(system, &printed)
}

/// Fails if an installation would remove a declared package, and warns of the others that it removes.
fn check_removals(system: &System, printed: &Finished) -> Result<()> {
    let removed = transaction::removed(&printed.stdout);
    if let Some(name) = removed.iter().find(|name| is_declared(system, &Apt, name)) {
        let message = format!("the installation would remove {name}, which this manifest declares as installed");
        return Err(Fault::new(message).hint("declare only one of the packages that exclude each other").into());
    }
    if !removed.is_empty() {
        system.warn(format!("the installation removed {}", removed.join(", ")));
    }
    Ok(())
}

/// Returns the command of an installation. The names have the versions that were chosen for wildcards.
fn install_command(installation: &Installation, names: &[String], options: &[&str]) -> Program {
    let mut command = apt_get("install")
        .args(options.iter().copied())
        .arg(format!("-oAPT::Install-Recommends={}", installation.recommends))
        .args(keep_configuration())
        .arg(format!("-oDPkg::Post-Invoke::={}", policy::SWEEP));
    if installation.reinstall {
        command = command.arg("--reinstall");
    }
    if installation.names.iter().any(|name| name.version.is_some() && !name.has_wildcard()) {
        // An older version is only ever asked for by its whole number.
        command = command.arg("--allow-downgrades");
    }
    command.arg("--").args(names.iter().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_declared_version_allows_a_downgrade() {
        let command = |name: &str| {
            let names = vec![name.parse().unwrap()];
            let installation = Installation { names, reinstall: false, update: Update::IfNeeded, recommends: false };
            format!("{:?}", install_command(&installation, &[name.into()], &[]))
        };
        assert!(command("nginx=1.0").contains("--allow-downgrades"));
        assert!(
            !command("nginx").contains("--allow-downgrades") && !command("nginx=1.*").contains("--allow-downgrades")
        );
        assert!(command("nginx").contains(r#""--", "nginx"]"#));
        assert!(!command("nginx").contains("allow-unauthenticated"));
    }
}
