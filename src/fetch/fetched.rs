//! The result of a download.

use std::{fs::File, sync::Arc, time::Instant};

use anyhow::Result;

use crate::{host::root::Staged, value::Sha256};

/// A complete, verified download: a file on the disk, which is removed when this is dropped.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes, positioned at the start.
    pub file: Arc<File>,
    /// The staged file; `None` if it has no name.
    pub(super) part: Option<Staged>,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that an earlier, interrupted process had received.
    pub resumed: u64,
    /// The origin's strong validator of these bytes, if it sent one.
    pub etag: Option<String>,
}

impl Fetched {
    /// Moves its bytes into a staged file: by a rename, or by a copy to another file system.
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
    /// The source that delivered it, without its query.
    pub source: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The time of its start: with the run, or when the run needed it.
    pub began: Instant,
    /// The time when the run needed it.
    pub wanted: Instant,
    /// The time when it was complete and verified.
    pub ended: Instant,
}
