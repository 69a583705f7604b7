//! Upgrades of the installed packages.
//!
//! A new package may replace an installed one (`Obsoletes`), but none that the manifest declares. Such a package is left out.
//!
//! Amazon Linux 2023 locks its repositories at a release. A new release is a new value of dnf's variable `releasever`. Its
//! upgrade of the package `system-release` makes it the machine's own.

use std::{collections::BTreeSet, time::SystemTime};

use anyhow::{Result, bail};

use super::{
    Dnf, TOOLS, lists, lock,
    name::{fits, read},
    transaction::{Simulation, protect_declared, run, simulated, with_repositories},
};
use crate::{
    error::Fault,
    host::command::with_tail,
    packages::{
        manager::{PackageChange, UpgradeRequest, UpgradeScope, Upgrades},
        name::is_declared,
        rpm::{
            database::{RpmDatabase, RpmPackage},
            version::{order_of_parts, split},
        },
    },
    system::{Mode, System},
};

/// The package whose version is the release of the machine.
const RELEASE: &str = "system-release";

/// Returns the upgrades that the package lists have. A run updates old lists first.
pub(crate) fn planned(system: &System, request: &UpgradeRequest) -> Result<Upgrades> {
    if has_release(&*system.host.read_once(RpmDatabase::read)?, request) {
        return Ok(Upgrades { are_lists_old: false, changes: vec![] });
    }
    let is_run = system.mode() == Mode::Run;
    let are_old = lists::are_old(system.root(), SystemTime::now())?;
    let is_useless = are_old && (is_run || !lists::exist(system.root())?);
    let present = if is_useless { None } else { resolve(system, request)? };
    // Without the lists of one repository, such as a new one or one of the release, all are updated.
    let are_old = are_old || present.as_ref().is_none_or(|resolved| resolved.lacks_lists);
    let resolved = if are_old && is_run {
        update_lists(system, request)?;
        resolve(system, request)?.ok_or_else(lists::missing)?
    } else {
        present.unwrap_or_default()
    };
    let ResolvedUpgrade { changes, warnings, .. } = resolved;
    for warning in warnings {
        system.warn(warning);
    }
    Ok(Upgrades { are_lists_old: are_old && !is_run, changes })
}

/// Returns whether the machine has the requested release, or a newer one.
fn has_release(database: &RpmDatabase, request: &UpgradeRequest) -> bool {
    let Some(release) = &request.release else { return false };
    database.package(RELEASE, None).is_some_and(|package| order_of_parts(&package.version, release).is_ge())
}

/// Updates the package lists.
fn update_lists(system: &System, request: &UpgradeRequest) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    let what = "updating the package lists";
    let command = with_repositories(system, "makecache")?.arg("--refresh").args(release(request));
    let attempt = || {
        let updated = run(system, &command)?;
        if let (Err(finished), Some(release)) = (&updated, &request.release)
            && is_without(&finished.tail, release)
        {
            let message = format!("the repositories have no release {release}");
            return Err(Fault::new(with_tail(message, &finished.tail))
                .hint("correct `release`; to list the releases: dnf check-release-update")
                .into());
        }
        Ok(updated)
    };
    TOOLS.persevere(system, what, attempt, |_| Ok(false))
}

/// Returns whether the output of a failed update says that a release does not exist.
fn is_without(output: &str, release: &str) -> bool {
    let of_release = format!("/{release}/");
    output.lines().any(|line| line.contains("Status code: 404") && line.contains(&of_release))
}

/// Installs the upgrades that the present package lists have.
pub(crate) fn upgrade(system: &System, request: &UpgradeRequest) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    let resolved = resolve(system, request)?.ok_or_else(lists::missing)?;
    if resolved.changes.is_empty() {
        return Ok(());
    }
    let command =
        with_repositories(system, "upgrade")?.args(options(request, &resolved.excluded)).arg(protect_declared(system));
    TOOLS.persevere(system, "upgrading packages", || run(system, &command), |_| Ok(false))
}

/// The upgrades that fit to a request.
#[derive(Debug, Default)]
struct ResolvedUpgrade {
    changes: Vec<PackageChange>,
    /// The patterns of the packages that dnf must exclude to make these changes and no others.
    excluded: BTreeSet<String>,
    /// What is left out because the manifest declares something else.
    warnings: BTreeSet<String>,
    /// Whether the lists of a third party's repository are missing.
    lacks_lists: bool,
}

/// Returns the upgrades; `None` if the lists of a repository are missing.
///
/// A version that is against the request is excluded. So is a package that would replace a declared or held one. Then dnf
/// resolves again.
fn resolve(system: &System, request: &UpgradeRequest) -> Result<Option<ResolvedUpgrade>> {
    let excluded = request.hold.iter().map(|name| name.text.clone()).collect();
    let mut resolved = ResolvedUpgrade { excluded, ..ResolvedUpgrade::default() };
    loop {
        let options = options(request, &resolved.excluded);
        let simulated = simulated(system, "planning the upgrade", "upgrade", &options)?;
        let Some(Simulation { changes, replacements, lacks_lists }) = simulated else { return Ok(None) };
        let mut unwanted: Vec<_> = changes.iter().filter_map(|change| unwanted(request, change)).collect();
        for (new, old) in replacements {
            let is_held = request.hold.iter().any(|name| name.text == old || name.name == old);
            if is_held || is_declared(system, &Dnf, &old) {
                _ = resolved
                    .warnings
                    .insert(format!("{new} is left out: it would replace {old}, which stays as declared"));
                unwanted.push(new);
            }
        }
        if unwanted.is_empty() {
            return Ok(Some(ResolvedUpgrade { changes, lacks_lists, ..resolved }));
        }
        for pattern in unwanted {
            if !resolved.excluded.insert(pattern.clone()) {
                bail!("dnf would install {pattern}, which this upgrade has to leave out");
            }
        }
    }
}

/// Returns the pattern of a new version that a resource does not declare; `None` if the change is wanted.
fn unwanted(request: &UpgradeRequest, change: &PackageChange) -> Option<String> {
    let to = change.to.as_ref()?;
    let changed = read(&change.name).ok()?;
    let (epoch, version, release) = split(to);
    let package = RpmPackage {
        name: changed.name.clone(),
        epoch: epoch.parse().unwrap_or_default(),
        version: version.into(),
        release: release.unwrap_or_default().into(),
        architecture: changed.architecture.clone().unwrap_or_default(),
    };
    let is_same = |declared: &str| change.name == declared || changed.name == declared;
    let declared =
        request.declared.iter().filter(|declared| is_same(declared.without_version()) || is_same(&declared.name));
    declared.filter(|declared| !fits(declared, &package)).map(|_| format!("{}-{to}.*", changed.name)).next()
}

/// Returns the option that names the release.
fn release(request: &UpgradeRequest) -> Option<String> {
    request.release.as_ref().map(|release| format!("--releasever={release}"))
}

fn options(request: &UpgradeRequest, excluded: &BTreeSet<String>) -> Vec<String> {
    let security = (request.scope == UpgradeScope::Security).then_some("--security");
    // With an excluded version, the best upgrade of another package may be out of reach.
    let nobest = (!excluded.is_empty()).then_some("--nobest");
    let options = [Some("--setopt=install_weak_deps=0"), security, nobest].into_iter().flatten().map(str::to_owned);
    let options = options.chain(release(request));
    options.chain(excluded.iter().map(|pattern| format!("--exclude={pattern}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scope: UpgradeScope) -> UpgradeRequest {
        UpgradeRequest { scope, release: None, hold: vec![], declared: vec![] }
    }

    fn unwanted_of(declared: &[&str], to: &str) -> Option<String> {
        let declared = declared.iter().map(|name| read(name).unwrap()).collect();
        let request = UpgradeRequest { declared, ..of(UpgradeScope::All) };
        unwanted(&request, &PackageChange { name: "nodejs".into(), from: Some("1:20.1-1".into()), to: Some(to.into()) })
    }

    #[test]
    fn declared_versions_are_no_upgrades() {
        let excluded = Some("nodejs-1:22.1-1.*".to_owned());
        assert_eq!(unwanted_of(&["nodejs=20.*"], "1:22.1-1"), excluded);
        assert_eq!(unwanted_of(&["nginx", "nodejs.x86_64=20.1"], "1:22.1-1"), excluded);
        assert_eq!(unwanted_of(&["nodejs", "nginx=1.0"], "1:22.1-1"), None);
        assert_eq!(unwanted_of(&["nodejs=20.*"], "1:20.9-1"), None);
    }

    #[test]
    fn a_release_is_reached_with_its_package() {
        let package = |version: &str| RpmPackage {
            name: RELEASE.into(),
            epoch: 0,
            version: version.into(),
            release: "0.amzn2023".into(),
            architecture: "noarch".into(),
        };
        let request = UpgradeRequest { release: Some("2023.10.20260105".into()), ..of(UpgradeScope::All) };
        let has = |version| has_release(&RpmDatabase::of([package(version)]), &request);
        assert!(has("2023.10.20260105") && has("2023.11.20260301") && !has("2023.9.20250929"));
        assert!(!has_release(&RpmDatabase::default(), &request));
        assert!(!has_release(&RpmDatabase::of([package("2023.10.20260105")]), &of(UpgradeScope::All)));
        assert!(options(&request, &BTreeSet::new()).contains(&"--releasever=2023.10.20260105".into()));
    }

    #[test]
    fn only_a_security_upgrade_is_limited_to_advisories() {
        let words = |scope, excluded: &[&str]| {
            format!("{:?}", options(&of(scope), &excluded.iter().map(|pattern| (*pattern).to_owned()).collect()))
        };
        assert!(words(UpgradeScope::Security, &[]).contains("--security"));
        let all = words(UpgradeScope::All, &["nodejs"]);
        assert!(!all.contains("--security") && all.contains("--exclude=nodejs") && all.contains("--nobest"));
    }
}
