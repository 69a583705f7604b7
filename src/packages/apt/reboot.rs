//! Whether a machine needs a reboot, from the marks of its packages and from its kernel.

use anyhow::Result;

use super::{dpkg::DpkgStatus, version::order};
use crate::{host::Host, packages::running_kernel};

/// The mark of packages that take effect after a reboot. Their maintainer scripts write it by
/// `/usr/share/update-notifier/notify-reboot-required` or the hook of unattended-upgrades(8).
const MARK: &str = "/run/reboot-required";
/// The names of these packages, one a line.
const MARKED_PACKAGES: &str = "/run/reboot-required.pkgs";
/// The build of the running kernel, with the package's version on Debian.
const BUILD: &str = "/proc/version";
/// The prefix of the name of a package with a kernel. Its release follows.
const IMAGE: &str = "linux-image-";
/// Limits the size of a file with packages' names.
const MAX_BYTES: u64 = 64 << 10;

/// Returns the reasons for a reboot; none for an image, which is booted anyway.
pub(crate) fn reasons(host: &Host) -> Result<Vec<String>> {
    let Some(running) = running_kernel(host) else { return Ok(vec![]) };
    let root = host.root();
    let mut reasons = vec![];
    if root.status(&MARK.into())?.is_some() {
        let text = root.read(&MARKED_PACKAGES.into(), MAX_BYTES).ok().flatten().unwrap_or_default();
        reasons.push(of_mark(&String::from_utf8_lossy(&text)));
    }
    let build = root.read_text(&BUILD.into()).unwrap_or_default();
    reasons.extend(of_kernel(&DpkgStatus::read(root)?, &running, &build));
    Ok(reasons)
}

/// Returns whether a package has the kernel of a release.
pub(crate) fn has_kernel(package: &str, of: &str) -> bool {
    package.strip_prefix(IMAGE) == Some(of)
}

fn of_mark(text: &str) -> String {
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:".contains(c));
    let mut packages: Vec<&str> = text.lines().map(str::trim).filter(|name| !name.is_empty()).filter(is_name).collect();
    packages.sort_unstable();
    packages.dedup();
    match packages[..] {
        [] => format!("{MARK} exists"),
        [package] => format!("the package {package} takes effect after a reboot"),
        _ => format!("the packages {} take effect after a reboot", packages.join(", ")),
    }
}

/// Returns the reason if a newer kernel than the running one is installed.
///
/// Only kernels of the same flavour count, such as `cloud-amd64`. In a container the kernel is the host's, so that it is
/// no package of this machine: then no kernel counts.
fn of_kernel(status: &DpkgStatus, running: &str, build: &str) -> Option<String> {
    let own = status.package(&format!("{IMAGE}{running}"), None)?;
    let (_, flavour) = parts(running);
    let kernels = status.installed_with(IMAGE).filter_map(|(name, _)| name.strip_prefix(IMAGE));
    let kernels = kernels.filter(|release| !flavour.is_empty() && parts(release).1 == flavour);
    let newest = kernels.max_by(|one, other| order(parts(one).0, parts(other).0)).unwrap_or(running);
    if order(parts(newest).0, parts(running).0).is_gt() {
        return Some(format!("the kernel {newest} is installed, but {running} is running"));
    }
    // An update may keep the release's name.
    let running_version = build.split_once(" Debian ").and_then(|(_, rest)| rest.split_whitespace().next())?;
    let is_older = order(running_version, &own.version).is_lt();
    is_older.then(|| {
        format!("version {} of the kernel {running} is installed, but {running_version} is running", own.version)
    })
}

/// Splits a kernel's release into its version and its flavour: `6.1.0-28` and `cloud-amd64`.
fn parts(release: &str) -> (&str, &str) {
    let begins = |at: &usize| release[at + 1..].starts_with(|c: char| !c.is_ascii_digit());
    let at = release.match_indices('-').map(|(at, _)| at).find(begins);
    at.map_or((release, ""), |at| (&release[..at], &release[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(packages: &[(&str, &str)]) -> DpkgStatus {
        let stanza = |(name, version): &(&str, &str)| {
            format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n")
        };
        DpkgStatus::of(&[("dpkg", "1.21")].iter().chain(packages).map(stanza).collect::<String>())
    }

    #[test]
    fn a_newer_kernel_of_the_same_flavour_needs_a_reboot() {
        let running = "6.1.0-9-cloud-amd64";
        let of = |others: &[(&str, &str)]| {
            let own = [("linux-image-6.1.0-9-cloud-amd64", "6.1.27-1")];
            let packages: Vec<_> = own.iter().chain(others).copied().collect();
            of_kernel(&status(&packages), running, "Linux version 6.1.0-9 (x) #1 SMP Debian 6.1.27-1 (2023-05-08)\n")
        };
        assert_eq!(of(&[]), None);
        let newer = "the kernel 6.1.0-10-cloud-amd64 is installed, but 6.1.0-9-cloud-amd64 is running";
        assert_eq!(of(&[("linux-image-6.1.0-10-cloud-amd64", "6.1.38-1")]).as_deref(), Some(newer));
        for other in ["6.1.0-8-cloud-amd64", "6.1.0-10-amd64", "cloud-amd64", "6.1.0-10-cloud-amd64-dbg"] {
            assert_eq!(of(&[(&format!("linux-image-{other}"), "6.1.38-1")]), None, "{other}");
        }
    }

    #[test]
    fn an_updated_kernel_of_the_same_release_needs_a_reboot() {
        let of = |installed: &str, build: &str| {
            let packages = [("linux-image-6.12.48+deb13-amd64", installed)];
            of_kernel(&status(&packages), "6.12.48+deb13-amd64", build)
        };
        let build = "Linux version 6.12.48+deb13-amd64 (x) #1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)";
        assert_eq!(of("6.12.48-1", build), None);
        let updated = "version 6.12.48-2 of the kernel 6.12.48+deb13-amd64 is installed, but 6.12.48-1 is running";
        assert_eq!(of("6.12.48-2", build).as_deref(), Some(updated));
        assert_eq!(of("6.8.0-50.51", "Linux version 6.8.0-50-generic (buildd@x) #51-Ubuntu SMP"), None);
    }

    #[test]
    fn a_kernel_that_is_no_package_needs_no_reboot() {
        let packages = [("linux-image-6.1.0-10-cloud-amd64", "6.1.38-1")];
        assert_eq!(of_kernel(&status(&packages), "6.18.44-fc-v595", "Linux version 6.18.44-fc-v595"), None);
    }

    #[test]
    fn the_packages_that_ask_for_a_reboot_are_named_once() {
        assert_eq!(of_mark(""), "/run/reboot-required exists");
        assert_eq!(of_mark("libc6\n\n"), "the package libc6 takes effect after a reboot");
        let both = "the packages dbus, libc6 take effect after a reboot";
        assert_eq!(of_mark("libc6\ndbus\nlibc6\n\u{1b}[2J\n"), both);
    }
}
