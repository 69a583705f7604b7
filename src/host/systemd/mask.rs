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
        for path in unit_files(name).filter(|path| path.leaf() == name) {
            // The first file counts, systemd.unit(5).
            if let Some(status) = self.root().status(&path)? {
                let is_mask = match status.file_type {
                    FileType::Link => self.root().resolve(&path)?.as_str() == "/dev/null",
                    FileType::Regular => status.size == 0,
                    FileType::Directory | FileType::Special => false,
                };
                return Ok(is_mask.then_some(path));
            }
        }
        Ok(None)
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
