//! Downloads: `https`, `http`, `s3` and `file` sources, started early and handed over when complete.

mod source;

use std::fs::File;

use anyhow::{Result, bail};

pub use self::source::Source;
use super::System;
use crate::value::Sha256;

/// Something to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where from.
    pub source: Source,
    /// What its bytes must hash to; bytes that don't are never handed over.
    pub sha256: Option<Sha256>,
}

/// A complete, verified download: an anonymous file on the disk, gone when dropped or when the process dies.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes, positioned at the start.
    pub file: File,
    /// Their digest.
    pub sha256: Sha256,
    /// Their number.
    pub size: u64,
    /// The origin's validator for these bytes, if it gave a strong one.
    pub etag: Option<String>,
}

/// An answer to a probe.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl System {
    /// Starts downloads in the background; [`System::fetch`] of the same download waits for them.
    pub fn prefetch(&self, _downloads: Vec<Download>) {}

    /// Downloads, or waits for a prefetch of the same.
    pub fn fetch(&self, download: &Download) -> Result<Fetched> {
        bail!("{}: not yet", download.source)
    }

    /// The origin's strong validator (`ETag`, or S3 version and `ETag`) for what it would send now.
    pub fn etag(&self, source: &Source) -> Result<Option<String>> {
        bail!("{source}: not yet")
    }

    /// One GET, without redirects and without reading the body beyond 64 KiB.
    pub fn probe(&self, url: &str) -> Result<Answer> {
        bail!("{url}: not yet")
    }

    /// A fact about this EC2 instance, asked of the metadata service: `id`, `region`,
    /// `availability_zone`, `type`, `account`, `ami`, `tags.NAME`.
    pub fn instance(&self, name: &str) -> Result<String> {
        bail!("instance.{name}: not yet")
    }
}
