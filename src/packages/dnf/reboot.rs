//! Whether a machine needs a reboot, from its kernel.

use anyhow::Result;

use crate::{
    host::Host,
    packages::{
        rpm::{
            database::{RpmDatabase, RpmPackage},
            version::order,
        },
        running_kernel,
    },
};

/// Returns the reasons for a reboot; none for an image, which is booted anyway.
pub(crate) fn reasons(host: &Host) -> Result<Vec<String>> {
    let Some(running) = running_kernel(host) else { return Ok(vec![]) };
    Ok(of_kernel(&RpmDatabase::read(host.root())?, &running).into_iter().collect())
}

/// Returns the reason if a newer kernel than the running one is installed.
///
/// Only kernels of the same package count, such as `kernel6.12`. In a container the kernel is the host's, so that it is no
/// package of this machine: then no kernel counts.
fn of_kernel(database: &RpmDatabase, running: &str) -> Option<String> {
    let own = database.iter().find(|package| has_kernel(package, running))?;
    let newest = database.package(&own.name, Some(&own.architecture))?;
    let is_newer = order(&newest.evr(), &own.evr()).is_gt();
    is_newer.then(|| format!("the kernel {} is installed, but {running} is running", release(newest)))
}

/// Returns whether a package has the kernel of a release.
pub(crate) fn has_kernel(package: &RpmPackage, of: &str) -> bool {
    is_kernel(&package.name) && release(package) == of
}

/// Returns the release of a kernel's package, as uname(2) does.
fn release(package: &RpmPackage) -> String {
    format!("{}-{}.{}", package.version, package.release, package.architecture)
}

/// Returns whether a package has a kernel: `kernel`, `kernel-core`, and `kernel6.12` on Amazon Linux.
fn is_kernel(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("kernel") else { return false };
    matches!(rest, "" | "-core" | "-rt-core" | "-64k-core") || rest.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_kernel_of_the_same_package_needs_a_reboot() {
        let running = "6.1.102-111.182.amzn2023.x86_64";
        let of = |others: &[(&str, &str, &str)]| {
            let own = [("kernel", "6.1.102", "111.182.amzn2023")];
            let package = |(name, version, release): &(&str, &str, &str)| RpmPackage {
                name: (*name).into(),
                epoch: 0,
                version: (*version).into(),
                release: (*release).into(),
                architecture: "x86_64".into(),
            };
            of_kernel(&RpmDatabase::of(others.iter().chain(&own).map(package)), running)
        };
        assert_eq!(of(&[]), None);
        let newer =
            "the kernel 6.1.119-129.201.amzn2023.x86_64 is installed, but 6.1.102-111.182.amzn2023.x86_64 is running";
        assert_eq!(of(&[("kernel", "6.1.119", "129.201.amzn2023")]).as_deref(), Some(newer));
        for other in
            [("kernel", "6.1.94", "99.176.amzn2023"), ("kernel6.12", "6.12.20", "1"), ("kernel-tools", "6.1.119", "1")]
        {
            assert_eq!(of(&[other]), None, "{other:?}");
        }
        assert_eq!(of_kernel(&RpmDatabase::default(), running), None, "a container");
    }
}
