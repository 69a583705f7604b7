//! The variables that machines read at each run: from a store, or from a file that a deploy uploads.

use std::fmt;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use crate::{
    error::Fault,
    fetch::{pin::split_pin, source::Source},
    manifest::location::is_url,
    redaction::{forms, names_secret},
    secrets::path::ParameterPath,
};

/// The characters of a key that the ARN of an object may have. Others have a meaning in policies and in lists.
const PLAIN: &str = "/!_.'()-";

/// A source of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableSource {
    /// The parameters below a path of Parameter Store.
    Parameters(ParameterPath),
    /// An object of a bucket, as it is written.
    Object {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
        /// The object's version; the newest one without.
        version: Option<String>,
        /// The URL without a digest.
        url: String,
    },
    /// A file of a web server, which needs no permission.
    Web(String),
    /// A file of the operator's machine, with the names of its variables.
    File(String, Vec<String>),
}

impl VariableSource {
    /// Returns the source that a URL names.
    ///
    /// # Errors
    /// If machines cannot read variables from it.
    pub fn of_url(url: &str) -> Result<Self> {
        if let Some(path) = ParameterPath::named(url)? {
            return Ok(Self::Parameters(path));
        }
        let (plain, _) = split_pin(url)?;
        let Source::S3 { bucket, key, version } = plain.parse()? else {
            ensure!(
                !plain.contains(['?', '@']),
                Fault::new("its query or its password may be a secret, and user-data is none")
                    .hint("use a URL without them, or an object of a private bucket")
            );
            return Ok(Self::Web(plain.to_owned()));
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || PLAIN.contains(c);
        ensure!(
            key.chars().all(is_plain),
            Fault::new(format!("the machines' role cannot name the object {key}"))
                .hint(format!("copy it to a key of letters, digits and {PLAIN}"))
        );
        Ok(Self::Object { bucket, key, version, url: plain.to_owned() })
    }

    /// Returns the source for a file of the operator's machine.
    ///
    /// # Errors
    /// If the file holds a secret: its copy in the bucket stays.
    pub fn of_file(path: &str, text: &str) -> Result<Self> {
        // The reader of the variables tells where a text is no TOML.
        let table: Table = text.parse().unwrap_or_default();
        let is_secret = |(name, value): &(&String, &Value)| is_secret(name, value);
        if let Some((name, _)) = table.iter().find(is_secret) {
            let fault =
                Fault::new(format!("{path} holds the secret `{name}`, and deploy would store it in the bucket"));
            return Err(fault
                .hint(format!(
                    "store the secret, and write its place into the file: {name} = {{ secret = \"ssm:///PATH/{name}\" }}"
                ))
                .invalid()
                .into());
        }
        Ok(Self::File(path.to_owned(), table.into_iter().map(|(name, _)| name).collect()))
    }
}

/// Returns whether a text of a value is a secret by its form or by the variable's name. The place of a secret is none.
fn is_secret(name: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty() && names_secret(name) || forms::is_in(text),
        Value::Array(values) => values.iter().any(|value| is_secret(name, value)),
        Value::Table(values) if values.contains_key("secret") => false,
        Value::Table(values) => values.values().any(|value| is_secret(name, value)),
        _ => false,
    }
}

impl fmt::Display for VariableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameters(path) => path.fmt(f),
            Self::Object { url, .. } | Self::Web(url) => f.write_str(url),
            Self::File(path, names) if names.is_empty() => f.write_str(path),
            Self::File(path, names) => write!(f, "{path} ({})", names.join(", ")),
        }
    }
}

/// Returns the text of a file of variables.
pub fn text_of(path: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))
}

/// Returns whether a source of the settings is a file of the operator's machine.
pub fn is_file(named: &str) -> bool {
    !is_url(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_a_file_is_found_by_its_name_and_its_form() {
        for (text, secret) in [
            ("db_password = \"x\"", Some("db_password")),
            ("a = 1\napi_token = { debian = \"x\" }", Some("api_token")),
            ("url = [\"https://user:word@host/\"]", Some("url")),
            ("db_password = { secret = \"ssm:///app/db\" }\ndb_host = \"db\"", None),
            ("password_length = \"12\"\npin_token = \"\"", None),
            ("not toml", None),
        ] {
            let found = VariableSource::of_file("/v.toml", text);
            let said = found.as_ref().map_or_else(ToString::to_string, |_| String::new());
            assert_eq!(found.is_err(), secret.is_some(), "{text}");
            assert!(said.contains(secret.unwrap_or_default()), "{said}");
        }
    }

    #[test]
    fn a_source_that_machines_cannot_read_safely_is_refused() {
        assert!(VariableSource::of_url("s3://b/a/b-1_(x).toml?versionId=3").is_ok());
        for url in ["s3://b/a*", "s3://b/a,b", "s3://b/${x}", "https://h/v?sig=1", "https://u:p@h/v", "ssm:///app"] {
            assert!(VariableSource::of_url(url).is_err(), "{url}");
        }
    }
}
