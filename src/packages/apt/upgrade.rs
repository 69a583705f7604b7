//! Upgrades of the installed packages: apt-get's `upgrade` with new packages, which never removes one.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::{Result, bail};

use super::{
    TOOLS, apt_get, archives, cause, dpkg::DpkgStatus, finish, installation, judge, keep_configuration, lists, lock,
    name::fits, policy, run_held, transaction,
};
use crate::{
    host::{
        command::Program,
        root::{Ownership, Root},
    },
    packages::{
        cause::Cause,
        manager::{PackageChange, UpgradeRequest, UpgradeScope, Upgrades},
        tools::failed,
    },
    system::{Mode, System},
    value::AbsPath,
};

/// The machine's own preferences; `apt_preferences(5)`. Those of its directory count beside the ones of an upgrade.
const PREFERENCES: &str = "/etc/apt/preferences";
/// The preferences of an upgrade while it runs. A reboot removes those of a killed run.
const TEMPORARY: &str = "/run/glovo-bootstrap-upgrade.preferences";
/// Limits the size of the machine's preferences.
const MAX_BYTES: u64 = 1 << 20;

/// Preferences with candidates from security suites only: `bookworm-security`, `stable-security`,
/// `jammy-apps-security`. The first record that fits to a repository counts.
const SECURITY_ONLY: &str = "\
Package: *
Pin: release a=*-security
Pin-Priority: 500

Package: *
Pin: release a=now
Pin-Priority: 100

Package: *
Pin: release a=*
Pin-Priority: -1

";

/// Returns the upgrades that the package lists have. A run updates old lists first.
pub(crate) fn planned(system: &System, request: &UpgradeRequest) -> Result<Upgrades> {
    let mut are_lists_old = lists::needs_update(system.root(), SystemTime::now())?;
    if are_lists_old && system.mode() == Mode::Run {
        update_lists(system, request)?;
        are_lists_old = false;
    }
    let (changes, _) = resolve(system, request)?;
    Ok(Upgrades { are_lists_old, changes })
}

/// Updates the package lists.
fn update_lists(system: &System, request: &UpgradeRequest) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    system.host.forget();
    let (_, preferences) = resolve(system, request)?;
    lists::update(system, &simulation(&archives::PRINT, preferences))
}

/// Installs the upgrades that the present package lists have.
pub(crate) fn upgrade(system: &System, request: &UpgradeRequest) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    let (changes, preferences) = resolve(system, request)?;
    if changes.is_empty() {
        return Ok(());
    }
    installation::prepare(system, &simulation(&archives::PRINT, preferences.clone()))?;
    let _kept = TemporaryPreferences::write(system.root(), &preferences)?;
    let command = command(&[], TEMPORARY);
    TOOLS.persevere(
        system,
        "upgrading packages",
        || run_held(system, &command).map(judge),
        |cause| if cause == Cause::Interrupted { finish(system).map(|()| true) } else { Ok(false) },
    )
}

/// Returns the upgrades, and the preferences with which apt-get makes these and no others.
///
/// A package that apt would upgrade against the request gets a preference for its installed version. Then apt resolves
/// again.
fn resolve(system: &System, request: &UpgradeRequest) -> Result<(Vec<PackageChange>, String)> {
    let status = system.host.read_once(DpkgStatus::read)?;
    let own = system.root().read(&PREFERENCES.into(), MAX_BYTES)?.unwrap_or_default();
    let own = String::from_utf8_lossy(&own).into_owned();
    let mut kept = BTreeMap::new();
    for name in &request.hold {
        if let Some(package) = status.package(&name.name, name.architecture.as_deref()) {
            _ = kept.insert(name.without_version().to_owned(), package.version.clone());
        }
    }
    loop {
        let preferences = preferences(request.scope, &kept) + &own;
        let finished = system.host.run(&simulation(&["--simulate"], preferences.clone()))?;
        if !finished.status.success() {
            return Err(failed("planning the upgrade", &cause::TABLE.diagnosis(&finished.tail), &finished).into());
        }
        let changes: Vec<_> =
            finished.stdout.lines().filter_map(|line| Some((transaction::parse(line)?, line))).collect();
        let unwanted: Vec<_> = changes.iter().filter(|(change, line)| !is_wanted(request, change, line)).collect();
        if unwanted.is_empty() {
            return Ok((changes.into_iter().map(|(change, _)| change).collect(), preferences));
        }
        for (change, _) in unwanted {
            let version = change.from.clone().unwrap_or_default();
            if kept.insert(change.name.clone(), version).is_some() {
                bail!("apt would change {}, which this upgrade has to leave as it is", change.name);
            }
        }
    }
}

/// Returns whether an upgrade may make a change. `line` is apt's line about it, which names the suites of the new version.
fn is_wanted(request: &UpgradeRequest, change: &PackageChange, line: &str) -> bool {
    // A new package is one that an upgraded one needs.
    let (Some(_), Some(to)) = (&change.from, &change.to) else { return change.to.is_some() };
    // After the new version: `Debian-Security:12/stable-security`, or `stable-security` of a repository without a label.
    let suites = line.split_once(" (").and_then(|(_, new)| new.split_once(' ')).map_or("", |(_, suites)| suites);
    let of_security = || suites.split([' ', ',', ')']).any(|suite| suite.ends_with("-security"));
    let is_in_scope = request.scope == UpgradeScope::All || of_security();
    let is_declared_so = request.declared.iter().all(|declared| {
        let is_same = change.name == declared.name || change.name == declared.without_version();
        !is_same || fits(declared, to)
    });
    is_in_scope && is_declared_so
}

/// Returns the preferences that keep packages at their versions and limit the others to a scope.
fn preferences(scope: UpgradeScope, kept: &BTreeMap<String, String>) -> String {
    let keep = |(name, version): (&String, &String)| {
        format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n")
    };
    let mut preferences: String = kept.iter().map(keep).collect();
    if scope == UpgradeScope::Security {
        preferences.push_str(SECURITY_ONLY);
    }
    preferences
}

/// Returns the command of a simulation. Its preferences come from standard input, so that it writes no file.
fn simulation(options: &[&str], preferences: String) -> Program {
    command(options, "/dev/stdin").stdin(Some(preferences))
}

fn command(options: &[&str], preferences: &str) -> Program {
    apt_get("upgrade")
        .args(options.iter().copied())
        .args(["--with-new-pkgs", "-oAPT::Install-Recommends=false", "-oAPT::Get::AutomaticRemove=false"])
        .arg(format!("-oDir::Etc::preferences={preferences}"))
        .args(keep_configuration())
        .arg(format!("-oDPkg::Post-Invoke::={}", policy::SWEEP))
}

/// The preferences of an upgrade that is running, in a file that is removed when this is dropped.
struct TemporaryPreferences<'a>(&'a Root);

impl<'a> TemporaryPreferences<'a> {
    fn write(root: &'a Root, text: &str) -> Result<Self> {
        root.write(&TEMPORARY.into(), Ownership { uid: 0, gid: 0, mode: 0o644 }, text.as_bytes())?;
        Ok(Self(root))
    }
}

impl Drop for TemporaryPreferences<'_> {
    fn drop(&mut self) {
        let path = AbsPath::from(TEMPORARY);
        if let Err(error) = self.0.remove(&path) {
            tracing::warn!(%path, %error, "a temporary file was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted_in(scope: UpgradeScope, declared: &[&str], line: &str) -> bool {
        let declared = declared.iter().map(|name| name.parse().unwrap()).collect();
        let request = UpgradeRequest { scope, release: None, hold: vec![], declared };
        is_wanted(&request, &transaction::parse(line).unwrap(), line)
    }

    #[test]
    fn only_versions_of_a_security_suite_are_security_upgrades() {
        let security = |line: &str| is_wanted_in(UpgradeScope::Security, &[], line);
        for line in [
            "Inst libssl3 [3.0.11] (3.0.15 Debian-Security:12/stable-security [amd64])",
            "Inst libssl3 [3.0.11] (3.0.15 Debian:12.5/stable, Debian-Security:12/stable-security [amd64]) []",
            "Inst libssl3 [3.0.2] (3.0.15 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])",
            "Inst python3 [3.10] (3.10.1 UbuntuESMApps:22.04/jammy-apps-security [amd64])",
            "Inst libssl3 [3.0.11] (3.0.15 Corp:bookworm-security [amd64])",
            "Inst libssl3 [3.0.11] (3.0.15 bookworm-security [all])",
            "Inst linux-image-6.1.0-31-amd64 (6.1.128 Debian:12.9/stable [amd64])",
        ] {
            assert!(security(line), "{line}");
        }
        assert!(!security("Inst nginx [1.22] (1.27 nginx:stable [amd64])"));
        assert!(!security("Inst odd-security [1:1-security] (1:2-security Debian:12/stable [all])"));
        assert!(!security("Inst tzdata [2024a] (2024b Debian:12-updates/stable-updates [all])"));
        assert!(is_wanted_in(UpgradeScope::All, &[], "Inst nginx [1.22] (1.27 nginx:stable [amd64])"));
    }

    #[test]
    fn declared_versions_are_no_upgrades_and_nothing_is_removed() {
        let line = "Inst nodejs [20.1] (22.1 nodesource:stable [amd64])";
        assert!(!is_wanted_in(UpgradeScope::All, &["nodejs=20.*"], line));
        assert!(!is_wanted_in(UpgradeScope::All, &["nginx", "nodejs=20.1"], line));
        assert!(is_wanted_in(UpgradeScope::All, &["nodejs", "nginx=1.0"], line));
        assert!(is_wanted_in(UpgradeScope::All, &["nodejs=22.*"], line));
        assert!(!is_wanted_in(UpgradeScope::All, &[], "Remv nodejs [20.1]"));
    }

    #[test]
    fn kept_packages_come_first_in_the_preferences() {
        let kept = [("nginx".to_owned(), "1.22.1-9".to_owned())].into();
        let all = preferences(UpgradeScope::All, &kept);
        assert_eq!(all, "Package: nginx\nPin: version 1.22.1-9\nPin-Priority: 1001\n\n");
        assert_eq!(preferences(UpgradeScope::Security, &kept), all + SECURITY_ONLY);
    }
}
