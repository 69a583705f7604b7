//! The kind `host`.

mod hostname;
mod locale;
mod timezone;

use anyhow::Result;
use nix::unistd::{getegid, geteuid};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{hostname::Hostname, locale::Locale, timezone::Timezone};
use super::{Change, Finding, Kind, Resource};
use crate::{
    error::Fault,
    host::root::Ownership,
    system::{Fact, System, places::Claim},
    value::AbsPath,
};

/// The name, the time zone and the locale of the machine, now and after a reboot. Only the declared fields are managed. An
/// image gets the files alone. Services that run already keep the earlier values until they restart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSettings {
    /// The host name, such as `web-1` or `web-1.example.com`: letters, digits and `-`. It is set in the kernel and in
    /// `/etc/hostname`. If nothing on the machine resolves it, `/etc/hosts` gets a line for it. If cloud-init is installed, a
    /// file in `/etc/cloud/cloud.cfg.d` makes it keep the name. The fact `host.hostname` has the new name from the next
    /// run on.
    #[schemars(with = "Option<String>")]
    hostname: Option<Hostname>,
    /// The time zone, such as `Europe/Berlin`: a file below `/usr/share/zoneinfo`, to which `/etc/localtime` leads. An existing
    /// `/etc/timezone` gets its name.
    #[schemars(with = "Option<String>")]
    timezone: Option<Timezone>,
    /// The locale of new logins and services, such as `en_US.UTF-8` or `C.UTF-8`: `LANG` in the distribution's file,
    /// `/etc/default/locale` or `/etc/locale.conf`. If the machine does not have the locale, `locale-gen` makes it.
    #[schemars(with = "Option<String>")]
    locale: Option<Locale>,
}

impl Kind for HostSettings {
    const NAME: &'static str = "host";
    const EXAMPLE: &'static str = r#"kind = "host"
hostname = "web-1"
timezone = "Europe/Berlin"
locale = "C.UTF-8""#;
}

impl Resource for HostSettings {
    fn title(&self) -> String {
        let hostname = self.hostname.as_ref().map(Hostname::as_str);
        let others = [self.timezone.as_ref().map(Timezone::as_str), self.locale.as_ref().map(Locale::as_str)];
        hostname.into_iter().chain(others.into_iter().flatten()).collect::<Vec<_>>().join(", ")
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        let things = [
            self.hostname.as_ref().map(|_| ("hostname", hostname::FILE.into())),
            self.timezone.as_ref().map(|_| ("timezone", timezone::LINK.into())),
            self.locale.as_ref().map(|_| ("locale", "the machine's locale".into())),
        ];
        things.into_iter().flatten().collect()
    }

    fn check(&self) -> Vec<Finding> {
        if self.owned_things().is_empty() {
            let hint = "declare at least one of `hostname`, `timezone` and `locale`";
            return vec![Finding::new("kind", "nothing is declared").hint(hint)];
        }
        vec![]
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes = vec![];
        if let Some(hostname) = &self.hostname {
            changes.extend(hostname.plan(system)?);
        }
        if let Some(timezone) = &self.timezone {
            changes.extend(timezone.plan(system)?);
        }
        if let Some(locale) = &self.locale {
            changes.extend(locale.plan(system)?);
        }
        Ok(changes)
    }
}

/// Returns the change that writes a text file. An existing file keeps its owner and mode, and a link leads to it as before.
fn write_text(system: &System, path: &AbsPath, summary: String, text: impl Into<Vec<u8>>) -> Result<Change> {
    if system.is_declared(path) {
        let fault = Fault::new(format!("another resource manages {path}"));
        return Err(fault.hint("keep only one of the two resources, or give that file the same value").into());
    }
    let path = system.root().resolve_trusted(path)?;
    check(system, &path)?;
    let (text, facts) = (text.into(), [Fact::Path(path.clone())]);
    let action = move |system: &System| {
        let now = system.root().status(&path)?.map(|status| status.ownership);
        system.keep_previous(&path)?;
        let new = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o644 };
        system.root().write(&path, now.unwrap_or(new), &text)
    };
    Ok(Change::new(summary, action).brings(facts))
}

/// Fails if a run could not write to a path.
fn check(system: &System, path: &AbsPath) -> Result<()> {
    _ = system.check_place(Claim { path, owner: None, gid: None, makes_parents: false })?;
    system.host.check_not_mounted(path)?;
    system.root().check_writable(path)
}
