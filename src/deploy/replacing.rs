//! Makes sure that an update replaces a group, so that CloudFormation waits for the signals of the new machines.
//!
//! CloudFormation updates a group without machines in place in spite of its update policy, and waits for no signal:
//! <https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1475>.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    Deploy,
    fleet::{self, GroupSize},
    layout::Slot,
    parameters::{SlotOutput, SlotParameter},
    prepare::Prepared,
    stack::{ParameterValue, Stack},
};
use crate::{error::Fault, value::spoken};

/// How long a machine may take until it is in service.
const START_TIME: Duration = Duration::from_mins(3);

impl Deploy {
    /// Returns the name of the group that an update is to replace: that of the slot that gets another build. `None` also where
    /// CloudFormation replaces the machines in their group.
    pub(super) fn group_to_replace(&self, prepared: &Prepared) -> Option<String> {
        let stack = prepared.current.as_ref().filter(|stack| self.shape().launch_hook(&stack.name).is_none())?;
        let gets_build = |slot: &&Slot| {
            let build = self.layout().parameter(**slot, SlotParameter::Build);
            let wanted = prepared.wanted.parameters.get(&build);
            matches!(wanted, Some(ParameterValue::New(wanted)) if stack.parameter(&build) != wanted)
        };
        let slot = self.layout().slots().iter().find(gets_build)?;
        stack.outputs.get(&self.layout().output(*slot, SlotOutput::Group)).cloned()
    }

    /// Starts one machine in a group without machines, and waits until it is in service. If none comes, such as of an image
    /// that is gone, a note says so: [`Deploy::check_replaced`] looks afterwards.
    pub(super) fn have_a_machine(&self, name: &str) -> Result<()> {
        let (began, limit) = (Instant::now(), START_TIME.min(self.health_timeout()));
        let mut is_asked_for = false;
        loop {
            let group = fleet::groups(&self.system, &[name])?.into_iter().next();
            let Some(group) = group else { return Ok(()) };
            if group.machines.iter().any(|(_, state)| state == "InService") {
                return Ok(());
            }
            if !is_asked_for && group.desired == 0 {
                self.say(&format!(
                    "the group {name} has no machine: one is started, because CloudFormation would wait for no signal"
                ));
                fleet::resize(&self.system, name, GroupSize { desired: Some(1), ..GroupSize::default() })?;
            }
            is_asked_for = true;
            if began.elapsed() > limit {
                self.say(&format!("note: the group {name} has no machine in service after {}", spoken(limit)));
                return Ok(());
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Fails if CloudFormation has updated this group in place instead of replacing it.
    pub(super) fn check_replaced(&self, prepared: &Prepared, before: &str) -> Result<()> {
        let stack = Stack::find(&self.system, &prepared.stack)?.with_context(|| self.no_stack())?;
        if !stack.outputs.values().any(|group| group == before) {
            return Ok(());
        }
        let message =
            format!("CloudFormation updated the group {before} in place, and waited for no signal of its machines");
        let next = self.settings.build() + 1;
        let hint = match prepared.intent.promoted() {
            Some(_) => format!(
                "to have the machines signal, deploy under BUILD_NUMBER={next}; to continue by their health alone, run \
                 the same command again"
            ),
            None => format!("to have the machines signal, deploy under BUILD_NUMBER={next}"),
        };
        Err(Fault::new(message).hint(hint).into())
    }
}
