//! Keeps groups from shrinking while the traffic moves.
//!
//! A pinned group has its present size as its smallest one; its largest size stays. The declared smallest size stands in a
//! parameter of the stack and is never read from a pinned group. A scheduled action of the group ends the pin: the
//! operator's machine may be switched off meanwhile.
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-scheduled-scaling.html>

use std::time::Duration;

use anyhow::Result;
use time::OffsetDateTime;

use crate::{
    aws::{answer::Element, refusal::Refusal},
    deploy::{
        Deploy,
        fleet::{self, GroupSize, ScalingGroup},
        layout::Slot,
        parameters::{Parameter, SlotOutput, SlotParameter},
        slots::Slots,
        stack::Stack,
    },
    value::spoken,
    view::count,
};

/// How long a pin lasts, beyond the times for which a roll-out and its way back wait.
const PIN_TIME: Duration = Duration::from_hours(2);

/// More than the clock of a signed call may be off.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const MAX_SKEW: Duration = Duration::from_mins(6);

impl Deploy {
    /// Has a slot's group keep its present machines while the traffic moves.
    pub(super) fn pin(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        self.hold(slots, slot, &group, group.desired).map(drop)
    }

    /// Gives a slot as many machines as the other one has, and has it keep them.
    pub(super) fn grow(&self, slots: &Slots, slot: Slot) -> Result<ScalingGroup> {
        let group = self.group(slots, slot)?;
        let Some(other) = slots.group(&self.system, slot.other())? else { return Ok(group) };
        let wanted = other.desired.max(group.desired);
        if group.desired < wanted {
            let (here, there) = (slots.described(slot), slot.other().name());
            let rises = match group.max {
                max if max < wanted => format!("; its largest size rises from {max} to {wanted}"),
                _ => String::new(),
            };
            self.say(&format!("{here} grows to {wanted} machines, as many as {there} has{rises}"));
        }
        self.hold(slots, slot, &group, wanted)
    }

    /// Returns how long a pin lasts: until all shares are moved and watched, or all traffic is back.
    fn pin_time(&self) -> Duration {
        let shares = u32::try_from(self.shares().len()).unwrap_or(u32::MAX);
        PIN_TIME + self.command_time() + self.pause() * shares + self.watch_time() + self.health_timeout() * 2
    }

    /// Has a group keep at least this many machines; the action that ends this comes first.
    fn hold(&self, slots: &Slots, slot: Slot, group: &ScalingGroup, size: u32) -> Result<ScalingGroup> {
        let least = self.least(slots, slot, group);
        if size > least {
            let free = GroupSize { min: Some(least), ..GroupSize::default() };
            _ = self.schedule(group, free, self.pin_time())?;
        } else {
            // The action of an earlier deploy would shrink the group.
            _ = self.unschedule(&group.name)?;
        }
        // Alarms may have changed the current number since the group was looked at. It is given only to grow.
        let pinned = GroupSize {
            min: (group.min != size).then_some(size),
            desired: (group.desired < size).then_some(size),
            max: (group.max < size).then_some(size),
        };
        if pinned != GroupSize::default() {
            fleet::resize(&self.system, &group.name, pinned)?;
        }
        Ok(ScalingGroup { min: size, desired: size, max: group.max.max(size), ..group.clone() })
    }

    /// Gives a slot's group its declared smallest size again.
    pub(super) fn unpin(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        let least = self.least(slots, slot, &group);
        if least < group.min {
            fleet::resize(&self.system, &group.name, GroupSize { min: Some(least), ..GroupSize::default() })?;
        }
        self.unschedule(&group.name).map(drop)
    }

    /// Shrinks a slot to the number of machines that is kept for a rollback: after this time, by an action of the group.
    pub(in crate::deploy) fn shrink_later(&self, slots: &Slots, slot: Slot, time: Duration) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        let keep = keep(slots, slot).min(group.desired);
        if time.is_zero() || group.desired <= keep {
            return self.shrink(slots, slot);
        }
        let (here, machines) = (slots.described(slot), count(group.desired as usize, "machine"));
        let size = GroupSize { min: Some(keep), desired: Some(keep), max: None };
        if self.schedule(&group, size, time)? {
            self.say(&format!("{here} keeps {machines} for {}, then {keep}, for deploy rollback", spoken(time)));
        } else {
            self.say(&format!("{here} keeps {machines}; to let it shrink: {}", self.command("release")));
        }
        Ok(())
    }

    /// Shrinks a slot at once to the number of machines that is kept for a rollback.
    pub(super) fn shrink(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let Some(group) = slots.group(&self.system, slot)? else { return Ok(()) };
        let keep = keep(slots, slot).min(group.desired);
        if group.desired > keep || group.min > keep {
            fleet::resize(&self.system, &group.name, GroupSize { min: Some(keep), desired: Some(keep), max: None })?;
        }
        _ = self.unschedule(&group.name)?;
        self.say(&format!("{} keeps {}, for deploy rollback", slots.described(slot), count(keep as usize, "machine")));
        Ok(())
    }

    /// Cancels the action of an idle slot before it is filled: it would shrink the new build. Returns whether there was one.
    pub(in crate::deploy) fn cancel_schedule(&self, stack: &Stack, slot: Slot) -> Result<bool> {
        match stack.outputs.get(&self.layout().output(slot, SlotOutput::Group)) {
            Some(group) => self.unschedule(group),
            None => Ok(false),
        }
    }

    /// Cancels the action that would shrink a slot, before it receives traffic again. Users need that traffic: if Auto Scaling
    /// does not answer at once, the pin that follows repeats the call. Returns whether there was one.
    pub(super) fn keep_whole(&self, slots: &Slots, slot: Slot) -> bool {
        let group = |stack: &Stack| stack.outputs.get(&self.layout().output(slot, SlotOutput::Group)).cloned();
        let Some(group) = slots.stack(slot).and_then(group) else { return false };
        self.system.aws.be_brief();
        fleet::unschedule(&self.system, &group).unwrap_or(false)
    }

    /// Ends what a deploy has pinned: a slot with traffic may shrink to its declared size, and the other one shrinks.
    ///
    /// # Errors
    /// If the stack does not exist, or if AWS refuses.
    pub fn release(&self) -> Result<()> {
        let slots = Slots::get(self)?.without_empty();
        self.system.aws.be_patient();
        let shares = self.shape().shares(&self.system, &slots)?;
        for slot in Slot::ALL {
            if slots.group(&self.system, slot)?.is_none() {
                continue;
            }
            if shares[slot.index()] == 0 {
                self.shrink(&slots, slot)?;
            } else {
                self.unpin(&slots, slot)?;
                let here = slots.described(slot);
                self.say(&format!("{here} receives {} % of the traffic, and may shrink", shares[slot.index()]));
            }
        }
        Ok(())
    }

    /// Has the group get another size after some time. Returns false if the operator may not do that.
    fn schedule(&self, group: &ScalingGroup, size: GroupSize, time: Duration) -> Result<bool> {
        let after = |time: Duration| fleet::schedule(&self.system, &group.name, size, OffsetDateTime::now_utc() + time);
        let scheduled = match after(time) {
            // By this machine's clock or by the duration of the call, the time is over already.
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.code == "ValidationError") => {
                after(time + MAX_SKEW)
            }
            scheduled => scheduled,
        };
        match scheduled {
            Ok(()) => Ok(true),
            Err(error) if Refusal::of(&error).is_some_and(Refusal::is_denial) => {
                self.say(&format!("note: {} cannot be scheduled to shrink: {error:#}", group.name));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Cancels the scheduled action of a group; returns whether it had one. If the operator may not do that, a note says so.
    fn unschedule(&self, group: &str) -> Result<bool> {
        match fleet::unschedule(&self.system, group) {
            Err(error) if Refusal::of(&error).is_some_and(Refusal::is_denial) => {
                self.say(&format!("note: {group} may shrink at the time that was scheduled: {error:#}"));
                Ok(false)
            }
            done => done,
        }
    }

    /// Returns the sizes of a slot's group for the stack's parameters. The smallest one is never that of a pin, nor a larger one
    /// of another program.
    pub(super) fn declared_sizes(
        slots: &Slots,
        slot: Slot,
        serves: bool,
        group: &ScalingGroup,
    ) -> [(SlotParameter, u32); 3] {
        let now = |parameter| slots.parameter(slot, parameter).parse().unwrap_or(u32::MAX);
        // The parameters of a slot without traffic stay, or sink: CloudFormation must not touch a group that is pinned.
        let (least, most) = if serves {
            (now(SlotParameter::DeclaredMinSize), u32::MAX)
        } else {
            (now(SlotParameter::MinSize), now(SlotParameter::DesiredCapacity))
        };
        [
            (SlotParameter::MinSize, group.min.min(least)),
            (SlotParameter::DesiredCapacity, group.capacity().min(most)),
            (SlotParameter::MaxSize, group.max.max(1)),
        ]
    }

    /// Returns whether a resource of a stack differs from its template only as `deploy` itself makes it: by the number of
    /// machines of a slot without traffic.
    pub(in crate::deploy) fn is_own_drift(&self, stack: &Stack, drift: &Element) -> Result<bool> {
        let paths: Vec<&str> = drift.list("PropertyDifferences").map(|each| each.text("PropertyPath")).collect();
        if paths.is_empty() || paths.iter().any(|path| !["/MinSize", "/DesiredCapacity"].contains(path)) {
            return Ok(false);
        }
        let (slots, layout) = (Slots::find(self)?, self.layout());
        let is_it = |slot: &Slot| layout.output(*slot, SlotOutput::Group) == drift.text("LogicalResourceId");
        let Some(slot) = slots.of(stack).find(is_it) else { return Ok(false) };
        let shares = self.shape().shares(&self.system, &slots)?;
        Ok(shares[slot.index()] == 0 && shares[slot.other().index()] > 0)
    }

    /// Returns a slot's smallest size as declared.
    fn least(&self, slots: &Slots, slot: Slot, group: &ScalingGroup) -> u32 {
        let declared = |slot| slots.parameter(slot, SlotParameter::DeclaredMinSize).parse().ok();
        let least = self.settings.min_size.or_else(|| declared(slot)).or_else(|| {
            // A stack of an earlier version: the slot that serves has the declared size in its parameter.
            slots.parameter(slot, SlotParameter::MinSize).parse().ok()
        });
        least.unwrap_or(group.min).min(group.desired)
    }
}

/// Returns how many machines the idle slot keeps.
pub(in crate::deploy) fn keep(slots: &Slots, slot: Slot) -> u32 {
    slots.stack(slot).and_then(|stack| stack.parameter(Parameter::KeepCapacity).parse().ok()).unwrap_or(1)
}
