//! Shows the progress of a stack's machines while CloudFormation waits for their signals.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{
    Deploy,
    event::{GROUP_TYPE, StackEvent},
    fleet::{self, RefreshState},
};
use crate::notify::block::{self, Block};

/// The machines are looked at once in so many looks at the events: consoles change slowly, and EC2 limits the calls.
const LOOKS_PER_QUESTION: u32 = 5;

/// What is known of the machines; each change is shown.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The groups that CloudFormation waits for.
    groups: BTreeSet<String>,
    signalled: BTreeSet<String>,
    /// The machines whose first run has not ended, as far as is known.
    unready: BTreeSet<String>,
    told: BTreeMap<String, String>,
    looks: u32,
}

impl Board {
    /// Learns from an event which groups CloudFormation waits for and which machines have signalled.
    pub(super) fn learn(&mut self, event: &StackEvent) {
        if event.kind != GROUP_TYPE {
            return;
        }
        if let Some(machine) = event.success_of() {
            _ = self.signalled.insert(machine.to_owned());
        }
        if event.is_in_progress() && !event.physical.is_empty() {
            _ = self.groups.insert(event.physical.clone());
        } else {
            _ = self.groups.remove(&event.physical);
        }
    }

    /// Returns the machines that have not signalled.
    pub(super) fn silent(&self) -> Vec<String> {
        self.unready.difference(&self.signalled).cloned().collect()
    }

    /// Shows what has changed, and returns the machines whose failure no signal tells. A question that fails does not end
    /// the watch.
    pub(super) fn look(&mut self, deploy: &Deploy) -> Vec<String> {
        self.looks += 1;
        if self.groups.is_empty() || !self.looks.is_multiple_of(LOOKS_PER_QUESTION) {
            return vec![];
        }
        let told = if deploy.shape().launch_hook(&deploy.stack).is_some() {
            self.tell_refresh(deploy)
        } else {
            self.tell(deploy).map(|()| vec![])
        };
        told.unwrap_or_else(|error| {
            tracing::debug!("the machines' progress cannot be read: {error:#}");
            vec![]
        })
    }

    /// Shows how far the instance refreshes and the launched machines are; returns the machines that failed.
    fn tell_refresh(&mut self, deploy: &Deploy) -> Result<Vec<String>> {
        let (mut failed, mut gone) = (vec![], self.unready.clone());
        for group in self.groups.clone() {
            // The refresh of an earlier update has ended before this one begins.
            let is_new = |refresh: &RefreshState| !refresh.has_ended() || self.told.contains_key(&group);
            if let Some(refresh) = fleet::refresh(&deploy.system, &group)?.filter(is_new) {
                let reason = if refresh.reason.is_empty() { String::new() } else { format!(": {}", refresh.reason) };
                let percent = if refresh.percent.is_empty() { "0" } else { &refresh.percent };
                let pool = match refresh.pool_percent.as_str() {
                    "" => String::new(),
                    percent => format!(" (of the warm pool {percent} %)"),
                };
                let now = format!("{percent} % of the machines are replaced{pool}, {}{reason}", refresh.status);
                self.say(deploy, "instance refresh of", &group, now);
            }
            for (machine, state) in machines_of(deploy, &group)? {
                _ = gone.remove(&machine);
                // A machine that was there before is none whose first run is waited for.
                if state.trim_start_matches("Warmed:").starts_with("Pending") {
                    _ = self.unready.insert(machine.clone());
                } else if ["InService", "Warmed:Stopped"].contains(&state.as_str()) {
                    _ = self.unready.remove(&machine);
                }
                if !self.unready.contains(&machine) {
                    self.say(deploy, "machine", &machine, state);
                    continue;
                }
                let console = fleet::console(&deploy.system, &machine).unwrap_or_default();
                self.say(deploy, "machine", &machine, step(&console).unwrap_or_else(|| format!("booting ({state})")));
                if Block::find(&console).is_some() || block::of_user_data(&console).is_some() {
                    failed.push(machine);
                }
            }
        }
        // A machine that fails leaves the group at once. The bucket has its words.
        self.unready.retain(|machine| !gone.contains(machine));
        failed.extend(gone);
        Ok(failed)
    }

    /// Shows the state of something if it has changed.
    fn say(&mut self, deploy: &Deploy, what: &str, name: &str, now: String) {
        if self.told.get(name) != Some(&now) {
            deploy.say(&format!("          {what} {name}: {now}"));
            _ = self.told.insert(name.to_owned(), now);
        }
    }

    fn tell(&mut self, deploy: &Deploy) -> Result<()> {
        let names: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        for (machine, state) in fleet::groups(&deploy.system, &names)?.into_iter().flat_map(|group| group.machines) {
            _ = self.unready.insert(machine.clone());
            let now = if self.signalled.contains(&machine) {
                "signalled".to_owned()
            } else {
                let console = fleet::console(&deploy.system, &machine).unwrap_or_default();
                step(&console).unwrap_or_else(|| format!("booting ({state})"))
            };
            self.say(deploy, "machine", &machine, now);
        }
        Ok(())
    }
}

/// Returns the machines of a group and of its warm pool, each with its state in the life cycle.
fn machines_of(deploy: &Deploy, group: &str) -> Result<Vec<(String, String)>> {
    let Some(group) = fleet::groups(&deploy.system, &[group])?.into_iter().next() else { return Ok(vec![]) };
    let pooled = if group.pool_size.is_some() { fleet::pool(&deploy.system, &group.name)? } else { vec![] };
    Ok([group.machines, pooled].concat())
}

/// Returns the last step that a run has written to the console: `step 3/8 copy_http_resources`.
fn step(console: &str) -> Option<String> {
    let said = |line: &str| {
        let (_, line) = line.split_once("step ")?;
        let (step, rest) = line.split_once(": ")?;
        let (number, name) = step.split_once(' ')?;
        let is_number = number.contains('/') && number.chars().all(|c| c.is_ascii_digit() || c == '/');
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        (is_number && is_name && !rest.is_empty()).then(|| format!("step {number} {name}"))
    };
    console.lines().rev().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_found_between_what_others_write() {
        let console = "[   41.2] cloud-init[901]: step 1/8 install_dependencies: 2 changes (31 s)\r\n\
                       [   42.0] cloud-init[901]: step 2/8 enable_swap: 1 change (800 ms)\r\n\
                       [   42.1] audit: one more step forward: yes\r\n";
        assert_eq!(step(console).unwrap(), "step 2/8 enable_swap");
        assert_eq!(step("[    0.0] Linux version 6.1"), None);
    }
}
