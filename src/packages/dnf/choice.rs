//! The version that dnf would choose among those that fit to a declared version with a wildcard.

use std::{cell::RefCell, time::SystemTime};

use anyhow::Result;

use super::{
    TOOLS, lists,
    name::{argument, fits},
    silent, sources,
    transaction::{NO_LISTS, finished},
};
use crate::{
    error::Fault,
    host::command::{Finished, Program},
    packages::{
        manager::{Choice, Update},
        name::PackageName,
        rpm::{
            database::{RpmDatabase, RpmPackage},
            version::order,
        },
    },
    system::System,
};

/// The format of [`packages`]; dnf(8), `repoquery`.
const FORMAT: &str = "%{name} %{epoch} %{version} %{release} %{arch}";

/// Returns the version that an installation would choose; `None` if the present lists have none that fits.
pub(crate) fn of(system: &System, package: &PackageName, update: Update) -> Result<Option<Choice>> {
    // Without the lists of one repository, the others still say something.
    let query = query(package, &["--cacheonly", "--setopt=skip_if_unavailable=1"]);
    let known = known(system, &query)?.or_else(|finished| finished.check(&query).map(|()| vec![]))?;
    let Some(best) = best(package, &known) else { return Ok(None) };
    check(system, package, &best)?;
    let is_preliminary = match update {
        Update::Never => false,
        Update::Always => true,
        Update::IfNeeded => lists::are_old(system.root(), SystemTime::now())?,
    };
    Ok(Some(Choice { version: best, is_preliminary }))
}

/// Fails if a version is older than the installed one.
fn check(system: &System, package: &PackageName, version: &str) -> Result<()> {
    let database = system.host.read_once(RpmDatabase::read)?;
    let Some(installed) = database.package(&package.name, package.architecture.as_deref()) else { return Ok(()) };
    let now = installed.evr();
    if order(version, &now).is_lt() {
        let message = format!("{package} would downgrade {} from {now} to {version}", package.name);
        let hint = format!("to downgrade it, declare the exact version: {}={version}", package.without_version());
        return Err(Fault::new(message).hint(hint).into());
    }
    Ok(())
}

/// Returns the packages of an installation as dnf takes them, with the version that is chosen for each wildcard.
///
/// `lists` is the option that says when dnf updates its lists.
///
/// # Errors
/// If no version in the lists fits to a wildcard.
pub(crate) fn exact(system: &System, packages: &[PackageName], lists: Option<&str>) -> Result<Vec<String>> {
    let exact = |package: &PackageName| {
        if !package.has_wildcard() {
            return Ok(argument(package));
        }
        // As for the installation: a repository that cannot be updated is an error, unless it is a third party's.
        let options: Vec<_> = ["--setopt=skip_if_unavailable=0"].into_iter().chain(lists).collect();
        let third_partys = sources::may_fail(system)?;
        let lenient: Vec<_> = options.iter().copied().chain(third_partys.iter().map(String::as_str)).collect();
        let mut known = available(system, package, &lenient)?;
        if best(package, &known).is_none() && !third_partys.is_empty() {
            // A third party's may have it.
            known = available(system, package, &options)?;
        }
        let Some(version) = best(package, &known) else { return Err(none_fits(package, &known).into()) };
        check(system, package, &version)?;
        Ok(argument(&PackageName { version: Some(version), ..package.clone() }))
    };
    packages.iter().map(exact).collect()
}

/// Returns the available packages of a name.
fn available(system: &System, package: &PackageName, options: &[&str]) -> Result<Vec<RpmPackage>> {
    let (query, found) = (query(package, options), RefCell::new(vec![]));
    let ask = || Ok(known(system, &query)?.map(|known| _ = found.replace(known)));
    TOOLS.persevere(system, "finding the versions of a package", ask, |_| Ok(false))?;
    Ok(found.into_inner())
}

fn none_fits(package: &PackageName, known: &[RpmPackage]) -> Fault {
    let versions: Vec<_> = known.iter().map(RpmPackage::evr).collect();
    let have = if versions.is_empty() { "no version of it".into() } else { versions.join(", ") };
    Fault::new(format!("no version fits to {package}: the package lists have {have}")).hint(format!(
        "correct the version, or declare its repository before it; to see them: dnf list --showduplicates {}",
        package.name
    ))
}

fn query(package: &PackageName, options: &[&str]) -> Program {
    let query = silent(["dnf", "--assumeyes", "repoquery", "--available"]).args(options.iter().copied());
    query.arg(format!("--queryformat={FORMAT}")).args(["--", package.without_version()])
}

/// Returns the available packages of a query; none if the lists are missing.
fn known(system: &System, query: &Program) -> Result<Result<Vec<RpmPackage>, Finished>> {
    let finished = finished(system, query)?;
    let is_answer = finished.status.success() || finished.tail.contains(NO_LISTS);
    Ok(if is_answer { Ok(packages(&finished.stdout)) } else { Err(finished) })
}

fn packages(output: &str) -> Vec<RpmPackage> {
    let parse = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(RpmPackage {
            name: words.next()?,
            epoch: words.next()?.parse().ok()?,
            version: words.next()?,
            release: words.next()?,
            architecture: words.next()?,
        })
    };
    output.lines().filter_map(parse).collect()
}

/// Returns the newest version that fits.
fn best(declared: &PackageName, known: &[RpmPackage]) -> Option<String> {
    // A pattern of repoquery may be a version of another package.
    let fitting = known.iter().filter(|package| package.name == declared.name && fits(declared, package));
    fitting.map(RpmPackage::evr).max_by(|one, other| order(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::dnf::name::read;

    const OUTPUT: &str = "\
Last metadata expiration check: 0:00:02 ago on Sat Nov 28 09:52:27 2026.
foo 0 1.9 1.amzn2023 noarch
foo 0 1.10 1.amzn2023 noarch
foo 1 2.0 1.amzn2023 noarch
foo-1.0 0 1 1 noarch
";

    #[test]
    fn the_newest_version_that_fits_is_chosen() {
        let known = packages(OUTPUT);
        assert_eq!(known.len(), 4);
        let best = |text: &str| best(&read(text).unwrap(), &known);
        assert_eq!(best("foo=1.*").as_deref(), Some("1.10-1.amzn2023"));
        assert_eq!(best("foo=1.9*").as_deref(), Some("1.9-1.amzn2023"));
        assert_eq!(best("foo=1:2.*").as_deref(), Some("1:2.0-1.amzn2023"));
        assert_eq!((best("foo=3.*"), best("foo=0:2.*")), (None, None));
    }

    #[test]
    fn the_known_versions_are_named_if_none_fits() {
        let package = read("foo=3.*").unwrap();
        let message = none_fits(&package, &packages(OUTPUT)[1..3]).to_string();
        assert_eq!(message, "no version fits to foo=3.*: the package lists have 1.10-1.amzn2023, 1:2.0-1.amzn2023");
        let message = none_fits(&package, &[]).to_string();
        assert_eq!(message, "no version fits to foo=3.*: the package lists have no version of it");
    }
}
