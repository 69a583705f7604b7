//! Stamps of files in records: they differ if a file has changed, and tell nothing about a secret in it.

use anyhow::Result;

use super::System;
use crate::{
    host::root::FileType,
    value::{AbsPath, Sha256},
};

impl System {
    /// Returns the stamp of the file that a path leads to; in a plan, after the earlier planned changes. It is the file's
    /// digest. That of a private file is made of its inode, its size and its modification time: the digest of a short
    /// secret could be guessed.
    pub fn stamp(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        if !self.is_private(path)? {
            return self.digest(path);
        }
        let status = self.root().status(&self.root().resolve(path)?)?;
        Ok(status.map(|status| Sha256::of(format!("private {:?}", &status.identity[1..5]).as_bytes())))
    }

    /// Returns whether a recorded stamp is that of the present file, whose stamp is `now`.
    pub fn has_stamp(&self, path: &AbsPath, recorded: &Option<Sha256>, now: &Option<Sha256>) -> Result<bool> {
        // Earlier versions of this program recorded the digests of private files, too.
        Ok(recorded == now || (now.is_some() && self.is_private(path)? && *recorded == self.digest(path)?))
    }

    /// Returns whether a path leads to a file that only its owner can read, and that no planned change writes.
    fn is_private(&self, path: &AbsPath) -> Result<bool> {
        let file = self.root().resolve(path)?;
        let is_coming = [path, &file].iter().any(|path| self.expected_digest(path).is_some() || self.is_removed(path));
        let status = if is_coming { None } else { self.root().status(&file)? };
        let is_open = |mode: u32| mode & 0o077 != 0;
        Ok(status.is_some_and(|status| status.file_type == FileType::Regular && !is_open(status.ownership.mode)))
    }
}
