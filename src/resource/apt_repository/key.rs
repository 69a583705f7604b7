//! The key of a repository: its source, and the check that it is the declared one.

use std::{borrow::Cow, fmt, io::Read, str::FromStr};

use anyhow::{Context, Result, ensure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{AptRepository, MAX_FILE_BYTES};
use crate::{
    error::Fault,
    fetch::{pull::Download, source::Source},
    packages::openpgp::{Fingerprint, Keyring},
    system::System,
    value::Sha256,
};

/// The declared key.
#[derive(Debug, Clone, JsonSchema, Deserialize)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(super) enum Key {
    /// The armored key itself.
    Inline(String),
    /// The source of the key file.
    At(Source),
}

/// The declared fingerprints: one, or a list.
#[derive(Debug, Clone)]
pub(super) struct Fingerprints(pub(super) Vec<Fingerprint>);

impl<'de> Deserialize<'de> for Fingerprints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMoreKeys;
        impl<'de> de::Visitor<'de> for OneOrMoreKeys {
            type Value = Fingerprints;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a fingerprint, or a list of fingerprints")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fingerprints, E> {
                text.to_owned().try_into().map(|one| Fingerprints(vec![one])).map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Fingerprints, A::Error> {
                let list: Vec<_> = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
                if list.is_empty() {
                    return Err(de::Error::custom("a list of fingerprints has at least one"));
                }
                Ok(Fingerprints(list))
            }
        }
        deserializer.deserialize_any(OneOrMoreKeys)
    }
}

impl JsonSchema for Fingerprints {
    fn schema_name() -> Cow<'static, str> {
        "Fingerprints".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Fingerprint>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl FromStr for Key {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim_start() {
            key if key.starts_with("-----BEGIN") => Self::Inline(key.trim_end().to_owned() + "\n"),
            path if path.starts_with('/') => Self::At(Source::File(path.parse()?)),
            url => Self::At(url.parse()?),
        })
    }
}

impl TryFrom<String> for Key {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("the declared key"),
            Self::At(source) => source.fmt(f),
        }
    }
}

impl AptRepository {
    /// Returns the keyring of a key file.
    ///
    /// # Errors
    /// If it is not the declared one, or has another key too.
    pub(super) fn read_key(&self, file: &[u8]) -> Result<Keyring> {
        if let Some(declared) = self.key_sha256 {
            let actual = Sha256::of(file);
            ensure!(actual == declared, "the key's sha256 is {actual}, but {declared} is declared");
        }
        let keyring = Keyring::read(file)?;
        self.check_fingerprint(&keyring)?;
        Ok(keyring)
    }

    fn check_fingerprint(&self, keyring: &Keyring) -> Result<()> {
        let Some(Fingerprints(declared)) = &self.key_fingerprint else { return Ok(()) };
        match keyring.primary_keys().iter().find(|fingerprint| !declared.contains(fingerprint)) {
            None => Ok(()),
            Some(other) => {
                let are = if declared.len() == 1 { "is" } else { "are" };
                let declared = declared.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(Fault::new(format!("the key file has the key {other}, but {declared} {are} declared"))
                    .hint("publish a file with only declared keys, or declare this one too: apt trusts every key of a file")
                    .into())
            }
        }
    }

    /// Returns the installed keyring if it is the declared one. `sources` is the sources file that names it.
    pub(super) fn recognize(&self, published: &[u8], sources: &[u8]) -> Option<Keyring> {
        let keyring = Keyring::read(published).ok().filter(|keyring| keyring.packets() == published)?;
        let is_recorded = self.record(&keyring).is_none_or(|record| {
            let mut lines = sources.split(|byte| *byte == b'\n');
            lines.any(|line| line == record.as_bytes())
        });
        let is_declared = match &self.key {
            Key::Inline(text) => Keyring::read(text.as_bytes()).is_ok_and(|declared| declared == keyring),
            Key::At(_) => is_recorded && self.check_fingerprint(&keyring).is_ok(),
        };
        is_declared.then_some(keyring)
    }

    /// Returns the line of the sources file with the digest of the keyring's key file.
    ///
    /// It is needed if `key_sha256` is the digest of an armored text, whose bytes differ from the keyring's.
    pub(super) fn record(&self, keyring: &Keyring) -> Option<String> {
        let (file, keyring) = (self.key_sha256?, Sha256::of(keyring.packets()));
        (file != keyring).then(|| format!("# Keyring sha256 {keyring}, of the key file with sha256 {file}"))
    }

    pub(super) fn download(&self, source: &Source) -> Download {
        Download::new(source.clone(), self.key_sha256)
    }

    /// Downloads the declared key.
    pub(super) fn fetch_key(&self, system: &System) -> Result<Keyring> {
        let mut file = vec![];
        match &self.key {
            Key::Inline(text) => file.extend(text.as_bytes()),
            Key::At(source) => {
                let fetched = system.fetch(&self.download(source))?;
                let read = fetched.file.take(MAX_FILE_BYTES + 1).read_to_end(&mut file);
                let read = read.context("reading the downloaded key")?;
                ensure!(read as u64 <= MAX_FILE_BYTES, "the key from {source} has more than {MAX_FILE_BYTES} bytes");
            }
        }
        self.read_key(&file).with_context(|| format!("refusing the key from {}", self.key))
    }
}
