//! Where the builds of a deployment are, and so the names of stacks, parameters and outputs.

use super::parameters::{SlotOutput, SlotParameter};

/// A place for a build, with its launch template, group and target group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The first one that is filled.
    Blue,
    /// The other one.
    Green,
}

impl Slot {
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// Returns its name as a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// Returns the other slot.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// Returns its index in an array with one element for each slot.
    pub fn index(self) -> usize {
        usize::from(self == Self::Green)
    }

    /// Returns the prefix of its names where both slots are in one stack.
    fn prefix(self) -> &'static str {
        match self {
            Self::Blue => "Blue",
            Self::Green => "Green",
        }
    }

    /// Returns the end of its stack's name where it has a stack of its own.
    fn suffix(self) -> &'static str {
        match self {
            Self::Blue => "-blue",
            Self::Green => "-green",
        }
    }
}

/// How slots are laid out in stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Two slots in one stack. Names of their parameters and outputs begin with `Blue` and `Green`.
    OneStack,
    /// Two slots, each of them a stack, NAME-blue and NAME-green. Both stacks use the same names.
    TwoStacks,
    /// One slot in one stack, with the names of the script that `deploy` replaces.
    OneSlot,
}

impl Layout {
    /// Returns the slots that there are.
    pub fn slots(self) -> &'static [Slot] {
        match self {
            Self::OneStack | Self::TwoStacks => &Slot::ALL,
            Self::OneSlot => &[Slot::Blue],
        }
    }

    /// Returns the name of a slot as a person reads it; one group is no slot.
    pub fn slot_name(self, slot: Slot) -> &'static str {
        if self == Self::OneSlot { "group" } else { slot.name() }
    }

    /// Returns the deployment's name, given this name or that of one of its stacks.
    pub fn base_name(self, stack: &str) -> &str {
        let strip = |slot: Slot| stack.strip_suffix(slot.suffix());
        match self {
            Self::TwoStacks => Slot::ALL.into_iter().find_map(strip).unwrap_or(stack),
            Self::OneStack | Self::OneSlot => stack,
        }
    }

    /// Returns the names of the stacks of a deployment, each once.
    pub fn stack_names(self, name: &str) -> Vec<String> {
        match self {
            Self::TwoStacks => Slot::ALL.map(|slot| self.stack_of(name, slot)).into(),
            Self::OneStack | Self::OneSlot => vec![name.to_owned()],
        }
    }

    /// Returns the names that stacks of this deployment would have in the other layouts.
    pub fn other_stack_names(self, name: &str) -> Vec<String> {
        let other = if self == Self::TwoStacks { Self::OneStack } else { Self::TwoStacks };
        other.stack_names(name)
    }

    /// Returns the name of the stack that holds a slot.
    pub fn stack_of(self, name: &str, slot: Slot) -> String {
        match self {
            Self::TwoStacks => format!("{name}{}", slot.suffix()),
            Self::OneStack | Self::OneSlot => name.to_owned(),
        }
    }

    /// Returns the name of a slot's parameter.
    pub fn parameter(self, slot: Slot, parameter: SlotParameter) -> String {
        match (self, parameter) {
            (Self::OneSlot, SlotParameter::InstanceType) => "InstanceTypeParameter".to_owned(),
            (_, parameter) => self.named(slot, parameter.name()),
        }
    }

    /// Returns the name of a slot's output.
    pub fn output(self, slot: Slot, output: SlotOutput) -> String {
        self.named(slot, output.name())
    }

    fn named(self, slot: Slot, name: &str) -> String {
        match self {
            Self::OneStack => format!("{}{name}", slot.prefix()),
            Self::TwoStacks | Self::OneSlot => name.to_owned(),
        }
    }
}
