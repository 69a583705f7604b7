//! What secret files of this machine hold. Programs and services may have read it, and may print it.

use super::System;
use crate::{host::process, redaction, value::AbsPath};

/// Limits a file that is read for this.
const MAX_BYTES: u64 = 1 << 20;

impl System {
    /// Removes what a secret file now holds from all later output of other programs.
    pub fn learn_secret(&self, path: &AbsPath) {
        process::keep_in_memory();
        match self.root().read(path, MAX_BYTES) {
            Ok(bytes) => redaction::learn_file(&bytes.unwrap_or_default()),
            // The resource itself reports a file that cannot be read.
            Err(error) => tracing::debug!("other programs may print what {path} holds: {error:#}"),
        }
    }
}
