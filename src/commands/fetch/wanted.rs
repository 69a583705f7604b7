//! The files to download, and their names.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use percent_encoding::percent_decode_str;

use crate::{
    aws::s3::listing::Prefix,
    cli,
    error::Fault,
    fetch::{names::check_component, pin::split_pin, source::Source},
    host::root::{Root, host_path},
    value::Sha256,
};

/// The longest `--input`, which has room for more than a hundred thousand URLs.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// A URL as the user gave it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) what: What,
    pub(super) sha256: Option<Sha256>,
}

/// The meaning of a URL.
#[derive(Debug)]
pub(super) enum What {
    /// A file, and its name.
    One(Source, String),
    /// All objects below a prefix.
    Below(Prefix),
}

/// Returns the files of the command line and of `--input`, or all faults of their URLs.
pub(super) fn all(arguments: &cli::Fetch) -> Result<Vec<Wanted>> {
    let mut texts: Vec<(String, String)> =
        arguments.urls.iter().chain(&arguments.named).map(|url| (String::new(), url.clone())).collect();
    if let Some(input) = &arguments.input {
        let named = if input == "-" { "standard input" } else { input };
        let lines = read(input).with_context(|| format!("reading {named}"))?;
        let lines = lines.lines().enumerate().map(|(index, line)| (format!("{named}:{}: ", index + 1), line.trim()));
        let urls = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        texts.extend(urls.map(|(place, line)| (place, line.to_owned())));
    }
    let mut wrong = vec![];
    let mut wanted = vec![];
    for (place, text) in &texts {
        match parse(text, !place.is_empty(), arguments.recursive) {
            Ok(one) => wanted.push(one),
            Err(error) => wrong.push(format!("{place}{}: {error:#}", shown(text))),
        }
    }
    if wrong.is_empty() {
        return Ok(wanted);
    }
    let urls =
        if texts.len() == 1 { "the URL is".into() } else { format!("{} of {} URLs are", wrong.len(), texts.len()) };
    Err(Fault::new(format!("{urls} invalid; nothing was downloaded")).caused_by(anyhow!(wrong.join("\n"))).into())
}

fn read(input: &str) -> Result<String> {
    let mut bytes = vec![];
    if input == "-" {
        _ = std::io::stdin().take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= MAX_INPUT_BYTES, "it has more than {MAX_INPUT_BYTES} bytes");
    } else {
        let path = host_path(input)?;
        bytes = Root::open(Path::new("/"))?
            .read(&path, MAX_INPUT_BYTES)?
            .with_context(|| format!("{path} does not exist"))?;
    }
    String::from_utf8(bytes).context("it is not UTF-8")
}

/// Parses `URL`, `URL#sha256=HEX`, and in a line of a file also `URL sha256=HEX`.
fn parse(text: &str, is_line: bool, recursive: bool) -> Result<Wanted> {
    let (url, sha256) = match text.split_once(char::is_whitespace).filter(|_| is_line) {
        Some((url, rest)) => {
            let digest = rest.trim().strip_prefix("sha256=").context("after the URL comes nothing, or sha256=HEX")?;
            (url, Some(digest.parse()?))
        }
        None => split_pin(text)?,
    };
    if url.starts_with("s3://") && url.ends_with('/') {
        ensure!(recursive, "it ends in a slash: --recursive fetches what is below it");
        ensure!(sha256.is_none(), "a sha256 is that of one file");
        return Ok(Wanted { what: What::Below(url.parse()?), sha256 });
    }
    let source: Source = url.parse()?;
    let name = file_name(&source)?;
    Ok(Wanted { what: What::One(source, name), sha256 })
}

/// Returns a URL for an error, without its query and its password.
fn shown(text: &str) -> String {
    let text = text.split(|c: char| matches!(c, '?' | '#') || c.is_whitespace()).next().unwrap_or_default();
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

/// Returns the name of a file: the last part of its URL's path. In `https` and `http`, `%xx` is decoded.
fn file_name(source: &Source) -> Result<String> {
    let name = match source {
        Source::Http(url) => {
            let path = url.split(['?', '#']).next().and_then(|url| url.splitn(4, '/').nth(3)).unwrap_or_default();
            let last = percent_decode_str(path.rsplit('/').next().unwrap_or_default());
            last.decode_utf8().context("the file name at its end is not UTF-8")?.into_owned()
        }
        Source::S3 { key, .. } => key.rsplit('/').next().unwrap_or_default().to_owned(),
        Source::File(path) => path.leaf().to_owned(),
    };
    ensure!(!name.is_empty(), "it ends in a slash, so there is no file name");
    check_component(&name)?;
    Ok(name)
}
