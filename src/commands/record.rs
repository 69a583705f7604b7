//! The record of the manifest and the variables that this machine's user-data named. A run over SSH uses it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli,
    error::Fault,
    host::{root::host_path, state},
    manifest::location::{Location, machine_variables, variables_file},
    system::System,
    view,
};

/// The record's file in the state directory; mode 0600, like every state file.
pub const FILE: &str = "manifest.json";

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
    /// Files of variables. Their values are not recorded: they may be secrets.
    variables: Vec<String>,
    /// `NAME=VALUE`. Only root can read the values.
    set: Vec<String>,
    /// Names of variables whose values are not recorded: URLs that may hold a secret.
    withheld: Vec<String>,
}

impl Record {
    /// Returns the record of a run's arguments.
    ///
    /// # Errors
    /// If a path does not exist.
    pub fn of(arguments: &cli::ManifestArgs, system: &System, by: &str) -> Result<Self> {
        let location = Location::choose(arguments.steps.as_deref())?;
        let steps = match (&location, &arguments.steps) {
            (Location::Stdin, _) => None,
            (Location::Url(..), Some(url)) => (!may_hold_a_secret(url)).then(|| url.clone()),
            (Location::Path(path), _) => Some(path.to_string()),
            _ => Some("built-in".into()),
        };
        let absolute = |file: &String| host_path(file).map(|path| path.to_string());
        let (withheld, set) = arguments.set.iter().cloned().partition(|assignment| may_hold_a_secret(assignment));
        let name = |assignment: String| assignment.split('=').next().unwrap_or_default().to_owned();
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).context("telling the time")?;
        Ok(Self {
            machine: system.host.identity(),
            by: by.into(),
            recorded: now.format(&Rfc3339).context("telling the time")?,
            steps,
            variables: arguments.variables.iter().map(absolute).collect::<Result<_>>()?,
            set,
            withheld: Vec::into_iter(withheld).map(name).collect(),
        })
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
}

/// Replaces the record by the arguments of user-data's run. Returns whether a run without these arguments does the
/// same.
///
/// # Errors
/// If a named path does not exist, or the state directory cannot be written.
pub fn keep(system: &System, arguments: &mut cli::ManifestArgs, by: &str) -> Result<bool> {
    let record = Record::of(arguments, system, by).map_err(super::invalid)?;
    state::write(system.root(), FILE, &record).context("recording which manifest the user-data names")?;
    let is_whole = record.steps.is_some() && record.withheld.is_empty();
    if arguments.steps.is_none() {
        _ = arguments.variables.splice(..0, own_variables().map_err(super::invalid)?);
    }
    // The arguments are complete, so no record is read.
    arguments.steps = arguments.steps.take().or(record.steps);
    Ok(is_whole)
}

fn user_data() -> String {
    "user-data".into()
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
    let is_used = |record: &Record| usual == Location::BuiltIn || record.steps == Some(usual.to_string());
    let Some(record) = record.filter(is_used) else {
        _ = arguments.variables.splice(..0, own);
        return Ok(arguments);
    };
    let Some(steps) = record.steps else {
        return Err(Fault::new("the manifest that user-data named is not recorded: it came from standard input or its URL may hold a secret")
            .hint("pass --steps PATH or --steps 'URL#sha256=HEX'")
            .invalid()
            .into());
    };
    let given: toml::Table = match &own {
        Some(file) => variables_file(file)?.text.parse().unwrap_or_default(),
        None => toml::Table::new(),
    };
    let is_set = |name: &str| arguments.set.iter().any(|set| set.split('=').next() == Some(name));
    let is_given = |name: &&String| is_set(name) || given.contains_key(name.as_str());
    if let Some(name) = record.withheld.iter().find(|name| !is_given(name)) {
        let message = format!("the value of `{name}` that user-data gave is not recorded: its URL may hold a secret");
        return Err(Fault::new(message)
            .hint(format!("--set {name}=VALUE, or a line `{name} = \"VALUE\"` in /etc/glovo-bootstrap/variables.toml"))
            .invalid()
            .into());
    }
    if told == Told::InALine {
        let location = Location::choose(Some(&steps))?;
        view::complain(format!("using {location} as recorded by {} on {}", record.by, record.recorded));
    }
    arguments.steps = Some(steps);
    arguments.set = [record.set, arguments.set].concat();
    arguments.variables = [own.into_iter().collect(), record.variables, arguments.variables].concat();
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
