//! The kind `absent`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    error::Fault,
    host::root::{FileStatus, FileType},
    redaction,
    system::{Fact, Mode, System, places::Claim},
    value::{AbsPath, quoted},
};

/// Limits the size of a file whose lines a plan shows.
const MAX_SHOWN_BYTES: u64 = 64 << 10;
/// Limits the number of a directory's entries that a message names.
const MAX_NAMED_ENTRIES: usize = 5;

/// A path at which nothing exists. A file, a symbolic link or an empty directory is removed. A directory with content, a
/// mount point, a device, a socket and a FIFO are never removed: they are an error. A link's target stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// The path, such as `/etc/nginx/sites-enabled/default`.
    path: AbsPath,
}

impl Kind for Absent {
    const NAME: &'static str = "absent";
    const EXAMPLE: &'static str = r#"kind = "absent"
path = "/etc/nginx/sites-enabled/default""#;
}

impl Resource for Absent {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn check(&self) -> Vec<Finding> {
        let is_root = self.path.parent().is_none();
        let of_root = is_root.then(|| Finding::new("path", "`/` cannot be removed"));
        of_root.into_iter().chain(Finding::of_name(&self.path)).collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let absent = Fact::Absent(self.path.clone());
        let Some(status) = system.root().status(&self.path)? else {
            system.expect([absent]);
            return Ok(vec![]);
        };
        _ = system.check_place(Claim { path: &self.path, owner: None, gid: None, makes_parents: false })?;
        let path = self.path.clone();
        let change = match status.file_type {
            FileType::Regular => {
                let summary = format!("remove the file ({} bytes)", status.size);
                Change::new(summary, move |system| remove_file(system, &path)).diff(self.lost(system, &status)?)
            }
            FileType::Link => {
                let target = system.root().read_link(&self.path)?.unwrap_or_default();
                let summary = format!("remove the symbolic link to {}", target.display());
                Change::new(summary, move |system| remove_file(system, &path))
            }
            FileType::Directory => {
                self.check_empty(system)?;
                let absent = Self { path };
                Change::new("remove the empty directory", move |system| absent.remove_directory(system))
            }
            FileType::Special => {
                let message = format!("{path} is a device, a socket or a FIFO, which is not removed");
                let hint = "a program made it: stop that program, or remove it by hand";
                return Err(Fault::new(message).hint(hint).into());
            }
        };
        Ok(vec![change.brings([absent])])
    }
}

fn remove_file(system: &System, path: &AbsPath) -> Result<()> {
    system.keep_previous(path)?;
    system.root().remove(path)
}

impl Absent {
    fn remove_directory(&self, system: &System) -> Result<()> {
        if !system.root().remove_empty_directory(&self.path)? {
            self.check_empty(system)?;
        }
        Ok(())
    }

    /// Fails if the directory has content or is a mount point.
    fn check_empty(&self, system: &System) -> Result<()> {
        let path = &self.path;
        if system.host.is_mount_point(path)? {
            let hint =
                format!("unmount it first, and remove its entry from /etc/fstab: umount {}", quoted(path.as_str()));
            return Err(Fault::new(format!("{path} is a mount point, which is not removed")).hint(hint).into());
        }
        let mut names = system.root().list(path)?;
        // An earlier resource of this plan removes them.
        names.retain(|name| path.join(name).map_or(true, |path| !system.expects(&Fact::Absent(path))));
        if names.is_empty() {
            return Ok(());
        }
        let mut shown = names.iter().take(MAX_NAMED_ENTRIES).map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = names.len().checked_sub(MAX_NAMED_ENTRIES) {
            shown += &format!(" and {more} more");
        }
        Err(Fault::new(format!("{path} is a directory with content, which is not removed: {shown}"))
            .hint("declare the files in it absent too, before it; or move it away by hand")
            .into())
    }

    /// Returns the diff that shows the lines of the file; `None` unless every user may read it.
    fn lost(&self, system: &System, status: &FileStatus) -> Result<Option<String>> {
        let is_public = status.ownership.mode & 0o004 != 0;
        if system.mode() != Mode::Plan || !is_public || status.size > MAX_SHOWN_BYTES {
            return Ok(None);
        }
        let bytes = system.root().read(&self.path, MAX_SHOWN_BYTES)?.unwrap_or_default();
        let Some(text) = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')) else { return Ok(None) };
        let text = redaction::shown_content(&text).into_owned();
        let mut diff = diffy::DiffOptions::new();
        let diff = diff
            .set_original_filename(format!("{} (now)", self.path))
            .set_modified_filename(format!("{} (absent)", self.path));
        Ok(Some(diff.create_patch(&text, "").to_string()))
    }
}
