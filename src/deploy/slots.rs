//! The slots of a deployment as AWS has them now.

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Context, Result};

use super::{
    Deploy,
    fleet::{self, ScalingGroup, TargetHealth},
    layout::{Layout, Slot},
    parameters::{Output, SlotOutput, SlotParameter},
    stack::Stack,
    state::Condition,
};
use crate::{aws::refusal::Refusal, error::Fault, system::System, view::complain};

/// Both slots with their stacks.
#[derive(Debug)]
pub struct Slots {
    layout: Layout,
    /// The stack that holds each slot; the same one for both with [`Layout::OneStack`].
    stacks: [Option<Stack>; 2],
    /// The builds of machines that were asked for; a machine keeps its build.
    builds: RefCell<BTreeMap<String, String>>,
}

impl Slots {
    /// Finds the slots of a deployment.
    ///
    /// # Errors
    /// If another strategy has created a stack of that name, or one of the same deployment under another name.
    pub fn find(deploy: &Deploy) -> Result<Self> {
        let layout = deploy.layout();
        let find = |slot| {
            let stack = Stack::find(&deploy.system, &deploy.stack_of(slot))?;
            stack.iter().try_for_each(|stack| deploy.strategy.check_created(stack))?;
            Ok::<_, anyhow::Error>(stack)
        };
        let blue = find(Slot::Blue)?;
        let green = match layout {
            Layout::OneStack => blue.clone(),
            Layout::TwoStacks => find(Slot::Green)?,
            Layout::OneSlot => None,
        };
        let slots = Self { layout, stacks: [blue, green], builds: RefCell::default() };
        if slots.stacks().all(|stack| stack.state.condition == Condition::Absent) {
            check_other_names(deploy)?;
        }
        Ok(slots)
    }

    /// Finds the slots; at least one stack must exist.
    pub fn get(deploy: &Deploy) -> Result<Self> {
        let slots = Self::find(deploy)?;
        _ = slots.stacks().next().with_context(|| deploy.no_stack())?;
        Ok(slots)
    }

    /// Drops stacks that hold nothing.
    #[must_use]
    pub fn without_empty(self) -> Self {
        let holds = |stack: &Stack| stack.state.condition != Condition::Absent;
        Self { stacks: self.stacks.map(|stack| stack.filter(holds)), ..self }
    }

    /// Returns the stacks that exist, each once.
    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        let distinct = if self.layout == Layout::OneStack { 1 } else { 2 };
        self.stacks.iter().take(distinct).flatten()
    }

    /// Returns the stack that holds a slot, if it exists.
    pub fn stack(&self, slot: Slot) -> Option<&Stack> {
        self.stacks[slot.index()].as_ref()
    }

    /// Returns the slots that a stack holds.
    pub fn of(&self, stack: &Stack) -> impl Iterator<Item = Slot> {
        let is_in = |slot: &Slot| self.stack(*slot).is_some_and(|other| other.name == stack.name);
        Slot::ALL.into_iter().filter(is_in)
    }

    /// Returns whether a listener exists that could send traffic.
    pub fn have_traffic(&self) -> bool {
        self.stacks().any(|stack| stack.has_output(Output::Listener))
    }

    /// Returns a slot's parameter; empty if it has none of that name.
    pub fn parameter(&self, slot: Slot, parameter: SlotParameter) -> &str {
        self.stack(slot).map_or("", |stack| stack.parameter(self.layout.parameter(slot, parameter)))
    }

    /// Returns the number of a slot's build.
    pub fn build(&self, slot: Slot) -> Option<u64> {
        self.parameter(slot, SlotParameter::Build).parse().ok()
    }

    /// Returns a slot with its build, in words.
    pub fn described(&self, slot: Slot) -> String {
        format!("{} (build {})", self.layout.slot_name(slot), self.parameter(slot, SlotParameter::Build))
    }

    /// Returns a slot's group; `None` if the slot is empty.
    pub fn group(&self, system: &System, slot: Slot) -> Result<Option<ScalingGroup>> {
        match self.stack(slot).and_then(|stack| stack.outputs.get(&self.layout.output(slot, SlotOutput::Group))) {
            Some(name) => Ok(fleet::groups(system, &[name])?.into_iter().next()),
            None => Ok(None),
        }
    }

    /// Returns the alarms that a slot has in its stack, each with its name.
    pub fn alarms(&self, slot: Slot) -> Vec<(SlotOutput, &str)> {
        let named = |output| {
            let name = self.stack(slot)?.outputs.get(&self.layout.output(slot, output))?;
            Some((output, name.as_str()))
        };
        [SlotOutput::ErrorAlarm, SlotOutput::ResponseTimeAlarm].into_iter().filter_map(named).collect()
    }

    /// Returns the names of the alarms that a slot has in its stack.
    pub fn alarm_names(&self, slot: Slot) -> Vec<&str> {
        self.alarms(slot).into_iter().map(|(_, name)| name).collect()
    }

    /// Returns a slot's machines as the balancer sees them.
    pub fn targets(&self, system: &System, slot: Slot) -> Result<Vec<TargetHealth>> {
        let Some(stack) = self.stack(slot) else { return Ok(vec![]) };
        // A stack that was never completed has none.
        if stack.outputs.is_empty() {
            return Ok(vec![]);
        }
        fleet::targets(system, stack.output(self.layout.output(slot, SlotOutput::Targets))?)
    }

    /// Returns a slot's machines as the balancer sees them, without those of another build: a group that was replaced may
    /// still have machines behind the same balancer.
    pub fn own_targets(&self, system: &System, slot: Slot) -> Result<Vec<TargetHealth>> {
        let mut targets = self.targets(system, slot)?;
        let mut known = self.builds.borrow_mut();
        let new: Vec<&str> =
            targets.iter().map(|target| target.id.as_str()).filter(|id| !known.contains_key(*id)).collect();
        known.extend(fleet::builds(system, &new)?);
        let own = self.parameter(slot, SlotParameter::Build);
        targets.retain(|target| known.get(&target.id).is_none_or(|build| build.is_empty() || build == own));
        Ok(targets)
    }

    /// Returns the slot for a rollback: that of the named build, else that of the older build.
    pub fn way_back(&self, build: Option<u64>) -> Result<Slot> {
        let builds = if self.layout == Layout::OneSlot { [None, None] } else { Slot::ALL.map(|slot| self.build(slot)) };
        let held = || builds.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        match (build, builds) {
            (Some(build), [blue, _]) if blue == Some(build) => Ok(Slot::Blue),
            (Some(build), [_, green]) if green == Some(build) => Ok(Slot::Green),
            (Some(build), _) => Err(Fault::new(format!("no slot holds build {build}"))
                .hint(format!("choose a build that a slot holds: {}", held()))
                .invalid()
                .into()),
            (None, [Some(blue), Some(green)]) => Ok(if blue < green { Slot::Blue } else { Slot::Green }),
            (None, [None, None]) => Err(Fault::new("the stack has one slot, so it holds no previous build")
                .hint(
                    "deploy the previous content under the next build number, with glovo-bootstrap deploy update-stack",
                )
                .into()),
            (None, _) => Err(Fault::new(format!("the stack holds no other build than {}", held()))
                .hint(
                    "deploy the previous content under the next build number, with glovo-bootstrap deploy update-stack",
                )
                .into()),
        }
    }
}

/// Fails if another strategy has created the stacks of this deployment, under the names of its own layout. An identity that
/// may not see these names can deploy.
pub(super) fn check_other_names(deploy: &Deploy) -> Result<()> {
    for name in deploy.layout().other_stack_names(deploy.name()) {
        let stack = match Stack::find(&deploy.system, &name) {
            Err(error) if Refusal::of(&error).is_some_and(Refusal::is_denial) => {
                complain(format!("AWS does not tell whether the stack {name} of another strategy exists: {error:#}"));
                continue;
            }
            stack => stack?,
        };
        let is_there = |stack: &Stack| stack.state.condition != Condition::Absent;
        stack.filter(is_there).iter().try_for_each(|stack| deploy.strategy.check_no_other(stack, deploy.name()))?;
    }
    Ok(())
}

/// Returns weights in percent. A small weight is at least 1 %, so that it differs from none.
pub(super) fn percent(weights: [u32; 2]) -> [u32; 2] {
    match weights {
        [0, 0] => [0, 0],
        [_, 0] => [100, 0],
        [0, _] => [0, 100],
        [blue, green] => {
            let blue = (u64::from(blue) * 100 / (u64::from(blue) + u64::from(green))).clamp(1, 99);
            let blue = u32::try_from(blue).unwrap_or(99);
            [blue, 100 - blue]
        }
    }
}

/// Returns the slot that serves; of two that share the traffic, the one with more of it.
pub fn active(shares: [u32; 2]) -> Option<Slot> {
    match shares {
        [0, 0] => None,
        [blue, green] if blue >= green => Some(Slot::Blue),
        _ => Some(Slot::Green),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares_whatever_their_sum_is() {
        for (weights, shares) in [
            ([0, 0], [0, 0]),
            ([7, 0], [100, 0]),
            ([0, 1], [0, 100]),
            ([200, 50], [80, 20]),
            ([1, 999], [1, 99]),
            ([999, 1], [99, 1]),
        ] {
            assert_eq!(percent(weights), shares, "{weights:?}");
        }
    }
}
