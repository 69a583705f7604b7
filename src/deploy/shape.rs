//! The shapes of a deployment: which stacks and slots there are, and how traffic moves to a new build.
//!
//! A new shape is a file here with its implementation of [`Shape`], a template in `cloudformation/`, and a line in the
//! list `shapes!`.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser};

use super::{
    Deploy,
    layout::{Layout, Slot},
    parameters::SlotParameter,
    prepare::{Intent, Prepared},
    settings::DeploySettings,
    slots::Slots,
    stack::{ParameterValue, Stack},
    template,
};
use crate::{error::Fault, notify::verdict::Hook, system::System};

/// All that differs between shapes.
pub(super) trait Shape: fmt::Debug + Sync {
    /// Returns its name, which `--strategy` and the key `strategy` take.
    fn name(&self) -> &'static str;

    /// Returns its line in `--help`.
    fn summary(&self) -> &'static str;

    /// Returns its template as it is in the sources.
    fn template(&self) -> &'static str;

    /// Returns where its builds are.
    fn layout(&self) -> Layout;

    /// Makes template and parameters of the settings, and changes nothing yet.
    ///
    /// # Errors
    /// If the settings cannot be deployed.
    fn prepare(&self, deploy: &Deploy, slots: &Slots) -> Result<Prepared>;

    /// Fails if the settings lack something that this shape needs.
    fn check_settings(&self, _settings: &DeploySettings) -> Result<()> {
        Ok(())
    }

    /// Fails if the wanted parameters would break what the slots share; `current` is the stack that serves.
    fn check_parameters(
        &self,
        _slots: &Slots,
        _current: &Stack,
        _intent: &Intent,
        _wanted: &BTreeMap<String, ParameterValue>,
    ) -> Result<()> {
        Ok(())
    }

    /// Returns the lifecycle hook that a new machine completes, where CloudFormation waits for it: it replaces the machines in
    /// their group then, by an instance refresh. `None` where it replaces the group, and waits for signals.
    fn launch_hook(&self, _stack: &str) -> Option<Hook> {
        None
    }

    /// Returns the share of the traffic, in percent, of each slot.
    fn shares(&self, _system: &System, _slots: &Slots) -> Result<[u32; 2]> {
        Ok([0, 0])
    }

    /// Returns the shares of this moment, where `slots` was read earlier.
    fn live_shares(&self, deploy: &Deploy, slots: &Slots) -> Result<[u32; 2]> {
        self.shares(&deploy.system, slots)
    }

    /// Gives each slot this share of the traffic, in percent.
    fn shift(&self, _deploy: &Deploy, _slots: &Slots, _shares: [(Slot, u8); 2]) -> Result<()> {
        Err(Fault::new(format!("the strategy {} moves no traffic", self.name())).into())
    }

    /// Returns the header that leads a request to this slot at any weights; `None` where the slot has a balancer of
    /// its own.
    fn probe_header(&self, _slots: &Slots, _slot: Slot) -> Option<(&'static str, String)> {
        None
    }

    /// Returns how long each share of the traffic is watched unless `--pause` says otherwise.
    fn default_pause(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Returns whether users reach the previous build for some time after all traffic has been moved.
    fn lags(&self) -> bool {
        false
    }

    /// Returns the slots with another share than their stack declares: slot, share, declared weight.
    fn weight_drift(&self, _deploy: &Deploy, _stack: &Stack) -> Result<Vec<(Slot, u32, String)>> {
        Ok(vec![])
    }
}

/// A shape by its name.
#[derive(Debug, Clone, Copy)]
pub struct Strategy(&'static dyn Shape);

/// Declares the file of each shape, and the table of all of them.
macro_rules! shapes {
    ($($file:ident::$shape:ident,)*) => {
        $(mod $file;)*

        /// Every strategy; the first one is the default.
        pub(super) static STRATEGIES: &[Strategy] = &[$(Strategy(&$file::$shape)),*];
    };
}

shapes! {
    listener::Listener,
    one_group::OneGroup,
    instance_refresh::InstanceRefresh,
    dns_records::DnsRecords,
}

impl Strategy {
    /// Returns the strategy of this name; without a name, the default.
    ///
    /// # Errors
    /// If no strategy has this name.
    pub fn named(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(STRATEGIES[0]) };
        let found = STRATEGIES.iter().find(|strategy| strategy.0.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = STRATEGIES.iter().map(|strategy| strategy.0.name()).collect();
            let fault = Fault::new(format!("strategy `{name}` does not exist"));
            fault.hint(format!("write one of {}", names.join(", "))).invalid().into()
        })
    }

    /// Fails if another strategy has created a stack: the stack has a parameter that only the template of that strategy has.
    pub(super) fn check_created(self, stack: &Stack) -> Result<()> {
        match Self::creator(stack) {
            Some(creator) if creator.0.name() != self.0.name() => Err(self.not_of(creator, stack)),
            _ => Ok(()),
        }
    }

    /// Fails if a strategy with another layout has created this stack for the deployment of this name. A stack without the
    /// number of a build belongs to no deployment.
    pub(super) fn check_no_other(self, stack: &Stack, name: &str) -> Result<()> {
        let names_it = |creator: &Self| {
            let layout = creator.0.layout();
            let build = layout.parameter(Slot::Blue, SlotParameter::Build);
            layout.stack_names(name).contains(&stack.name) && !stack.parameter(build).is_empty()
        };
        match Self::creator(stack).filter(names_it) {
            Some(creator) => Err(self.not_of(creator, stack)),
            None => Ok(()),
        }
    }

    /// Returns the strategy that has created a stack: only its template has one of the stack's parameters. `None` if no
    /// parameter tells.
    fn creator(stack: &Stack) -> Option<Self> {
        // Each template is read once: this is asked of each stack, with each look at it.
        let known: Vec<_> = STRATEGIES.iter().map(|strategy| template::parameters(strategy.0.template())).collect();
        let having = |name: &str| {
            let mut having = known.iter().enumerate().filter(|(_, names)| names.contains(name)).map(|(index, _)| index);
            having.next().filter(|_| having.next().is_none())
        };
        stack.parameters.keys().find_map(|name| having(name)).map(|index| STRATEGIES[index])
    }

    /// Returns the fault of a stack that another strategy has created.
    fn not_of(self, creator: Self, stack: &Stack) -> anyhow::Error {
        let (is, wanted) = (creator.0.name(), self.0.name());
        let message = format!("the stack {} has the strategy {is}, not {wanted}", stack.name);
        let name = creator.0.layout().base_name(&stack.name);
        let hint = format!(
            "pass --strategy {is} --stack {name}; for a deployment of its own with {wanted}, pass another --stack NAME"
        );
        Fault::new(message).hint(hint).invalid().into()
    }

    pub(super) fn shape(self) -> &'static dyn Shape {
        self.0
    }

    /// Returns the arguments that select it; none for the default.
    pub(super) fn arguments(self) -> String {
        let name = self.0.name();
        if name == STRATEGIES[0].0.name() { String::new() } else { format!(" --strategy {name}") }
    }
}

/// Returns the names of the strategies and what each means, for `--help`.
pub fn strategies() -> PossibleValuesParser {
    let value = |strategy: &Strategy| PossibleValue::new(strategy.0.name()).help(strategy.0.summary());
    PossibleValuesParser::new(STRATEGIES.iter().map(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_has_a_parameter_that_no_other_has() {
        for strategy in STRATEGIES {
            let others = STRATEGIES.iter().filter(|other| other.0.name() != strategy.0.name());
            let others: Vec<_> = others.map(|other| template::parameters(other.0.template())).collect();
            let own = template::parameters(strategy.0.template());
            assert!(own.iter().any(|name| others.iter().all(|other| !other.contains(name))), "{}", strategy.0.name());
        }
    }
}
