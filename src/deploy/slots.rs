//! The two slots, wherever they are: two halves of one stack, or two stacks of one name.

use anyhow::{Context, Result};

use super::{
    Deploy,
    fleet::{self, ScalingGroup, TargetHealth},
    settings::Strategy,
    stack::Stack,
    state::Condition,
};
use crate::{
    aws::query::{BALANCING, Call},
    error::Fault,
    system::System,
};

/// A place for a build, with its launch template, group and target group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The first one to be filled.
    Blue,
    /// The other one.
    Green,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// What the names of its parameters, outputs and resources begin with, where both slots are in one stack.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Blue => "Blue",
            Self::Green => "Green",
        }
    }

    /// Its name as a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// What the name of its stack ends with, where it has one of its own.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Blue => "-blue",
            Self::Green => "-green",
        }
    }

    /// Its place in what there is for each slot.
    pub fn index(self) -> usize {
        usize::from(self == Self::Green)
    }
}

/// Both slots as they are now.
#[derive(Debug)]
pub struct Slots {
    strategy: Strategy,
    /// The stack that each is in, or is; both the same one where they are its halves.
    stacks: [Option<Stack>; 2],
}

impl Slots {
    /// Those of a stack, or of two.
    pub fn find(deploy: &Deploy) -> Result<Self> {
        let strategy = deploy.strategy();
        let find = |slot| Stack::find(&deploy.system, &deploy.stack_of(slot));
        let blue = find(Slot::Blue)?;
        let green = if strategy.has_two_stacks() { find(Slot::Green)? } else { blue.clone() };
        Ok(Self { strategy, stacks: [blue, green] })
    }

    /// The same, of which there must be one at least.
    pub fn get(deploy: &Deploy) -> Result<Self> {
        let slots = Self::find(deploy)?;
        _ = slots.stacks().next().with_context(|| deploy.no_stack())?;
        Ok(slots)
    }

    /// Without a stack that holds nothing.
    #[must_use]
    pub fn without_empty(self) -> Self {
        let holds = |stack: &Stack| stack.state.condition != Condition::Absent;
        Self { stacks: self.stacks.map(|stack| stack.filter(holds)), ..self }
    }

    /// The stacks that there are, each once.
    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        let distinct = if self.strategy.has_two_stacks() { 2 } else { 1 };
        self.stacks.iter().take(distinct).flatten()
    }

    /// The stack that a slot is in, if there is one.
    pub fn stack(&self, slot: Slot) -> Option<&Stack> {
        self.stacks[slot.index()].as_ref()
    }

    /// The slots that are in a stack.
    pub fn of(&self, stack: &Stack) -> impl Iterator<Item = Slot> {
        let is_in = |slot: &Slot| self.stack(*slot).is_some_and(|other| other.name == stack.name);
        Slot::ALL.into_iter().filter(is_in)
    }

    /// Whether there is something that could give them traffic.
    pub fn have_traffic(&self) -> bool {
        self.stacks().any(|stack| stack.outputs.contains_key("Listener"))
    }

    /// The name of a slot's parameter, output or resource.
    pub fn named(&self, slot: Slot, name: &str) -> String {
        named(self.strategy, slot, name)
    }

    /// A slot's parameter; empty if it has none of that name.
    pub fn parameter(&self, slot: Slot, name: &str) -> &str {
        self.stack(slot).map_or("", |stack| stack.parameter(&self.named(slot, name)))
    }

    /// The number of a slot's build.
    pub fn build(&self, slot: Slot) -> Option<u64> {
        self.parameter(slot, "VersionId").parse().ok()
    }

    /// A slot with its build, in words.
    pub fn described(&self, slot: Slot) -> String {
        format!("{} (build {})", slot.name(), self.parameter(slot, "VersionId"))
    }

    /// A slot's group; `None` if the slot is not filled.
    pub fn group(&self, system: &System, slot: Slot) -> Result<Option<ScalingGroup>> {
        match self.stack(slot).and_then(|stack| stack.outputs.get(&self.named(slot, "Group"))) {
            Some(name) => Ok(fleet::groups(system, &[name])?.into_iter().next()),
            None => Ok(None),
        }
    }

    /// A slot's machines as its balancer sees them.
    pub fn targets(&self, system: &System, slot: Slot) -> Result<Vec<TargetHealth>> {
        let Some(stack) = self.stack(slot) else { return Ok(vec![]) };
        // A stack that was never finished has none.
        if self.strategy.has_two_stacks() && stack.outputs.is_empty() {
            return Ok(vec![]);
        }
        fleet::targets(system, stack.output(&self.named(slot, "Targets"))?)
    }

    /// The share of the traffic, in percent, that each slot gets now, by the listener or by the weights of two stacks.
    pub fn shares(&self, system: &System) -> Result<[u32; 2]> {
        if self.strategy.has_two_stacks() {
            let serves = |slot: &Slot| self.stack(*slot).is_some_and(|stack| stack.outputs.contains_key("Listener"));
            let weight = |slot| self.parameter(slot, "Weight").parse().unwrap_or(0);
            let weights = Slot::ALL.map(|slot| if serves(&slot) { weight(slot) } else { 0 });
            // Where all have 0, Route 53 answers with each.
            return Ok(percent(if weights == [0, 0] {
                Slot::ALL.map(|slot| u32::from(serves(&slot)))
            } else {
                weights
            }));
        }
        let Some(stack) = self.stack(Slot::Blue) else { return Ok([0, 0]) };
        let weights = fleet::weights(system, stack.output("Listener")?)?;
        let mut shares = [0; 2];
        for (share, slot) in shares.iter_mut().zip(Slot::ALL) {
            *share = weights.get(stack.output(&self.named(slot, "Targets"))?).copied().unwrap_or(0);
        }
        Ok(percent(shares))
    }

    /// Has the listener of a stack of two slots give them these shares of the traffic.
    pub fn shift_listener(&self, system: &System, shares: [(Slot, u8); 2]) -> Result<()> {
        let stack = self.stack(Slot::Blue).context("slots without a stack")?;
        let action = "DefaultActions.member.1";
        let mut call = Call::new(&BALANCING, "ModifyListener").with("ListenerArn", stack.output("Listener")?);
        call = call.with(format!("{action}.Type"), "forward");
        for ((slot, weight), n) in shares.into_iter().zip(1..) {
            let member = format!("{action}.ForwardConfig.TargetGroups.member.{n}");
            call = call.with(format!("{member}.TargetGroupArn"), stack.output(&self.named(slot, "Targets"))?);
            call = call.with(format!("{member}.Weight"), weight.to_string());
        }
        system.aws(call).map(drop)
    }

    /// The slot to go back to: that with the named build, else the one with the older build.
    pub fn way_back(&self, build: Option<u64>) -> Result<Slot> {
        let builds = Slot::ALL.map(|slot| self.build(slot));
        let held = || builds.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        match (build, builds) {
            (Some(build), [blue, _]) if blue == Some(build) => Ok(Slot::Blue),
            (Some(build), [_, green]) if green == Some(build) => Ok(Slot::Green),
            (Some(build), _) => Err(Fault::new(format!("no slot holds build {build}"))
                .hint(format!("they hold {}", held()))
                .invalid()
                .into()),
            (None, [Some(blue), Some(green)]) => Ok(if blue < green { Slot::Blue } else { Slot::Green }),
            (None, [None, None]) => Err(Fault::new("the stack has no slots to go back to")
                .hint("deploy the old content again, with the next number: deploy update-stack")
                .into()),
            (None, _) => Err(Fault::new(format!("there is no other build to go back to than {}", held()))
                .hint("deploy the old content again, with the next number: deploy update-stack")
                .into()),
        }
    }
}

/// Weights in percent. What has a little has 1 at least: it is not nothing.
fn percent(weights: [u32; 2]) -> [u32; 2] {
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

/// The slot that users are on; of two that share the traffic, the one with more of it.
pub fn active(shares: [u32; 2]) -> Option<Slot> {
    match shares {
        [0, 0] => None,
        [blue, green] if blue >= green => Some(Slot::Blue),
        _ => Some(Slot::Green),
    }
}

/// The name of a slot's parameter, output or resource: where each has a stack of its own, they are called the same.
pub fn named(strategy: Strategy, slot: Slot, name: &str) -> String {
    if strategy.has_two_stacks() { name.to_owned() } else { format!("{}{name}", slot.prefix()) }
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
