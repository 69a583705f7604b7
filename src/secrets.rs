//! Secrets: what Parameter Store, Secrets Manager and Vault answer. A run reads each secret once.
//!
//! A value is known to the [`redaction`] before anything else sees it, and the process's memory is never written to swap
//! from then on.

mod field;
mod parameter;
pub mod path;
mod secrets_manager;
mod value;

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use anyhow::{Context, Result, bail};

use self::path::{ParameterPath, StoredParameter};
pub use self::value::SecretValue;
use crate::{
    aws::{Aws, query::Call},
    error::{self, Class, Fault},
    host::{Host, process},
    net::retry::Patience,
    value::{
        AbsPath,
        secret_source::{SecretPlace, SecretSource},
    },
    vault::{Vault, path::VaultPath, settings::VaultSettings},
};

/// A secret that was read.
#[derive(Debug, Clone)]
pub struct ReadSecret {
    /// Its value: never empty.
    pub value: SecretValue,
    /// The version that the store gives it: a number, or an identifier.
    pub version: String,
}

/// A whole secret of a store, which may have several fields.
struct SecretDocument {
    value: SecretValue,
    version: String,
}

/// The secrets that this run has read.
#[derive(Default)]
pub struct Secrets {
    documents: RefCell<BTreeMap<SecretPlace, Rc<SecretDocument>>>,
    /// The stores that did not answer, each with the error.
    away: RefCell<BTreeMap<&'static str, Rc<anyhow::Error>>>,
    /// The settings of the manifest.
    vault_settings: RefCell<Option<VaultSettings>>,
    vault: OnceCell<Vault>,
}

impl Secrets {
    /// Reads a secret, unless this run has read it before. A wrapped secret id of Vault is used up only if `may_unwrap`.
    ///
    /// # Errors
    /// If the store refuses or does not answer, or if the secret or its field is missing or empty.
    pub fn read(
        &self,
        host: &Host,
        aws: &Aws,
        source: &SecretSource,
        patience: Patience,
        may_unwrap: bool,
    ) -> Result<ReadSecret> {
        let store = source.place.store();
        if self.knows(source) {
            return self.read_now(host, aws, source, patience, may_unwrap);
        }
        // Another wait would be as long, and in vain. The caller can do without the answer.
        if patience == Patience::Short
            && let Some(error) = self.away.borrow().get(store)
        {
            return Err(error::again(error)).with_context(|| format!("reading {source}"));
        }
        let read = self.read_now(host, aws, source, patience, may_unwrap);
        match &read {
            Err(error) if error::class(error) == Class::Transient => {
                let root = error::again(error);
                _ = self.away.borrow_mut().insert(store, Rc::new(root));
            }
            // It has answered.
            _ => _ = self.away.borrow_mut().remove(store),
        }
        read
    }

    /// Returns whether this run has read a secret, so that its store is not asked.
    fn knows(&self, source: &SecretSource) -> bool {
        match VaultPath::of(source) {
            Some(path) => self.vault.get().is_some_and(|vault| vault.knows(&path)),
            None => self.documents.borrow().contains_key(&source.place),
        }
    }

    fn read_now(
        &self,
        host: &Host,
        aws: &Aws,
        source: &SecretSource,
        patience: Patience,
        may_unwrap: bool,
    ) -> Result<ReadSecret> {
        if let Some(path) = VaultPath::of(source) {
            let read = self.vault(aws, may_unwrap)?.read(host, &path, patience)?;
            let version = read.version.map(|version| version.to_string()).unwrap_or_default();
            return Ok(ReadSecret { value: SecretValue::new(source.to_string(), read.value.into_bytes()), version });
        }
        let read = || -> Result<ReadSecret> {
            let document = self.document(host, aws, &source.place, patience)?;
            let value = match &source.key {
                None => document.value.clone(),
                Some(key) => field::of(&document.value, key)?,
            };
            if value.bytes().is_empty() {
                bail!("the secret is empty");
            }
            Ok(ReadSecret { value, version: document.version.clone() })
        };
        read().with_context(|| format!("reading {source}"))
    }

    /// Returns the parameters below a path, in the order of their names. A secret has a value only if this `decrypts`.
    ///
    /// # Errors
    /// If the store refuses or does not answer, or has no such parameter.
    pub fn parameters_below(
        &self,
        host: &Host,
        aws: &Aws,
        path: &ParameterPath,
        decrypts: bool,
    ) -> Result<Vec<StoredParameter>> {
        if decrypts {
            process::keep_in_memory();
        }
        path.read(decrypts, |call| aws.call(host, call)).with_context(|| format!("reading {path}"))
    }

    /// Sets how Vault is reached, unless it was asked before.
    pub fn use_vault(&self, settings: Option<VaultSettings>) {
        *self.vault_settings.borrow_mut() = settings;
    }

    /// Returns the files of the secrets with which the manifest logs in to Vault.
    pub fn vault_files(&self) -> Vec<AbsPath> {
        let settings = self.vault_settings.borrow();
        settings.iter().flat_map(VaultSettings::secret_files).cloned().collect()
    }

    /// Ends the login to Vault, if there was one.
    pub fn close(&self, host: &Host) {
        if let Some(vault) = self.vault.get() {
            vault.close(host);
        }
    }

    /// Returns the Vault of the manifest, or else the one that the environment names.
    fn vault(&self, aws: &Aws, may_unwrap: bool) -> Result<&Vault> {
        if let Some(vault) = self.vault.get() {
            return Ok(vault);
        }
        process::keep_in_memory();
        let of_manifest = self.vault_settings.borrow().clone();
        let settings = of_manifest.map_or_else(VaultSettings::of_environment, |settings| Ok(Some(settings)))?;
        let unknown = || {
            Fault::new("the manifest does not say where Vault is").hint(
                "add the table [vault] with `address` and `login` to it, or write the file vault.toml beside its steps",
            )
        };
        let settings = settings.ok_or_else(unknown)?;
        Ok(self.vault.get_or_init(|| Vault::new(settings, aws, may_unwrap)))
    }

    fn document(&self, host: &Host, aws: &Aws, place: &SecretPlace, patience: Patience) -> Result<Rc<SecretDocument>> {
        if let Some(known) = self.documents.borrow().get(place) {
            return Ok(known.clone());
        }
        process::keep_in_memory();
        let call = |call: Call| aws.call_with(host, call, patience);
        let document = Rc::new(match place {
            SecretPlace::Parameter { name, selector } => parameter::read(name, selector.as_deref(), call)?,
            SecretPlace::SecretsManager { id, version } => secrets_manager::read(id, version.as_ref(), call)?,
            SecretPlace::Vault { .. } => bail!("a secret of Vault is read by its key"),
        });
        _ = self.documents.borrow_mut().insert(place.clone(), document.clone());
        Ok(document)
    }
}
