//! What the fuzz targets in `fuzz/` need of this module: its parsers, and a system that waits for nothing.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use aws_sdk_s3::primitives::DateTime;

use super::{Fetcher, Settings, range, retry};
use crate::system::{Mode, System, interrupt::Interrupt};

/// Reads a `Content-Range`: the first byte's number, the number after the last one's, and the whole's length.
pub fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    range::content_range(value).map(|range| (range.start, range.end, range.total))
}

/// Whether a `Content-Range` answers a request for these bytes, up to the end without one, of so many.
pub fn is_answered_by(start: u64, end: Option<u64>, value: &str, total: Option<u64>) -> bool {
    range::Range { start, end }.is_answered_by(value, total)
}

/// Reads a `Retry-After`, at so many seconds since 1970.
pub fn retry_after(value: &str, now: i64) -> Option<Duration> {
    retry::retry_after(value, DateTime::from_secs(now))
}

/// A system on a tree, which trusts nobody and gives up soon.
pub fn system(tree: &Path) -> Result<System> {
    let pace = retry::Pace { attempts: 3, first: Duration::ZERO, longest: Duration::ZERO, obedience: Duration::ZERO };
    let settings = Settings {
        pace,
        stall: Duration::from_secs(1),
        roots: Some(Arc::new(rustls::RootCertStore::empty())),
        ..Settings::default()
    };
    let mut system = System::open(tree, Mode::Run, Interrupt::default())?;
    system.fetcher = Fetcher { settings, ..Fetcher::default() };
    Ok(system)
}
