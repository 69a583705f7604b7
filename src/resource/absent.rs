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
/// mount point, a device, a socket, a FIFO and the files of `/proc` and `/sys` are never removed: they are an error. A
/// link's target stays. No other resource can make or need the path.
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

    fn removes_its_path(&self) -> bool {
        true
    }

    fn check(&self) -> Vec<Finding> {
        let is_root = self.path.parent().is_none();
        let refused = if is_root { Some("`/` cannot be removed".into()) } else { of_kernel(&self.path) };
        let refused = refused.map(|message| Finding::new("path", message));
        refused.into_iter().chain(Finding::of_name(&self.path)).collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let Some(status) = system.root().status(&self.path)? else { return self.plan_missing(system) };
        let place = system.check_place(self.claim(false))?;
        if let Some(message) = of_kernel(&place.path) {
            return Err(Fault::new(message).into());
        }
        let facts = [Fact::Absent(self.path.clone()), Fact::Absent(place.path.clone())];
        let path = self.path.clone();
        let change = match status.file_type {
            FileType::Regular => {
                self.check_not_mounted(system)?;
                let summary = format!("remove the file ({} bytes)", status.size);
                Change::new(summary, move |system| remove_file(system, &path)).diff(self.lost(system, &status)?)
            }
            FileType::Link => {
                let target = system.root().read_link(&self.path)?.unwrap_or_default();
                let summary = format!("remove the symbolic link to {}", target.display());
                Change::new(summary, move |system| remove_file(system, &path))
            }
            FileType::Directory => {
                self.check_not_mounted(system)?;
                self.check_empty(system, &place.path)?;
                let (absent, real) = (Self { path }, place.path);
                Change::new("remove the empty directory", move |system| absent.remove_directory(system, &real))
            }
            FileType::Special => {
                let message = format!("{path} is a device, a socket or a FIFO, which is not removed");
                let hint = "a program made it: stop that program, or remove it by hand";
                return Err(Fault::new(message).hint(hint).into());
            }
        };
        Ok(vec![change.brings(facts)])
    }
}

/// Returns the fault if the kernel makes the files at a path.
fn of_kernel(path: &AbsPath) -> Option<String> {
    let is_in = |directory: &str| path.as_str() == directory || path.ancestors().any(|above| above == directory);
    ["/proc", "/sys"].into_iter().any(is_in).then(|| format!("`{path}` cannot be removed: the kernel makes it"))
}

fn remove_file(system: &System, path: &AbsPath) -> Result<()> {
    system.keep_previous(path)?;
    system.root().remove(path)
}

impl Absent {
    fn claim(&self, makes_parents: bool) -> Claim<'_> {
        Claim { path: &self.path, owner: None, gid: None, makes_parents }
    }

    /// Returns the change of a plan if nothing exists at the path yet, but an earlier planned change makes it or may.
    fn plan_missing(&self, system: &System) -> Result<Vec<Change>> {
        let real = system.root().resolve(&self.path)?;
        let is_made = [&self.path, &real].into_iter().any(|path| system.expects(&Fact::Path(path.clone())));
        let summary = match system.mode() {
            Mode::Plan if is_made => "remove it after an earlier resource has made it",
            Mode::Plan if system.expects(&Fact::Packages) => "remove it, if an earlier resource brings it",
            Mode::Plan | Mode::Run => {
                system.expect([Fact::Absent(self.path.clone())]);
                return Ok(vec![]);
            }
        };
        _ = system.check_place(self.claim(true))?;
        let path = self.path.clone();
        let change = Change::new(summary, move |system| remove_file(system, &path));
        Ok(vec![change.brings([Fact::Absent(self.path.clone()), Fact::Absent(real)])])
    }

    fn remove_directory(&self, system: &System, real: &AbsPath) -> Result<()> {
        if !system.root().remove_empty_directory(&self.path)? {
            self.check_empty(system, real)?;
        }
        Ok(())
    }

    /// Fails if a file system is mounted at the path.
    fn check_not_mounted(&self, system: &System) -> Result<()> {
        let path = &self.path;
        if !system.host.is_mount_point(path)? {
            return Ok(());
        }
        let hint = format!("unmount it first, and remove its entry from /etc/fstab: umount {}", quoted(path.as_str()));
        Err(Fault::new(format!("{path} is a mount point, which is not removed")).hint(hint).into())
    }

    /// Fails if the directory has content. `real` is its path without links.
    fn check_empty(&self, system: &System, real: &AbsPath) -> Result<()> {
        let path = &self.path;
        let names = system.names_in(real)?;
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
