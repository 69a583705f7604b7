//! Where a manifest is read from: a directory, a file, standard input, a URL, or the binary itself.

use std::{fmt, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::{archive, built_in};
use crate::{
    diagnostic::Text,
    error::Fault,
    fetch::{Download, Source},
    host::root::trusted::Trusted,
    system::System,
    value::{AbsPath, Sha256, quoted},
};

/// The directory that is used if nothing else is named and it exists.
const DIRECTORY: &str = "/etc/glovo-bootstrap/steps";
/// The longest manifest file: more than any person writes.
pub(super) const MAX_TEXT_BYTES: u64 = 16 << 20;
/// The most files in a manifest.
const MOST_FILES: usize = 512;

/// The texts of a manifest.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// The steps, in the byte order of their names.
    pub steps: Vec<Text>,
    /// `variables.toml`.
    pub variables: Option<Text>,
}

/// Where a manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In the binary.
    BuiltIn,
    /// A directory of step files, or one file.
    Path(AbsPath),
    /// Standard input.
    Stdin,
    /// A file or a tar.gz from elsewhere, pinned.
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
    /// Chooses: what was named, else the usual directory if it exists, else the binary's own.
    pub fn choose(named: Option<&str>) -> Result<Self> {
        match named {
            None => Ok(open(DIRECTORY)?.map_or(Self::BuiltIn, |found| Self::Path(found.path().clone()))),
            Some("-") => Ok(Self::Stdin),
            Some("built-in") => Ok(Self::BuiltIn),
            Some(url) if url.contains("://") => {
                let Some((url, pin)) = url.split_once("#sha256=") else {
                    bail!(
                        Fault::new("a manifest from a URL must be pinned")
                            .hint(format!("--steps {}", quoted(&format!("{url}#sha256=HEX"))))
                    );
                };
                Ok(Self::Url(url.parse()?, pin.parse()?))
            }
            Some(path) => Ok(Self::Path(open_existing(path)?.path().clone())),
        }
    }

    /// Fails if another user than the caller and root could have written a file of the manifest. [`Location::read`] asks
    /// that where root reads; here it is asked of every caller.
    pub fn check_owners(&self) -> Result<()> {
        let Self::Path(path) = self else { return Ok(()) };
        let Some(found) = Trusted::open(Path::new(path.as_str()))? else { return Ok(()) };
        if found.is_directory() {
            for name in found.list()?.iter().filter(|name| is_manifest_file(name)) {
                drop(Trusted::open(Path::new(found.path().join(name)?.as_str()))?);
            }
        }
        Ok(())
    }

    /// Reads the texts.
    pub fn read(&self, system: &System) -> Result<Texts> {
        match self {
            Self::BuiltIn => Ok(built_in::texts()),
            Self::Stdin => {
                let mut bytes = vec![];
                _ = std::io::stdin()
                    .take(MAX_TEXT_BYTES + 1)
                    .read_to_end(&mut bytes)
                    .context("reading standard input")?;
                Ok(Texts { steps: vec![text("standard input", bytes)?], variables: None })
            }
            Self::Url(source, pin) => {
                let mut fetched = system.fetch(&Download::new(source.clone(), Some(*pin)))?;
                ensure!(fetched.size <= MAX_TEXT_BYTES, "{source} is larger than a manifest: {} bytes", fetched.size);
                let mut bytes = vec![];
                _ = fetched.file.read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    return archive::read(&source.to_string(), &bytes);
                }
                Ok(Texts { steps: vec![text(&source.to_string(), bytes)?], variables: None })
            }
            Self::Path(path) => {
                let found = open_existing(path.as_str())?;
                if found.is_directory() {
                    return directory(&found);
                }
                Ok(Texts { steps: vec![read(found)?], variables: None })
            }
        }
    }
}

/// Reads a file of variables named on the command line.
pub fn variables_file(named: &str) -> Result<Text> {
    read(open_existing(named)?)
}

fn directory(found: &Trusted) -> Result<Texts> {
    let mut texts = Texts::default();
    for name in found.list()?.iter().filter(|name| is_manifest_file(name)) {
        let text = read(open_existing(found.path().join(name)?.as_str())?)?;
        add(&mut texts, name, text)?;
    }
    Ok(texts)
}

pub(super) fn is_manifest_file(name: &str) -> bool {
    name.ends_with(".toml") && !name.starts_with('.')
}

pub(super) fn add(texts: &mut Texts, name: &str, text: Text) -> Result<()> {
    ensure!(texts.steps.len() < MOST_FILES, "a manifest has at most {MOST_FILES} files");
    let others = texts.steps.iter().chain(&texts.variables).map(|text| text.text.len()).sum::<usize>();
    let bytes = (others + text.text.len()) as u64;
    ensure!(bytes <= MAX_TEXT_BYTES, "the files of a manifest have at most {MAX_TEXT_BYTES} bytes together");
    if name == "variables.toml" {
        texts.variables = Some(text);
    } else {
        texts.steps.push(text);
    }
    Ok(())
}

/// What root obeys must be root's: a user that can write the manifest can do anything. A manifest of the user that called
/// sudo is taken too.
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

pub(super) fn text(name: &str, bytes: Vec<u8>) -> Result<Text> {
    ensure!(bytes.len() as u64 <= MAX_TEXT_BYTES, "{name} is larger than a manifest: over {MAX_TEXT_BYTES} bytes");
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text::new(name, text)),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = String::from_utf8_lossy(valid).rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            bail!("{name}:{line}:{column}: not UTF-8")
        }
    }
}
