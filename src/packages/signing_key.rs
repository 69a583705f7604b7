//! The key that signs a repository: its source, and the check that it is the declared one.

use std::{borrow::Cow, fmt, io::Read, str::FromStr};

use anyhow::{Context, Result, ensure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::openpgp::{Fingerprint, Keyring};
use crate::{
    error::Fault,
    fetch::{pull::Download, source::Source},
    system::System,
    value::Sha256,
};

/// Limits the size of a key file. Real ones are smaller.
pub const MAX_KEY_BYTES: u64 = 1 << 20;

/// The declared key.
#[derive(Debug, Clone, JsonSchema, Deserialize)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Key {
    /// The armored key itself.
    Inline(String),
    /// The source of the key file.
    At(Source),
}

/// The declared fingerprints: one, or a list.
#[derive(Debug, Clone)]
pub struct Fingerprints(Vec<Fingerprint>);

/// A declared key, with the digest and the fingerprints that it must have.
#[derive(Debug, Clone, Copy)]
pub struct PinnedKey<'a> {
    /// The key.
    pub key: &'a Key,
    /// The declared digest of the key file.
    pub sha256: Option<Sha256>,
    /// The declared fingerprints of the keys in it.
    pub fingerprints: Option<&'a Fingerprints>,
}

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

impl PinnedKey<'_> {
    /// Returns the keyring of a key file.
    ///
    /// # Errors
    /// If it is not the declared one, or has another key too.
    pub fn read(&self, file: &[u8]) -> Result<Keyring> {
        if let Some(declared) = self.sha256 {
            let actual = Sha256::of(file);
            ensure!(actual == declared, "the key's sha256 is {actual}, but {declared} is declared");
        }
        let keyring = Keyring::read(file)?;
        self.check_fingerprint(&keyring)?;
        Ok(keyring)
    }

    fn check_fingerprint(&self, keyring: &Keyring) -> Result<()> {
        let Some(Fingerprints(declared)) = self.fingerprints else { return Ok(()) };
        match keyring.primary_keys().iter().find(|fingerprint| !declared.contains(fingerprint)) {
            None => Ok(()),
            Some(other) => {
                let are = if declared.len() == 1 { "is" } else { "are" };
                let declared = declared.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let message = format!("the key file has the key {other}, but {declared} {are} declared");
                let hint = "publish a file with only declared keys, or declare this one too: the package manager trusts \
                            every key of a file";
                Err(Fault::new(message).hint(hint).into())
            }
        }
    }

    /// Returns whether an installed keyring is the declared one. `sources` is the file that names it.
    pub fn is(&self, keyring: &Keyring, sources: &[u8]) -> bool {
        let is_recorded = self.record(keyring).is_none_or(|record| {
            let mut lines = sources.split(|byte| *byte == b'\n');
            lines.any(|line| line == record.as_bytes())
        });
        match self.key {
            Key::Inline(text) => Keyring::read(text.as_bytes()).is_ok_and(|declared| declared == *keyring),
            Key::At(_) => is_recorded && self.check_fingerprint(keyring).is_ok(),
        }
    }

    /// Returns the line of the file that names the keyring, with the digest of the keyring's key file.
    ///
    /// It is needed if the declared digest is that of an armored text, whose bytes differ from the keyring's.
    pub fn record(&self, keyring: &Keyring) -> Option<String> {
        let (file, keyring) = (self.sha256?, Sha256::of(keyring.packets()));
        (file != keyring).then(|| format!("# Keyring sha256 {keyring}, of the key file with sha256 {file}"))
    }

    /// Returns the download of the key; `None` if the manifest or this machine has it.
    pub fn prefetch(&self) -> Option<Download> {
        match self.key {
            Key::Inline(_) | Key::At(Source::File(_)) => None,
            Key::At(source) => Some(self.download(source)),
        }
    }

    fn download(&self, source: &Source) -> Download {
        Download::new(source.clone(), self.sha256)
    }

    /// Fails if the manifest has the key itself, and it has expired.
    pub fn check_age(&self) -> Result<()> {
        match self.key {
            Key::Inline(text) => check_age(&self.read(text.as_bytes())?, OffsetDateTime::now_utc()),
            Key::At(_) => Ok(()),
        }
    }

    /// Downloads the declared key.
    ///
    /// # Errors
    /// If it is not the declared one, or has expired.
    pub fn fetch(&self, system: &System) -> Result<Keyring> {
        let mut file = vec![];
        match self.key {
            Key::Inline(text) => file.extend(text.as_bytes()),
            Key::At(source) => {
                let fetched = system.fetch(&self.download(source))?;
                let read = fetched.file.take(MAX_KEY_BYTES + 1).read_to_end(&mut file);
                let read = read.context("reading the downloaded key")?;
                ensure!(read as u64 <= MAX_KEY_BYTES, "the key from {source} has more than {MAX_KEY_BYTES} bytes");
            }
        }
        let keyring = self.read(&file);
        let checked = keyring.and_then(|keyring| check_age(&keyring, OffsetDateTime::now_utc()).map(|()| keyring));
        checked.with_context(|| format!("refusing the key from {}", self.key))
    }
}

/// Fails if all keys of a keyring have expired. Some package managers only say that a signature is bad.
fn check_age(keyring: &Keyring, now: OffsetDateTime) -> Result<()> {
    let expiry = keyring.expiry().and_then(|expiry| i64::try_from(expiry).ok());
    let expiry = expiry.and_then(|expiry| OffsetDateTime::from_unix_timestamp(expiry).ok());
    let Some(expiry) = expiry.filter(|expiry| *expiry <= now) else { return Ok(()) };
    let key = keyring.primary_keys().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let message = format!("the key {key} expired at {}", expiry.format(&Rfc3339).unwrap_or_default());
    let hint = "declare the repository's present key; if this time is still to come, set this machine's clock";
    Err(Fault::new(message).hint(hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_key_is_refused_with_its_time() {
        // Its only signature has no more than its times: made in 1970, for 60 seconds.
        let key = [&[0xC6, 6, 4, 0, 0, 0, 0, 22][..], &[0xC2, 12, 4, 0x13, 22, 8, 0, 6, 5, 9, 0, 0, 0, 60]].concat();
        let keyring = Keyring::read(&key).unwrap();
        let check = |seconds| check_age(&keyring, OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        assert!(check(59).is_ok());
        let said = check(60).unwrap_err().to_string();
        assert!(said.ends_with("expired at 1970-01-01T00:01:00Z"), "{said}");
    }
}
