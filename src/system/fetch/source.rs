//! Where bytes come from.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{AbsPath, printable};

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
    /// A file of the machine acted on.
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
