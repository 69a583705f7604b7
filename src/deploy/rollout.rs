//! The way of the traffic from one slot to the other, and back.
//!
//! The balancer and the groups are asked directly, so that it goes on, and above all back, also while CloudFormation is
//! busy. The stack's parameters follow, so that its next update undoes nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Deploy, fleet,
    fleet::{Group, Target},
    stack::{self, Stack, Template, Value, Wanted},
    state::Condition,
    template::Slot,
    watch::Watch,
};
use crate::{
    error::{self, Class, Fault},
    value::spoken,
    view::{complain, count},
};

/// The shares that a new build gets, unless told otherwise.
const SHIFT: [u8; 3] = [10, 50, 100];
const PAUSE: Duration = Duration::from_secs(30);
const HEALTH_TIMEOUT: Duration = Duration::from_mins(10);

impl Deploy {
    /// Moves the traffic to a slot that has just been filled, shrinks the other one, and has the stack know.
    pub(super) fn roll_out(&self, stack: &Stack, slot: Slot) -> Result<()> {
        let mut share = 0;
        self.move_traffic(stack, slot, &mut share).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let here = described(stack, slot);
                let message = format!("detached from {}: {here} has {share} % of the traffic", self.stack);
                let ways = [("on", slot), ("back", slot.other())].map(|(way, slot)| {
                    let build = stack.parameter(&slot.named("VersionId"));
                    format!("{way}: glovo-bootstrap deploy rollback --build {build} --stack {}", self.stack)
                });
                error.context(Fault::new(message).hint(ways.join("; ")))
            }
            _ => error,
        })
    }

    /// The same; `share` is what the slot has got so far, also where it fails.
    fn move_traffic(&self, stack: &Stack, slot: Slot, share: &mut u8) -> Result<()> {
        let group = self.group(stack, slot)?;
        self.await_health(stack, slot, &group).map_err(|error| self.still_on(stack, slot.other(), error))?;
        let shares = if self.settings.shift.is_empty() { SHIFT.to_vec() } else { self.settings.shift.clone() };
        let pause = self.settings.pause.map_or(PAUSE, |pause| pause.0);
        for next in shares {
            fleet::shift(&self.system, stack, slot, next)?;
            *share = next;
            self.say(&format!("{} takes {share} % of the traffic", described(stack, slot)));
            if next < 100
                && let Err(error) = self.observe(stack, slot, &group, pause)
            {
                if !matches!(error::class(&error), Class::Interrupted(_)) {
                    fleet::shift(&self.system, stack, slot.other(), 100)?;
                }
                return Err(self.still_on(stack, slot.other(), error));
            }
        }
        self.shrink(stack, slot.other())?;
        self.bring_into_line(stack, slot)
    }

    fn still_on(&self, stack: &Stack, slot: Slot, error: anyhow::Error) -> anyhow::Error {
        if let Class::Interrupted(_) = error::class(&error) {
            return error;
        }
        let users = described(stack, slot);
        error.context(Fault::new(format!("the new build does not take over: all traffic is on {users}")).hint(format!(
            "look at a machine (deploy status --stack {}), mend it, and deploy the next build",
            self.stack
        )))
    }

    fn group(&self, stack: &Stack, slot: Slot) -> Result<Group> {
        let group = fleet::group(&self.system, stack, slot)?;
        group.with_context(|| format!("the slot {} of {} holds no group", slot.name(), self.stack))
    }

    /// A slot's machines as the balancer sees them; `None` if AWS can't be reached for now.
    fn look(&self, stack: &Stack, slot: Slot) -> Result<Option<Vec<Target>>> {
        match fleet::targets(&self.system, stack.output(&slot.named("Targets"))?) {
            Ok(targets) => Ok(Some(targets)),
            Err(error) if error::class(&error) == Class::Transient => {
                complain(&format!("the balancer does not answer, still trying: {error:#}\n"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until as many machines as the group wants are healthy behind the balancer.
    fn await_health(&self, stack: &Stack, slot: Slot, group: &Group) -> Result<()> {
        let limit = self.settings.health_timeout.map_or(HEALTH_TIMEOUT, |limit| limit.0);
        let (began, wanted) = (Instant::now(), group.desired as usize);
        let mut told = BTreeMap::new();
        loop {
            let targets = self.look(stack, slot)?.unwrap_or_default();
            for target in &targets {
                let state = match target.reason.as_str() {
                    "" => target.state.clone(),
                    reason => format!("{}, {reason}", target.state),
                };
                if told.insert(target.id.clone(), state.clone()).as_ref() != Some(&state) {
                    self.say(&format!("  machine {}: {state}", target.id));
                }
            }
            if wanted > 0 && fleet::healthy(&targets) >= wanted {
                return Ok(());
            }
            if began.elapsed() > limit {
                let healthy = fleet::healthy(&targets);
                let fault = Fault::new(format!("{healthy} of {wanted} machines are healthy after {}", spoken(limit)));
                bail!(fault.hint("what the balancer asks must answer 200 on port 80 (parameter HealthCheckPath)"));
            }
            self.system.wait(self.poll)?;
        }
    }

    /// Looks at a slot for some time: it must stay healthy under the traffic that it gets.
    fn observe(&self, stack: &Stack, slot: Slot, group: &Group, time: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let seen = self.look(stack, slot)?;
            if let Some(targets) = &seen {
                let healthy = fleet::healthy(targets);
                ensure!(
                    healthy >= group.desired as usize,
                    "under its share of the traffic only {healthy} of {} machines stayed healthy",
                    group.desired
                );
            }
            // Without an answer the share is kept as it is: that AWS can't be reached says nothing of the machines.
            if began.elapsed() >= time && seen.is_some() {
                return Ok(());
            }
            self.system.wait(self.poll)?;
        }
    }

    /// Leaves a slot as many machines as are kept for the way back.
    fn shrink(&self, stack: &Stack, slot: Slot) -> Result<()> {
        let Some(group) = fleet::group(&self.system, stack, slot)? else { return Ok(()) };
        let keep = keep(stack).min(group.desired);
        if group.desired > keep || group.min > keep {
            fleet::resize(&self.system, &group.name, keep, keep)?;
        }
        self.say(&format!("{} keeps {}, for deploy rollback", described(stack, slot), count(keep as usize, "machine")));
        Ok(())
    }

    /// Has the stack's parameters say what is so: all traffic on this slot, the other one small.
    fn bring_into_line(&self, stack: &Stack, slot: Slot) -> Result<()> {
        let mut parameters: BTreeMap<String, Value> =
            stack.parameters.keys().map(|name| (name.clone(), Value::Previous)).collect();
        for (name, value) in self.given_lists() {
            _ = parameters.insert(name, Value::New(value));
        }
        for each in Slot::ALL {
            let Some(group) = fleet::group(&self.system, stack, each)? else { continue };
            let mut put = |name: &str, value: u32| {
                _ = parameters.insert(each.named(name), Value::New(value.to_string()));
            };
            put("Weight", if each == slot { 100 } else { 0 });
            put("DesiredCapacity", group.desired);
            put("MinSize", group.min);
        }
        let wanted = Wanted { template: Template::Previous, parameters };
        self.settle()?;
        let mut watch = Watch::from_now(self, &stack.id)?;
        if !stack::update(&self.system, &self.stack, &wanted)? {
            return Ok(());
        }
        self.say("the stack's parameters follow");
        let stack = watch.until_done()?;
        ensure!(
            !stack.state.failed,
            Fault::new(format!("the traffic has moved, but the stack did not follow: it is {}", stack.state.name))
                .hint(format!("glovo-bootstrap deploy diagnose --stack {}", self.stack))
        );
        Ok(())
    }

    /// Names a newer build that is there and does not serve: somebody has detached, or gone back.
    pub(super) fn name_waiting(&self, stack: &Stack) -> Result<()> {
        if !stack.outputs.contains_key("Listener") {
            return Ok(());
        }
        let Some(active) = fleet::active(fleet::shares(&self.system, stack)?) else { return Ok(()) };
        let [waiting, serving] =
            [active.other(), active].map(|slot| stack.parameter(&slot.named("VersionId")).parse::<u64>());
        if let (Ok(waiting), Ok(serving)) = (waiting, serving)
            && waiting > serving
        {
            self.say(&format!(
                "{} serves; to have {} take over: glovo-bootstrap deploy rollback --build {waiting} --stack {}",
                described(stack, active),
                described(stack, active.other()),
                self.stack
            ));
        }
        Ok(())
    }

    /// Waits until CloudFormation has ended what it is at.
    fn settle(&self) -> Result<()> {
        let stack = Stack::get(&self.system, &self.stack)?;
        if stack.state.condition == Condition::Busy {
            self.say(&format!("waiting for CloudFormation: the stack is {}", stack.state.name));
            drop(Watch::from_now(self, &stack.id)?.until_done()?);
        }
        Ok(())
    }

    /// Back to the other slot, at once: three calls, then its machines, then the stack.
    ///
    /// # Errors
    /// If there is no slot to go back to, or none of its machines answers.
    pub fn roll_back(&self, build: Option<u64>) -> Result<()> {
        let stack = Stack::get(&self.system, &self.stack)?;
        let slot = way_back(&stack, build)?;
        let back = described(&stack, slot);
        let healthy = fleet::healthy(&fleet::targets(&self.system, stack.output(&slot.named("Targets"))?)?);
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy: users would be worse off"))
                .hint("deploy the old build again, with the next number: deploy update-stack")
        );
        fleet::shift(&self.system, &stack, slot, 100)?;
        self.say(&format!("all traffic is on {back} again, {} so far", count(healthy, "healthy machine")));
        let (to, from) = (self.group(&stack, slot)?, fleet::group(&self.system, &stack, slot.other())?);
        if let Some(from) = from.filter(|from| from.desired > to.desired) {
            let desired = from.desired.min(to.max);
            fleet::resize(&self.system, &to.name, from.min.min(desired), desired)?;
            self.say(&format!("{back} gets {desired} machines, as many as {} had", slot.other().name()));
            let grown = Group { desired, ..to };
            self.await_health(&stack, slot, &grown)?;
        }
        self.shrink(&stack, slot.other())?;
        self.bring_into_line(&stack, slot)?;
        self.say(&format!("users are on {back}"));
        Ok(())
    }
}

/// The slot with its build.
fn described(stack: &Stack, slot: Slot) -> String {
    format!("{} (build {})", slot.name(), stack.parameter(&slot.named("VersionId")))
}

/// How many machines the slot that is not used keeps.
fn keep(stack: &Stack) -> u32 {
    stack.parameter("KeepCapacity").parse().unwrap_or(1)
}

/// The slot to go back to: that with the named build, else the one with the older build.
fn way_back(stack: &Stack, build: Option<u64>) -> Result<Slot> {
    let builds = Slot::ALL.map(|slot| stack.parameter(&slot.named("VersionId")).parse::<u64>().ok());
    let held = || builds.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    match (build, builds) {
        (Some(build), [blue, _]) if blue == Some(build) => Ok(Slot::Blue),
        (Some(build), [_, green]) if green == Some(build) => Ok(Slot::Green),
        (Some(build), _) => Err(Fault::new(format!("no slot holds build {build}"))
            .hint(format!("they hold {}", held()))
            .invalid()
            .into()),
        (None, [Some(blue), Some(green)]) => Ok(if blue < green { Slot::Blue } else { Slot::Green }),
        (None, [None, None]) => Err(Fault::new(format!("the stack {} has no slots to go back to", stack.name))
            .hint("deploy the old content again, with the next number: deploy update-stack")
            .into()),
        (None, _) => Err(Fault::new(format!("there is no other build to go back to than {}", held()))
            .hint("deploy the old content again, with the next number: deploy update-stack")
            .into()),
    }
}
