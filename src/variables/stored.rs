//! Variables whose values are secrets of stores.

use std::rc::Rc;

use anyhow::Result;
use serde::{Deserialize, Deserializer, de};

use super::{OfEachInstance, VariableValue, Variables, setting::Setting, value::Value};
use crate::{redaction, value::secret_source::SecretSource};

/// A secret of a store, as a variable declares it: `{ secret = "ssm:///app/token" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSecret {
    /// Its store and its name.
    #[serde(rename = "secret")]
    pub source: SecretSource,
    /// Whether its value is base64, which is decoded.
    #[serde(default, rename = "encoding", deserialize_with = "is_base64")]
    pub is_base64: bool,
}

fn is_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match &*String::deserialize(deserializer)? {
        "base64" => Ok(true),
        other => Err(de::Error::custom(format!("`{}` is no encoding: use base64", other.escape_debug()))),
    }
}

impl Variables {
    /// Returns whether a variable's value is a secret for certain: that of a store, or of a file with one secret. A file of
    /// variables may have other values, too.
    pub fn is_certainly_secret(&self, name: &str) -> bool {
        let name = self.followed(name).unwrap_or(name);
        self.is_stored(name) || (self.secret_files.contains(name) && self.is_secret(name))
    }

    /// Returns whether a variable's value is a secret of a store.
    pub fn is_stored(&self, name: &str) -> bool {
        self.stored(name).is_some()
    }

    /// Returns the secrets of stores that are values of variables. A value of the command line replaces that of a file. Those
    /// below a path of parameters are left out: the permission for the path is enough.
    pub fn stored_secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let is_declared = |name: &&String| !self.given.contains_key(*name);
        let declared = self.declared.iter().filter(move |(name, _)| is_declared(name));
        let given = self.given.iter().filter(|(name, _)| !self.parameters.contains_key(*name));
        given.chain(declared).filter_map(|(_, setting)| match setting {
            Setting::Stored(secret) => Some(&secret.source),
            _ => None,
        })
    }

    /// Sets a variable to a parameter that is no secret. `url` names the parameter in messages.
    ///
    /// # Errors
    /// If the name is not a valid variable name.
    pub fn give_parameter(&mut self, name: &str, value: Value, url: String) -> Result<(), String> {
        self.give_setting(name, Setting::Everywhere(value))?;
        _ = self.parameters.insert(name.into(), url);
        Ok(())
    }

    /// Sets a variable to a secret of a store. Without its text, it is read when it is used.
    ///
    /// # Errors
    /// If the name is not a valid variable name.
    pub fn give_stored(&mut self, name: &str, secret: StoredSecret, text: Option<&str>) -> Result<(), String> {
        let url = secret.source.to_string();
        self.give_setting(name, Setting::Stored(secret))?;
        if let Some(text) = text {
            redaction::learn(name, text);
            _ = self.asked.borrow_mut().insert(name.into(), Ok(text.into()));
        }
        _ = self.parameters.insert(name.into(), url);
        Ok(())
    }

    pub(super) fn stored(&self, name: &str) -> Option<&StoredSecret> {
        let name = self.followed(name).ok()?;
        match self.given.get(name).or_else(|| self.declared.get(name)) {
            Some(Setting::Stored(secret)) => Some(secret),
            _ => None,
        }
    }

    /// Returns why the secret of a variable could not be read.
    pub fn unread(&self, name: &str) -> Option<Rc<anyhow::Error>> {
        let name = self.followed(name).ok()?;
        self.unread.borrow().get(name).cloned()
    }

    /// Reads the secret of a variable. It is unknown in an image, and after a failure, which [`Variables::unread`] returns.
    pub(super) fn read_stored(&self, name: &str, secret: &StoredSecret) -> VariableValue {
        if self.unread.borrow().contains_key(name) {
            return VariableValue::Unknown;
        }
        match (self.stores)(secret) {
            Ok(text) => {
                redaction::learn(name, &text);
                _ = self.asked.borrow_mut().insert(name.into(), Ok(text.clone()));
                VariableValue::Known(Value::Text(text))
            }
            Err(error) if error.is::<OfEachInstance>() => VariableValue::Unknown,
            Err(error) => {
                _ = self.unread.borrow_mut().insert(name.into(), Rc::new(error));
                VariableValue::Unknown
            }
        }
    }
}
