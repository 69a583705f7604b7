//! The values of a sources file.

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::KEYRINGS;
use crate::value::{AbsPath, printable};

/// A file name that apt reads in `sources.list.d`. apt ignores other names; sources.list(5).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"))]
pub(super) struct RepositoryName {
    pub(super) name: String,
    pub(super) sources: AbsPath,
    pub(super) keyring: AbsPath,
}

impl TryFrom<String> for RepositoryName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) && !name.starts_with('.');
        ensure!(
            valid && !name.is_empty(),
            "`{name}` is not a file name for apt: use only letters, digits, `_`, `.` and `-`"
        );
        ensure!(name.len() <= 200, "a name has at most 200 characters");
        let sources = format!("/etc/apt/sources.list.d/{name}.sources").parse()?;
        let keyring = AbsPath::from(KEYRINGS).join(&format!("{name}.gpg"))?;
        Ok(Self { name, sources, keyring })
    }
}

/// A URI that apt accepts: `https://…`, `http://…`, `file:/…`, `mirror+https://…`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Uri(String);

impl TryFrom<String> for Uri {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        printable(&text)?;
        let (scheme, rest) = text.split_once(":/").with_context(|| format!("`{text}` is not a URI"))?;
        let valid = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-".contains(c));
        ensure!(valid && !text.contains(' '), "`{text}` is not a URI, such as https://example.com/debian");
        ensure!(!rest.contains('@'), "a URI must not have credentials: put them in /etc/apt/auth.conf.d");
        Ok(Self(text))
    }
}

/// One of several values in a line, separated by spaces.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct SourceWord(pub(super) String);

impl TryFrom<String> for SourceWord {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "./".contains(c))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/~+:-".contains(c));
        ensure!(valid, "`{text}` is not the name of a suite, component or architecture");
        Ok(Self(text))
    }
}

impl AsRef<str> for Uri {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SourceWord {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
