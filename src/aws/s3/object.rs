//! An object, and the answers to a request for its bytes.

use reqwest::Response;
use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use crate::error::Fault;

/// The object that a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct S3Object<'a> {
    /// The bucket's name.
    pub(crate) bucket: &'a str,
    /// Its key.
    pub(crate) key: &'a str,
    /// Its version; the newest without one.
    pub(crate) version: Option<&'a str>,
}

/// The promise of an origin about the bytes that it sends. An HTTP server promises less than S3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promise {
    /// Their number.
    pub(crate) total: Option<u64>,
    /// A strong validator, which differs for other bytes.
    pub(crate) etag: Option<String>,
    /// S3's version of the object.
    pub(crate) version: Option<String>,
    /// S3's checksum.
    pub(crate) checksum: Option<Checksum>,
}

impl Promise {
    /// Returns the validator of the bytes: the version, where the bucket keeps them, and the `ETag`.
    pub(crate) fn validator(self) -> Option<String> {
        match (self.version, self.etag) {
            (Some(version), Some(etag)) => Some(format!("{version} {etag}")),
            (one, other) => one.or(other),
        }
    }
}

/// The answer of an origin to a request for bytes.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All bytes, from the first one on.
    Whole(Response, Promise),
    /// The requested range of the promised bytes.
    Part(Response),
    /// Neither: the bytes are no longer the promised ones, or the origin does not send ranges of them.
    Changed(Fault),
}
