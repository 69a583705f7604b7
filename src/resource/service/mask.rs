//! Masked units: those that systemd must not start.

use anyhow::Result;

use super::{Service, UNITS, read_again};
use crate::{
    error::Fault,
    host::systemd::{Unit, unit_files},
    resource::{Change, Finding},
    system::System,
    value::{AbsPath, quoted},
};

impl Service {
    /// Returns the fields that say nothing about a masked unit.
    pub(super) fn fields_of_started_units(&self) -> Vec<Finding> {
        let fields = [
            ("enabled", self.enabled.is_some()),
            ("running", self.running.is_some()),
            ("restart_on", !self.restart_on.is_empty()),
            ("reload_on", !self.reload_on.is_empty()),
            ("validate", self.validate.is_some()),
        ];
        let excluded = fields.into_iter().filter(|(_, is_declared)| *is_declared);
        let finding = |field| Finding::new(field, format!("`masked = true` and `{field}` exclude each other"));
        let hint = "remove one of them: systemd starts no masked unit";
        excluded.map(|(field, _)| finding(field).hint(hint)).collect()
    }

    /// Returns the place of its mask.
    pub(super) fn place_of_mask(&self) -> String {
        format!("{UNITS}/{}", self.name.0)
    }

    /// Returns the changes that mask the unit and stop it. The unit need not exist.
    pub(super) fn plan_mask(&self, system: &System) -> Result<Vec<Change>> {
        let name = self.name.0.clone();
        let place: AbsPath = self.place_of_mask().parse()?;
        let mut changes = vec![];
        if system.host.mask_of(&name)?.as_ref() != Some(&place) {
            if let Some(unit) = system.host.alias_of(&name)? {
                let fault =
                    Fault::new(format!("cannot mask {name}: it is only another name of {unit}, which would go on"));
                return Err(fault.hint(format!("declare the mask of the unit: name = \"{unit}\"")).into());
            }
            if system.root().status(&place)?.is_some() {
                return Err(Fault::new(format!("cannot mask {name}: {place} is in the place of the mask"))
                    .hint(format!("look at it, then move it away: mv {0} {0}.old", quoted(place.as_str())))
                    .into());
            }
            changes.push(Change::new("mask", move |system| system.host.mask(&name)));
        }
        if !system.is_live() {
            return Ok(changes);
        }
        let unit = system.host.unit(&self.name.0)?;
        if changes.is_empty() && unit.load_state() != "masked" {
            changes.push(read_again());
        }
        if unit.is_up_or_will_be() {
            changes.push(self.stop());
        }
        Ok(changes)
    }

    /// Returns the plan for a unit that is masked and must not be; `None` if it is not masked.
    pub(super) fn plan_unmask(&self, system: &System) -> Result<Option<Vec<Change>>> {
        let name = self.name.0.clone();
        let masks = system.host.masks_of(&name)?;
        if masks.is_empty() {
            return Ok(None);
        }
        let is_ours = |mask: &&AbsPath| mask.as_str().starts_with("/etc/") || mask.as_str().starts_with("/run/");
        if let Some(mask) = masks.iter().find(|mask| !is_ours(mask)) {
            let fault = Fault::new(format!("cannot unmask {name}: {mask}, which masks it, is not in /etc or /run"));
            return Err(fault.hint(format!("declare a unit file {UNITS}/{name}: it precedes {mask}")).into());
        }
        let needs_file = self.enabled == Some(true) || self.running == Some(true);
        if needs_file && !self.has_file_below(system, &masks)? && !self.is_coming(system) {
            return Err(self.not_loaded(&Unit::default()));
        }
        let unmasked = name.clone();
        let unmask = move |system: &System| masks.iter().try_for_each(|mask| system.host.unmask(&unmasked, mask));
        let mut changes = vec![Change::new("unmask", unmask)];
        let is_live = system.is_live();
        match self.running {
            Some(true) if is_live => changes.extend(self.start_or_restart(system, &system.host.unit(&name)?)?),
            Some(true) => changes.push(Change::deferred(format!("start (deferred: {})", system.why_not_live()))),
            Some(false) if is_live && system.host.unit(&name)?.is_up_or_will_be() => changes.push(self.stop()),
            _ => {}
        }
        changes.extend(self.enablement(system.host.is_enabled_offline(&name)?));
        Ok(Some(changes))
    }

    /// Returns whether a unit file is left when its mask is gone.
    fn has_file_below(&self, system: &System, masks: &[AbsPath]) -> Result<bool> {
        for path in unit_files(&self.name.0).filter(|path| !masks.contains(path)) {
            if system.root().status(&path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
