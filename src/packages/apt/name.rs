//! Names of Debian's packages: `name` or `name:architecture`, either with `=version` or `=beginning*`.

use anyhow::{Result, ensure};

use crate::{error::Fault, packages::name::PackageName};

/// The pattern of [`read`], for editors.
pub(crate) const PATTERN: &str = "^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+[*]?)?$";

/// Reads a name as apt-get takes it.
///
/// # Errors
/// If Debian Policy allows no such name.
pub(crate) fn read(text: &str) -> Result<PackageName> {
    let (package, version) = match text.split_once('=') {
        Some((package, version)) => (package, Some(version)),
        None => (text, None),
    };
    let (name, architecture) = match package.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (package, None),
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Debian Policy 5.6.1 (names), 5.6.12 (versions). apt-get removes a package whose name has a trailing `-`.
    if name.len() < 2 || !name.starts_with(lower) || !name.chars().all(|c| lower(c) || "+-.".contains(c)) {
        let message =
            format!("`{name}` is not a package name for apt: it has at least two of: a-z, 0-9, `+`, `-`, `.`");
        return Err(match package.strip_suffix(".x86_64") {
            Some(name) => Fault::new(message).hint(format!("for apt, write {name}:amd64")),
            None => Fault::new(message),
        }
        .into());
    }
    ensure!(!name.ends_with('-'), "`{name}` ends in `-`, so that apt-get would remove the package");
    if let Some(architecture) = architecture {
        let valid = architecture.starts_with(lower) && architecture.chars().all(|c| lower(c) || c == '-');
        ensure!(valid, "`{architecture}` is not an architecture for apt, such as `amd64`");
    }
    if let Some(version) = version {
        let beginning = version.strip_suffix('*').unwrap_or(version);
        let valid = beginning.starts_with(|c: char| c.is_ascii_alphanumeric())
            && beginning.chars().all(|c| c.is_ascii_alphanumeric() || ".+:~-".contains(c));
        ensure!(valid, "`{version}` is not a version for apt, such as `1.22.1-9`, or `1.22.*` for all that begin so");
    }
    Ok(PackageName {
        text: text.to_owned(),
        name: name.to_owned(),
        architecture: architecture.map(str::to_owned),
        version: version.map(str::to_owned),
    })
}

/// Returns whether a version is the declared one, or fits to its wildcard. Without a declared version all fit.
pub(crate) fn fits(declared: &PackageName, version: &str) -> bool {
    match declared.version.as_deref().map(|declared| (declared, declared.strip_suffix('*'))) {
        None => true,
        Some((_, Some(beginning))) => version.starts_with(beginning),
        Some((declared, None)) => version == declared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint;

    #[test]
    fn debian_package_names_are_accepted_and_no_others() {
        for name in
            ["nginx", "g++", "python3.11", "libc6:i386", "nginx=1.22.1-9+deb12u1", "a0:amd64=1:2~rc-1", "nodejs=20.*"]
        {
            assert_eq!(read(name).unwrap().to_string(), name);
        }
        let bad = [
            "",
            "x",
            "Nginx",
            "nginx-",
            "-y",
            "ngin*",
            "a b",
            "nginx=",
            "nginx/sid",
            "nginx:",
            "a0=-1",
            "a0=1;2",
            "a0=*",
            "a0=1*2",
            "a0=1**",
        ];
        for name in bad {
            assert!(read(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_architecture_in_the_other_form_gets_a_hint() {
        let hint = |text: &str| hint(&read(text).unwrap_err()).map(str::to_owned);
        assert_eq!(hint("tree.x86_64").as_deref(), Some("for apt, write tree:amd64"));
        assert_eq!(hint("a_b"), None);
    }
}
