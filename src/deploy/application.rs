//! What the application itself is asked for, and what it must answer: a status, and the number of its build.

use std::str::FromStr;

use anyhow::Result;
use serde_json::Value;

use crate::{error::Fault, net::probe::ProbeAnswer};

/// The most characters of the application's build that are shown.
const MAX_SHOWN_CHARS: usize = 40;

/// What the application is asked for, and what it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationProbe {
    /// Path and query.
    pub path: String,
    /// HTTP status code of the answer.
    pub status: u16,
    /// Where the answer tells its build.
    pub build: Option<BuildField>,
}

/// Where an answer tells the number of its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildField {
    /// In the header of this name, in lower case.
    Header(String),
    /// In this field of a JSON object; in an object inside, with dots between the names.
    Json(String),
}

impl FromStr for BuildField {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("json", field)) if !field.is_empty() => Ok(Self::Json(field.to_owned())),
            _ => Err(Fault::new(format!("`--build-field {text}` names no header and no field"))
                .hint("write --build-field header:X-Build, or --build-field json:build")
                .invalid()
                .into()),
        }
    }
}

impl BuildField {
    /// Returns the build that an answer tells.
    fn read(&self, answer: &ProbeAnswer) -> Option<String> {
        match self {
            Self::Header(name) => {
                answer.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim().to_owned())
            }
            Self::Json(field) => {
                let document: Value = serde_json::from_str(&answer.body).ok()?;
                match field.split('.').try_fold(&document, |value, name| value.get(name))? {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                }
            }
        }
    }
}

impl ApplicationProbe {
    /// Returns what is wrong with an answer of a build; `None` if nothing is.
    pub(super) fn objection(&self, answer: &ProbeAnswer, build: &str) -> Option<String> {
        if answer.status != self.status {
            return Some(format!("answers with status {}, not {}", answer.status, self.status));
        }
        let told = self.build.as_ref()?.read(answer);
        match told {
            Some(told) if told == build => None,
            Some(told) => {
                let told: String = told.chars().take(MAX_SHOWN_CHARS).collect();
                Some(format!("answers as build {told}, not {build}"))
            }
            None => Some("answers, but does not tell its build".to_owned()),
        }
    }

    /// Returns the words for an answer as it should be.
    pub(super) fn confirmed(&self, build: &str) -> String {
        match self.build {
            Some(_) => format!("answers with status {}, as build {build}", self.status),
            None => format!("answers with status {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)], body: &str) -> ProbeAnswer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ProbeAnswer { status: 200, headers, body: body.to_owned() }
    }

    #[test]
    fn a_build_is_read_from_a_header_or_a_field() {
        for (field, answer, build) in [
            ("header:X-Build", answer(&[("x-build", " 42 ")], ""), Some("42")),
            ("header:X-Build", answer(&[], "42"), None),
            ("json:build", answer(&[], r#"{"build": 42}"#), Some("42")),
            ("json:app.build", answer(&[], r#"{"app": {"build": "42"}}"#), Some("42")),
            ("json:app.build", answer(&[], r#"{"app": null}"#), None),
            ("json:build", answer(&[], "<html>"), None),
        ] {
            let field: BuildField = field.parse().unwrap();
            assert_eq!(field.read(&answer).as_deref(), build, "{field:?}");
        }
        for wrong in ["", "build", "header:", "json:", "body:x"] {
            assert!(wrong.parse::<BuildField>().is_err(), "{wrong}");
        }
    }
}
