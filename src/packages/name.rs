//! Package names in a manifest. Each family has its own rules for them.

use std::{fmt, str::FromStr};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

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
    /// The exact version, if the text names one.
    pub version: Option<String>,
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
