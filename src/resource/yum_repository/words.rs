//! The values of a repository's file.

use std::fmt;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{KEYS, REPOSITORIES};
use crate::value::{AbsPath, printable};

/// The id of a repository, and its files. dnf calls its own settings `main`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"))]
pub(super) struct RepositoryId {
    pub(super) id: String,
    pub(super) file: AbsPath,
    pub(super) key: AbsPath,
}

impl TryFrom<String> for RepositoryId {
    type Error = anyhow::Error;

    fn try_from(id: String) -> Result<Self> {
        let valid = id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) && !id.starts_with('.');
        ensure!(
            valid && !id.is_empty() && id != "main",
            "`{id}` is not the id of a repository: use only letters, digits, `_`, `.` and `-`, and not `main`"
        );
        ensure!(id.len() <= 200, "an id has at most 200 characters");
        let file = AbsPath::from(REPOSITORIES).join(&format!("{id}.repo"))?;
        let key = AbsPath::from(KEYS).join(&format!("{id}.asc"))?;
        Ok(Self { id, file, key })
    }
}

/// A URL that dnf accepts: `https://…`, `http://…`, `file:///…`. It may have variables of dnf, such as `$releasever`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct RepositoryUrl(pub(super) String);

impl TryFrom<String> for RepositoryUrl {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        printable(&text)?;
        let rest = ["https://", "http://", "file:///"].iter().find_map(|scheme| text.strip_prefix(scheme));
        // Blanks and commas separate the URLs of a list.
        let valid =
            rest.is_some_and(|rest| !rest.is_empty()) && text.is_ascii() && !text.contains([' ', ',', '"', '\\']);
        ensure!(valid, "`{text}` is not a URL for dnf, such as https://example.com/$releasever/$basearch");
        ensure!(!text.contains('@'), "a URL must not have credentials: put them into `username` and `password`");
        Ok(Self(text))
    }
}

impl RepositoryUrl {
    /// Returns whether others in the network can change an answer of it.
    pub(super) fn is_unprotected(&self) -> bool {
        self.0.starts_with("http://")
    }
}

/// The name of a package, in which `*`, `?` and `[…]` are wildcards.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct PackagePattern(pub(super) String);

impl TryFrom<String> for PackagePattern {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let valid = text.chars().all(|c| c.is_ascii_alphanumeric() || "*?[]!._+:~^-".contains(c));
        ensure!(valid && !text.is_empty(), "`{text}` is not the name of a package, nor a pattern of names");
        Ok(Self(text))
    }
}

/// A user name or a password.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Credential(pub(super) String);

impl TryFrom<String> for Credential {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        printable(&text)?;
        ensure!(
            !text.is_empty() && text.trim() == text,
            "a user name or password is not empty and has no blanks around it"
        );
        let mut after_dollar = text.split('$').skip(1);
        let is_variable = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || "_{".contains(c));
        ensure!(
            !after_dollar.any(is_variable),
            "dnf replaces a variable in it: change it, so that no letter follows `$`"
        );
        Ok(Self(text))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
