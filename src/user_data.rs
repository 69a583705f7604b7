//! User-data: what cloud-init runs at a machine's first boot, to get the agent and become it. Text in, text out.
//!
//! The texts are in `packaging/user-data/`. Comments are for their readers, and left out here: EC2 takes 16 KiB of
//! user-data, and a script of less than 2 KiB leaves room for what else an operator wants to tell cloud-init.

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::{
    aws::query::RESERVED,
    error::Fault,
    fetch::Source,
    value::{Sha256, printable, quoted},
};

const FETCH: &str = include_str!("../packaging/user-data/fetch.sh");
const S3: &str = include_str!("../packaging/user-data/s3.py");
const HTTPS: &str = include_str!("../packaging/user-data/https.sh");
const BAKED: &str = include_str!("../packaging/user-data/baked.sh");

/// The most bytes of user-data that EC2 takes, before it is encoded as base64.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html>
pub const LIMIT: usize = 16 << 10;

/// What is encoded in a signed path: the same as in a query, but for its slashes.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Where a machine gets the agent from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// Its image holds it at `/usr/local/bin/glovo-bootstrap`.
    Baked,
    /// From S3 with the instance's role, or from a web server; these bytes or none.
    Fetched(Source, Sha256),
}

/// A shell script that becomes `glovo-bootstrap run` with these arguments, and has it record them.
///
/// # Errors
/// If the agent is in a file of this machine, a bucket's name is none, an argument holds a control character, or all of
/// it is more than EC2 takes.
pub fn script(agent: &Agent, arguments: &[String]) -> Result<String> {
    let mut run = "run --record".to_owned();
    for argument in arguments {
        printable(argument).with_context(|| format!("the argument {argument:?}"))?;
        run = format!("{run} {}", quoted(argument));
    }
    let script = match agent {
        Agent::Baked => fill(BAKED, &[("arguments", &run)]),
        Agent::Fetched(source, sha256) => {
            let slots = [("fetch", &*fetch(source)?), ("sha256", &sha256.to_string()), ("arguments", &run)];
            fill(FETCH, &slots)
        }
    };
    within_limit(script)
}

/// The same as `#cloud-config`, to be merged with other configuration.
///
/// # Errors
/// As [`script`]; or if an argument holds a character that YAML takes for a line break, or for none at all.
pub fn cloud_config(agent: &Agent, arguments: &[String]) -> Result<String> {
    let script = script(agent, arguments)?;
    if let Some(c) = script.chars().find(|c| matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')) {
        bail!("YAML can't hold the character {}", c.escape_unicode());
    }
    let lines: String = script.lines().skip(1).map(|line| format!(" {line}\n")).collect();
    // In a subshell: cloud-init makes one script of all that is to be run.
    within_limit(format!("#cloud-config\nruncmd:\n- |\n (\n{lines} )\n"))
}

fn within_limit(text: String) -> Result<String> {
    if text.len() > LIMIT {
        let fault = Fault::new(format!("this user-data has {} bytes, and EC2 takes {LIMIT}", text.len()));
        bail!(fault.hint("put variables and steps where they can be fetched: run --steps s3://…#sha256=HEX"));
    }
    Ok(text)
}

/// A command that writes the agent to standard output.
fn fetch(source: &Source) -> Result<String> {
    match source {
        Source::File(path) => bail!("a machine that boots has no {path}: upload it, or bake it into its image"),
        Source::Http(url) => {
            // Between double quotes a backslash means something to curl; in a URL it means this.
            let url = quoted(&url.replace('\\', "%5C"));
            Ok(fill(HTTPS, &[("url", &url)]).trim_end().to_owned())
        }
        Source::S3 { bucket, key, version } => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            ensure!(bucket.chars().all(is_name), "`{bucket}` is not the name of a bucket");
            let key = utf8_percent_encode(key, RESERVED_IN_PATH);
            // Only as a single label does the name match the certificate *.s3.REGION.amazonaws.com.
            let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let (host, path) = if bucket.chars().all(is_label) {
                (format!("{bucket}."), format!("/{key}"))
            } else {
                (String::new(), format!("/{bucket}/{key}"))
            };
            let version = version.as_deref().map(|version| utf8_percent_encode(version, RESERVED));
            let query = version.map(|version| format!("versionId={version}")).unwrap_or_default();
            let python = fill(S3, &[("bucket", &host), ("path", &path), ("query", &query)]);
            Ok(format!("python3 -Ic '\n{python}'"))
        }
    }
}

/// The template with its slots, each written `@name@`, filled in, and without its comments.
fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let lines = template.lines().filter(|line| !line.trim_start().starts_with("# "));
    let code: String = lines.map(|line| format!("{line}\n")).collect();
    let parts = code.split('@').enumerate().map(|(index, part)| match index % 2 {
        0 => part,
        _ => slots.iter().find(|(name, _)| *name == part).expect("a slot of the template").1,
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
