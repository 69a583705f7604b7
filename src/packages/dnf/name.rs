//! Names of RPM packages: `name` or `name.architecture`, either with `=[epoch:]version[-release]` or `=beginning*`.

use anyhow::{Result, ensure};

use crate::{
    error::Fault,
    packages::{name::PackageName, rpm::database::RpmPackage},
};

/// The pattern of [`read`], for editors.
pub(crate) const PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_+.-]*(=([0-9]+:)?[A-Za-z0-9][A-Za-z0-9_+.~^-]*[*]?)?$";
/// The architectures of packages on the machines that this program supports. Other last parts belong to the name, such
/// as that of `python3.11`.
const ARCHITECTURES: [&str; 4] = ["noarch", "x86_64", "i686", "aarch64"];

/// Reads a name as this program hands it to dnf.
///
/// # Errors
/// If rpm allows no such name, or dnf would read it as something else.
pub(crate) fn read(text: &str) -> Result<PackageName> {
    let (package, version) = match text.split_once('=') {
        Some((package, version)) => (package, Some(version)),
        None => (text, None),
    };
    let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !package.starts_with(is_first) || !package.chars().all(|c| is_first(c) || "+-.".contains(c)) {
        let message =
            format!("`{package}` is not a package name for dnf: it has only: a-z, A-Z, 0-9, `_`, `+`, `-`, `.`");
        return Err(match package.split_once(':') {
            Some((name, other)) => {
                Fault::new(message).hint(format!("for dnf, write {name}.{}", architecture_of(other)))
            }
            None => Fault::new(message),
        }
        .into());
    }
    ensure!(!package.ends_with(".rpm"), "`{package}` ends in `.rpm`, so that dnf would look for a file");
    let (name, architecture) = match package.rsplit_once('.') {
        Some((name, architecture)) if ARCHITECTURES.contains(&architecture) && !name.is_empty() => {
            (name, Some(architecture))
        }
        _ => (package, None),
    };
    if let Some(version) = version {
        let beginning = version.strip_suffix('*').unwrap_or(version);
        let (epoch, number) = beginning.split_once(':').unwrap_or(("0", beginning));
        let valid = number.starts_with(|c: char| c.is_ascii_alphanumeric())
            && number.chars().all(|c| c.is_ascii_alphanumeric() || "._+~^-".contains(c))
            && number.matches('-').count() < 2
            && epoch.parse::<u32>().is_ok();
        ensure!(
            valid,
            "`{version}` is not a version for dnf, such as `1.24.0-1.amzn2023`, or `1.24.*` for all that begin so"
        );
    }
    Ok(PackageName {
        text: text.to_owned(),
        name: name.to_owned(),
        architecture: architecture.map(str::to_owned),
        version: version.map(str::to_owned),
    })
}

/// Returns rpm's name of an architecture that another family names.
fn architecture_of(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "i386" => "i686",
        _ => name,
    }
}

/// Returns whether a package has the declared version. A part that the declaration leaves out, the epoch or the release,
/// may be any. Without a declared version all fit.
pub(crate) fn fits(declared: &PackageName, package: &RpmPackage) -> bool {
    let Some(version) = declared.version.as_deref() else { return true };
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse::<u32>().ok(), rest),
        None => (None, version),
    };
    if epoch.is_some_and(|epoch| epoch != package.epoch) {
        return false;
    }
    let whole = format!("{}-{}", package.version, package.release);
    match rest.strip_suffix('*') {
        Some(beginning) => whole.starts_with(beginning),
        None if rest.contains('-') => rest == whole,
        None => rest == package.version,
    }
}

/// Returns a package of a declaration as dnf takes it. The version has no wildcard.
pub(crate) fn argument(package: &PackageName) -> String {
    let Some(version) = &package.version else { return package.text.clone() };
    let release = if version.contains('-') { "" } else { "-*" };
    let architecture = package.architecture.as_ref().map(|name| format!(".{name}")).unwrap_or_default();
    format!("{}-{version}{release}{architecture}", package.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(epoch: u32, version: &str, release: &str) -> RpmPackage {
        RpmPackage {
            name: "nginx".into(),
            epoch,
            version: version.into(),
            release: release.into(),
            architecture: "x86_64".into(),
        }
    }

    #[test]
    fn rpm_package_names_are_accepted_and_no_others() {
        for (text, name, architecture) in [
            ("nginx", "nginx", None),
            ("NetworkManager", "NetworkManager", None),
            ("python3-PyYAML", "python3-PyYAML", None),
            ("perl_x", "perl_x", None),
            ("R", "R", None),
            ("gcc-c++", "gcc-c++", None),
            ("python3.11", "python3.11", None),
            ("glibc.i686", "glibc", Some("i686")),
            ("python3.11.x86_64=3.11.6-1.amzn2023.0.1", "python3.11", Some("x86_64")),
            ("nginx=1:1.24.0", "nginx", None),
            ("nginx=1.24.*", "nginx", None),
            ("kernel=6.1.102-111.182.amzn2023", "kernel", None),
            ("a=1.0~rc1^git2-1", "a", None),
        ] {
            let read = read(text).unwrap();
            assert_eq!(
                (read.text.as_str(), read.name.as_str(), read.architecture.as_deref()),
                (text, name, architecture)
            );
        }
        for bad in [
            "",
            "-y",
            "@core",
            "a b",
            "ngin*",
            "/usr/bin/x",
            "perl(x)",
            "nginx.rpm",
            "glibc:i386",
            "nginx=",
            "nginx=-1",
            "nginx=1;2",
            "nginx=*",
            "nginx=1*2",
            "nginx=x:1",
            "nginx=1-2-3",
            "nginx=1:",
            "näm",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_architecture_in_the_other_form_gets_a_hint() {
        let hint = |text: &str| crate::error::hint(&read(text).unwrap_err()).map(str::to_owned);
        assert_eq!(hint("tree:amd64").as_deref(), Some("for dnf, write tree.x86_64"));
        assert_eq!(hint("glibc:i386=2.34").as_deref(), Some("for dnf, write glibc.i686"));
        assert_eq!(hint("ngin*"), None);
    }

    #[test]
    fn a_version_fits_without_its_epoch_and_its_release() {
        let package = package(1, "1.24.0", "1.amzn2023");
        let fits = |version: &str| fits(&read(&format!("nginx={version}")).unwrap(), &package);
        for version in
            ["1.24.0", "1.24.0-1.amzn2023", "1:1.24.0-1.amzn2023", "1:1.24.0", "1.*", "1:1.24.*", "1.24.0-1.*"]
        {
            assert!(fits(version), "{version}");
        }
        for version in ["1.24", "0:1.24.0", "1.24.0-1", "2.*", "0:1.*", "1.24.0-2.*"] {
            assert!(!fits(version), "{version}");
        }
    }

    #[test]
    fn dnf_gets_names_with_versions_in_its_own_form() {
        let argument = |text: &str| argument(&read(text).unwrap());
        assert_eq!(argument("nginx"), "nginx");
        assert_eq!(argument("glibc.i686"), "glibc.i686");
        assert_eq!(argument("nginx=1.24.0"), "nginx-1.24.0-*");
        assert_eq!(argument("nginx=1:1.24.0-1.amzn2023"), "nginx-1:1.24.0-1.amzn2023");
        assert_eq!(argument("glibc.i686=2.34"), "glibc-2.34-*.i686");
    }
}
