//! The kind `hostname`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    host::command::Program,
    resource::{Change, Finding, Kind, Resource},
    system::System,
};

/// The machine's host name, now and after a reboot.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hostname {
    /// The name, such as `web-1`: letters, digits and `-`.
    name: String,
}

impl Kind for Hostname {
    const NAME: &'static str = "hostname";
    const EXAMPLE: &'static str = r#"kind = "hostname"
name = "web-1""#;
}

impl Resource for Hostname {
    fn title(&self) -> String {
        self.name.clone()
    }

    fn check(&self) -> Vec<Finding> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !self.name.is_empty() && !self.name.starts_with('-') && self.name.chars().all(is_plain) {
            return vec![];
        }
        vec![Finding::new("name", "not a host name").hint("use letters, digits and `-`")]
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        // An image has no host name: each machine gets its own.
        if !system.is_live() {
            return Ok(vec![Change::deferred(format!("set (deferred: {})", system.why_not_live()))]);
        }
        let now = system.root().read_text(&"/etc/hostname".into())?;
        if now.trim() == self.name {
            return Ok(vec![]);
        }
        let command = Program::new(["hostnamectl", "set-hostname", &self.name]);
        let summary = format!("set {} (now {})", self.name, now.trim());
        Ok(vec![Change::new(summary, move |system| system.host.run_checked(&command).map(drop))])
    }
}
