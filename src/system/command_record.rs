//! The record of a command: whether its last run ended, and the files of its last good run.
//!
//! An image keeps it. The files that a command has made are in the image, too.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Fact, System};
use crate::{
    host::state,
    value::{AbsPath, Sha256},
};

/// The characters of a digest in a file name.
const DIGEST_CHARS: usize = 16;

/// The digests of the files of `run_on`; `None` for a file that does not exist.
pub type Inputs = BTreeMap<AbsPath, Option<Sha256>>;

/// The record of a command.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CommandRecord {
    /// How its last run ended, unless it was good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// The files of its last good run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
}

/// The end of a run that was not good.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// This program did not see its end.
    CutOff,
    /// It failed with this exit code or signal.
    Failed(String),
}

impl CommandRecord {
    /// Reads the record of a command. One that cannot be read counts as that of a command that was cut off.
    pub fn load(system: &System, name: &str) -> Self {
        match state::load(system.root(), &file_name(name)) {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                tracing::warn!("the record of the command {name} cannot be read: {error:#}");
                Self { unfinished: Some(Unfinished::CutOff), inputs: None }
            }
        }
    }

    /// Writes the record, or removes it if it is empty.
    pub fn save(&self, system: &System, name: &str) -> Result<()> {
        if self.unfinished.is_none() && self.inputs.is_none() {
            return system.root().remove(&state::path(&file_name(name))?);
        }
        state::write(system.root(), &file_name(name), self)
    }
}

fn file_name(name: &str) -> String {
    format!("{}.json", stem(name))
}

/// Returns the start of the names of a command's files. The name of the command may hold a secret, so they have its digest.
pub fn stem(name: &str) -> String {
    let digest = Sha256::of(name.as_bytes()).to_string();
    format!("command-{}", &digest[..DIGEST_CHARS])
}

/// Returns the digests of the files; in a plan, those after the earlier planned changes.
pub fn inputs(system: &System, paths: &[AbsPath]) -> Result<Inputs> {
    paths.iter().map(|path| Ok((path.clone(), system.stamp(path)?))).collect()
}

/// Returns in words which file differs from the last good run; `None` if none does.
pub fn changed(system: &System, paths: &[AbsPath], last: Option<&Inputs>) -> Result<Option<String>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let is_coming =
        |path: &&AbsPath| system.expects(&Fact::Path((*path).clone())) && system.expected_digest(path).is_none();
    if let Some(path) = paths.iter().find(is_coming) {
        return Ok(Some(format!("{path} will be new")));
    }
    let Some(last) = last else { return Ok(Some("no good run of it is recorded".into())) };
    let now = inputs(system, paths)?;
    for (path, stamp) in &now {
        let is_same = match last.get(path) {
            Some(then) => system.has_stamp(path, then, stamp)?,
            None => false,
        };
        if !is_same {
            return Ok(Some(format!("{path} has changed since its last good run")));
        }
    }
    Ok(None)
}
