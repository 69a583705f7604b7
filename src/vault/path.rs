//! The path of one value in Vault: `vault://MOUNT/PATH#KEY`.

use std::fmt;

use crate::value::secret_source::{SecretPlace, SecretSource};

/// The path of one value. A name is no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultPath {
    /// The mount and the path below it, as `vault kv get` takes them: `secret/app/db`.
    pub path: String,
    /// The key: a secret is a table.
    pub key: String,
    /// The version; the newest one if it is `None`.
    pub version: Option<u64>,
}

impl VaultPath {
    /// Returns the path of a source; `None` if it is of another store.
    pub fn of(source: &SecretSource) -> Option<Self> {
        let SecretPlace::Vault { path, version } = &source.place else { return None };
        Some(Self { path: path.clone(), key: source.key.clone()?, version: *version })
    }
}

/// `vault://secret/app/db?version=3#password`
impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vault://{}", self.path)?;
        if let Some(version) = self.version {
            write!(f, "?version={version}")?;
        }
        write!(f, "#{}", self.key)
    }
}
