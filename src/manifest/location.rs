//! Where a manifest is read from: a directory, a file, standard input, a URL, or the binary itself.

use std::{fmt, io::Read};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::{archive, built_in, diagnostic::Text};
use crate::{
    error::Fault,
    system::{
        System,
        fetch::{Download, Source},
        root::{FileType, Root, host_path},
    },
    value::{AbsPath, Sha256},
};

/// The directory that is used if nothing else is named and it exists.
const DIRECTORY: &str = "/etc/glovo-bootstrap/steps";
/// The longest manifest file: more than any person writes.
pub(super) const MAX_TEXT_BYTES: u64 = 1 << 20;
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
            None => match host_path(DIRECTORY) {
                Ok(path) => Ok(Self::Path(path)),
                Err(_) => Ok(Self::BuiltIn),
            },
            Some("-") => Ok(Self::Stdin),
            Some("built-in") => Ok(Self::BuiltIn),
            Some(url) if url.contains("://") => {
                let Some((url, pin)) = url.split_once("#sha256=") else {
                    bail!(
                        Fault::new("a manifest from a URL must be pinned").hint(format!("--steps '{url}#sha256=HEX'"))
                    );
                };
                Ok(Self::Url(url.parse()?, pin.parse()?))
            }
            Some(path) => Ok(Self::Path(host_path(path)?)),
        }
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
                let mut fetched = system.fetch(&Download { sources: source.clone().into(), sha256: Some(*pin) })?;
                ensure!(fetched.size <= MAX_TEXT_BYTES, "{source} is larger than a manifest: {} bytes", fetched.size);
                let mut bytes = vec![];
                _ = fetched.file.read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    return archive::read(&source.to_string(), &bytes);
                }
                Ok(Texts { steps: vec![text(&source.to_string(), bytes)?], variables: None })
            }
            Self::Path(path) => {
                let host = Root::open("/".as_ref())?;
                match host.status(path)?.map(|status| status.file_type) {
                    Some(FileType::Directory) => directory(&host, path),
                    _ => Ok(Texts { steps: vec![read_file(&host, path)?], variables: None }),
                }
            }
        }
    }
}

/// Reads a file of variables named on the command line.
pub fn variables_file(named: &str) -> Result<Text> {
    read_file(&Root::open("/".as_ref())?, &host_path(named)?)
}

fn directory(host: &Root, path: &AbsPath) -> Result<Texts> {
    check_owner(host, path)?;
    let mut texts = Texts::default();
    for name in host.list(path)?.iter().filter(|name| is_manifest_file(name)) {
        let text = read_file(host, &path.join(name)?)?;
        add(&mut texts, name, text)?;
    }
    Ok(texts)
}

pub(super) fn is_manifest_file(name: &str) -> bool {
    name.ends_with(".toml") && !name.starts_with('.')
}

pub(super) fn add(texts: &mut Texts, name: &str, text: Text) -> Result<()> {
    ensure!(texts.steps.len() < MOST_FILES, "a manifest has at most {MOST_FILES} files");
    if name == "variables.toml" {
        texts.variables = Some(text);
    } else {
        texts.steps.push(text);
    }
    Ok(())
}

fn read_file(host: &Root, path: &AbsPath) -> Result<Text> {
    check_owner(host, path)?;
    let bytes = host.read(path, MAX_TEXT_BYTES)?;
    let Some(bytes) = bytes else { bail!("{path} does not exist") };
    text(path.as_str(), bytes)
}

pub(super) fn text(name: &str, bytes: Vec<u8>) -> Result<Text> {
    ensure!(bytes.len() as u64 <= MAX_TEXT_BYTES, "{name} is larger than a manifest: over {MAX_TEXT_BYTES} bytes");
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text { name: name.into(), text }),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = String::from_utf8_lossy(valid).rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            bail!("{name}:{line}:{column}: not UTF-8")
        }
    }
}

/// What root runs must be root's: who can write the manifest can do anything. A manifest of the user who
/// called sudo is taken too.
fn check_owner(host: &Root, path: &AbsPath) -> Result<()> {
    let Some(status) = host.status(path)? else { return Ok(()) };
    if !geteuid().is_root() {
        return Ok(());
    }
    let sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    if status.ownership.uid != 0 && Some(status.ownership.uid) != sudo {
        bail!(
            Fault::new(format!("{path} belongs to uid {}, not to root", status.ownership.uid))
                .hint(format!("chown -R root: {path}"))
        );
    }
    if status.ownership.mode & 0o022 != 0 && (status.ownership.mode & 0o002 != 0 || status.ownership.gid != 0) {
        let hint = format!("chmod -R go-w {path}");
        bail!(Fault::new(format!("others may write to {path} (mode {:04o})", status.ownership.mode)).hint(hint));
    }
    Ok(())
}
