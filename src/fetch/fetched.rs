//! What a download ends with.

use std::{fs::File, sync::Arc, time::Instant};

use anyhow::Result;

use crate::{host::root::Staged, value::Sha256};

/// A complete, verified download: a file on the disk, gone when dropped.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes, positioned at the start.
    pub file: Arc<File>,
    /// The file itself, where it has a temporary name and so can get another.
    pub(super) part: Option<Staged>,
    /// Their digest.
    pub sha256: Sha256,
    /// Their number.
    pub size: u64,
    /// How many of them an earlier, cut-off process had received.
    pub resumed: u64,
    /// The origin's validator for these bytes, if it gave a strong one.
    pub etag: Option<String>,
}

impl Fetched {
    /// Makes its bytes those of a staged file: by a rename, or by a copy to another file system.
    pub fn hand_over(&mut self, staged: &mut Staged) -> Result<()> {
        if let Some(part) = self.part.take() {
            let Some(part) = staged.take(part)? else { return Ok(()) };
            self.part = Some(part);
        }
        _ = staged.copy_from(&mut self.file)?;
        Ok(())
    }
}

/// A download that was handed over, with its times.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which source delivered it, as it may be shown.
    pub source: String,
    /// Number of its bytes.
    pub bytes: u64,
    /// When it was begun: with the run, or when it was wanted.
    pub began: Instant,
    /// When it was asked for.
    pub wanted: Instant,
    /// When it was complete and verified.
    pub ended: Instant,
}
