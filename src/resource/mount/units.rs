//! The unit files of a mount: its own, and drop-ins of its device and of the services that need it.

use std::time::Duration;

use anyhow::Result;

use crate::{
    error::Fault,
    host::{
        root::{FileType, MAX_TEXT_BYTES, Ownership},
        systemd::escape::escape,
    },
    resource::Change,
    system::{Fact, Mode, System, places::Claim},
    value::{AbsPath, Sha256},
};

/// The directory of the administrator's units.
const UNITS: &str = "/etc/systemd/system";
const OWNERSHIP: Ownership = Ownership { uid: 0, gid: 0, mode: 0o644 };

/// A unit file or a drop-in.
#[derive(Debug, Clone)]
pub(super) struct UnitFile {
    /// Its path below the directory of units.
    path: String,
    text: String,
}

impl UnitFile {
    /// Returns the path of a mount's unit file.
    pub(super) fn path_of_mount(at: &AbsPath) -> Result<AbsPath> {
        Self { path: format!("{}.mount", escape(at.as_str())), text: String::new() }.full_path()
    }

    /// Returns the unit of a mount.
    pub(super) fn of_mount(at: &AbsPath, what: &str, kind: &str, options: &str, target: &str) -> Self {
        let text = format!(
            "# Written by glovo-bootstrap.\n[Unit]\nDescription=File system at {at}\n\n[Mount]\nWhat={what}\nWhere={at}\n\
             Type={kind}\nOptions={options}\n\n[Install]\nWantedBy={target}\n"
        );
        Self { path: format!("{}.mount", escape(at.as_str())), text }
    }

    /// Returns the drop-in that limits the wait for a mount's device at boot.
    ///
    /// In a mount unit, `x-systemd.device-timeout` is ignored. systemd writes the same drop-in for fstab(5).
    pub(super) fn of_device(at: &AbsPath, device: &str, wait: Duration) -> Self {
        let milliseconds = wait.as_millis();
        Self {
            path: format!("{}.device.d/50-glovo-bootstrap-{}.conf", escape(device), escape(at.as_str())),
            text: format!("# Written by glovo-bootstrap.\n[Unit]\nJobRunningTimeoutSec={milliseconds}ms\n"),
        }
    }

    /// Returns the drop-in of a service that needs a mount.
    pub(super) fn of_service(at: &AbsPath, service: &str) -> Self {
        Self {
            path: format!("{service}.d/50-glovo-bootstrap-{}.conf", escape(at.as_str())),
            text: format!("# Written by glovo-bootstrap.\n[Unit]\nRequiresMountsFor={at}\n"),
        }
    }

    fn full_path(&self) -> Result<AbsPath> {
        self.path.split('/').try_fold(AbsPath::from(UNITS), |path, part| path.join(&shortened(part)))
    }

    /// Returns the change that writes it; `None` if it is as it should be.
    pub(super) fn plan(self, system: &System) -> Result<Option<Change>> {
        let path = self.full_path()?;
        _ = system.check_place(Claim { path: &path, owner: None, gid: Some(0), makes_parents: true })?;
        let status = system.root().status(&path)?;
        let (verb, now) = match status {
            None => ("create", vec![]),
            Some(status) if status.file_type != FileType::Regular => {
                let fault = Fault::new(format!("{path} is not a regular file"));
                return Err(fault.hint("move it away, so that the unit file can be written").into());
            }
            Some(status) => {
                let now = system.root().read(&path, MAX_TEXT_BYTES)?.unwrap_or_default();
                if now == self.text.as_bytes() && status.ownership == OWNERSHIP {
                    return Ok(None);
                }
                ("write", now)
            }
        };
        let diff = (system.mode() == Mode::Plan).then(|| {
            let mut diff = diffy::DiffOptions::new();
            // The path is in the summary. Here, its escapes would be escaped once more.
            let diff = diff.set_original_filename("now").set_modified_filename("declared");
            diff.create_patch(&String::from_utf8_lossy(&now), &self.text).to_string()
        });
        let facts = [Fact::Path(path.clone()), Fact::Bytes(path.clone(), Sha256::of(self.text.as_bytes()))];
        let change = Change::new(format!("{verb} {path}"), move |system| {
            if let Some(directory) = path.parent() {
                system.root().make_directories(&directory, 0o755)?;
            }
            system.keep_previous(&path)?;
            system.root().write(&path, OWNERSHIP, self.text.as_bytes())
        });
        Ok(Some(change.diff(diff).brings(facts)))
    }
}

/// Returns a file name that is not too long: one that is gets its digest instead of its end.
fn shortened(name: &str) -> String {
    if name.len() < 200 || name.ends_with(".d") || name.ends_with(".mount") {
        return name.to_owned();
    }
    format!("{}-{}.conf", &name[..100], &Sha256::of(name.as_bytes()).to_string()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_drop_in_has_a_length_that_a_file_can_have() {
        let at: AbsPath = format!("/{}", "a-".repeat(40)).parse().unwrap();
        let path = UnitFile::of_service(&at, "app.service").full_path().unwrap();
        assert!(path.leaf().len() < 200 && path.leaf().ends_with(".conf"), "{path}");
        assert!(path.as_str().starts_with("/etc/systemd/system/app.service.d/50-glovo-bootstrap-a"));
    }
}
