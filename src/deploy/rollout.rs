//! The way of the traffic from one slot to the other, and back.
//!
//! The balancer and the groups are asked directly, so that it goes on, and above all back, also while CloudFormation is
//! busy. The parameters of stacks follow, so that their next update undoes nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Deploy, fleet,
    fleet::{ScalingGroup, TargetHealth},
    layout::Slot,
    parameters::{Parameter, SlotParameter},
    slots::{Slots, active},
    stack::{self, ParameterValue, Stack, Template, WantedStack},
    state::Condition,
    watch::Watch,
};
use crate::{
    error::{self, Class, Fault},
    value::spoken,
    view::{complain, count},
};

/// The shares that a new build gets, unless told otherwise.
const DEFAULT_SHIFT_PERCENT: [u8; 3] = [10, 50, 100];
const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_mins(10);

impl Deploy {
    /// Moves the traffic to a slot that holds a new build, shrinks the other one, and has the stack know.
    pub(super) fn roll_out(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let mut share = self.shape().shares(&self.system, slots)?[slot.index()];
        self.move_traffic(slots, slot, &mut share).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let here = slots.described(slot);
                let message = format!("detached from {}: {here} has {share} % of the traffic", self.stack);
                let back =
                    self.command(&format!("rollback --build {}", slots.parameter(slot.other(), SlotParameter::Build)));
                error.context(Fault::new(message).hint(format!("on: the same command again; back: {back}")))
            }
            _ => error,
        })
    }

    /// The same; `share` is what the slot has got so far, also where it fails.
    fn move_traffic(&self, slots: &Slots, slot: Slot, share: &mut u32) -> Result<()> {
        let group = self.grow(slots, slot, None)?;
        let mut healthy = self.await_health(slots, slot, &group);
        let shares =
            if self.settings.shift.is_empty() { DEFAULT_SHIFT_PERCENT.to_vec() } else { self.settings.shift.clone() };
        // Who goes on where somebody has detached takes no traffic away again.
        let left: Vec<u8> = shares.into_iter().filter(|next| u32::from(*next) > *share).collect();
        for next in left {
            if let Err(error) = healthy {
                return Err(self.give_up(slots, slot, *share, error));
            }
            self.check_alone(slots, slot, *share)?;
            self.shift(slots, slot, next)?;
            *share = u32::from(next);
            self.say(&format!("{} takes {share} % of the traffic", slots.described(slot)));
            // The other slot is needed until the last resolver has asked again.
            let is_watched = next < 100 || self.shape().lags();
            healthy = if is_watched { self.observe(slots, slot, &group) } else { Ok(()) };
        }
        if let Err(error) = healthy {
            return Err(self.give_up(slots, slot, *share, error));
        }
        // So far it could not shrink, having little traffic.
        let least = self.settings.min_size.or(slots.group(&self.system, slot.other())?.map(|other| other.min));
        let now = self.group(slots, slot)?;
        if let Some(least) = least.filter(|least| *least < now.min) {
            fleet::resize(&self.system, &now.name, least, now.desired)?;
        }
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }

    /// Takes the traffic away again from a slot that is not well, unless somebody has only gone.
    fn give_up(&self, slots: &Slots, slot: Slot, share: u32, error: anyhow::Error) -> anyhow::Error {
        if let Class::Interrupted(_) = error::class(&error) {
            return error;
        }
        if share > 0
            && let Err(failed) = self.shift(slots, slot.other(), 100)
        {
            return failed.context(format!("{error:#}; taking the traffic away from {}", slots.described(slot)));
        }
        let users = slots.described(slot.other());
        error.context(
            Fault::new(format!("the new build does not take over: all traffic is on {users}"))
                .hint(format!("look at a machine ({}), mend it, and deploy the next build", self.command("status"))),
        )
    }

    /// Gives a slot this share of the traffic, in percent, and the other one the rest.
    fn shift(&self, slots: &Slots, slot: Slot, percent: u8) -> Result<()> {
        let percent = percent.min(100);
        self.shape().shift(self, slots, [(slot, percent), (slot.other(), 100 - percent)])
    }

    /// Fails if somebody else has moved the traffic meanwhile.
    fn check_alone(&self, slots: &Slots, slot: Slot, share: u32) -> Result<()> {
        let now = self.shape().live_shares(self, slots)?[slot.index()];
        ensure!(
            now == share,
            Fault::new(format!(
                "somebody else moves the traffic: {} has {now} %, not {share} %",
                slots.described(slot)
            ))
            .hint(self.command("status"))
            .class(Class::Locked)
        );
        Ok(())
    }

    /// Gives a slot as many machines as the other one has. Unless it may have fewer (`least`), it keeps them: without traffic
    /// its alarms would take them away.
    fn grow(&self, slots: &Slots, slot: Slot, least: Option<u32>) -> Result<ScalingGroup> {
        let mut group = self.group(slots, slot)?;
        let Some(other) = slots.group(&self.system, slot.other())? else { return Ok(group) };
        let wanted = other.desired.min(group.max).max(group.desired);
        if group.desired < wanted || (least.is_none() && group.min < wanted) {
            let least = least.unwrap_or(wanted).min(wanted);
            fleet::resize(&self.system, &group.name, least, wanted)?;
            if group.desired < wanted {
                let (here, there) = (slots.described(slot), slot.other().name());
                self.say(&format!("{here} gets {wanted} machines, as many as {there} had"));
            }
            (group.min, group.desired) = (least, wanted);
        }
        Ok(group)
    }

    fn group(&self, slots: &Slots, slot: Slot) -> Result<ScalingGroup> {
        let group = slots.group(&self.system, slot)?;
        group.with_context(|| format!("the slot {} of {} holds no group", slot.name(), self.stack))
    }

    /// A slot's machines as the balancer sees them; `None` if AWS can't be reached for now.
    fn look(&self, slots: &Slots, slot: Slot) -> Result<Option<Vec<TargetHealth>>> {
        match slots.targets(&self.system, slot) {
            Ok(targets) => Ok(Some(targets)),
            Err(error) if error::class(&error) == Class::Transient => {
                complain(format!("the balancer does not answer, still trying: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until as many machines as the group wants are healthy behind the balancer.
    fn await_health(&self, slots: &Slots, slot: Slot, group: &ScalingGroup) -> Result<()> {
        let limit = self.settings.health_timeout.map_or(DEFAULT_HEALTH_TIMEOUT, |limit| limit.0);
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
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// How long each share of the traffic is watched.
    fn pause(&self) -> Duration {
        self.settings.pause.map_or_else(|| self.shape().default_pause(), |pause| pause.0)
    }

    /// Looks at a slot for some time: it must stay healthy under the traffic that it gets.
    fn observe(&self, slots: &Slots, slot: Slot, group: &ScalingGroup) -> Result<()> {
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
            self.system.host.stop.wait(self.poll)?;
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
        let mut changes = vec![];
        for stack in slots.stacks() {
            let mut values = BTreeMap::new();
            for each in slots.of(stack) {
                let Some(group) = slots.group(&self.system, each)? else { continue };
                for (parameter, value) in [
                    (SlotParameter::Weight, if each == slot { 100 } else { 0 }),
                    (SlotParameter::DesiredCapacity, group.desired),
                    (SlotParameter::MinSize, group.min),
                ] {
                    _ = values.insert(self.layout().parameter(each, parameter), ParameterValue::New(value.to_string()));
                }
            }
            if !values.is_empty() {
                changes.push((stack, values));
            }
        }
        self.set_parameters(&changes, "the parameters")
    }

    /// Has the parameters say what is so before the idle slot is filled: if that fails, CloudFormation goes back to what they
    /// say, and would take machines or traffic from the slot that serves.
    pub(super) fn catch_up(&self, serving: Slot) -> Result<()> {
        self.say("weights or sizes are not those of the parameters any more");
        ensure!(self.ask("have the parameters follow first?")?, Fault::new("not agreed: nothing was changed"));
        self.bring_into_line(&Slots::get(self)?, serving)
    }

    /// Changes parameters of stacks, of several at the same time, and nothing else of them; `what` is that for a person.
    pub(super) fn set_parameters(
        &self,
        changes: &[(&Stack, BTreeMap<String, ParameterValue>)],
        what: &str,
    ) -> Result<()> {
        for (stack, _) in changes {
            self.settle(stack)?;
        }
        let mut begun = vec![];
        for (stack, values) in changes {
            let mut parameters: BTreeMap<String, ParameterValue> =
                stack.parameters.keys().map(|name| (name.clone(), ParameterValue::Previous)).collect();
            parameters.extend(values.clone());
            let watch = Watch::from_now(self, &stack.id)?;
            if stack::update(&self.system, &stack.name, &WantedStack { template: Template::Previous, parameters })? {
                self.say(&format!("{what} of the stack {} follow", stack.name));
                begun.push(watch);
            }
        }
        for mut watch in begun {
            let stack = watch.until_done()?;
            ensure!(
                !stack.state.failed,
                Fault::new(format!("the stack {} did not follow: it is {}", stack.name, stack.state.name))
                    .hint(self.command("diagnose"))
            );
        }
        Ok(())
    }

    /// Names a newer build that is there and does not serve: somebody has detached, or gone back.
    pub(super) fn name_waiting(&self, slots: &Slots) -> Result<()> {
        if !slots.have_traffic() {
            return Ok(());
        }
        let Some(active) = active(self.shape().shares(&self.system, slots)?) else { return Ok(()) };
        if slots.group(&self.system, active.other())?.is_none() {
            return Ok(());
        }
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

    /// Back to the other slot, at once (by a listener it takes three calls), then its machines, then the parameters.
    ///
    /// # Errors
    /// If there is no slot to go back to, or none of its machines answers.
    pub fn roll_back(&self, build: Option<u64>) -> Result<()> {
        let slots = Slots::get(self)?.without_empty();
        let slot = slots.way_back(build)?;
        let back = slots.described(slot);
        let healthy = fleet::healthy(&slots.targets(&self.system, slot)?);
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy: users would be worse off"))
                .hint("deploy the old build again, with the next number: deploy update-stack")
        );
        self.shift(&slots, slot, 100)?;
        self.say(&format!("all traffic is on {back} again, {} so far", count(healthy, "healthy machine")));
        self.have_all_follow(&slots, slot).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let message = format!(
                    "detached from {}: users are on {back}, machines and parameters follow not yet",
                    self.stack
                );
                let again = self.command(&format!("rollback --build {}", slots.parameter(slot, SlotParameter::Build)));
                error.context(Fault::new(message).hint(again))
            }
            _ => error,
        })?;
        self.say(&format!("users are on {back}"));
        Ok(())
    }

    /// Gives the slot that users went back to its machines, then shrinks the other one, then has the stack know.
    fn have_all_follow(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let least = slots.group(&self.system, slot.other())?.map_or(1, |other| other.min);
        let group = self.grow(slots, slot, Some(least))?;
        self.await_health(slots, slot, &group)?;
        if self.shape().lags() {
            self.say(&format!("waiting {} for resolvers to ask again", spoken(self.pause())));
            self.system.host.stop.wait(self.pause())?;
        }
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }
}

/// How many machines the slot that is not used keeps.
fn keep(slots: &Slots, slot: Slot) -> u32 {
    slots.stack(slot).and_then(|stack| stack.parameter(Parameter::KeepCapacity).parse().ok()).unwrap_or(1)
}
