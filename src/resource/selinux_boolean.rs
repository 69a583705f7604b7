//! The kind `selinux_boolean`.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Kind, Resource};
use crate::{error::Fault, system::System};

/// A boolean of the SELinux policy, now and after a reboot. Nothing is done on a machine without SELinux, or while SELinux
/// is permissive and refuses nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelinuxBoolean {
    /// Its name, such as `httpd_can_network_connect`, with which nginx may connect to an application.
    name: BooleanName,
    /// Whether it is on.
    value: bool,
}

/// The name of a boolean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^[A-Za-z][A-Za-z0-9_]*$"))]
struct BooleanName(String);

impl TryFrom<String> for BooleanName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(
            name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_plain),
            "`{}` is not the name of an SELinux boolean: use letters, digits and `_`",
            name.escape_debug()
        );
        Ok(Self(name))
    }
}

impl Kind for SelinuxBoolean {
    const NAME: &'static str = "selinux_boolean";
    const EXAMPLE: &'static str = r#"kind = "selinux_boolean"
name = "httpd_can_network_connect"
value = true"#;
}

impl Resource for SelinuxBoolean {
    fn title(&self) -> String {
        self.name.0.clone()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("name", format!("the SELinux boolean {}", self.name.0))]
    }

    fn why_not_here(&self, system: &System) -> Option<&'static str> {
        let host = &system.host;
        // An error is the plan's.
        if !system.is_live() {
            return matches!(host.will_enforce_selinux(), Ok(false)).then_some("the boot will not enforce SELinux");
        }
        match (host.has_selinux(), host.enforces_selinux()) {
            (Ok(false), _) => Some("SELinux is off"),
            (Ok(true), Ok(false)) => Some("SELinux is permissive, so it refuses nothing"),
            _ => None,
        }
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let (name, value) = (self.name.0.clone(), self.value);
        if !system.is_live() {
            let summary =
                format!("set {} (deferred: {})", words(value), system.why_not_live_or("an image has no kernel"));
            return Ok(vec![Change::deferred(summary)]);
        }
        let Some(now) = system.host.selinux_boolean(&name)? else {
            let fault = Fault::new(format!("the SELinux policy has no boolean {name}"));
            return Err(fault.hint("correct the name; list the names: getsebool -a").into());
        };
        let summary = match system.host.selinux_boolean_at_boot(&name)? {
            Some(at_boot) if now == value && at_boot == value => return Ok(vec![]),
            _ if now == value => format!("set {} for the boot, too", words(value)),
            _ => format!("set {} (now {})", words(value), words(now)),
        };
        system.check_program_exists("setsebool")?;
        Ok(vec![Change::new(summary, move |system| system.host.set_selinux_boolean(&name, value))])
    }
}

fn words(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}
