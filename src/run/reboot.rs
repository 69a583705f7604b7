//! The note on reboots: the run that goes on after one, and the guard against a loop.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{report::RebootReport, selection::Selection};
use crate::{
    error::Fault,
    host::{facts::boot_id, state},
    system::{Mode, System},
};

/// The note's file in the state directory.
const FILE: &str = "reboot.json";
/// The most reboots for one step without a run between them that needed none. So a loop ends also if each reboot has
/// another reason.
const MAX_REBOOTS: usize = 3;

/// What a machine knows of its reboots by this program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootNote {
    /// The machine's identity; see [`System::identity`]. A note of another machine is ignored.
    machine: Option<String>,
    /// The reboots after each step, until a run finds there that none is needed.
    #[serde(default)]
    ordered: BTreeMap<String, Vec<OrderedReboot>>,
    /// The run that goes on after the boot.
    #[serde(default)]
    pub pending: Option<PendingRun>,
}

/// A reboot that a run has ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OrderedReboot {
    why: String,
    /// The boot that it ended.
    boot: String,
}

/// A run that a reboot has interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRun {
    /// The step after which the machine reboots.
    pub step: String,
    /// The reason.
    pub why: String,
    /// The boot that the reboot ends.
    boot: String,
    /// The steps to run.
    pub selection: Selection,
    /// The receivers of the outcome.
    pub signal: Option<PendingSignal>,
    /// Whether the unit that resumes the run was disabled before.
    pub has_enabled_unit: bool,
}

/// The signal that a run owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSignal {
    /// `STACK/RESOURCE`.
    pub target: String,
    /// `GROUP/HOOK`.
    pub hook: Option<String>,
    /// `s3://BUCKET/PREFIX`.
    #[serde(default)]
    pub failures: Option<String>,
    /// The time that the run still had, in seconds, at `ordered`.
    pub seconds: u64,
    /// When the reboot was ordered, in seconds after 1970.
    pub ordered: i64,
}

impl RebootNote {
    /// Reads the note of this machine; an empty one if there is none.
    ///
    /// # Errors
    /// If a run cannot read it: without the note, the machine could reboot for ever.
    pub fn read(system: &System) -> Result<Self> {
        let note: Option<Self> = match state::load(system.root(), FILE) {
            Ok(note) => note,
            Err(_) if system.mode() == Mode::Plan => None,
            Err(error) => {
                let fault = Fault::new("the note on this machine's reboots cannot be read").caused_by(error);
                return Err(fault.hint(format!("remove it: rm {}/{FILE}", state::DIRECTORY)).into());
            }
        };
        let machine = system.host.identity();
        Ok(note.filter(|note| note.machine == machine).unwrap_or_else(|| Self { machine, ..Self::default() }))
    }

    /// Writes the note durably.
    pub fn write(&self, system: &System) -> Result<()> {
        state::write(system.root(), FILE, self).context("keeping the note on the reboot")
    }

    /// Returns whether the machine has rebooted after a step for this reason, or too often, and must not do so again.
    ///
    /// An order of this boot does not count: that reboot has not been made.
    pub fn has_rebooted(&self, step: &str, why: &str) -> bool {
        let boot = boot_id();
        let ordered = self.ordered.get(step).map_or(&[][..], Vec::as_slice);
        let mut made = ordered.iter().filter(|reboot| reboot.boot != boot);
        // Without an id of the boot, nothing shows that a reboot was made.
        boot.is_empty() || ordered.len() >= MAX_REBOOTS || made.any(|reboot| reboot.why == why)
    }

    /// Forgets the reboots after a step, since none is needed there.
    pub fn forget(system: &System, step: &str) -> Result<()> {
        let mut note = Self::read(system)?;
        if note.ordered.remove(step).is_some() {
            note.write(system)?;
        }
        Ok(())
    }

    /// Notes a reboot before it is ordered.
    pub fn order(system: &System, reboot: &RebootReport, selection: Selection) -> Result<()> {
        let RebootReport { after: step, why } = reboot.clone();
        let (mut note, boot) = (Self::read(system)?, boot_id());
        let ordered = note.ordered.entry(step.clone()).or_default();
        let reboot = OrderedReboot { why: why.clone(), boot: boot.clone() };
        if !ordered.contains(&reboot) {
            ordered.push(reboot);
        }
        note.pending = Some(PendingRun {
            step,
            why,
            boot,
            selection,
            signal: None,
            has_enabled_unit: note.pending.is_some_and(|pending| pending.has_enabled_unit),
        });
        note.write(system)
    }

    /// Returns the run that goes on now, after the boot.
    pub fn resumed(system: &System) -> Result<Option<PendingRun>> {
        let boot = boot_id();
        Ok(Self::read(system)?.pending.filter(|pending| pending.boot != boot))
    }

    /// Notes the end of the resumed run.
    pub fn end(system: &System) -> Result<()> {
        let mut note = Self::read(system)?;
        if note.pending.take().is_some() {
            note.write(system)?;
        }
        Ok(())
    }
}
