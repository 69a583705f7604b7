//! Moves the traffic from one slot to the other, and back.
//!
//! It calls the balancer and the groups directly, so that a rollback works also while CloudFormation is busy. Then it updates
//! the stacks' parameters, so that their next update undoes nothing.

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
    stack::{self, ParameterValue, Stack, StackTemplate, WantedStack},
    state::Condition,
    watch::Watch,
};
use crate::{
    error::{self, Class, Fault},
    value::spoken,
    view::{complain, count},
};

/// Shares of the traffic that a new build receives one after the other, by default.
const DEFAULT_SHIFT_PERCENT: [u8; 3] = [10, 50, 100];
const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_mins(10);

impl Deploy {
    /// Moves the traffic to a slot that holds a new build, shrinks the other slot, and updates the stack's parameters.
    pub(super) fn roll_out(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let mut share = self.shape().shares(&self.system, slots)?[slot.index()];
        self.move_traffic(slots, slot, &mut share).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let here = slots.described(slot);
                let message = format!("detached from {}: {here} receives {share} % of the traffic", self.stack);
                let back =
                    self.command(&format!("rollback --build {}", slots.parameter(slot.other(), SlotParameter::Build)));
                error.context(
                    Fault::new(message).hint(format!("to continue, run the same command again; to roll back: {back}")),
                )
            }
            _ => error,
        })
    }

    /// Does the same; `share` is what the slot receives so far, also after a failure.
    fn move_traffic(&self, slots: &Slots, slot: Slot, share: &mut u32) -> Result<()> {
        let group = self.grow(slots, slot, None)?;
        let mut healthy = self.await_health(slots, slot, &group);
        let shares =
            if self.settings.shift.is_empty() { DEFAULT_SHIFT_PERCENT.to_vec() } else { self.settings.shift.clone() };
        // After an operator has detached, the next deploy continues from the current share.
        let left: Vec<u8> = shares.into_iter().filter(|next| u32::from(*next) > *share).collect();
        for next in left {
            if let Err(error) = healthy {
                return Err(self.give_up(slots, slot, *share, error));
            }
            self.check_alone(slots, slot, *share)?;
            self.shift(slots, slot, next)?;
            *share = u32::from(next);
            self.say(&format!("{} receives {share} % of the traffic", slots.described(slot)));
            // The other slot is needed until the last resolver has asked again.
            let is_watched = next < 100 || self.shape().lags();
            healthy = if is_watched { self.observe(slots, slot, &group) } else { Ok(()) };
        }
        if let Err(error) = healthy {
            return Err(self.give_up(slots, slot, *share, error));
        }
        // Until now its group could not shrink, because little traffic would have let the alarms remove machines.
        let least = self.settings.min_size.or(slots.group(&self.system, slot.other())?.map(|other| other.min));
        let now = self.group(slots, slot)?;
        if let Some(least) = least.filter(|least| *least < now.min) {
            fleet::resize(&self.system, &now.name, least, now.desired)?;
        }
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }

    /// Moves the traffic away from a slot that is not healthy, unless the operator has only detached.
    fn give_up(&self, slots: &Slots, slot: Slot, share: u32, error: anyhow::Error) -> anyhow::Error {
        if let Class::Interrupted(_) = error::class(&error) {
            return error;
        }
        if share > 0
            && let Err(failed) = self.shift(slots, slot.other(), 100)
        {
            return failed
                .context(format!("{error:#}; then moving the traffic away from {} failed", slots.described(slot)));
        }
        let users = slots.described(slot.other());
        error.context(
            Fault::new(format!("the new build failed: all traffic is on {users}"))
                .hint(format!("find the cause ({}), fix it, and deploy the next build", self.command("status"))),
        )
    }

    /// Gives a slot this share of the traffic, in percent, and the other slot the rest.
    fn shift(&self, slots: &Slots, slot: Slot, percent: u8) -> Result<()> {
        let percent = percent.min(100);
        self.shape().shift(self, slots, [(slot, percent), (slot.other(), 100 - percent)])
    }

    /// Fails if another deploy has moved the traffic meanwhile.
    fn check_alone(&self, slots: &Slots, slot: Slot, share: u32) -> Result<()> {
        let now = self.shape().live_shares(self, slots)?[slot.index()];
        ensure!(
            now == share,
            Fault::new(format!(
                "another deploy is moving the traffic: {} receives {now} %, not {share} %",
                slots.described(slot)
            ))
            .hint(self.command("status"))
            .class(Class::Locked)
        );
        Ok(())
    }

    /// Gives a slot as many machines as the other one has. Without `least`, its group cannot shrink below: without traffic its
    /// alarms would remove machines.
    fn grow(&self, slots: &Slots, slot: Slot, least: Option<u32>) -> Result<ScalingGroup> {
        let mut group = self.group(slots, slot)?;
        let Some(other) = slots.group(&self.system, slot.other())? else { return Ok(group) };
        let wanted = other.desired.min(group.max).max(group.desired);
        if group.desired < wanted || (least.is_none() && group.min < wanted) {
            let least = least.unwrap_or(wanted).min(wanted);
            fleet::resize(&self.system, &group.name, least, wanted)?;
            if group.desired < wanted {
                let (here, there) = (slots.described(slot), slot.other().name());
                self.say(&format!("{here} grows to {wanted} machines, as many as {there} has"));
            }
            (group.min, group.desired) = (least, wanted);
        }
        Ok(group)
    }

    fn group(&self, slots: &Slots, slot: Slot) -> Result<ScalingGroup> {
        let group = slots.group(&self.system, slot)?;
        group.with_context(|| format!("slot {} of {} has no group", slot.name(), self.stack))
    }

    /// Returns a slot's machines as the balancer sees them; `None` after a temporary failure.
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
                bail!(
                    fault.hint(
                        "make the application answer 200 on port 80, at the path of the parameter HealthCheckPath"
                    )
                );
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Returns how long each share of the traffic is watched.
    fn pause(&self) -> Duration {
        self.settings.pause.map_or_else(|| self.shape().default_pause(), |pause| pause.0)
    }

    /// Watches a slot for some time: it must stay healthy under its traffic.
    fn observe(&self, slots: &Slots, slot: Slot, group: &ScalingGroup) -> Result<()> {
        let (began, time) = (Instant::now(), self.pause());
        loop {
            let seen = self.look(slots, slot)?;
            if let Some(targets) = &seen {
                let healthy = fleet::healthy(targets);
                ensure!(
                    healthy >= group.desired as usize,
                    "only {healthy} of {} machines stayed healthy under their share of the traffic",
                    group.desired
                );
            }
            // Without an answer the share stays: that AWS cannot be reached says nothing about the machines.
            if began.elapsed() >= time && seen.is_some() {
                return Ok(());
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Shrinks a slot to the number of machines that is kept for a rollback.
    fn shrink(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        let keep = keep(slots, slot).min(group.desired);
        if group.desired > keep || group.min > keep {
            fleet::resize(&self.system, &group.name, keep, keep)?;
        }
        self.say(&format!("{} keeps {}, for deploy rollback", slots.described(slot), count(keep as usize, "machine")));
        Ok(())
    }

    /// Updates the parameters to what is live: all traffic on this slot, the other one small.
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

    /// Updates the parameters to what is live before the idle slot is filled. If filling fails, CloudFormation returns to the
    /// parameters, and would otherwise take machines or traffic from the slot that serves.
    pub(super) fn catch_up(&self, serving: Slot) -> Result<()> {
        self.say("the live weights or sizes differ from the stack's parameters");
        ensure!(self.ask("update the parameters to match first?")?, Fault::new("cancelled; nothing was changed"));
        self.bring_into_line(&Slots::get(self)?, serving)
    }

    /// Changes only parameters, of several stacks at the same time; `what` names them for a person.
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
            if stack::update(&self.system, &stack.name, &WantedStack { template: StackTemplate::Previous, parameters })?
            {
                self.say(&format!("updating {what} of stack {}", stack.name));
                begun.push(watch);
            }
        }
        for mut watch in begun {
            let stack = watch.until_done()?;
            ensure!(
                !stack.state.failed,
                Fault::new(format!("the update of stack {} failed: it is {}", stack.name, stack.state.name))
                    .hint(self.command("diagnose"))
            );
        }
        Ok(())
    }

    /// Names a newer build that does not serve, because an operator has detached or rolled back.
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
                "{} is serving; to switch to {}, run update-stack again; to switch at once: {}",
                slots.described(active),
                slots.described(active.other()),
                self.command(&format!("rollback --build {waiting}"))
            ));
        }
        Ok(())
    }

    /// Waits until CloudFormation has ended its operation.
    fn settle(&self, stack: &Stack) -> Result<()> {
        let stack = Stack::find(&self.system, &stack.name)?.with_context(|| self.no_stack())?;
        if stack.state.condition == Condition::Busy {
            self.say(&format!("waiting for CloudFormation: the stack {} is {}", stack.name, stack.state.name));
            drop(Watch::from_now(self, &stack.id)?.until_done()?);
        }
        Ok(())
    }

    /// Moves all traffic back to the other slot (with a listener in three calls), then updates its machines and the parameters.
    ///
    /// # Errors
    /// If no slot holds a previous build, or if none of its machines is healthy.
    pub fn roll_back(&self, build: Option<u64>) -> Result<()> {
        let slots = Slots::get(self)?.without_empty();
        let slot = slots.way_back(build)?;
        let back = slots.described(slot);
        let healthy = fleet::healthy(&slots.targets(&self.system, slot)?);
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy; no traffic was moved")).hint(
                "deploy the previous content under the next build number, with glovo-bootstrap deploy update-stack"
            )
        );
        self.shift(&slots, slot, 100)?;
        self.say(&format!("all traffic is on {back} again, with {} so far", count(healthy, "healthy machine")));
        self.have_all_follow(&slots, slot).map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => {
                let message = format!(
                    "detached from {}: {back} serves all traffic; machine counts and parameters are not updated yet",
                    self.stack
                );
                let again = self.command(&format!("rollback --build {}", slots.parameter(slot, SlotParameter::Build)));
                error.context(Fault::new(message).hint(again))
            }
            _ => error,
        })?;
        self.say(&format!("rollback complete: {back} serves all traffic"));
        Ok(())
    }

    /// Grows the slot that serves again, then shrinks the other one, then updates the parameters.
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

/// Returns how many machines the idle slot keeps.
fn keep(slots: &Slots, slot: Slot) -> u32 {
    slots.stack(slot).and_then(|stack| stack.parameter(Parameter::KeepCapacity).parse().ok()).unwrap_or(1)
}
