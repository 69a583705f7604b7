//! The removal of packages, with all others that it changes.

use anyhow::Result;

use super::repairs;
use crate::{
    error::Fault,
    packages::{
        manager::{Family, PackageChange},
        name::{PackageName, is_declared},
    },
    resource::Change,
    system::{Fact, System},
};

/// Returns the changes that remove packages.
pub(super) fn plan(system: &System, manager: Family, names: Vec<PackageName>) -> Result<Vec<Change>> {
    let mut changes = repairs(system, manager, false)?;
    let planned = manager.removal(system, &names)?;
    if planned.is_empty() {
        return Ok(changes);
    }
    // Of a package with several architectures, a bare name stands for all.
    let is_named = |change: &PackageChange| {
        let read = manager.read_name(&change.name);
        let is_same = |name: &PackageName| read.as_ref().is_ok_and(|read| read.name == name.name);
        names.iter().any(|name| {
            change.name == name.name
                || change.name == name.without_version()
                || name.architecture.is_none() && is_same(name)
        })
    };
    if let Some(other) = planned.iter().find(|change| change.to.is_none() && is_declared(system, manager, &change.name))
    {
        let message = format!("the removal would also remove {}, which another resource declares", other.name);
        let hint = "declare only one of them: the package that is needed, or the removal";
        return Err(Fault::new(message).hint(hint).into());
    }
    let list = |picks: &dyn Fn(&PackageChange) -> bool| -> Vec<String> {
        planned.iter().filter(|change| picks(change)).map(words).collect()
    };
    let removed = list(&|change| change.to.is_none() && is_named(change));
    let also_removed = list(&|change| change.to.is_none() && !is_named(change));
    let installed = list(&|change| change.to.is_some());
    let parts =
        [("remove", removed), ("also remove, because they need it,", also_removed), ("install instead", installed)];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let summary = parts.map(|(verb, names)| format!("{verb} {}", names.join(", "))).collect::<Vec<_>>().join("; ");
    let change = Change::new(summary, move |system| manager.remove(system, &names, &planned));
    changes.push(change.brings([Fact::Packages]));
    Ok(changes)
}

/// Returns a package with its version.
fn words(change: &PackageChange) -> String {
    let version = change.to.as_ref().or(change.from.as_ref());
    version.map_or_else(|| change.name.clone(), |version| format!("{} {version}", change.name))
}
