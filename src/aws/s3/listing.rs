//! What is in a bucket below a prefix.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::{
    operation::list_objects_v2::ListObjectsV2Output,
    types::{EncodingType, Object as Entry},
};
use percent_encoding::percent_decode_str;

use super::{Object, Refusal, S3};
use crate::{error::Fault, fetch::Origins, net::retry::Failure, system::System, value::printable};

/// What the keys of some objects begin with, written `s3://bucket/prefix/`; `s3://bucket/` means all of them.
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
}

impl System {
    /// The objects below a prefix, in the order of their keys.
    pub fn list(&self, prefix: &Prefix) -> Result<Vec<Listed>> {
        let worker = self.fetcher.worker()?;
        let found = Arc::new(AtomicU64::new(0));
        let task = worker.run(list(worker.origins(), prefix.clone(), found.clone()));
        self.await_task(&task, || {
            self.host.progress(&format!("listing {prefix}: {} objects so far", found.load(Ordering::Relaxed)));
        })
        .with_context(|| format!("listing {prefix}"))
    }
}

/// All pages of a listing, each with as many attempts as make sense.
async fn list(origins: Arc<Origins>, prefix: Prefix, found: Arc<AtomicU64>) -> Result<Vec<Listed>, Fault> {
    let s3 = S3::of(&origins).await;
    let mut objects = vec![];
    let mut next = None;
    loop {
        let page = origins.attempts().run(&prefix, || s3.page(&origins, &prefix, next.clone())).await?;
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
    Ok(Listed { key, size: entry.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default() })
}

impl S3 {
    /// Up to a thousand objects, from a continuation token on.
    async fn page(
        &self,
        origins: &Origins,
        Prefix { bucket, prefix }: &Prefix,
        from: Option<String>,
    ) -> Result<ListObjectsV2Output, Failure> {
        let list = |config| {
            // Encoded, because XML can't hold every character that a key can.
            let request =
                self.client().list_objects_v2().bucket(bucket).prefix(prefix).encoding_type(EncodingType::Url);
            request.set_continuation_token(from.clone()).customize().config_override(config).send()
        };
        let error = match self.send(bucket, list).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let object = Object { bucket, key: prefix, version: None };
        match Refusal::of(&error) {
            Some(refusal) if refusal.is_denial() => {
                Err(refusal.explain_listing(object, Some(&self.identity(&origins.metadata).await)))
            }
            _ => Err(self.explain(origins, object, error).await),
        }
    }
}
