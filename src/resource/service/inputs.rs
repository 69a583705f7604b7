//! The files that a service reads at its start, and their changes since its last good start.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{START_TIMEOUT, Service};
use crate::{
    host::{
        state,
        systemd::{Unit, unit_files},
    },
    system::System,
    value::{AbsPath, Sha256},
};

/// The record of a unit's last good start.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Started {
    /// The machine. On a machine made from an image of its disk, systemd has started the unit again at boot.
    #[serde(default)]
    machine: Option<String>,
    inputs: BTreeMap<AbsPath, Option<Sha256>>,
}

impl Service {
    /// The full name of its unit.
    pub fn unit_name(&self) -> &str {
        &self.name.0
    }

    /// Returns whether a run starts it.
    pub fn is_started(&self) -> bool {
        self.running == Some(true)
    }

    /// Returns the field of which another declaration of the same unit has the opposite.
    pub fn contradiction(&self, other: &Self) -> Option<&'static str> {
        let opposes = |one: Option<bool>, other: Option<bool>| one.is_some_and(|one| other == Some(!one));
        let is_masked = |one: &Self, other: &Self| {
            one.masked == Some(true) && (other.running == Some(true) || other.enabled == Some(true))
        };
        if self.name != other.name {
            None
        } else if opposes(self.running, other.running) {
            Some("running")
        } else if opposes(self.enabled, other.enabled) {
            Some("enabled")
        } else {
            let is_one = opposes(self.masked, other.masked) || is_masked(self, other) || is_masked(other, self);
            is_one.then_some("masked")
        }
    }

    /// Returns the files whose changes restart or reload it, each with the field that names it.
    pub fn read_files(&self) -> impl Iterator<Item = (&'static str, &AbsPath)> {
        let restart = self.restart_on.iter().map(|path| ("restart_on", path));
        restart.chain(self.reload_on.iter().map(|path| ("reload_on", path)))
    }

    /// Returns the files that it reads: those of `restart_on` and `reload_on`, and its own unit file.
    pub(super) fn files(&self) -> Vec<AbsPath> {
        self.read_files().map(|(_, path)| path.clone()).chain(unit_files(&self.name.0)).collect()
    }

    /// Returns the files of `restart_on` and `reload_on` that differ from its last good start, or in a plan that will differ.
    ///
    /// Returns `None` if no start on this machine is known.
    pub fn changed_since_start(&self, system: &System) -> Result<Option<Vec<AbsPath>>> {
        let Some(started) = self.started(system) else { return Ok(None) };
        let now = self.inputs(system)?.inputs;
        let is_same = |path: &AbsPath, now: &Option<Sha256>| -> Result<bool> {
            // It may have been declared since. A file that does not exist is as it was.
            let Some(then) = started.inputs.get(path) else { return Ok(now.is_none()) };
            system.has_stamp(path, then, now)
        };
        let mut changed = vec![];
        for (path, now) in now {
            if !is_same(&path, &now)? {
                changed.push(path);
            }
        }
        Ok(Some(changed))
    }

    /// Returns a changed file that the running service has not read yet.
    pub fn awaits_restart_for(&self, system: &System) -> Result<Option<AbsPath>> {
        if !system.is_live() {
            return Ok(None);
        }
        let changed = self.changed_since_start(system)?.unwrap_or_default().into_iter().next();
        Ok(if changed.is_some() && system.host.unit(&self.name.0)?.is_active() { changed } else { None })
    }

    /// Returns whether this program has started it with the present content of a path.
    pub fn runs_with(&self, system: &System, path: &AbsPath) -> Result<bool> {
        if system.host.has_started(&self.name.0) {
            return Ok(true);
        }
        let Some(started) = self.started(system).filter(|_| self.running == Some(true)) else { return Ok(false) };
        let now = self.inputs(system)?.inputs;
        Ok(now.contains_key(path)
            && now.get(path) == started.inputs.get(path)
            && system.host.unit(&self.name.0)?.is_active())
    }

    /// Returns whether it serves, so that a failed restart would end its service.
    ///
    /// A unit that systemd restarts repeatedly does not serve.
    pub(super) fn serves(unit: &Unit) -> Result<bool> {
        Ok(unit.is_active() && (unit.restarts() == 0 || unit.active_for()? > START_TIMEOUT))
    }

    /// Returns the digests of the files that the unit reads at its start; in a plan, those after the planned changes.
    pub(super) fn inputs(&self, system: &System) -> Result<Started> {
        let digests = self.read_files().map(|(_, path)| Ok((path.clone(), system.stamp(path)?)));
        Ok(Started { machine: system.host.identity(), inputs: digests.collect::<Result<_>>()? })
    }

    /// Records the files that it was started with.
    pub(super) fn remember(&self, system: &System, inputs: &Started) -> Result<()> {
        if self.read_files().next().is_none() {
            Ok(())
        } else {
            state::write(system.root(), &self.state_name(), inputs)
        }
    }

    fn started(&self, system: &System) -> Option<Started> {
        let started = state::read::<Started>(system.root(), &self.state_name());
        started.filter(|started| started.machine == system.host.identity())
    }

    fn state_name(&self) -> String {
        format!("service-{}.json", self.name.0)
    }
}
