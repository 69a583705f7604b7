//! Sources: the URLs that bytes come from.

use std::{borrow::Cow, fmt, str::FromStr};

use anyhow::{Result, bail, ensure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::{
    aws::s3::check_bucket,
    value::{AbsPath, Sha256, printable},
};

/// A place that bytes come from, written as a URL: `https://host/path`, `http://host/path`,
/// `s3://bucket/key` (optionally `?versionId=…`), `file:///absolute/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub enum Source {
    /// An `https` or `http` URL.
    Http(String),
    /// An S3 object.
    S3 {
        /// Bucket name.
        bucket: String,
        /// Object key, not URL-encoded.
        key: String,
        /// A version of the object; the newest without one.
        version: Option<String>,
    },
    /// A file of the machine.
    File(AbsPath),
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        printable(text)?;
        let Some((scheme, rest)) = text.split_once("://") else {
            let text = text.split('?').next().unwrap_or_default();
            bail!("`{text}` is not a URL: use https://, http://, s3:// or file://");
        };
        match scheme {
            "http" | "https" => {
                let url = reqwest::Url::parse(text).map_err(|error| anyhow::anyhow!("not a valid URL: {error}"))?;
                ensure!(url.password().is_none() && url.username().is_empty(), "a URL must not hold credentials");
                Ok(Self::Http(url.into()))
            }
            "s3" => {
                let (path, version) = match rest.split_once("?versionId=") {
                    Some((path, version)) => (path, Some(version.to_owned())),
                    None => (rest, None),
                };
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                check_bucket(bucket)?;
                ensure!(!bucket.is_empty() && !key.is_empty(), "an S3 source is s3://bucket/key");
                Ok(Self::S3 { bucket: bucket.into(), key: key.into(), version })
            }
            "file" => Ok(Self::File(rest.parse()?)),
            _ => bail!("`{scheme}` is not a scheme that can be fetched: use https, http, s3 or file"),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl Source {
    /// Returns a text that no other source has: the URL, with a digest of its query, which may hold a signature or a token.
    pub fn id(&self) -> String {
        let query = match self {
            Self::Http(url) => url.split('#').next().and_then(|url| url.split_once('?')).map(|(_, query)| query),
            Self::S3 { version, .. } => version.as_deref(),
            Self::File(_) => None,
        };
        query.map_or_else(|| self.to_string(), |query| format!("{self}?sha256={}", Sha256::of(query.as_bytes())))
    }
}

/// The URL without its query string, which may hold a signature or a token.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.split(['?', '#']).next().unwrap_or_default()),
            Self::S3 { bucket, key, .. } => write!(f, "s3://{bucket}/{key}"),
            Self::File(path) => write!(f, "file://{path}"),
        }
    }
}

/// The sources of the same bytes: one, or several mirrors. After a failure of one, the next one is tried. Mirrors are
/// on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Returns the source that is tried first.
    pub fn first(&self) -> &Source {
        &self.0[0]
    }

    /// Returns the sources in the order in which they are tried; at least one.
    pub fn all(&self) -> &[Source] {
        &self.0
    }

    /// Returns a text that no other sources have, without their queries.
    pub fn id(&self) -> String {
        self.0.iter().map(Source::id).collect::<Vec<_>>().join(" or ")
    }

    /// Returns the path if the source is a file of the machine.
    pub fn local(&self) -> Option<&AbsPath> {
        match self.first() {
            Source::File(path) => Some(path),
            Source::Http(_) | Source::S3 { .. } => None,
        }
    }
}

impl From<Source> for Sources {
    fn from(source: Source) -> Self {
        Self(vec![source])
    }
}

impl TryFrom<Vec<Source>> for Sources {
    type Error = anyhow::Error;

    fn try_from(sources: Vec<Source>) -> Result<Self> {
        ensure!(!sources.is_empty(), "a list of sources has at least one");
        let is_file = |source: &Source| matches!(source, Source::File(_));
        ensure!(sources.len() == 1 || !sources.iter().any(is_file), "a file of this machine has no mirrors");
        Ok(Self(sources))
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> de::Visitor<'de> for OneOrMore {
            type Value = Sources;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a list of URLs")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sources, E> {
                text.parse().map(|source: Source| source.into()).map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Sources, A::Error> {
                let sources = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
                sources.try_into().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl JsonSchema for Sources {
    fn schema_name() -> Cow<'static, str> {
        "Sources".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = generator.subschema_for::<Source>();
        json_schema!({ "anyOf": [source, { "type": "array", "items": source, "minItems": 1 }] })
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first())?;
        self.0[1..].iter().try_for_each(|source| write!(f, " or {source}"))
    }
}
