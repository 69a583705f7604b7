//! The files in which the AWS CLI keeps tokens. They belong to the CLI: this program keeps their fields and their owner.

use std::{
    path::Path,
    sync::Once,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use nix::unistd::geteuid;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    environment,
    error::Fault,
    host::root::{Ownership, Root},
    redaction,
    value::AbsPath,
};

/// The longest file that is read. A token has a few KB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file with tokens. It has no `Debug`.
pub(super) struct TokenFile {
    path: AbsPath,
    pub(super) fields: Map<String, Value>,
}

impl TokenFile {
    /// Reads a file; `None` if it does not exist. The values of these fields are secrets.
    ///
    /// # Errors
    /// If it cannot be read, or is no JSON object.
    pub(super) fn read(path: &AbsPath, secrets: &[&str]) -> Result<Option<Self>, Fault> {
        let unreadable = |error| Fault::new(format!("cannot read {path}")).caused_by(error);
        let root = Root::open(Path::new("/")).map_err(unreadable)?;
        let path = root.resolve(path).map_err(unreadable)?;
        let Some(bytes) = root.read(&path, MAX_FILE_BYTES).map_err(unreadable)? else { return Ok(None) };
        // The words of a parser could quote a secret.
        let Ok(Value::Object(fields)) = serde_json::from_slice(&bytes) else {
            return Err(Fault::new(format!("{path} is no JSON object")));
        };
        for name in secrets {
            if let Some(secret) = text(&fields, name) {
                redaction::learn("AWS token", secret);
            }
        }
        Ok(Some(Self { path, fields }))
    }

    /// Returns the path of a file in the user's directory `~/.aws`.
    ///
    /// # Errors
    /// If `HOME` is no absolute path.
    pub(super) fn path_of(relative: &str) -> Result<AbsPath, Fault> {
        let home = environment::value(environment::HOME).unwrap_or_else(|| "/root".into());
        let path = format!("{}/.aws/{relative}", home.trim_end_matches('/')).parse();
        path.map_err(|error: anyhow::Error| {
            Fault::new("HOME is not the path of a directory").caused_by(error).invalid()
        })
    }

    /// Fails if the file could not be written back. A refresh token serves once: it is not used then.
    pub(super) fn check_savable(&self) -> Result<(), Fault> {
        let check = || {
            let (root, _) = self.owned()?;
            root.check_replaceable(&self.path)
        };
        check().map_err(|error| Fault::new("what is renewed cannot be saved").caused_by(error))
    }

    /// Returns the root, and the ownership of the file.
    fn owned(&self) -> anyhow::Result<(Root, Ownership)> {
        let root = Root::open(Path::new("/"))?;
        let status = root.status(&self.path)?.with_context(|| format!("{} is gone", self.path))?;
        // The other user could lead a write to any file.
        let Ownership { uid, gid, .. } = status.ownership;
        anyhow::ensure!(uid == geteuid().as_raw(), "{} belongs to uid {uid}", self.path);
        Ok((root, Ownership { uid, gid, mode: 0o600 }))
    }

    /// Writes the fields back, readable by their owner alone.
    ///
    /// # Errors
    /// If the file cannot be written, or belongs to another user.
    fn save(&self) -> anyhow::Result<()> {
        let (root, ownership) = self.owned()?;
        root.write(&self.path, ownership, Value::Object(self.fields.clone()).to_string().as_bytes())
    }

    /// Writes the fields back, with a warning if that fails.
    pub(super) fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            tracing::warn!("the renewed token cannot be saved, so the AWS CLI may ask you to log in again: {error:#}");
        }
    }

    /// Returns the text of a field that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        text(&self.fields, name)
    }

    /// Returns the time in a field.
    pub(super) fn time(&self, name: &str) -> Option<SystemTime> {
        parse_time(self.text(name)?)
    }
}

/// Whether the user knows that what they hold is not renewed.
static SAID: Once = Once::new();

/// What a file holds, which may have to be renewed.
pub(super) struct Renewable<'a> {
    /// What it is, and its verb: `the token of … is`.
    pub(super) what: String,
    pub(super) file: &'a mut TokenFile,
    pub(super) expiry: SystemTime,
    /// It is renewed this long before it expires.
    pub(super) margin: Duration,
}

impl Renewable<'_> {
    /// Returns until when it is valid, after it was renewed if it expires soon. `renew` returns the new time, or `None` if
    /// nothing can renew it.
    ///
    /// # Errors
    /// If it has expired and is not renewed.
    pub(super) async fn renewed(
        self,
        renew: impl AsyncFnOnce(&mut TokenFile, SystemTime) -> Result<Option<SystemTime>, Fault>,
    ) -> Result<SystemTime, Fault> {
        let (now, expiry) = (SystemTime::now(), self.expiry);
        if expiry > now + self.margin {
            return Ok(expiry);
        }
        match renew(self.file, now).await {
            Ok(Some(renewed)) => Ok(renewed),
            Ok(None) if expiry > now => Ok(expiry),
            Ok(None) => Err(Fault::new(format!(
                "the token in {} was valid until {}, and nothing renews it",
                self.file.path,
                time_text(expiry)
            ))),
            Err(fault) if expiry <= now => Err(fault),
            Err(fault) => {
                // Each of the next calls tries again.
                SAID.call_once(|| tracing::warn!("{} not renewed yet: {:#}", self.what, anyhow::Error::from(fault)));
                Ok(expiry)
            }
        }
    }
}

/// Returns the text of a field that is not empty. A name with a slash leads into an object.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let value = match name.split_once('/') {
        Some((object, name)) => fields.get(object)?.get(name)?,
        None => fields.get(name)?,
    };
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns the time of a text such as `2026-11-28T20:00:00Z`. Old AWS CLIs wrote `UTC` at its end.
pub(super) fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |text| format!("{text}Z"));
    OffsetDateTime::parse(&text, &Rfc3339).ok().map(SystemTime::from)
}

/// Returns the end of a lifetime in seconds, of a year at most. No token lasts longer.
pub(super) fn valid_until(now: SystemTime, seconds: u64) -> SystemTime {
    now + Duration::from_secs(seconds).min(Duration::from_hours(365 * 24))
}

/// Returns a time as [`parse_time`] reads it, in whole seconds.
pub(super) fn time_text(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_of_any_length_is_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_mins(27_341_130);
        assert_eq!(time_text(valid_until(now, 60)), "2021-12-25T21:31:00Z");
        assert_eq!(time_text(valid_until(now, u64::MAX)), "2022-12-25T21:30:00Z");
    }

    #[test]
    fn times_are_those_of_every_aws_cli() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_mins(27_341_130);
        for text in ["2021-12-25T21:30:00Z", "2021-12-25T21:30:00UTC", "2021-12-25T22:30:00+01:00"] {
            assert_eq!(parse_time(text), Some(at), "{text}");
        }
        assert_eq!((parse_time("soon"), &*time_text(at)), (None, "2021-12-25T21:30:00Z"));
    }
}
