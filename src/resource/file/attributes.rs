//! The owner and the mode of a file, and what is in its place now.

use anyhow::Result;

use super::File;
use crate::{
    error::Fault,
    host::root::{FileStatus, FileType, Ownership, is_denied},
    resource::{
        Change, Finding,
        ownership::{Ids, attributes, ids, owner, words},
    },
    system::{Fact, System, places::Claim},
    value::quoted,
};

/// The place of a file, with the owner and the mode that the file must have.
pub(super) struct FilePlace {
    pub(super) wanted: (Ids, u32),
    /// What is there now.
    pub(super) status: Option<FileStatus>,
    /// Whether the directory is a user's.
    pub(super) is_a_users: bool,
}

impl File {
    /// Returns the place of the file.
    ///
    /// # Errors
    /// If a run may not write there, or if that would lose or mislead something else.
    pub(super) fn place(&self, system: &System) -> Result<FilePlace> {
        let wanted = self.ownership(system)?;
        let status = system.root().status(&self.path)?;
        let owner = owner(system, self.owner.as_ref())?;
        let gid = wanted.0.map(|(_, gid)| gid);
        let claim = Claim { path: &self.path, owner: Some(&owner), gid, makes_parents: false };
        let is_a_users = system.check_place(claim)?.user.is_some();
        if let Some(status) = &status {
            self.check_replaceable(system, status)?;
        }
        Ok(FilePlace { wanted, status, is_a_users })
    }

    /// Returns the change of the owner and the mode of a file with the right bytes. Unless its content is known here, a
    /// file that would have to be written again stays as it is.
    pub(super) fn plan_attributes(
        &self,
        system: &System,
        place: &FilePlace,
        status: &FileStatus,
        is_known: bool,
    ) -> Result<Vec<Change>> {
        let wanted = place.wanted;
        let differences = attributes(system, &self.path, status, wanted.0, Some(wanted.1))?;
        if differences.is_empty() {
            return Ok(vec![]);
        }
        if Self::must_be_new(&status.ownership, wanted, place.is_a_users) {
            let summary = format!("write again, to set {}", differences.join(", "));
            let again = is_known.then(|| self.write(system, summary, wanted, Some(status)));
            return again.into_iter().collect();
        }
        let path = self.path.clone();
        let change = Change::new(format!("set {}", differences.join(", ")), move |system| {
            let (uid, gid) = wanted.0.unwrap_or_default();
            system.keep_previous(&path)?;
            system.root().own_file(&path, Ownership { uid, gid, mode: wanted.1 }, FileType::Regular)
        });
        Ok(vec![change.brings([Fact::Mode(self.path.clone(), wanted.1)])])
    }

    /// Whether a file with the right bytes is replaced, rather than given to another owner or mode: a user who could
    /// write to it may have it open, and could still. Nor can a user take over the file of another one in its directory.
    /// A user who could only read it gets nothing new: other bytes are always written to a new file.
    pub(in crate::resource) fn must_be_new(now: &Ownership, (ids, mode): (Ids, u32), is_a_users: bool) -> bool {
        let is_given = ids.is_some_and(|(uid, _)| uid != now.uid) && (is_a_users || now.uid != 0);
        let goes_from = |bit: u32, to_another: bool| now.mode & bit != 0 && (mode & bit == 0 || to_another);
        is_given || goes_from(0o020, ids.is_some_and(|(_, gid)| gid != now.gid)) || goes_from(0o002, false)
    }

    /// Returns the summary of the change if the file belongs to another user, and the directory's user may not read it. It is
    /// replaced without a look at its content.
    pub(super) fn replaces_unreadable(
        &self,
        system: &System,
        place: &FilePlace,
        status: &FileStatus,
    ) -> Result<Option<String>> {
        let Ownership { uid, gid, .. } = status.ownership;
        if !place.is_a_users || place.wanted.0.is_none_or(|(owner, _)| owner == uid) {
            return Ok(None);
        }
        match system.root().open_file(&self.path) {
            Err(error) if is_denied(&error) => Ok(Some(format!("replace the file of {}", words(system, uid, gid)?))),
            opened => opened.map(|_| None),
        }
    }

    pub(super) fn ownership(&self, system: &System) -> Result<(Ids, u32)> {
        let default = if self.is_secret() { 0o600 } else { 0o644 };
        Ok((ids(system, self.owner.as_ref(), self.group.as_ref())?, self.mode.map_or(default, |mode| mode.0)))
    }

    /// Returns a doubt if every user of the machine could read a secret. It may be a certificate, which is none.
    pub(super) fn mode_for_all(&self) -> Option<Finding> {
        let mode = self.mode.filter(|mode| self.is_secret() && mode.0 & 0o004 != 0)?;
        let message = format!("mode {:04o} lets every user of the machine read the secret", mode.0);
        let hint = "mode = \"0600\", or mode = \"0640\" and `group` for a group that may read it";
        Some(Finding::new("mode", message).hint(hint))
    }

    /// Fails if replacing the file at the path would lose or mislead something else.
    fn check_replaceable(&self, system: &System, status: &FileStatus) -> Result<()> {
        let fault = match status.file_type {
            FileType::Directory => Fault::new(format!("{} is a directory, not a file", self.path))
                .hint("move it away, or declare another path"),
            FileType::Special => Fault::new(format!("{} is a device, socket or FIFO", self.path))
                .hint("move it away, or declare another path"),
            FileType::Regular if status.links > 1 => {
                Fault::new(format!("{} has {} names (hard links)", self.path, status.links)).hint(format!(
                    "remove the other names, which would keep the old content; to find them: find / -xdev -samefile {}",
                    quoted(self.path.as_str())
                ))
            }
            FileType::Regular => return Ok(()),
            FileType::Link => {
                tracing::debug!(path = %self.path, target = ?system.root().read_link(&self.path)?, "a link will be replaced");
                return Ok(());
            }
        };
        Err(fault.into())
    }
}
