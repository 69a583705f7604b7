//! User-data: the script that cloud-init runs at a machine's first boot. It downloads the agent and executes it.
//!
//! The templates are in `packaging/user-data/`. The script leaves out their comments: EC2 takes 16 KiB of user-data,
//! and a script of less than 2 KiB leaves room for the operator's other configuration.

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::{
    aws::query::RESERVED,
    error::Fault,
    fetch::source::Source,
    value::{Sha256, printable, quoted},
};

const FETCH: &str = include_str!("../packaging/user-data/fetch.sh");
const S3: &str = include_str!("../packaging/user-data/s3.py");
const HTTPS: &str = include_str!("../packaging/user-data/https.sh");
const BAKED: &str = include_str!("../packaging/user-data/baked.sh");
const OWN: &str = include_str!("../packaging/user-data/own.sh");
const SIGNAL: &str = include_str!("../packaging/user-data/signal.py");

/// The most bytes of user-data that EC2 takes, before it is encoded as base64.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html>
pub const MAX_USER_DATA_BYTES: usize = 16 << 10;

/// The starts of the scripts of [`script`] and [`signalling`].
const OWN_STARTS: [&str; 2] =
    ["#!/bin/sh\nto=/usr/local/bin/glovo-bootstrap\n", "#!/bin/sh\nf=$(mktemp /root/user-data.XXXXXX)&&"];
/// What [`cloud_config`] writes before and after the script's lines. A subshell, because cloud-init joins all commands of
/// `runcmd` into one script.
const IN_CLOUD_CONFIG: (&str, &str) = ("#cloud-config\nruncmd:\n- |\n (\n", " )\n");

/// The characters to encode in a signed path: those of a query, without the slash.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Where a machine gets the agent from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// Its image holds the agent at `/usr/local/bin/glovo-bootstrap`.
    Baked,
    /// It downloads the agent from S3 with the instance's role, or from a web server. The digest must match.
    Fetched(Source, Sha256),
}

/// Returns a shell script that executes `glovo-bootstrap run --record` with these arguments. If the agent cannot be started,
/// the script itself signals that to the resource of a stack, if both are given: the stack would wait for its whole timeout.
///
/// # Errors
/// If the agent is a file of this machine, a bucket's name is invalid, an argument holds a control character, or the
/// script is larger than EC2 allows.
pub fn script(agent: &Agent, arguments: &[String], signal: Option<(&str, &str)>) -> Result<String> {
    let failed = signal.map(|(stack, resource)| format!("{}\n", signal_command(stack, resource, "FAILURE")));
    let failed = failed.unwrap_or_default();
    let mut run = "run --record".to_owned();
    for argument in arguments {
        printable(argument).with_context(|| format!("the argument {argument:?}"))?;
        run = format!("{run} {}", quoted(argument));
    }
    let script = match agent {
        Agent::Baked => fill(BAKED, &[("arguments", &run), ("failed", &failed)]),
        Agent::Fetched(source, sha256) => {
            let (fetch, sha256) = (fetch(source)?, sha256.to_string());
            fill(FETCH, &[("fetch", &fetch), ("sha256", &sha256), ("arguments", &run), ("failed", &failed)])
        }
    };
    within_size(script)
}

/// Returns the operator's own script in a frame that signals its exit code to a resource of a stack.
pub fn signalling(text: &str, stack: &str, resource: &str) -> String {
    let end = format!("END-{}", Sha256::of(text.as_bytes()));
    let signal = signal_command(stack, resource, "$s");
    fill(OWN, &[("end", &end), ("script", text.strip_suffix('\n').unwrap_or(text)), ("signal", &signal)])
}

/// Returns a shell command that signals a status to a resource of a stack.
fn signal_command(stack: &str, resource: &str, status: &str) -> String {
    format!("python3 -Ic '\n{}' {status}", fill(SIGNAL, &[("resource", resource), ("stack", stack)]))
}

/// Returns the script of user-data that this program has printed, in either format; `deploy` prints it, too. On an image
/// without cloud-init nothing can execute other user-data.
///
/// # Errors
/// If it is other user-data. The message says of what sort it is.
pub fn own_script(text: &str) -> Result<String> {
    let (head, tail) = IN_CLOUD_CONFIG;
    let text = format!("{}\n", text.trim_end());
    let script = match text.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail)) {
        Some(lines) => lines
            .lines()
            .fold("#!/bin/sh\n".to_owned(), |script, line| script + line.strip_prefix(' ').unwrap_or(line) + "\n"),
        None => text.clone(),
    };
    if OWN_STARTS.iter().any(|start| script.starts_with(start)) {
        return Ok(script);
    }
    let first = text.lines().next().unwrap_or_default();
    let sort = match first {
        "#cloud-config" => "#cloud-config with more than this program prints".to_owned(),
        _ if text.contains("\nContent-Type:") || first.starts_with("Content-Type:") => "a MIME message".to_owned(),
        _ if first.starts_with("#!") => format!("a script of other authors, which begins with `{first}`"),
        _ => "of no known format".to_owned(),
    };
    let message = format!("the user-data of this instance is {sort}, and this image has no cloud-init to execute it");
    bail!(Fault::new(message).hint(
        "launch with the user-data that `glovo-bootstrap user-data --baked -- ARGUMENTS` prints, or bake the image \
         without --first-boot agent"
    ))
}

/// Returns the script as `#cloud-config`, to be merged with other configuration.
///
/// # Errors
/// As [`script`]; or if an argument holds a character that YAML forbids or reads as a line break.
pub fn cloud_config(agent: &Agent, arguments: &[String], signal: Option<(&str, &str)>) -> Result<String> {
    let script = script(agent, arguments, signal)?;
    if let Some(c) = script.chars().find(|c| matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')) {
        bail!("YAML can't hold the character {}", c.escape_unicode());
    }
    let lines: String = script.lines().skip(1).map(|line| format!(" {line}\n")).collect();
    let (head, tail) = IN_CLOUD_CONFIG;
    within_size(format!("{head}{lines}{tail}"))
}

fn within_size(text: String) -> Result<String> {
    if text.len() > MAX_USER_DATA_BYTES {
        let fault =
            Fault::new(format!("this user-data has {} bytes; EC2 takes at most {MAX_USER_DATA_BYTES}", text.len()));
        bail!(fault.hint("upload variables and steps, and name their URL: run --steps s3://BUCKET/KEY#sha256=HEX"));
    }
    Ok(text)
}

/// Returns a shell command that writes the agent to standard output.
fn fetch(source: &Source) -> Result<String> {
    match source {
        Source::File(path) => bail!(
            "{path} is a file of this machine, which a new machine does not have; upload it, or bake it into the image"
        ),
        Source::Http(url) => {
            // In double quotes, curl gives a backslash a meaning of its own. Encoded, it is plain text.
            let url = quoted(&url.replace('\\', "%5C"));
            Ok(fill(HTTPS, &[("url", &url)]).trim_end().to_owned())
        }
        Source::S3 { bucket, key, version } => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            ensure!(bucket.chars().all(is_name), "`{bucket}` is not the name of a bucket");
            let key = utf8_percent_encode(key, RESERVED_IN_PATH);
            // The certificate *.s3.REGION.amazonaws.com covers only names that are a single label.
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

/// Fills in a template's slots, each written `@name@`, and removes its comments.
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
