//! Package names in a manifest.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

/// The name of a package: `name` or `name:architecture`, either with `=version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$"))]
pub struct PackageName {
    /// The name without architecture and version.
    pub name: String,
    /// The architecture, if the text names one.
    pub architecture: Option<String>,
    /// The exact version, if the text names one.
    pub version: Option<String>,
}

impl FromStr for PackageName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
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
            bail!(
                "`{name}` is not a package name: it needs at least two of: lower-case letters, digits, `+`, `-`, `.`"
            );
        }
        ensure!(!name.ends_with('-'), "`{name}` ends in `-`, so that apt-get would remove the package");
        if let Some(architecture) = architecture {
            let valid = architecture.starts_with(lower) && architecture.chars().all(|c| lower(c) || c == '-');
            ensure!(valid, "`{architecture}` is not an architecture, such as `amd64`");
        }
        if let Some(version) = version {
            let valid = version.starts_with(|c: char| c.is_ascii_alphanumeric())
                && version.chars().all(|c| c.is_ascii_alphanumeric() || ".+:~-".contains(c));
            ensure!(valid, "`{version}` is not a version, such as `1.22.1-9`");
        }
        Ok(Self { name: name.into(), architecture: architecture.map(Into::into), version: version.map(Into::into) })
    }
}

impl TryFrom<String> for PackageName {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Writes the name in the form that apt-get accepts.
impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.architecture.iter().try_for_each(|architecture| write!(f, ":{architecture}"))?;
        self.version.iter().try_for_each(|version| write!(f, "={version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_package_names_are_accepted_and_no_others() {
        for name in ["nginx", "g++", "python3.11", "libc6:i386", "nginx=1.22.1-9+deb12u1", "a0:amd64=1:2~rc-1"] {
            assert_eq!(name.parse::<PackageName>().unwrap().to_string(), name);
        }
        let bad =
            ["", "x", "Nginx", "nginx-", "-y", "ngin*", "a b", "nginx=", "nginx/sid", "nginx:", "a0=-1", "a0=1;2"];
        for name in bad {
            assert!(name.parse::<PackageName>().is_err(), "{name:?}");
        }
    }
}
