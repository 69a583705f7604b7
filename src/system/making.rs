//! The note about a file system that is being made. It is on the disk before mkfs writes its first byte, and is removed
//! after mkfs has succeeded. So only a device that was blank, and that this machine has begun to format, is formatted again.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::System;
use crate::{
    host::{disks::BlockDevice, state},
    value::Sha256,
};

/// The characters of a digest in a file name.
const DIGEST_CHARS: usize = 16;

/// The note about a file system that is being made.
#[derive(Debug, Serialize, Deserialize)]
pub struct MakingNote {
    /// The device, by its serial number or by this boot.
    identity: String,
    /// The UUID of the file system.
    pub uuid: String,
}

impl MakingNote {
    /// Reads the note about a device; `None` if there is none, or if the device cannot be recognized.
    pub fn load(system: &System, device: &BlockDevice) -> Result<Option<Self>> {
        let Some(identity) = system.host.device_identity(device)? else { return Ok(None) };
        let note: Option<Self> = state::read(system.root(), &file_name(&identity));
        Ok(note.filter(|note| note.identity == identity))
    }

    /// Writes the note about a device that gets a file system. Without a note if the device could not be recognized later.
    pub fn write(system: &System, device: &BlockDevice, uuid: &str) -> Result<()> {
        let Some(identity) = system.host.device_identity(device)? else { return Ok(()) };
        let name = file_name(&identity);
        state::write(system.root(), &name, &Self { identity, uuid: uuid.into() })
    }

    /// Removes the note about a device.
    pub fn remove(system: &System, device: &BlockDevice) -> Result<()> {
        let Some(identity) = system.host.device_identity(device)? else { return Ok(()) };
        system.root().remove(&state::path(&file_name(&identity))?)
    }
}

fn file_name(identity: &str) -> String {
    format!("filesystem-{}.json", &Sha256::of(identity.as_bytes()).to_string()[..DIGEST_CHARS])
}
