//! Files that an earlier run has replaced, for the run that starts the service that reads them.
//!
//! They are in the state directory, with mode 0600, until the service has been started with the change. Those of credentials
//! are in memory.

use std::io::{Read, Seek};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::Previous;
use crate::{
    host::{
        memory,
        root::{FileType, Ownership},
        state,
    },
    system::System,
    value::{AbsPath, Sha256},
};

/// The file in the state directory.
const FILE: &str = "previous.json";
/// The file beside the credentials, for their earlier versions.
const IN_MEMORY: &str = "/run/glovo-bootstrap/credentials/.previous.json";
/// Limits the size of a saved file. Configuration and unit files are smaller.
const MAX_FILE_BYTES: u64 = 256 << 10;
/// Limits the size of all saved files together.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// The machine; see [`System::identity`].
    machine: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: AbsPath,
    /// The digest of the path after the run. If another process has changed the path since, its change is kept.
    left: Option<Sha256>,
    before: Before,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Nothing,
    Link(String),
    File { uid: u32, gid: u32, mode: u32, base64: String },
}

impl System {
    /// Loads the files that an earlier run has saved. Unreadable ones are ignored.
    pub fn load_previous(&self) {
        let on_disk = state::read::<Saved>(self.root(), FILE);
        let saved = on_disk.into_iter().chain(self.saved_in_memory());
        let saved = saved.filter(|saved| saved.machine == self.host.identity());
        for Entry { path, left, before } in saved.flat_map(|saved| saved.entries) {
            let is_as_left = self.content_at(&path).is_ok_and(|now| now == left);
            if let Some(previous) = before.decode().filter(|_| is_as_left) {
                _ = self.kept.borrow_mut().previous.insert(path, previous);
            }
        }
    }

    /// Returns whether the earlier state of any path is known.
    pub fn has_previous(&self) -> bool {
        !self.kept.borrow().previous.is_empty()
    }

    /// Saves the earlier states of the paths whose services have not been started with the changes.
    pub fn save_previous(&self, is_awaited: impl Fn(&AbsPath) -> bool) -> Result<()> {
        let mut entries = vec![];
        let mut left_bytes = MAX_BYTES;
        for (path, previous) in self.kept.borrow().previous.iter().filter(|(path, _)| is_awaited(path)) {
            let entry = Before::encode(previous).and_then(|before| Ok((before, self.content_at(path)?)));
            match entry {
                Ok((Some(before), left)) if before.bytes() <= left_bytes => {
                    left_bytes -= before.bytes();
                    entries.push(Entry { path: path.clone(), left, before });
                }
                Err(error) => tracing::warn!(%path, "its earlier content is not kept for a later run: {error:#}"),
                Ok(_) => tracing::warn!(%path, "its earlier content is too large to be saved for a later run"),
            }
        }
        // A credential is never written to a disk.
        let is_in_memory = |entry: &mut Entry| entry.path.directory() == Some(memory::DIRECTORY);
        let in_memory: Vec<Entry> = entries.extract_if(.., is_in_memory).collect();
        let machine = self.host.identity();
        let path = AbsPath::from(IN_MEMORY);
        if in_memory.is_empty() {
            self.remove_if_there(&path)?;
        } else {
            let bytes = serde_json::to_vec(&Saved { machine: machine.clone(), entries: in_memory })?;
            self.root().write(&path, Ownership { uid: 0, gid: 0, mode: 0o600 }, &bytes)?;
        }
        if entries.is_empty() {
            return self.remove_if_there(&state::path(FILE)?);
        }
        state::write(self.root(), FILE, &Saved { machine, entries })
    }

    /// Returns the credentials that an earlier run has saved.
    fn saved_in_memory(&self) -> Option<Saved> {
        let bytes = self.root().read(&AbsPath::from(IN_MEMORY), 2 * MAX_BYTES as u64).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn remove_if_there(&self, path: &AbsPath) -> Result<()> {
        if self.root().status(path)?.is_some() { self.root().remove(path) } else { Ok(()) }
    }

    /// Returns a digest of a path: of a file's content or of a link's target.
    fn content_at(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        match self.root().status(path)?.map(|status| status.file_type) {
            Some(FileType::Link) => {
                let target = self.root().read_link(path)?.context("the link is gone")?;
                Ok(Some(Sha256::of(format!("link to {}", target.display()).as_bytes())))
            }
            Some(FileType::Regular) => self.stamp(path),
            _ => Ok(None),
        }
    }
}

impl Before {
    /// Returns the content for a save; `None` if it is too large.
    fn encode(previous: &Previous) -> Result<Option<Self>> {
        let (bytes, ownership) = match previous {
            Previous::Nothing => return Ok(Some(Self::Nothing)),
            Previous::Link(target) => return Ok(Some(Self::Link(target.clone()))),
            Previous::Tree(_) => return Ok(None),
            Previous::Bytes(bytes, ownership) => (bytes.clone(), ownership),
            Previous::File(file, ownership) => {
                let (mut file, mut bytes) = (file, vec![]);
                file.rewind().context("reading the old bytes")?;
                _ = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).context("reading the old bytes")?;
                (bytes, ownership)
            }
        };
        let Ownership { uid, gid, mode } = *ownership;
        let is_small = bytes.len() as u64 <= MAX_FILE_BYTES;
        Ok(is_small.then(|| Self::File { uid, gid, mode, base64: BASE64_STANDARD.encode(bytes) }))
    }

    fn decode(self) -> Option<Previous> {
        Some(match self {
            Self::Nothing => Previous::Nothing,
            Self::Link(target) => Previous::Link(target),
            Self::File { uid, gid, mode, base64 } => {
                Previous::Bytes(BASE64_STANDARD.decode(base64).ok()?, Ownership { uid, gid, mode })
            }
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::File { base64, .. } => base64.len(),
            Self::Nothing | Self::Link(_) => 0,
        }
    }
}
