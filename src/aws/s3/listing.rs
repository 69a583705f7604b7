//! Listings of the objects below a prefix.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use percent_encoding::percent_decode_str;
use reqwest::Method;

use super::{S3, address::check_bucket, explanation, object::S3Object, request::S3Request};
use crate::{
    aws::{
        answer::{Element, text},
        refusal::NotDone,
    },
    error::Fault,
    net::retry::Failure,
    value::printable,
};

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
        check_bucket(bucket)?;
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

fn listed(entry: &Element, encoded: bool) -> Result<Listed, Fault> {
    let key = entry.text("Key");
    let key = if encoded {
        let plain = key.replace('+', " ");
        let decoded = percent_decode_str(&plain).decode_utf8();
        decoded
            .map_err(|error| Fault::new(format!("the key `{key}` in the listing is not UTF-8")).caused_by(error))?
            .into()
    } else {
        key.to_owned()
    };
    let size = entry.text("Size").parse().unwrap_or_default();
    // S3 sends an ETag with each object; some services that speak its protocol send none.
    let etag = match (entry.text("ETag"), entry.text("LastModified")) {
        ("", "") => None,
        ("", changed) => Some(format!("{size} bytes of {changed}")),
        (etag, _) => Some(etag.to_owned()),
    };
    Ok(Listed { key, size, etag })
}

/// Reads a page of a listing.
///
/// # Errors
/// If it is no listing, or breaks off: the objects that it lacks would look removed.
fn whole(page: &str) -> Result<Element> {
    let page = Element::of_xml(page)?;
    ensure!(page.name == "ListBucketResult", "the answer is no listing, but has the element {}", page.name);
    let breaks_off = page.text("IsTruncated") == "true" && page.text("NextContinuationToken").is_empty();
    ensure!(!breaks_off, "the listing breaks off: it has no token for the next page");
    Ok(page)
}

impl S3 {
    /// Returns the objects below a prefix, in the order of their keys. `found` has their number so far.
    pub(crate) async fn list(&self, prefix: &Prefix, found: &AtomicU64) -> Result<Vec<Listed>, Fault> {
        let mut objects = vec![];
        let (mut next, mut tokens) = (None, BTreeSet::new());
        loop {
            let attempts = self.account.network.attempts();
            let page = attempts.run(prefix, || self.page(prefix, next.clone())).await?;
            let encoded = page.text("EncodingType") == "url";
            for entry in page.children.iter().filter(|child| child.name == "Contents") {
                objects.push(listed(entry, encoded)?);
            }
            found.store(objects.len() as u64, Ordering::Relaxed);
            if page.text("IsTruncated") != "true" {
                return Ok(objects);
            }
            let token = page.text("NextContinuationToken");
            if !tokens.insert(token.to_owned()) {
                return Err(Fault::new("the listing has the same page twice"));
            }
            next = Some(token.to_owned());
        }
    }

    /// Requests up to a thousand objects, from a continuation token on.
    async fn page(&self, Prefix { bucket, prefix }: &Prefix, from: Option<String>) -> Result<Element, Failure> {
        // The keys are encoded, because XML cannot hold every character of a key.
        let list = S3Request::new(Method::GET, bucket, "")
            .query("list-type", Some("2"))
            .query("encoding-type", Some("url"))
            .query("prefix", Some(prefix))
            .query("continuation-token", from);
        let object = S3Object { bucket, key: prefix, version: None };
        let answer = match self.send(&list).await {
            Ok(answer) => answer,
            Err(NotDone::Refused(refusal)) if refusal.is_denial() => {
                let fault = explanation::explain_listing(&refusal, object, &self.identity(bucket).await);
                return Err(self.account.refused(&refusal, fault).await);
            }
            Err(error) => return Err(self.explain(object, error).await),
        };
        let page = text(answer, |error| self.account.network.clients.explain(&error)).await?;
        whole(&page).map_err(|error| Failure::transient(Fault::new("S3's listing can't be read").caused_by(error)))
    }
}
