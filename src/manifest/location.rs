//! The location of a manifest: a directory, a file, standard input, a URL, or the binary itself.

use std::{fmt, io::Read, path::Path};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use super::{
    archive, built_in,
    texts::{MAX_TEXT_BYTES, Texts, add, is_manifest_file, text},
};
use crate::{
    diagnostic::Text,
    error::Fault,
    fetch::{pin::split_pin, pull::Download, source::Source},
    host::{process, root::trusted::Trusted},
    system::System,
    value::{AbsPath, Sha256, quoted},
};

/// The default directory of the manifest.
const DIRECTORY: &str = "/etc/glovo-bootstrap/steps";
/// The file with this machine's variables.
const VARIABLES: &str = "/etc/glovo-bootstrap/variables.toml";

/// The location of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The built-in steps of the binary.
    BuiltIn,
    /// A directory of step files, or one file.
    Path(AbsPath),
    /// Standard input.
    Stdin,
    /// A file or a tar.gz at a URL, pinned by its digest.
    Url(Source, Sha256),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in steps"),
            Self::Path(path) => path.fmt(f),
            Self::Stdin => f.write_str("standard input"),
            Self::Url(source, _) => source.fmt(f),
        }
    }
}

impl Location {
    /// Returns the named location, else the default directory if it exists, else the built-in steps.
    pub fn choose(named: Option<&str>) -> Result<Self> {
        match named {
            None => Ok(open(DIRECTORY)?.map_or(Self::BuiltIn, |found| Self::Path(found.path().clone()))),
            Some("-") => Ok(Self::Stdin),
            Some("built-in") => Ok(Self::BuiltIn),
            Some(url) if url.contains("://") => {
                let (url, pin) = split_pin(url)?;
                let unpinned = || {
                    Fault::new("a manifest from a URL must be pinned")
                        .hint(format!("--steps {}", quoted(&format!("{url}#sha256=HEX"))))
                };
                let pin = pin.ok_or_else(unpinned)?;
                Ok(Self::Url(url.parse()?, pin))
            }
            Some(path) => Ok(Self::Path(open_existing(path)?.path().clone())),
        }
    }

    /// Fails if a file of the manifest is not one that `open` trusts: [`Trusted::open`] or [`Trusted::open_for_unit`].
    pub fn check_owners(&self, open: fn(&Path) -> Result<Option<Trusted>>) -> Result<()> {
        let Self::Path(path) = self else { return Ok(()) };
        let Some(found) = open(Path::new(path.as_str()))? else { return Ok(()) };
        if found.is_directory() {
            for name in found.list()?.iter().filter(|name| is_manifest_file(name)) {
                drop(open(Path::new(found.path().join(name)?.as_str()))?);
            }
        }
        Ok(())
    }

    /// Reads the texts of the manifest.
    pub fn read(&self, system: &System) -> Result<Texts> {
        match self {
            Self::BuiltIn => Ok(built_in::texts()),
            Self::Stdin => Ok(Texts { steps: vec![text("standard input", stdin()?)?], ..Texts::default() }),
            Self::Url(source, pin) => {
                let mut fetched = system.fetch(&Download::new(source.clone(), Some(*pin)))?;
                ensure!(fetched.size <= MAX_TEXT_BYTES, "{source} is larger than a manifest: {} bytes", fetched.size);
                let mut bytes = vec![];
                _ = fetched.file.read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    return archive::read(&source.to_string(), &bytes);
                }
                Ok(Texts { steps: vec![text(&source.to_string(), bytes)?], ..Texts::default() })
            }
            Self::Path(path) => {
                let found = open_existing(path.as_str())?;
                if found.is_directory() {
                    return directory(&found);
                }
                Ok(Texts { steps: vec![read(found)?], ..Texts::default() })
            }
        }
    }
}

/// Returns the path of this machine's variables, if the file exists. It is used if no manifest is named.
pub fn machine_variables() -> Result<Option<String>> {
    Ok(open(VARIABLES)?.map(|found| found.path().to_string()))
}

/// Reads a file of variables of this machine.
pub fn variables_file(named: &str) -> Result<Text> {
    read(open_existing(named)?)
}

/// Returns whether a file of variables is named by a URL, not by a path.
pub fn is_url(named: &str) -> bool {
    named.contains("://")
}

/// Reads variables named on the command line: those of a file, an S3 object, or a pinned https URL.
///
/// # Errors
/// If they cannot be read, or if the URL is neither of these.
pub fn variables_text(system: &System, named: &str) -> Result<Text> {
    process::keep_in_memory();
    if !is_url(named) {
        return variables_file(named);
    }
    let (url, pin) = split_pin(named)?;
    let shown = url.split('?').next().unwrap_or_default();
    let is_https = url.starts_with("https://");
    if !(is_https || url.starts_with("s3://")) {
        let fault = Fault::new(format!("{shown} is no place of variables"));
        let hint = "use the path of a file, s3://BUCKET/KEY, https://HOST/PATH#sha256=HEX or ssm:///PATH/";
        return Err(fault.hint(hint).into());
    }
    if is_https && pin.is_none() {
        let fault = Fault::new("variables from an https URL must be pinned");
        return Err(fault.hint(format!("--variables {}", quoted(&format!("{shown}#sha256=HEX")))).into());
    }
    let source: Source = url.parse()?;
    process::keep_in_memory();
    let mut fetched = system.fetch_to_memory(&Download::new(source.clone(), pin))?;
    ensure!(fetched.size <= MAX_TEXT_BYTES, "{source} is larger than a file of variables: {} bytes", fetched.size);
    let mut bytes = vec![];
    _ = fetched.file.read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
    text(&source.to_string(), bytes)
}

/// Reads the value of a secret variable from a file or, for `-`, from standard input. One newline at its end is left out.
///
/// # Errors
/// If it cannot be read, is empty or is no text, or if another user could write the file.
pub fn secret_value(named: &str) -> Result<String> {
    process::keep_in_memory();
    let (name, bytes) = if named == "-" {
        ("standard input".to_owned(), stdin()?)
    } else {
        let found = open_existing(named)?;
        (found.path().to_string(), found.read(MAX_TEXT_BYTES)?)
    };
    let value = text(&name, bytes)?.text;
    let value = value.strip_suffix('\n').unwrap_or(&value);
    ensure!(!value.is_empty(), "{name} is empty");
    Ok(value.to_owned())
}

fn stdin() -> Result<Vec<u8>> {
    let mut bytes = vec![];
    _ = std::io::stdin().take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).context("reading standard input")?;
    Ok(bytes)
}

fn directory(found: &Trusted) -> Result<Texts> {
    let mut texts = Texts::default();
    for name in found.list()?.iter().filter(|name| is_manifest_file(name)) {
        let text = read(open_existing(found.path().join(name)?.as_str())?)?;
        add(&mut texts, name, text)?;
    }
    for name in found.list()?.into_iter().filter(|name| !is_manifest_file(name) && !is_usual_beside(name)) {
        if Trusted::open_unchecked(Path::new(found.path().join(&name)?.as_str()))?
            .is_some_and(|file| !file.is_directory())
        {
            texts.ignored.push(name);
        }
    }
    Ok(texts)
}

/// Returns whether a file beside the steps is a usual one that is no step: of an editor, or a page for readers.
fn is_usual_beside(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with(['~', '#']) || name.ends_with(".md") || name == "schema.json"
}

/// Opens a file or directory. For root, it must belong to root or to the user that called sudo, because a user that can
/// write the manifest can do anything.
fn open(named: &str) -> Result<Option<Trusted>> {
    let path = Path::new(named);
    if geteuid().is_root() { Trusted::open(path) } else { Trusted::open_unchecked(path) }
}

fn open_existing(named: &str) -> Result<Trusted> {
    open(named)?.with_context(|| format!("{named} does not exist"))
}

fn read(found: Trusted) -> Result<Text> {
    let path = found.path().to_string();
    text(&path, found.read(MAX_TEXT_BYTES)?)
}
