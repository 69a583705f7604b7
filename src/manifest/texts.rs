//! The texts of a manifest, and their bounds.

use anyhow::{Result, bail, ensure};

use crate::diagnostic::Text;

/// The largest manifest file, far larger than a written one.
pub(super) const MAX_TEXT_BYTES: u64 = 16 << 20;
/// The most files in a manifest.
const MAX_FILES: usize = 512;

/// The texts of a manifest.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// The steps, in the byte order of their names.
    pub steps: Vec<Text>,
    /// `variables.toml`.
    pub variables: Option<Text>,
    /// `vault.toml`.
    pub vault: Option<Text>,
    /// Files beside them whose names do not end in `.toml`.
    pub ignored: Vec<String>,
}

pub(super) fn is_manifest_file(name: &str) -> bool {
    name.ends_with(".toml") && !name.starts_with('.')
}

pub(super) fn add(texts: &mut Texts, name: &str, text: Text) -> Result<()> {
    ensure!(texts.steps.len() < MAX_FILES, "a manifest has at most {MAX_FILES} files");
    let others = texts.all().map(|text| text.text.len()).sum::<usize>();
    let bytes = (others + text.text.len()) as u64;
    ensure!(bytes <= MAX_TEXT_BYTES, "the files of a manifest have at most {MAX_TEXT_BYTES} bytes together");
    match name {
        "variables.toml" => texts.variables = Some(text),
        "vault.toml" => texts.vault = Some(text),
        _ => texts.steps.push(text),
    }
    Ok(())
}

impl Texts {
    /// Returns all texts.
    pub(super) fn all(&self) -> impl Iterator<Item = &Text> {
        self.variables.iter().chain(&self.vault).chain(&self.steps)
    }
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
