//! The note of a machine that Auto Scaling prepares for a warm pool: what its run owes at the start from the pool.
//!
//! User-data runs at the first boot only, but the launching hook waits a second time then.
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pool-instance-lifecycle.html>

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::reboot::PendingSignal;
use crate::{
    host::{facts::boot_id, state},
    system::System,
};

/// The note's file in the state directory.
const FILE: &str = "warm-pool.json";

/// What a machine knows of the warm pool that it enters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmPoolNote {
    /// The machine's identity; see [`System::identity`]. A note of another machine is ignored.
    machine: Option<String>,
    /// The boot in which the machine is prepared.
    boot: String,
    /// The receivers of the outcome.
    pub signal: PendingSignal,
    /// Whether the machine is prepared, so that Auto Scaling stops it. It boots again only when it leaves the pool.
    pub is_prepared: bool,
    /// Whether the unit that runs the steps at the next boot was disabled before.
    pub has_enabled_unit: bool,
}

impl WarmPoolNote {
    /// Returns the note of a machine that is prepared in this boot.
    pub fn new(system: &System, signal: PendingSignal) -> Self {
        Self { machine: system.host.identity(), boot: boot_id(), signal, is_prepared: false, has_enabled_unit: false }
    }

    /// Returns the note if this machine is prepared for the pool now.
    pub fn of_this_boot(system: &System) -> Option<Self> {
        Self::read(system).filter(|note| note.boot == boot_id())
    }

    /// Returns the note if this machine was prepared in an earlier boot.
    pub fn of_earlier_boot(system: &System) -> Option<Self> {
        Self::read(system).filter(|note| note.boot != boot_id())
    }

    /// Returns whether this machine is in a warm pool, or has just left it.
    pub fn is_there(system: &System) -> bool {
        Self::read(system).is_some()
    }

    /// Reads the note. A machine with an unreadable one does not complete the hook, and Auto Scaling replaces it.
    fn read(system: &System) -> Option<Self> {
        let note: Option<Self> = state::read(system.root(), FILE);
        note.filter(|note| note.machine == system.host.identity())
    }

    /// Writes the note durably.
    pub fn write(&self, system: &System) -> Result<()> {
        state::write(system.root(), FILE, self).context("keeping the note on the warm pool")
    }

    /// Removes the note.
    pub fn remove(system: &System) -> Result<()> {
        system.root().remove(&state::path(FILE)?)
    }
}
