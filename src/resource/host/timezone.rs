//! The time zone, localtime(5).

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{check, write_text};
use crate::{
    error::Fault,
    host::{calls, root::FileType},
    resource::Change,
    system::{Fact, Mode, System},
    value::AbsPath,
};

/// The link to the file of the time zone.
pub(super) const LINK: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";
/// A text file with the name of the zone, which some distributions have.
const NAME_FILE: &str = "/etc/timezone";

/// The name of a time zone.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Timezone(String);

impl TryFrom<String> for Timezone {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-+_".contains(c);
        let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(is_plain);
        ensure!(
            name.len() < 64 && name.split('/').all(is_part),
            "`{}` is not the name of a time zone, such as `Europe/Berlin` or `UTC`",
            name.escape_debug()
        );
        Ok(Self(name))
    }
}

impl Timezone {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = self.plan_link(system)?.into_iter().collect();
        let name_file = AbsPath::from(NAME_FILE);
        if system.root().status(&name_file)?.is_some() {
            let text = system.root().read_text(&system.root().resolve(&name_file)?)?;
            if text.trim() != self.0 {
                let summary = format!("set {} in {NAME_FILE} (now {})", self.0, text.trim());
                changes.push(write_text(system, &name_file, summary, format!("{}\n", self.0))?);
            }
        }
        Ok(changes)
    }

    fn plan_link(&self, system: &System) -> Result<Option<Change>> {
        let (name, link) = (&self.0, AbsPath::from(LINK));
        self.check_zone(system)?;
        let target = system.root().read_link(&link)?.map(|target| target.to_string_lossy().into_owned());
        let zone =
            target.as_deref().and_then(|target| target.trim_start_matches("..").strip_prefix(ZONES)?.strip_prefix('/'));
        let now = match (zone, system.root().status(&link)?.map(|status| status.file_type)) {
            (Some(now), _) if now == name => return Ok(None),
            (Some(now), _) => now.to_owned(),
            (None, None) => "UTC, because it does not exist".into(),
            (None, Some(FileType::Link)) => format!("a link to {}", target.unwrap_or_default()),
            (None, Some(FileType::Regular)) => "a file".into(),
            (None, Some(_)) => {
                let fault = Fault::new(format!("{LINK} is neither a link nor a file"));
                return Err(fault.hint(format!("move it away: mv {LINK} {LINK}.old")).into());
            }
        };
        check(system, &link)?;
        // As timedatectl writes it.
        let (target, at) = (format!("..{ZONES}/{name}"), link.clone());
        let action = move |system: &System| {
            system.keep_previous(&at)?;
            if system.root().status(&at)?.is_some_and(|status| status.file_type == FileType::Regular) {
                system.root().remove(&at)?;
            }
            system.root().make_link(&at, &target)
        };
        Ok(Some(Change::new(format!("set {name} in {LINK} (now {now})"), action).brings([Fact::Path(link)])))
    }

    /// Fails if the machine does not have the zone, and no earlier planned change may bring it.
    fn check_zone(&self, system: &System) -> Result<()> {
        let path = AbsPath::try_from(format!("{ZONES}/{}", self.0))?;
        let file = system.root().resolve(&path)?;
        let status = system.root().status(&file)?;
        let is_coming = || system.expects(&Fact::Packages) || system.expects(&Fact::Path(path.clone()));
        match status {
            Some(status) if status.file_type == FileType::Regular && is_zone(system, &file)? => Ok(()),
            None if system.mode() == Mode::Plan && is_coming() => Ok(()),
            None if system.root().status(&AbsPath::from(ZONES).join("UTC")?)?.is_none() => {
                let fault = Fault::new(format!("this machine has no time zones: {ZONES} is empty"));
                Err(fault.hint("declare the package `tzdata` in an earlier step").into())
            }
            _ => {
                let fault = Fault::new(format!("this machine has no time zone {}", self.0));
                Err(fault.hint(format!("choose a file below {ZONES}; to list them: timedatectl list-timezones")).into())
            }
        }
    }
}

/// Returns whether a file begins as a time zone does (RFC 8536). Other files are beside the zones: `leapseconds`.
fn is_zone(system: &System, path: &AbsPath) -> Result<bool> {
    let Some((mut file, _)) = system.root().open_file(path)? else { return Ok(false) };
    let mut magic = [0; 4];
    let read = calls::read(&mut file, &mut magic).with_context(|| format!("reading {path}"))?;
    Ok(&magic[..read] == b"TZif")
}
