//! The booleans of the SELinux policy; booleans(8).

use anyhow::Result;

use super::{Host, command::Program};
use crate::value::AbsPath;

impl Host {
    /// Returns whether the kernel refuses what the policy does not allow; false without SELinux.
    pub fn enforces_selinux(&self) -> Result<bool> {
        Ok(self.root().read_text(&"/sys/fs/selinux/enforce".into())?.trim() == "1")
    }

    /// Returns whether the kernel has SELinux turned on.
    pub fn has_selinux(&self) -> Result<bool> {
        Ok(self.root().status(&"/sys/fs/selinux/enforce".into())?.is_some())
    }

    /// Returns whether the configuration says that a machine enforces the policy from its boot on.
    pub fn will_enforce_selinux(&self) -> Result<bool> {
        Ok(self.root().selinux_setting("SELINUX")?.is_some_and(|mode| mode.eq_ignore_ascii_case("enforcing")))
    }

    /// Returns the value that the kernel has for a boolean; `None` if its policy has no such boolean.
    pub fn selinux_boolean(&self, name: &str) -> Result<Option<bool>> {
        let path: AbsPath = format!("/sys/fs/selinux/booleans/{name}").parse()?;
        // The value now, and the one that waits for a commit.
        Ok(self.root().read_text(&path)?.split_whitespace().next().map(|now| now == "1"))
    }

    /// Returns the value that an administrator has given to a boolean for the boot; `None` if it has the policy's default.
    pub fn selinux_boolean_at_boot(&self, name: &str) -> Result<Option<bool>> {
        let policy = self.root().selinux_policy()?;
        // The file that libsemanage writes.
        let text = self.root().read_text(&format!("/var/lib/selinux/{policy}/active/booleans.local").parse()?)?;
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        Ok(lines.find(|(other, _)| other.trim() == name).map(|(_, value)| value.trim() == "1"))
    }

    /// Gives a boolean a value, now and for the boot.
    pub fn set_selinux_boolean(&self, name: &str, value: bool) -> Result<()> {
        let command = Program::new(["setsebool", "-P", name, if value { "on" } else { "off" }]);
        self.run_checked(&command).map(drop)
    }
}
