//! The version that apt would choose among those that fit to a declared version with a wildcard.

use std::time::SystemTime;

use anyhow::Result;

use super::{dpkg::DpkgStatus, lists, name::fits, silent, sources::PARTS, version::order};
use crate::{
    error::Fault,
    packages::{
        manager::{Choice, Update},
        name::PackageName,
    },
    system::System,
};

/// Returns the version that an installation would choose; `None` if the present lists have none that fits.
pub(crate) fn of(system: &System, package: &PackageName, update: Update) -> Result<Option<Choice>> {
    let Some(version) = best(package, &known(system, package)?) else { return Ok(None) };
    let status = system.host.read_once(DpkgStatus::read)?;
    if let Some(installed) = status.package(&package.name, package.architecture.as_deref())
        && order(&version, &installed.version).is_lt()
    {
        let message = format!("{package} would downgrade {} from {} to {version}", package.name, installed.version);
        let hint = format!("to downgrade it, declare the exact version: {}={version}", package.without_version());
        return Err(Fault::new(message).hint(hint).into());
    }
    Ok(Some(Choice { version, is_preliminary: are_lists_updated(system, update)? }))
}

/// Returns the packages of an installation as apt-get takes them, with the version that is chosen for each wildcard.
///
/// # Errors
/// If no version in the lists fits to a wildcard.
pub(crate) fn exact(system: &System, packages: &[PackageName]) -> Result<Vec<String>> {
    let exact = |package: &PackageName| {
        if !package.has_wildcard() {
            return Ok(package.to_string());
        }
        match of(system, package, Update::Never)? {
            Some(choice) => Ok(format!("{}={}", package.without_version(), choice.version)),
            None => Err(none_fits(package, &known(system, package)?).into()),
        }
    };
    packages.iter().map(exact).collect()
}

fn none_fits(package: &PackageName, known: &[(String, i32)]) -> Fault {
    let versions: Vec<&str> = known.iter().map(|(version, _)| version.as_str()).collect();
    let have = if versions.is_empty() { "no version of it".into() } else { versions.join(", ") };
    Fault::new(format!("no version fits to {package}: the package lists have {have}")).hint(format!(
        "correct the version, or declare its repository before it; to see them: apt-cache policy {}",
        package.name
    ))
}

/// Returns whether an installation updates the lists before it chooses.
fn are_lists_updated(system: &System, update: Update) -> Result<bool> {
    let parts = PARTS.into();
    let has_new_sources = || -> Result<bool> {
        let now = system.root().list(&parts)?;
        Ok(system.names_in(&parts)?.iter().any(|name| !now.contains(name)))
    };
    Ok(match update {
        Update::Never => false,
        Update::Always => true,
        Update::IfNeeded => lists::needs_update(system.root(), SystemTime::now())? || has_new_sources()?,
    })
}

/// Returns the versions of a package, each with its priority; `apt_preferences(5)`.
fn known(system: &System, package: &PackageName) -> Result<Vec<(String, i32)>> {
    let policy = system.host.run_checked(&silent(["apt-cache", "policy", "--", package.without_version()]))?;
    Ok(versions(&policy.stdout))
}

/// Returns the version with the highest priority, and of these the newest, as apt chooses its candidate.
fn best(package: &PackageName, versions: &[(String, i32)]) -> Option<String> {
    // A negative priority forbids a version.
    let fitting = versions.iter().filter(|(version, priority)| fits(package, version) && *priority >= 0);
    let best = fitting.max_by(|one, other| one.1.cmp(&other.1).then_with(|| order(&one.0, &other.0)));
    best.map(|(version, _)| version.clone())
}

/// Reads the version table of apt-cache(8): a version and its priority, then its sources, which are indented more.
fn versions(output: &str) -> Vec<(String, i32)> {
    let parse = |line: &str| {
        let line = line.strip_prefix(" *** ").or_else(|| line.strip_prefix("     "))?;
        let (version, priority) = line.split_once(' ').filter(|(version, _)| !version.is_empty())?;
        Some((version.to_owned(), priority.trim().parse().ok()?))
    };
    output.lines().skip_while(|line| line.trim() != "Version table:").filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
nodejs:
  Installed: 18.13.0+dfsg1-1
  Candidate: 22.1.0-1nodesource1
  Version table:
     22.1.0-1nodesource1 600
        600 https://deb.nodesource.com/node_22.x nodistro/main amd64 Packages
     20.19.5-1nodesource1 500
        500 https://deb.nodesource.com/node_20.x nodistro/main amd64 Packages
     20.9.0-1nodesource1 500
        500 https://deb.nodesource.com/node_20.x nodistro/main amd64 Packages
     20.20.0-1~bpo12+1 100
        100 http://deb.debian.org/debian bookworm-backports/main amd64 Packages
 *** 18.13.0+dfsg1-1 100
        100 /var/lib/dpkg/status
     16.0.0-1 -1
         -1 http://old.example/debian bookworm/main amd64 Packages
";

    #[test]
    fn a_wildcard_is_resolved_in_the_order_of_candidates() {
        let versions = versions(POLICY);
        assert_eq!(versions.len(), 6);
        let best = |package: &str| best(&package.parse().unwrap(), &versions);
        for (package, expected) in [
            ("nodejs=20.*", Some("20.19.5-1nodesource1")),
            ("nodejs=20.9*", Some("20.9.0-1nodesource1")),
            ("nodejs=20.20.*", Some("20.20.0-1~bpo12+1")),
            ("nodejs=2*", Some("22.1.0-1nodesource1")),
            ("nodejs=16.*", None),
            ("nodejs=19.*", None),
        ] {
            assert_eq!(best(package).as_deref(), expected, "{package}");
        }
    }

    #[test]
    fn the_known_versions_are_named_if_none_fits() {
        let package: PackageName = "nodejs=19.*".parse().unwrap();
        let some = none_fits(&package, &[("18.13.0".into(), 500), ("22.1".into(), 500)]).to_string();
        assert_eq!(some, "no version fits to nodejs=19.*: the package lists have 18.13.0, 22.1");
        let none = none_fits(&package, &[]).to_string();
        assert_eq!(none, "no version fits to nodejs=19.*: the package lists have no version of it");
    }
}
