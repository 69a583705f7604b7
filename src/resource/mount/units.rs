//! The unit files of a mount: its own, and drop-ins of its device and of the services that need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
pub(in crate::resource) struct UnitFile {
    /// Its path below the directory of units.
    path: String,
    text: String,
    ownership: Ownership,
}

impl UnitFile {
    /// Makes a unit file, or a drop-in such as `app.service.d/50-limits.conf`.
    pub(in crate::resource) fn new(path: String, text: String) -> Self {
        Self { path, text, ownership: OWNERSHIP }
    }

    /// Makes the drop-in of a unit, whose name sorts it between those of the distribution and of the administrator.
    pub(in crate::resource) fn drop_in(unit: &str, name: &str, text: String) -> Self {
        Self::new(format!("{unit}.d/50-{name}.conf"), text)
    }

    /// Makes a file beside the drop-ins that only root can read.
    pub(in crate::resource) fn private(path: String, text: String) -> Self {
        Self { path, text, ownership: Ownership { mode: 0o600, ..OWNERSHIP } }
    }

    /// Returns the path of a mount's unit file.
    pub(super) fn path_of_mount(at: &AbsPath) -> Result<AbsPath> {
        Self::new(format!("{}.mount", escape(at.as_str())), String::new()).full_path()
    }

    /// Returns the unit of a mount.
    pub(super) fn of_mount(at: &AbsPath, what: &str, kind: &str, options: &str, target: &str) -> Self {
        let text = format!(
            "# Written by glovo-bootstrap.\n[Unit]\nDescription=File system at {at}\n\n[Mount]\nWhat={what}\nWhere={at}\n\
             Type={kind}\nOptions={options}\n\n[Install]\nWantedBy={target}\n"
        );
        Self::new(format!("{}.mount", escape(at.as_str())), text)
    }

    /// Returns the drop-in that limits the wait for a mount's device at boot.
    ///
    /// In a mount unit, `x-systemd.device-timeout` is ignored. systemd writes the same drop-in for fstab(5).
    pub(super) fn of_device(at: &AbsPath, device: &str, wait: Duration) -> Self {
        let milliseconds = wait.as_millis();
        Self::drop_in(
            &format!("{}.device", escape(device)),
            &format!("glovo-bootstrap-{}", escape(at.as_str())),
            format!("# Written by glovo-bootstrap.\n[Unit]\nJobRunningTimeoutSec={milliseconds}ms\n"),
        )
    }

    /// Returns the drop-in of a service that needs a mount.
    pub(super) fn of_service(at: &AbsPath, service: &str) -> Self {
        Self::drop_in(
            service,
            &format!("glovo-bootstrap-{}", escape(at.as_str())),
            format!("# Written by glovo-bootstrap.\n[Unit]\nRequiresMountsFor={at}\n"),
        )
    }

    pub(in crate::resource) fn full_path(&self) -> Result<AbsPath> {
        self.path.split('/').try_fold(AbsPath::from(UNITS), |path, part| path.join(&shortened(part)))
    }

    /// Returns the change that writes it; `None` if it is as it should be.
    pub(in crate::resource) fn plan(self, system: &System) -> Result<Option<Change>> {
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
                if now == self.text.as_bytes() && status.ownership == self.ownership {
                    return Ok(None);
                }
                ("write", now)
            }
        };
        let diff = (system.mode() == Mode::Plan).then(|| {
            if self.ownership.mode != OWNERSHIP.mode {
                return names_that_differ(&String::from_utf8_lossy(&now), &self.text);
            }
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
            system.root().write(&path, self.ownership, self.text.as_bytes())
        });
        Ok(Some(change.diff(diff).brings(facts)))
    }
}

/// Returns a diff of two files of assignments without the values: `-NAME` and `+NAME`.
fn names_that_differ(now: &str, declared: &str) -> String {
    let (old, new) = (assignments(now), assignments(declared));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut diff = String::new();
    for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
        for (sign, _) in [("-", &old), ("+", &new)].into_iter().filter(|(_, texts)| texts.contains_key(name)) {
            diff.extend([sign, name, "\n"]);
        }
    }
    diff
}

/// Returns the lines of each assignment of a file. A line of a value cannot look like one, because a quote in it has a
/// backslash before it.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut found = BTreeMap::<String, String>::new();
    let mut name = None;
    for line in text.lines() {
        name = line.split_once("=\"").map(|(name, _)| name.to_owned()).filter(|name| is_plain(name)).or(name);
        if let Some(name) = &name {
            *found.entry(name.clone()).or_default() += &[line, "\n"].concat();
        }
    }
    found
}

/// Returns the changes that remove those of these files that exist.
pub(in crate::resource) fn removals(paths: impl IntoIterator<Item = AbsPath>, system: &System) -> Result<Vec<Change>> {
    let mut changes = vec![];
    for path in paths {
        if system.root().status(&path)?.is_none() {
            continue;
        }
        let facts = [Fact::Absent(path.clone())];
        let change = Change::new(format!("remove {path}"), move |system| {
            system.keep_previous(&path)?;
            system.root().remove(&path)
        });
        changes.push(change.brings(facts));
    }
    Ok(changes)
}

/// Returns the paths of the drop-ins with a name that services have, in the order of the services.
pub(in crate::resource) fn drop_ins_of_services(name: &str, system: &System) -> Result<Vec<AbsPath>> {
    let directories = system.root().list(&UNITS.into())?;
    let services =
        directories.iter().filter_map(|name| name.strip_suffix(".d")).filter(|unit| unit.ends_with(".service"));
    services.map(|unit| UnitFile::drop_in(unit, name, String::new()).full_path()).collect()
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
