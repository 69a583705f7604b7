//! Package names in a manifest. Each family has its own rules for them.

use std::{fmt, str::FromStr};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

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

    /// Returns whether a version is the declared one, or fits to its wildcard. Without a declared version all fit.
    pub fn fits(&self, version: &str) -> bool {
        match self.version.as_deref().map(|declared| (declared, declared.strip_suffix('*'))) {
            None => true,
            Some((_, Some(beginning))) => version.starts_with(beginning),
            Some((declared, None)) => version == declared,
        }
    }

    /// Returns the name without the version.
    pub fn without_version(&self) -> &str {
        self.text.split('=').next().unwrap_or_default()
    }
}

/// Returns whether a resource of the manifest keeps a package installed. The name may have an architecture.
pub fn is_declared(system: &System, name: &str) -> bool {
    let is_same = |declared: PackageName| name == declared.name || name == declared.without_version();
    system.declared_packages().iter().any(|declared| declared.parse().is_ok_and(is_same))
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
