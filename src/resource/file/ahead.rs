//! Plain files: those that are written ahead, together with their neighbours.

use anyhow::Result;

use super::File;
use crate::{
    host::root::{FileType, Ownership},
    system::{System, ahead::NewFile},
    value::AbsPath,
};

impl File {
    /// Returns whether its bytes are in the manifest, are no secret, and no program checks them.
    pub(super) fn is_plain(&self, system: &System) -> bool {
        let host = &system.host;
        self.content.is_some()
            && self.validate.is_none()
            && !self.is_secret()
            && !host.is_unit_file(&self.path)
            && host.unit_of_drop_in(&self.path).is_none()
    }

    /// Returns its path.
    pub fn path(&self) -> &AbsPath {
        &self.path
    }

    /// Returns what a run would write in a directory of root's; `None` also if that cannot be said now.
    pub fn to_write(&self, system: &System) -> Option<NewFile<'_>> {
        if system.mounted_at_boot(&self.path).is_some() {
            return None;
        }
        let place = self.place(system).ok().filter(|place| !place.is_a_users)?;
        let differs = match place.status.filter(|status| status.file_type == FileType::Regular) {
            Some(status) => self.content_difference(system, &status).ok()?.is_some(),
            None => true,
        };
        let ((uid, gid), mode) = (place.wanted.0.unwrap_or_default(), place.wanted.1);
        let content = self.bytes().ok()??;
        differs.then_some(NewFile { path: &self.path, ownership: Ownership { uid, gid, mode }, content })
    }

    /// Gives the file its name if it was written ahead. Returns whether it was.
    pub(super) fn put_ahead(&self, system: &System, ownership: Ownership) -> Result<bool> {
        if !system.has_looked_ahead(&self.path) {
            return Ok(false);
        }
        let Some(content) = self.bytes()? else { return Ok(false) };
        system.keep_previous(&self.path)?;
        system.publish_ahead(&NewFile { path: &self.path, ownership, content })
    }
}
