//! Listings of the objects below a prefix.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::{
    Client,
    operation::list_objects_v2::ListObjectsV2Output,
    types::{EncodingType, Object as Entry},
};
use percent_encoding::percent_decode_str;

use super::{S3, explanation, object::S3Object};
use crate::{aws::refusal::Refusal, error::Fault, net::retry::Failure, value::printable};

/// The common beginning of some objects' keys, written `s3://bucket/prefix/`. `s3://bucket/` means all objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Bucket name.
    pub bucket: String,
    /// Empty, or with a slash at its end.
    pub prefix: String,
}

impl FromStr for Prefix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        printable(text)?;
        let path = text.strip_prefix("s3://").and_then(|path| path.split_once('/'));
        let (bucket, prefix) = path.context("a prefix is s3://bucket/ or s3://bucket/prefix/")?;
        ensure!(!bucket.is_empty() && (prefix.is_empty() || prefix.ends_with('/')), "a prefix is s3://bucket/prefix/");
        Ok(Self { bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// An object below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole key, the prefix included.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its `ETag`, which differs for other bytes; else its size and the time of its last change.
    pub etag: Option<String>,
}

fn listed(entry: &Entry, encoded: bool) -> Result<Listed, Fault> {
    let key = entry.key().unwrap_or_default();
    let key = if encoded {
        let plain = key.replace('+', " ");
        let decoded = percent_decode_str(&plain).decode_utf8();
        decoded
            .map_err(|error| Fault::new(format!("the key `{key}` in the listing is not UTF-8")).caused_by(error))?
            .into()
    } else {
        key.to_owned()
    };
    let size = entry.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    // S3 sends an ETag with each object; some services that speak its protocol send none.
    let changed = || entry.last_modified().map(|time| format!("{size} bytes of {}", time.secs()));
    Ok(Listed { key, size, etag: entry.e_tag().map(str::to_owned).or_else(changed) })
}

impl S3 {
    /// Returns the objects below a prefix, in the order of their keys. `found` has their number so far.
    pub(crate) async fn list(&self, prefix: &Prefix, found: &AtomicU64) -> Result<Vec<Listed>, Fault> {
        let mut objects = vec![];
        let mut next = None;
        loop {
            let attempts = self.account.network.attempts();
            let page = attempts.run(prefix, || self.page(prefix, next.clone())).await?;
            let encoded = page.encoding_type() == Some(&EncodingType::Url);
            for entry in page.contents() {
                objects.push(listed(entry, encoded)?);
            }
            found.store(objects.len() as u64, Ordering::Relaxed);
            match page.next_continuation_token {
                Some(token) if page.is_truncated == Some(true) => next = Some(token),
                _ => return Ok(objects),
            }
        }
    }

    /// Requests up to a thousand objects, from a continuation token on.
    async fn page(
        &self,
        Prefix { bucket, prefix }: &Prefix,
        from: Option<String>,
    ) -> Result<ListObjectsV2Output, Failure> {
        let list = |client: Client, config| {
            // The keys are encoded, because XML cannot hold every character of a key.
            let request = client.list_objects_v2().bucket(bucket).prefix(prefix).encoding_type(EncodingType::Url);
            request.set_continuation_token(from.clone()).customize().config_override(config).send()
        };
        let error = match self.send(bucket, list).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let object = S3Object { bucket, key: prefix, version: None };
        match Refusal::of_sdk(&error) {
            Some(refusal) if refusal.is_denial() => {
                Err(explanation::explain_listing(&refusal, object, Some(&self.identity().await)))
            }
            _ => Err(self.explain(object, error).await),
        }
    }
}
