//! The value of a secret.

use std::fmt;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{error::Fault, redaction};

/// The bytes of a secret. They are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    /// What stands for the value in messages: its source.
    name: String,
    bytes: Vec<u8>,
}

impl SecretValue {
    /// Takes a value from its store. From now on no output of this process shows it. A value of fewer bytes than a word of
    /// its own is hidden in messages only if its name says that it is a secret.
    pub(super) fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        let value = Self { name: name.into(), bytes };
        if let Ok(text) = std::str::from_utf8(&value.bytes) {
            redaction::learn(&value.name, text);
        }
        value
    }

    /// Returns what stands for the value in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns it as text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        let fault = || Fault::new(format!("the value of {} is not a text", self.name));
        Ok(std::str::from_utf8(&self.bytes).map_err(|_| fault())?)
    }

    /// Returns the value that it encodes in base64. White space is ignored.
    ///
    /// # Errors
    /// If it is not base64, or if nothing is encoded.
    pub fn decoded(&self) -> Result<Self> {
        let text: Vec<u8> = self.bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        // The decoder's error would show a character of the value.
        let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
        let fault = || Fault::new(format!("the value of {} is not base64", self.name)).hint("leave out `encoding`");
        Ok(Self::new(self.name.clone(), bytes.ok_or_else(fault)?))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({})", self.name)
    }
}
