//! The way of the traffic from one slot to the other, and back.
//!
//! The balancer, or Route 53, and the groups are asked directly, so that it goes on, and above all back, also while
//! CloudFormation is busy. The parameters of stacks follow, so that their next update undoes nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Deploy, fleet,
    fleet::{Group, Target},
    settings::Strategy,
    slots::{Slot, Slots, active},
    stack::{self, Stack, Template, Value, Wanted},
    state::Condition,
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
/// Resolvers keep an answer for a minute: that is how long an alias of a balancer lives.
/// <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-choosing-alias-non-alias.html>
const PAUSE_OF_DNS: Duration = Duration::from_mins(2);
const HEALTH_TIMEOUT: Duration = Duration::from_mins(10);

impl Deploy {
    /// Moves the traffic to a slot that has just been filled, shrinks the other one, and has the stack know.
    pub(super) fn roll_out(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let mut share = 0;
        self.move_traffic(slots, slot, &mut share).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let here = slots.described(slot);
                let message = format!("detached from {}: {here} has {share} % of the traffic", self.stack);
                let back = self.command(&format!("rollback --build {}", slots.parameter(slot.other(), "VersionId")));
                error.context(Fault::new(message).hint(format!("on: the same command again; back: {back}")))
            }
            _ => error,
        })
    }

    /// The same; `share` is what the slot has got so far, also where it fails.
    fn move_traffic(&self, slots: &Slots, slot: Slot, share: &mut u8) -> Result<()> {
        let group = self.group(slots, slot)?;
        self.await_health(slots, slot, &group).map_err(|error| self.still_on(slots, slot.other(), error))?;
        let shares = if self.settings.shift.is_empty() { SHIFT.to_vec() } else { self.settings.shift.clone() };
        // Who goes on where somebody has detached takes no traffic away again.
        let has = slots.shares(&self.system)?[slot.index()];
        for next in shares.into_iter().filter(|share| u32::from(*share) > has) {
            slots.shift(&self.system, slot, next)?;
            *share = next;
            self.say(&format!("{} takes {share} % of the traffic", slots.described(slot)));
            // The other slot is needed until the last resolver has asked again.
            if (next < 100 || self.strategy() == Strategy::WeightedDns)
                && let Err(error) = self.observe(slots, slot, &group)
            {
                if !matches!(error::class(&error), Class::Interrupted(_)) {
                    slots.shift(&self.system, slot.other(), 100)?;
                }
                return Err(self.still_on(slots, slot.other(), error));
            }
        }
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }

    fn still_on(&self, slots: &Slots, slot: Slot, error: anyhow::Error) -> anyhow::Error {
        if let Class::Interrupted(_) = error::class(&error) {
            return error;
        }
        let users = slots.described(slot);
        error.context(
            Fault::new(format!("the new build does not take over: all traffic is on {users}"))
                .hint(format!("look at a machine ({}), mend it, and deploy the next build", self.command("status"))),
        )
    }

    fn group(&self, slots: &Slots, slot: Slot) -> Result<Group> {
        let group = slots.group(&self.system, slot)?;
        group.with_context(|| format!("the slot {} of {} holds no group", slot.name(), self.stack))
    }

    /// A slot's machines as the balancer sees them; `None` if AWS can't be reached for now.
    fn look(&self, slots: &Slots, slot: Slot) -> Result<Option<Vec<Target>>> {
        match slots.targets(&self.system, slot) {
            Ok(targets) => Ok(Some(targets)),
            Err(error) if error::class(&error) == Class::Transient => {
                complain(&format!("the balancer does not answer, still trying: {error:#}\n"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until as many machines as the group wants are healthy behind the balancer.
    fn await_health(&self, slots: &Slots, slot: Slot, group: &Group) -> Result<()> {
        let limit = self.settings.health_timeout.map_or(HEALTH_TIMEOUT, |limit| limit.0);
        let (began, wanted) = (Instant::now(), group.desired as usize);
        let mut told = BTreeMap::new();
        loop {
            let targets = self.look(slots, slot)?.unwrap_or_default();
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

    /// How long each share of the traffic is watched.
    fn pause(&self) -> Duration {
        let usual = if self.strategy() == Strategy::WeightedDns { PAUSE_OF_DNS } else { PAUSE };
        self.settings.pause.map_or(usual, |pause| pause.0)
    }

    /// Looks at a slot for some time: it must stay healthy under the traffic that it gets.
    fn observe(&self, slots: &Slots, slot: Slot, group: &Group) -> Result<()> {
        let (began, time) = (Instant::now(), self.pause());
        loop {
            let seen = self.look(slots, slot)?;
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
    fn shrink(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        let keep = keep(slots, slot).min(group.desired);
        if group.desired > keep || group.min > keep {
            fleet::resize(&self.system, &group.name, keep, keep)?;
        }
        self.say(&format!("{} keeps {}, for deploy rollback", slots.described(slot), count(keep as usize, "machine")));
        Ok(())
    }

    /// Has the parameters say what is so: all traffic on this slot, the other one small.
    fn bring_into_line(&self, slots: &Slots, slot: Slot) -> Result<()> {
        for stack in slots.stacks() {
            let mut parameters: BTreeMap<String, Value> =
                stack.parameters.keys().map(|name| (name.clone(), Value::Previous)).collect();
            for (name, value) in self.given_lists() {
                _ = parameters.insert(name, Value::New(value));
            }
            for each in slots.of(stack) {
                let Some(group) = slots.group(&self.system, each)? else { continue };
                let mut put = |name: &str, value: u32| {
                    _ = parameters.insert(slots.named(each, name), Value::New(value.to_string()));
                };
                put("Weight", if each == slot { 100 } else { 0 });
                put("DesiredCapacity", group.desired);
                put("MinSize", group.min);
            }
            self.have_follow(stack, &Wanted { template: Template::Previous, parameters })?;
        }
        Ok(())
    }

    /// Has a stack's parameters follow what was done without it.
    fn have_follow(&self, stack: &Stack, wanted: &Wanted) -> Result<()> {
        self.settle(stack)?;
        let mut watch = Watch::from_now(self, &stack.id)?;
        if !stack::update(&self.system, &stack.name, wanted)? {
            return Ok(());
        }
        self.say(&format!("the parameters of the stack {} follow", stack.name));
        let stack = watch.until_done()?;
        ensure!(
            !stack.state.failed,
            Fault::new(format!("the traffic has moved, but {} did not follow: it is {}", stack.name, stack.state.name))
                .hint(self.command("diagnose"))
        );
        Ok(())
    }

    /// Names a newer build that is there and does not serve: somebody has detached, or gone back.
    pub(super) fn name_waiting(&self, slots: &Slots) -> Result<()> {
        if !slots.have_traffic() {
            return Ok(());
        }
        let Some(active) = active(slots.shares(&self.system)?) else { return Ok(()) };
        if let (Some(waiting), Some(serving)) = (slots.build(active.other()), slots.build(active))
            && waiting > serving
        {
            self.say(&format!(
                "{} serves; to have {} take over: the same update-stack again; at once: {}",
                slots.described(active),
                slots.described(active.other()),
                self.command(&format!("rollback --build {waiting}"))
            ));
        }
        Ok(())
    }

    /// Waits until CloudFormation has ended what it is at.
    fn settle(&self, stack: &Stack) -> Result<()> {
        let stack = Stack::find(&self.system, &stack.name)?.with_context(|| self.no_stack())?;
        if stack.state.condition == Condition::Busy {
            self.say(&format!("waiting for CloudFormation: the stack {} is {}", stack.name, stack.state.name));
            drop(Watch::from_now(self, &stack.id)?.until_done()?);
        }
        Ok(())
    }

    /// Back to the other slot, at once: three calls (of DNS five), then its machines, then the parameters.
    ///
    /// # Errors
    /// If there is no slot to go back to, or none of its machines answers.
    pub fn roll_back(&self, build: Option<u64>) -> Result<()> {
        let slots = Slots::get(self)?;
        let slot = slots.way_back(build)?;
        let back = slots.described(slot);
        let healthy = fleet::healthy(&slots.targets(&self.system, slot)?);
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy: users would be worse off"))
                .hint("deploy the old build again, with the next number: deploy update-stack")
        );
        slots.shift(&self.system, slot, 100)?;
        self.say(&format!("all traffic is on {back} again, {} so far", count(healthy, "healthy machine")));
        self.have_all_follow(&slots, slot).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let message = format!(
                    "detached from {}: users are on {back}, machines and parameters follow not yet",
                    self.stack
                );
                let again = self.command(&format!("rollback --build {}", slots.parameter(slot, "VersionId")));
                error.context(Fault::new(message).hint(again))
            }
            _ => error,
        })?;
        self.say(&format!("users are on {back}"));
        Ok(())
    }

    /// Gives the slot that users went back to its machines, then shrinks the other one, then has the stack know.
    fn have_all_follow(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let (mut to, from) = (self.group(slots, slot)?, slots.group(&self.system, slot.other())?);
        if let Some(from) = from.filter(|from| from.desired > to.desired) {
            to.desired = from.desired.min(to.max);
            fleet::resize(&self.system, &to.name, from.min.min(to.desired), to.desired)?;
            let (back, other) = (slots.described(slot), slot.other().name());
            self.say(&format!("{back} gets {} machines, as many as {other} had", to.desired));
            self.await_health(slots, slot, &to)?;
        }
        if self.strategy() == Strategy::WeightedDns {
            self.say(&format!("waiting {} for resolvers to ask again", spoken(self.pause())));
            self.system.wait(self.pause())?;
        }
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }
}

/// How many machines the slot that is not used keeps.
fn keep(slots: &Slots, slot: Slot) -> u32 {
    slots.stack(slot).and_then(|stack| stack.parameter("KeepCapacity").parse().ok()).unwrap_or(1)
}
