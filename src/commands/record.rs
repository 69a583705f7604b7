//! The record of the manifest and the variables that this machine's user-data named. A run over SSH uses it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::instance_object::InstanceObjects,
    cli,
    error::Fault,
    host::{
        root::{host_path, trusted::Trusted},
        state,
    },
    manifest::location::{Location, is_url, machine_variables, variables_file},
    system::System,
    value::quoted,
    view,
};

/// The record's file in the state directory; mode 0600, like every state file.
pub const FILE: &str = "manifest.json";
/// The recorder `run --record`.
pub const USER_DATA: &str = "user-data";
/// The recorder `install`.
pub const INSTALL: &str = "install";

/// The manifest and variables that user-data named.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The machine's identity; see [`System::identity`]. A record of another machine is ignored.
    machine: Option<String>,
    /// What recorded it: `user-data` or `install`.
    #[serde(default = "user_data")]
    by: String,
    /// The time, RFC 3339, UTC.
    recorded: String,
    /// The value of `--steps`; `None` if it cannot be recorded: standard input, or a URL that may hold a secret.
    steps: Option<String>,
    /// Files of variables, by their paths or URLs. Their values are not recorded: they may be secrets.
    variables: Vec<String>,
    /// `NAME=VALUE`. Only root can read the values.
    set: Vec<String>,
    /// Names of variables whose values are not recorded: those of secret files, and URLs that may hold a secret.
    withheld: Vec<String>,
    /// The value of `--failures`.
    #[serde(default)]
    failures: Option<String>,
}

impl Record {
    /// Returns the record of a run's arguments.
    ///
    /// # Errors
    /// If a path does not exist, or a file of variables is at a URL that may hold a secret.
    pub fn of(arguments: &cli::ManifestArgs, system: &System, by: &str) -> Result<Self> {
        let location = Location::choose(arguments.steps.as_deref())?;
        let steps = match (&location, &arguments.steps) {
            (Location::Stdin, _) => None,
            (Location::Url(..), Some(url)) => (!may_hold_a_secret(url)).then(|| url.clone()),
            (Location::Path(path), _) => Some(path.to_string()),
            _ => Some("built-in".into()),
        };
        if let Some(url) = arguments.variables.iter().find(|url| may_hold_a_secret(url)) {
            let url = url.split('?').next().unwrap_or_default();
            let fault = Fault::new(format!("{url} cannot be recorded: its query may hold a secret"));
            return Err(fault.hint("use a URL without a query, or an object of a private bucket").invalid().into());
        }
        let absolute = |file: &String| {
            if is_url(file) { Ok(file.clone()) } else { host_path(file).map(|path| path.to_string()) }
        };
        let (withheld, set): (Vec<_>, _) =
            arguments.set.iter().cloned().partition(|assignment| may_hold_a_secret(assignment));
        let name = |assignment: &String| assignment.split('=').next().unwrap_or_default().to_owned();
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).context("telling the time")?;
        Ok(Self {
            machine: system.host.identity(),
            by: by.into(),
            recorded: now.format(&Rfc3339).context("telling the time")?,
            steps,
            variables: arguments.variables.iter().map(absolute).collect::<Result<_>>()?,
            set,
            withheld: withheld.iter().chain(&arguments.set_secret_file).map(name).collect(),
            failures: None,
        })
    }

    /// Returns whether both name the same manifest and variables.
    pub fn has_manifest_of(&self, other: &Self) -> bool {
        let of = |record: &Self| (record.steps.clone(), record.variables.clone(), record.set.clone());
        self.withheld.is_empty() && other.withheld.is_empty() && of(self) == of(other)
    }

    /// Reads the record of this machine, if there is one.
    fn read(system: &System) -> Result<Option<Self>> {
        let record: Option<Self> = state::load(system.root(), FILE).map_err(|error| {
            Fault::new("the record of user-data's arguments cannot be read")
                .hint("run it as root, or pass --steps PATH or --steps built-in")
                .invalid()
                .caused_by(error)
        })?;
        Ok(record.filter(|record| record.machine == system.host.identity()))
    }

    /// Returns whether a run without arguments uses the record, and not the usual manifest.
    fn is_used(&self, usual: &Location) -> bool {
        *usual == Location::BuiltIn || self.steps == Some(usual.to_string())
    }

    /// Adds the arguments of a run to the record's and to the machine's own variables. Later values count.
    ///
    /// # Errors
    /// If the record lacks something that neither the machine nor the arguments give.
    fn complete(self, own: Option<String>, given: cli::ManifestArgs, told: Told) -> Result<cli::ManifestArgs> {
        let by = &self.by;
        let Some(steps) = self.steps else {
            let message = format!(
                "the manifest that {by} named is not recorded: it came from standard input or its URL may hold a secret"
            );
            let hint = match &**by {
                INSTALL => "write it to a file below /etc/glovo-bootstrap, and name that",
                _ => "pass --steps PATH or --steps 'URL#sha256=HEX'",
            };
            return Err(Fault::new(message).hint(hint).invalid().into());
        };
        let of_machine: toml::Table = match &own {
            Some(file) => variables_file(file)?.text.parse().unwrap_or_default(),
            None => toml::Table::new(),
        };
        let assignments = given.set.iter().chain(&given.set_secret_file);
        let is_set = |name: &str| assignments.clone().any(|set| set.split('=').next() == Some(name));
        let is_given = |name: &&String| is_set(name) || of_machine.contains_key(name.as_str());
        if let Some(name) = self.withheld.iter().find(|name| !is_given(name)) {
            let message = format!("the value of `{name}` that {by} gave is not recorded: it may be a secret");
            let line = format!("a line `{name} = \"VALUE\"` in /etc/glovo-bootstrap/variables.toml");
            let hint = if by == INSTALL {
                format!("write {line}")
            } else {
                format!("--set-secret-file {name}=FILE, or {line}")
            };
            return Err(Fault::new(message).hint(hint).invalid().into());
        }
        if told == Told::InALine {
            let location = Location::choose(Some(&steps))?;
            view::complain(format!("using {location} as recorded by {by} on {}", self.recorded));
        }
        Ok(cli::ManifestArgs {
            steps: Some(steps),
            set: [self.set, given.set].concat(),
            set_secret_file: given.set_secret_file,
            variables: [own.into_iter().collect(), self.variables, given.variables].concat(),
            ..cli::ManifestArgs::default()
        })
    }
}

/// Returns the arguments of a later run without arguments, if `install` records these.
///
/// # Errors
/// If that run would use another manifest, or refuse the record. It is started by systemd: the user that called sudo
/// is not trusted.
pub fn of_later_runs(system: &System, arguments: &cli::ManifestArgs) -> Result<cli::ManifestArgs> {
    let record = Record::of(arguments, system, INSTALL).map_err(super::invalid)?;
    let usual = Location::choose(None).map_err(super::invalid)?;
    if !record.is_used(&usual) {
        let message = format!("runs without --steps use {usual}, not the recorded manifest");
        let hint = format!("leave out --steps, or: mv {0} {0}.old", quoted(&usual.to_string()));
        return Err(Fault::new(message).hint(hint).invalid().into());
    }
    let later = record.complete(own_variables()?, cli::ManifestArgs::default(), Told::Not)?;
    check_owners(later.steps.as_deref(), &later.variables).map_err(super::invalid)?;
    Ok(later)
}

/// Fails if a run that systemd starts would refuse a manifest or a file of variables, because the user that called sudo
/// owns it.
fn check_owners(steps: Option<&str>, variables: &[String]) -> Result<()> {
    Location::choose(steps)?.check_owners(Trusted::open_for_unit)?;
    let mut files = variables.iter().filter(|file| !is_url(file));
    files.try_for_each(|file| Trusted::open_for_unit(Path::new(file)).map(drop))
}

/// Replaces the record by the arguments of a run, and completes the arguments as those of a later run are. Returns
/// whether a run without these arguments does the same. Without `failures`, those of the earlier record stay.
///
/// # Errors
/// If a later run would refuse a named path, or the state directory cannot be written.
pub fn keep(
    system: &System,
    arguments: &mut cli::ManifestArgs,
    by: &str,
    failures: Option<&InstanceObjects>,
) -> Result<bool> {
    let mut record = Record::of(arguments, system, by).map_err(super::invalid)?;
    let earlier = || Record::read(system).ok().flatten()?.failures;
    record.failures = failures.map(ToString::to_string).or_else(earlier);
    if record.steps.is_some() {
        check_owners(record.steps.as_deref(), &record.variables).map_err(super::invalid)?;
    }
    state::write(system.root(), FILE, &record).context("recording which manifest the user-data names")?;
    let is_whole = record.steps.is_some() && record.withheld.is_empty();
    // As in the later runs, which read the record.
    _ = arguments.variables.splice(..0, own_variables()?);
    // The arguments are complete, so no record is read.
    arguments.steps = arguments.steps.take().or(record.steps);
    Ok(is_whole)
}

/// Returns where a run with these arguments uploads how it ended, if the run uses a record that says so.
pub fn failures(system: &System, arguments: &cli::ManifestArgs) -> Option<InstanceObjects> {
    if arguments.steps.is_some() || !system.root().is_host() {
        return None;
    }
    let (record, usual) = (Record::read(system).ok()??, Location::choose(None).ok()?);
    record.failures.as_ref().filter(|_| record.is_used(&usual))?.parse().ok()
}

fn user_data() -> String {
    USER_DATA.into()
}

/// Says whether to print that the record is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Print it to standard error.
    InALine,
    /// Print nothing.
    Not,
}

/// Returns the file of this machine's variables, where it exists.
fn own_variables() -> Result<Option<String>> {
    machine_variables().map_err(|error| {
        Fault::new("this machine's variables can't be read")
            .hint("run it as root, or pass --steps PATH or --steps built-in")
            .invalid()
            .caused_by(error)
            .into()
    })
}

/// Completes arguments by the machine's record and its variables in `/etc/glovo-bootstrap`.
///
/// The record's steps come after `--steps`, the environment and the default directory, and before the built-in steps.
/// Its variables are used only with its steps. They override the machine's; the arguments' variables override both.
pub fn complete(system: &System, mut arguments: cli::ManifestArgs, told: Told) -> Result<cli::ManifestArgs> {
    if arguments.steps.is_some() {
        return Ok(arguments);
    }
    let own = own_variables()?;
    let record = if system.root().is_host() { Record::read(system)? } else { None };
    let usual = Location::choose(None)?;
    if let Some(record) = record.filter(|record| record.is_used(&usual)) {
        return record.complete(own, arguments, told);
    }
    _ = arguments.variables.splice(..0, own);
    Ok(arguments)
}

/// Returns whether a text holds a URL with a query or a password. A query may hold a signature; `versionId` alone does
/// not count.
fn may_hold_a_secret(text: &str) -> bool {
    // A text may hold several URLs.
    text.match_indices("://").any(|(at, separator)| {
        let is_object = text[..at].ends_with("s3");
        let rest = &text[at + separator.len()..];
        let rest = rest.split([',', ';', ' ', '\n']).next().unwrap_or_default();
        rest.contains('@') && !is_object || rest.contains('?') && !(is_object && rest.contains("?versionId="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_query_or_a_password_may_hold_a_secret() {
        for text in [
            "https://a/x?sig=1",
            "jar=https://a/x?sig=1",
            "db=postgres://u:p@h/d",
            "a=x,http://b/?c",
            "s3://b/k?x=1",
            "a=s3://b/k,https://u:p@h/x",
            "a=s3://b/k?versionId=1 https://h/?sig=1",
            "a=https://h/x,https://u:p@h/x",
        ] {
            assert!(may_hold_a_secret(text), "{text}");
        }
        for text in
            ["s3://b/k@2?versionId=1#sha256=0", "jar=https://a/x#sha256=0", "a=b?c@d", "jar=s3://b/k?versionId=1"]
        {
            assert!(!may_hold_a_secret(text), "{text}");
        }
    }
}
