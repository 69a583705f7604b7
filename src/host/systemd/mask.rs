//! Masks: links to `/dev/null` in place of a unit's file. systemd starts no masked unit.

use anyhow::Result;

use super::unit_files;
use crate::{
    host::{Host, command::Program, root::FileType},
    value::AbsPath,
};

impl Host {
    /// Returns the path that masks a unit: a link to `/dev/null`, or an empty file, in place of its unit file.
    pub fn mask_of(&self, name: &str) -> Result<Option<AbsPath>> {
        Ok(self.masks_of(name)?.into_iter().next())
    }

    /// Returns the paths that mask a unit one below the other, down to its unit file.
    pub fn masks_of(&self, name: &str) -> Result<Vec<AbsPath>> {
        let mut masks = vec![];
        for path in unit_files(name).filter(|path| path.leaf() == name) {
            // The first file counts, systemd.unit(5).
            let Some(status) = self.root().status(&path)? else { continue };
            let is_mask = match status.file_type {
                FileType::Link => self.root().resolve(&path)?.as_str() == "/dev/null",
                FileType::Regular => status.size == 0,
                FileType::Directory | FileType::Special => false,
            };
            if !is_mask {
                break;
            }
            masks.push(path);
        }
        Ok(masks)
    }

    /// Returns the unit of which a name is only an alias: its file is a link to the file of that unit.
    pub fn alias_of(&self, name: &str) -> Result<Option<String>> {
        let Some(path) = self.unit_file(name)? else { return Ok(None) };
        let file = self.root().resolve(&path)?;
        let is_alias = file.leaf() != path.leaf() && self.is_unit_file(&file);
        Ok(is_alias.then(|| file.leaf().to_owned()))
    }

    /// Masks a unit in `/etc`: with systemd on a machine, with the link alone in an image.
    pub fn mask(&self, name: &str) -> Result<()> {
        self.run_checked(&Program::new(["systemctl", "--quiet", "mask", name])).map(drop)
    }

    /// Removes a unit's mask in `/etc` or `/run`.
    pub fn unmask(&self, name: &str, mask: &AbsPath) -> Result<()> {
        let mut command = Program::new(["systemctl", "--quiet", "unmask"]);
        if mask.as_str().starts_with("/run/") {
            command = command.arg("--runtime");
        }
        self.run_checked(&command.arg(name)).map(drop)
    }
}
