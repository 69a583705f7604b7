//! S3, by requests of our own: docs/design/decisions.md says why.

mod address;
mod checksum;
mod explanation;
pub mod listing;
mod object;
mod request;
pub mod upload;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_config::Region;
use reqwest::{Method, header::HeaderMap};

use self::request::S3Request;
pub(crate) use self::{
    address::check_bucket,
    checksum::{Checksum, RunningChecksum},
    object::{Answer, Promise, S3Object},
};
use super::{account::Account, refusal::NotDone};
use crate::{
    error::Fault,
    net::{range::Range, retry::Failure},
};

/// S3, with the known regions of buckets.
#[derive(Debug)]
pub(crate) struct S3 {
    account: Arc<Account>,
    regions: Mutex<HashMap<String, Region>>,
}

impl S3 {
    /// Returns the S3 of an account's region, or of the region that a bucket is in.
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { account, regions: Mutex::default() }
    }

    /// Requests an object: all of it, or a part of the promised body.
    pub(crate) async fn get(&self, object: S3Object<'_>, part: Option<(Range, &Promise)>) -> Result<Answer, Failure> {
        let request = about(Method::GET, object);
        let request = match part {
            Some((range, promise)) => {
                request.header("range", Some(range.header())).header("if-match", promise.etag.clone())
            }
            // A part has no checksum.
            None => request.header("x-amz-checksum-mode", Some("ENABLED")),
        };
        let response = match (self.send(&request).await, part) {
            (Ok(response), _) => response,
            (Err(NotDone::Refused(refusal)), Some(_)) if matches!(refusal.status, 412 | 416) => {
                return Ok(Answer::Changed(Fault::new("the object in S3 was replaced during the download")));
            }
            (Err(error), _) => return Err(self.explain(object, error).await),
        };
        let headers = response.headers();
        if let Some((range, promise)) = part {
            let sent = text(headers, "content-range").unwrap_or("none");
            return Ok(if range.is_answered_by(sent, promise.total) {
                Answer::Part(response)
            } else {
                let fault = format!("S3 sent Content-Range {} for {}", sent.escape_debug(), range.header());
                Answer::Changed(Fault::new(fault))
            });
        }
        let mut promise = promise(headers);
        promise.checksum = self.checksum(object, headers, &promise).await;
        Ok(Answer::Whole(response, promise))
    }

    /// Returns the object's checksum. For a composite one, S3 is asked for the length of the first part. All known
    /// tools upload parts of one length, except the last one.
    async fn checksum(&self, object: S3Object<'_>, headers: &HeaderMap, promise: &Promise) -> Option<Checksum> {
        let checksum = Checksum::of(|name| text(headers, name))?;
        let Some(parts) = checksum.parts() else { return Some(checksum) };
        let version = promise.version.as_deref();
        let head = about(Method::HEAD, S3Object { version, ..object }).query("partNumber", Some("1"));
        let first = self.send(&head).await.ok().and_then(|first| length(first.headers()));
        let Some(length) =
            first.filter(|first| *first > 0 && promise.total.is_some_and(|total| total.div_ceil(*first) == parts))
        else {
            let S3Object { bucket, key, .. } = object;
            tracing::debug!(
                bucket,
                key,
                "the composite checksum can't be checked: the lengths of the parts are not known"
            );
            return None;
        };
        Some(checksum.with_parts(length))
    }

    /// Returns at most the first bytes of an object, without a second attempt; `None` if it does not exist.
    pub(crate) async fn beginning(&self, object: S3Object<'_>, max_bytes: usize) -> Result<Option<Vec<u8>>, Failure> {
        let mut response = match self.send(&about(Method::GET, object)).await {
            Ok(response) => response,
            Err(NotDone::Refused(refusal)) if refusal.code == "NoSuchKey" => return Ok(None),
            Err(error) => return Err(self.explain(object, error).await),
        };
        let mut bytes = vec![];
        while bytes.len() < max_bytes
            && let Some(chunk) = response.chunk().await.map_err(|error| self.account.network.clients.explain(&error))?
        {
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(max_bytes);
        Ok(Some(bytes))
    }

    /// Requests the validator of an object.
    pub(crate) async fn etag(&self, object: S3Object<'_>) -> Result<Option<String>, Failure> {
        match self.send(&about(Method::HEAD, object)).await {
            Ok(response) => Ok(promise(response.headers()).validator()),
            Err(error) => Err(self.explain(object, error).await),
        }
    }

    /// Returns the failure that an error means for the user.
    async fn explain(&self, object: S3Object<'_>, error: NotDone) -> Failure {
        let refusal = match error {
            NotDone::Failed(failure) => return failure,
            NotDone::Refused(refusal) => refusal,
        };
        let identity = if refusal.is_denial() { Some(self.identity(object.bucket).await) } else { None };
        let fault = explanation::explain(&refusal, object, identity.as_deref());
        self.account.refused(&refusal, fault).await
    }

    /// Returns the identity of the caller, as far as S3 and the metadata service tell it.
    async fn identity(&self, bucket: &str) -> String {
        let Ok(credentials) = self.credentials(bucket).await else { return "this machine".into() };
        match self.account.metadata.role_holding(credentials.access_key_id()).await {
            Some(role) => format!("the instance's role {role}"),
            None => format!("the access key {}", credentials.access_key_id()),
        }
    }
}

/// Returns a request about an object.
fn about(method: Method, S3Object { bucket, key, version }: S3Object<'_>) -> S3Request<'_> {
    S3Request::new(method, bucket, key).query("versionId", version)
}

/// Returns the text of a header.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the length of the object that an answer, also one to HEAD, is about.
fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.parse().ok()
}

/// Returns what an answer promises about its body, but for its checksum.
fn promise(headers: &HeaderMap) -> Promise {
    let said = |name| text(headers, name).map(str::to_owned);
    Promise { total: length(headers), etag: said("etag"), version: said("x-amz-version-id"), checksum: None }
}
