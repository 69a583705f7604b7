//! Holds: packages that no upgrade changes.

use anyhow::Result;

use crate::{
    error::Fault,
    packages::{manager::Family, name::PackageName},
    resource::Change,
    system::{Mode, System},
};

/// Returns the change that releases packages.
pub(super) fn release(manager: Family, names: Vec<PackageName>) -> Option<Change> {
    let summary = format!("release {} from the hold", listed(&names)?);
    Some(Change::new(summary, move |system| manager.hold(system, &names, false)))
}

/// Returns the change that holds packages.
///
/// # Errors
/// If a name stands for another package that provides it, or this machine holds no packages.
pub(super) fn hold(system: &System, manager: Family, names: Vec<PackageName>) -> Result<Option<Change>> {
    for name in &names {
        let is_missing = manager.installed(&system.host, name)?.is_none();
        if is_missing && manager.lack(&system.host, name)?.is_none() {
            let message = format!("{name} cannot be held: another package provides it");
            return Err(Fault::new(message).hint("declare the installed package by its own name").into());
        }
    }
    let Some(listed) = listed(&names) else { return Ok(None) };
    let before = manager.check_hold(system, &names)?;
    let before = before.map(|package| format!(", after {package} is installed")).unwrap_or_default();
    let summary = format!("hold {listed}{before}");
    Ok(Some(Change::new(summary, move |system| manager.hold(system, &names, true))))
}

fn listed(names: &[PackageName]) -> Option<String> {
    let names: Vec<_> = names.iter().map(PackageName::without_version).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Fails if a package is held at another version than the declared one, unless the declaration holds it too.
pub(in crate::resource) fn check(
    manager: Family,
    package: &PackageName,
    now: Option<&str>,
    hold: Option<bool>,
) -> Result<()> {
    if hold.is_some() {
        return Ok(());
    }
    let (name, now) = (package.without_version(), now.unwrap_or_default());
    let declared = package.version.as_deref().unwrap_or_default();
    Err(Fault::new(format!("{name} is held at version {now}, but {declared} is declared"))
        .hint(format!("release it: {}; or let this resource hold it: hold = true", manager.release_command(name)))
        .into())
}

/// Releases held packages while something changes them.
pub(in crate::resource) fn release_during(
    system: &System,
    manager: Family,
    held: &[PackageName],
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if held.is_empty() || system.mode() == Mode::Plan {
        return change();
    }
    manager.hold(system, held, false)?;
    let changed = change();
    // The hold survives a failure.
    changed.and(manager.hold(system, held, true))
}
