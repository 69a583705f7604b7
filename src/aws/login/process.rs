//! Credentials that a program prints: `credential_process`.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>

use std::{
    borrow::Cow,
    pin::pin,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use regex_lite::Regex;
use serde_json::Value;

use super::{
    learn,
    profile::config_file,
    token_file::{parse_time, text, time_text},
};
use crate::{
    error::Fault,
    host::{
        command::{describe, with_tail},
        operator::{OperatorProgram, operator_program, words},
    },
    net::worker::blocking,
};

/// A program that needs longer is named.
const QUIET_TIME: Duration = Duration::from_secs(5);

/// Runs the command line of a profile, and returns the credentials that it prints.
///
/// # Errors
/// If it fails, or prints no valid credentials. No error has its command line or its standard output, which may hold
/// secrets. If it fails, the error has the end of its standard error, without keys and tokens.
pub(super) async fn credentials(profile: &str, line: &str) -> Result<Credentials, Fault> {
    let what = format!("the credential_process of the AWS profile {profile}");
    let wrong = |why| Fault::new(format!("{what} {why}")).hint(format!("correct it in {}", config_file())).invalid();
    let argv = words(line).ok_or_else(|| wrong("has a quote without an end"))?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(wrong("names no program"));
    }
    let (_guard, run) = operator_program(argv);
    let mut running = pin!(blocking(run));
    let finished = if let Ok(finished) = tokio::time::timeout(QUIET_TIME, &mut running).await {
        finished
    } else {
        tracing::warn!("waiting for {what}");
        running.await
    };
    let finished = finished.map_err(|error| error.fault())?;
    let hint = format!("run it by hand: it is in the section of this profile in {}", config_file());
    let OperatorProgram { status, stdout, stderr } = finished
        .map_err(|error| Fault::new(format!("{what} cannot be started")).caused_by(error).hint(hint.clone()))?;
    if !status.success() {
        // It may have printed its secrets twice.
        if let Ok(printed) = read(&stdout) {
            learn(&printed);
        }
        let failed = with_tail(format!("{what} failed with {}", describe(status)), &without_secrets(&stderr));
        return Err(Fault::new(failed).hint(hint).logged_out());
    }
    read(&stdout).map_err(|why| Fault::new(format!("{what} printed no valid credentials: {why}")).hint(hint))
}

/// Returns a text without the words behind the names of keys and tokens.
fn without_secrets(text: &str) -> Cow<'_, str> {
    // Words of this file: the pattern is valid.
    let secret = Regex::new(r#"(?i)((?:secret_?access_?key|(?:session|security)_?token)["':=\s]+)[^"',}\s]+"#);
    secret.map_or(Cow::Borrowed(""), |secret| secret.replace_all(text, "$1***"))
}

/// Reads the credentials.
fn read(stdout: &[u8]) -> Result<Credentials, String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(stdout) else {
        return Err("its output is no JSON object".into());
    };
    match fields.get("Version") {
        Some(Value::Number(version)) if version.as_u64() == Some(1) => {}
        Some(Value::Number(version)) => return Err(format!("their Version is {version}, and not 1")),
        _ => return Err("they have no Version".into()),
    }
    let need = |name: &str| text(&fields, name).ok_or_else(|| format!("they have no {name}"));
    let (id, secret) = (need("AccessKeyId")?, need("SecretAccessKey")?);
    let expiry = match fields.get("Expiration") {
        None | Some(Value::Null) => None,
        Some(time) => Some(time.as_str().and_then(parse_time).ok_or("their Expiration is no time")?),
    };
    if let Some(expiry) = expiry
        && expiry <= SystemTime::now()
    {
        return Err(format!("they have expired, at {}", time_text(expiry)));
    }
    Ok(Credentials::new(id, secret, text(&fields, "SessionToken").map(str::to_owned), expiry, "credential_process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_prints_credentials_as_all_aws_tools_read_them() {
        let printed = r#"{"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "secret", "SessionToken": "token",
                          "Expiration": "2100-01-01T00:00:00Z"}"#;
        let credentials = read(printed.as_bytes()).unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("id", Some("token")));
        assert!(credentials.expiry().is_some());
        for (printed, why) in [
            ("hunter2", "its output is no JSON object"),
            ("{}", "they have no Version"),
            (r#"{"Version": 2}"#, "their Version is 2, and not 1"),
            (r#"{"Version": 1, "AccessKeyId": "id"}"#, "they have no SecretAccessKey"),
            (
                r#"{"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "s", "Expiration": "soon"}"#,
                "their Expiration is no time",
            ),
            (
                r#"{"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "s", "Expiration": "2001-01-01T00:00:00Z"}"#,
                "they have expired, at 2001-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(read(printed.as_bytes()).unwrap_err(), why);
        }
    }
}
