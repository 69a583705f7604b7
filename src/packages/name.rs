//! Package names in a manifest. Each family has its own rules for them.

use std::{fmt, str::FromStr};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::manager::Family;
use crate::system::System;

/// The name of a package as its package manager takes it, with an architecture or a version where it names one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = super::name_pattern()))]
pub struct PackageName {
    /// The text in the manifest.
    pub text: String,
    /// The name without architecture and version.
    pub name: String,
    /// The architecture, if the text names one.
    pub architecture: Option<String>,
    /// The version, if the text names one. With a `*` at its end it stands for all versions that begin so.
    pub version: Option<String>,
}

impl PackageName {
    /// Returns whether the name has a version with a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.ends_with('*'))
    }

    /// Returns the name without the version.
    pub fn without_version(&self) -> &str {
        self.text.split('=').next().unwrap_or_default()
    }
}

/// Returns whether a resource of the manifest keeps a package installed. The name may have an architecture.
pub fn is_declared(system: &System, family: Family, name: &str) -> bool {
    let is_same = |declared: PackageName| name == declared.name || name == declared.without_version();
    system.declared_packages().iter().any(|declared| family.read_name(declared).is_ok_and(is_same))
}

impl FromStr for PackageName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        super::read_name(text)
    }
}

impl TryFrom<String> for PackageName {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
