//! What secret files of this machine hold. Programs and services may have read it, and may print it.

use std::io::Read;

use anyhow::{Context, Result};

use super::System;
use crate::{
    host::process,
    redaction::{self, MAX_FILE_BYTES},
    value::AbsPath,
};

impl System {
    /// Removes what a secret file now holds from all later output of other programs.
    pub fn learn_secret(&self, path: &AbsPath) {
        process::keep_in_memory();
        match self.start_of(path) {
            Ok(bytes) => redaction::learn_file(&bytes),
            // The resource itself reports a file that cannot be read.
            Err(error) => tracing::debug!("other programs may print what {path} holds: {error:#}"),
        }
    }

    /// Reads as much of a file as is known of it later; empty if the file does not exist.
    fn start_of(&self, path: &AbsPath) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(MAX_FILE_BYTES);
        if let Some((file, _)) = self.root().open_file(path)? {
            let mut start = file.take(MAX_FILE_BYTES as u64);
            _ = start.read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
        }
        Ok(bytes)
    }
}
