//! Moves the traffic from one slot to the other, and back.
//!
//! It calls the balancer and the groups directly, so that a rollback works also while CloudFormation is busy. Then it updates
//! the stacks' parameters, so that their next update undoes nothing.
//!
//! [`back`] returns the traffic, [`pins`] keeps the groups from shrinking meanwhile, [`probe`] asks the application,
//! [`probe_command`] has a command ask it, and [`silence`] notes when AWS does not answer.

mod back;
mod pins;
mod probe;
mod probe_command;
mod silence;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

pub(super) use self::{
    pins::keep,
    silence::{OF_BUILD, Silence, answered},
};
use super::{
    Deploy,
    alarms::Alarms,
    fleet,
    fleet::{ScalingGroup, TargetHealth},
    layout::Slot,
    parameters::SlotParameter,
    slots::{Slots, active},
    stack::{self, ParameterValue, Stack, StackTemplate, WantedStack},
    state::Condition,
    watch::Watch,
};
use crate::{
    error::{self, Class, Fault},
    value::spoken,
};

/// Shares of the traffic that a new build receives one after the other, by default.
const DEFAULT_SHIFT_PERCENT: [u8; 3] = [10, 50, 100];
const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_mins(10);
/// How long the previous build keeps all its machines, by default.
const DEFAULT_KEEP_TIME: Duration = Duration::from_mins(15);

/// The state of a slot's machines behind the balancer.
enum Health {
    Well,
    Sick(Fault),
}

impl Deploy {
    /// Moves the traffic to a slot that holds a new build, lets the other slot shrink, and updates the stack's parameters. If
    /// the build is `condemned` already, its traffic returns.
    ///
    /// # Errors
    /// If the machines get no traffic in good health, or if AWS does not make a change. The error says where users are.
    pub(super) fn roll_out(&self, slots: &Slots, slot: Slot, condemned: Option<Fault>) -> Result<()> {
        let began = self.shape().shares(&self.system, slots)?[slot.index()];
        let mut share = began;
        let moved = match condemned {
            Some(fault) => Ok(Health::Sick(fault)),
            None => self.move_traffic(slots, slot, &mut share),
        };
        let ended = moved.and_then(|health| match health {
            Health::Well => self.finish(slots, slot).map(|()| None),
            Health::Sick(fault) => self.give_up(slots, slot, began, &mut share, fault).map(Some),
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(error) => Err(self.stopped(slots, slot, share, error)),
        }
    }

    /// Returns an error that says where users are, how to continue and how to go back; `share` is the last known one of the slot.
    fn stopped(&self, slots: &Slots, slot: Slot, share: u32, error: anyhow::Error) -> anyhow::Error {
        let build = slots.parameter(slot.other(), SlotParameter::Build);
        let place = self.place(slots, slot, share);
        let (class, verb) = match error::class(&error) {
            class @ Class::Interrupted(_) => (class, "detached from"),
            class => (class, "the deploy stopped; stack"),
        };
        let back = self.command(&format!("rollback --build {build}"));
        let at_once = self.command(&format!("rollback --now --build {build}"));
        let ways = format!(
            "to continue, run the same command again; to roll back: {back}; to move all traffic back at once: {at_once}"
        );
        with_ways(error, &format!("{verb} {}: {place}", self.stack), &ways, class)
    }

    /// Returns where users are, in words; if AWS does not answer, by the last known share of this slot.
    fn place(&self, slots: &Slots, slot: Slot, known: u32) -> String {
        let here = slots.described(slot);
        // A change may have been made although its answer was lost.
        self.system.aws.be_brief();
        match self.system.host.stop.interrupt.aside(|| self.shape().live_shares(self, slots)) {
            Ok(shares) => format!("{here} receives {} % of the traffic", shares[slot.index()]),
            Err(_) => format!("{here} received {known} % of the traffic when AWS answered last"),
        }
    }

    /// Gives a slot the shares that it lacks, one after the other, each watched; `share` is what it receives so far.
    fn move_traffic(&self, slots: &Slots, slot: Slot, share: &mut u32) -> Result<Health> {
        // Users that the slot has already do not wait until sick machines are healthy.
        let present = if *share > 0 { self.group(slots, slot)?.desired } else { 0 };
        let mut wanted = self.grow(slots, slot)?.desired;
        let mut health = self.await_health(slots, slot, present, wanted)?;
        if let (Health::Well, 0) = (&health, *share) {
            health = self.ask_idle(slots, slot, &mut wanted)?;
        }
        if let Health::Sick(_) = health {
            return Ok(health);
        }
        // A rollback may have begun while the machines got healthy.
        self.check_alone(slots, slot, *share)?;
        self.pin(slots, slot.other())?;
        // After an operator has detached, the next deploy continues from the current share. It was watched for a part of
        // its time only.
        let began = *share;
        if began > 0 {
            health = self.observe(slots, slot, began, wanted)?;
        }
        for next in self.shares().iter().copied().filter(|next| u32::from(*next) > began) {
            if let Health::Sick(_) = health {
                break;
            }
            self.check_alone(slots, slot, *share)?;
            self.shift(slots, slot, next)?;
            *share = u32::from(next);
            self.say(&format!("{} receives {share} % of the traffic", slots.described(slot)));
            health = self.observe(slots, slot, *share, wanted)?;
        }
        match health {
            Health::Well => self.probe_public(slots, slot, wanted),
            sick @ Health::Sick(_) => Ok(sick),
        }
    }

    /// Has a slot without traffic show that it may receive some: by its alarms, its application, and a command. `wanted` is the
    /// number of machines that it needs.
    fn ask_idle(&self, slots: &Slots, slot: Slot, wanted: &mut u32) -> Result<Health> {
        let alarms = || Ok(self.await_alarms(slots, slot)?.map_or(Health::Well, Health::Sick));
        let mut health = alarms()?;
        if let Health::Well = health {
            health = self.probe_idle(slots, slot, *wanted)?;
        }
        if matches!(health, Health::Sick(_)) || self.settings.probe_command()?.is_none() {
            return Ok(health);
        }
        health = self.command_at_idle(slots, slot)?;
        // It may have run for minutes: machines may be gone, and the other slot may have grown.
        if let Health::Well = health {
            *wanted = self.grow(slots, slot)?.desired;
            health = self.await_health(slots, slot, 0, *wanted)?;
        }
        if let Health::Well = health { alarms() } else { Ok(health) }
    }

    /// Lets both slots shrink again, the other one after some time, and updates the parameters.
    fn finish(&self, slots: &Slots, slot: Slot) -> Result<()> {
        // A rollback may have begun while the new build was watched.
        self.check_alone(slots, slot, 100)?;
        self.unpin(slots, slot)?;
        self.shrink_later(slots, slot.other(), self.keep_time())?;
        self.bring_into_line(slots, slot)
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

    fn group(&self, slots: &Slots, slot: Slot) -> Result<ScalingGroup> {
        let group = slots.group(&self.system, slot)?;
        group.with_context(|| format!("slot {} of {} has no group", slot.name(), self.stack))
    }

    /// Returns a slot's machines as the balancer sees them; `None` after a temporary failure.
    fn look(&self, slots: &Slots, slot: Slot, silence: &mut Silence) -> Result<Option<Vec<TargetHealth>>> {
        let (targets, unanswered) = answered(slots.own_targets(&self.system, slot))?;
        _ = silence.note(self.system.host.stop.now(), unanswered.as_ref());
        Ok(targets)
    }

    /// Waits until this many of a slot's machines are healthy behind the balancer. If they are sick before that, and fewer than
    /// `present` are healthy, there is no reason to wait.
    fn await_health(&self, slots: &Slots, slot: Slot, present: u32, wanted: u32) -> Result<Health> {
        let (present, wanted) = (present as usize, wanted as usize);
        self.await_targets(slots, slot, |targets, is_late| {
            let healthy = fleet::healthy(targets);
            let is_sick = healthy < present && targets.iter().any(|target| target.state == "unhealthy");
            if wanted > 0 && healthy >= wanted {
                Some(Health::Well)
            } else if is_sick {
                Some(Health::Sick(not_staying(healthy, present)))
            } else {
                is_late.then(|| Health::Sick(not_healthy(healthy, wanted, self.health_timeout())))
            }
        })
    }

    /// Waits until the machines with traffic are healthy behind the balancer, which takes a few of its looks after they have
    /// signalled. Whether they are is for the proof to say.
    ///
    /// # Errors
    /// If the operator detaches, or if AWS refuses.
    pub(super) fn await_serving(&self) -> Result<()> {
        let slots = Slots::get(self)?;
        let shares = self.shape().shares(&self.system, &slots)?;
        for slot in Slot::ALL.into_iter().filter(|slot| shares[slot.index()] > 0) {
            self.await_targets(&slots, slot, |targets, is_late| {
                (is_late || fleet::healthy(targets) == targets.len()).then_some(())
            })?;
        }
        Ok(())
    }

    /// Looks at a slot's machines until they tell something; from the timeout on, the look is late.
    fn await_targets<T>(
        &self,
        slots: &Slots,
        slot: Slot,
        tell: impl Fn(&[TargetHealth], bool) -> Option<T>,
    ) -> Result<T> {
        let (began, mut told, mut silence) = (Instant::now(), BTreeMap::new(), Silence::default());
        loop {
            let (seen, is_late) = (self.look(slots, slot, &mut silence)?, began.elapsed() > self.health_timeout());
            let is_seen = seen.is_some();
            let targets = seen.unwrap_or_default();
            self.tell_states(&targets, &mut told);
            if let Some(told) = tell(&targets, is_late).filter(|_| is_seen || is_late) {
                return Ok(told);
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Shows the state of each machine whose state has changed.
    fn tell_states(&self, targets: &[TargetHealth], told: &mut BTreeMap<String, String>) {
        for target in targets {
            let state = match target.reason.as_str() {
                "" => target.state.clone(),
                reason => format!("{}, {reason}", target.state),
            };
            if told.insert(target.id.clone(), state.clone()).as_ref() != Some(&state) {
                self.say(&format!("  machine {}: {state}", target.id));
            }
        }
    }

    /// Returns the shares of the traffic that a new build receives one after the other.
    fn shares(&self) -> &[u8] {
        if self.settings.shift.is_empty() { &DEFAULT_SHIFT_PERCENT } else { &self.settings.shift }
    }

    /// Returns how long new machines may take until they are healthy.
    pub(super) fn health_timeout(&self) -> Duration {
        self.settings.health_timeout.map_or(DEFAULT_HEALTH_TIMEOUT, |limit| limit.0)
    }

    /// Returns how long each share of the traffic is watched.
    fn pause(&self) -> Duration {
        self.settings.pause.map_or_else(|| self.shape().default_pause(), |pause| pause.0)
    }

    /// Returns how long the new build is watched with all traffic at the end.
    pub(super) fn last_watch(&self) -> Duration {
        self.pause().max(self.watch_time())
    }

    /// Returns how long the operator wants the new build to be watched with all traffic.
    fn watch_time(&self) -> Duration {
        self.settings.watch.map_or(Duration::ZERO, |time| time.0)
    }

    /// Returns how long the previous build keeps all its machines after the rollout; never less than the new build is watched.
    pub(super) fn keep_time(&self) -> Duration {
        self.settings.keep_for.map_or(DEFAULT_KEEP_TIME.max(self.watch_time()), |time| time.0)
    }

    /// Watches a slot with its share of the traffic for some time: it must stay healthy, and the alarms quiet. No look waits
    /// long for its answer, so that no silent service hides what another one says.
    fn observe(&self, slots: &Slots, slot: Slot, share: u32, wanted: u32) -> Result<Health> {
        let time = if share == 100 { self.last_watch() } else { self.pause() };
        let (began, mut silence) = (Instant::now(), Silence::default());
        loop {
            self.system.aws.be_brief();
            let seen = self.look_at_all(slots, slot, share, wanted);
            self.system.aws.be_patient();
            let (health, unanswered) = seen?;
            if let Health::Sick(_) = health {
                return Ok(health);
            }
            let is_whole = unanswered.is_none();
            // Without an answer the share stays: that AWS cannot be reached says nothing about the machines.
            self.endure(&mut silence, unanswered, OF_BUILD)?;
            if is_whole && began.elapsed() >= time {
                return Ok(health);
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Looks once whether the share is still that of this deploy, at the machines, and at the alarms. Returns what the
    /// services say that answered, and the error of one that did not.
    fn look_at_all(
        &self,
        slots: &Slots,
        slot: Slot,
        share: u32,
        wanted: u32,
    ) -> Result<(Health, Option<anyhow::Error>)> {
        // A rollback by another operator shrinks the slot, which then looks sick.
        let (_, of_traffic) = answered(self.check_alone(slots, slot, share))?;
        let (targets, of_machines) = answered(slots.own_targets(&self.system, slot))?;
        let healthy = targets.map(|targets| fleet::healthy(&targets));
        if let Some(healthy) = healthy.filter(|healthy| *healthy < wanted as usize) {
            return Ok((Health::Sick(not_staying(healthy, wanted as usize)), None));
        }
        let (alarms, of_alarms) = answered(self.alarms(slots, slot))?;
        let health = match alarms {
            Some(Alarms::Ringing { fault, .. }) => Health::Sick(fault),
            Some(Alarms::Quiet) | None => Health::Well,
        };
        Ok((health, of_traffic.or(of_machines).or(of_alarms)))
    }

    /// Updates the parameters to what is live: all traffic on this slot, the other one small.
    fn bring_into_line(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let mut changes = vec![];
        for stack in slots.stacks() {
            let mut values = BTreeMap::new();
            for each in slots.of(stack) {
                let Some(group) = slots.group(&self.system, each)? else { continue };
                let weight = (SlotParameter::Weight, if each == slot { 100 } else { 0 });
                let sizes = Self::declared_sizes(slots, each, each == slot, &group);
                for (parameter, value) in sizes.into_iter().chain([weight]) {
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
            let wanted =
                WantedStack { template: StackTemplate::Previous, parameters, service_role: None, tags: vec![] };
            let watch = Watch::from_now(self, &stack.id)?;
            if stack::update(&self.system, &stack.name, &wanted)? {
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
}

/// Returns the fault of machines that did not become healthy in time.
fn not_healthy(healthy: usize, wanted: usize, limit: Duration) -> Fault {
    Fault::new(format!("{healthy} of {wanted} machines are healthy after {}", spoken(limit)))
        .hint("make the application answer 200 on port 80, at the path of the parameter HealthCheckPath")
}

/// Returns the fault of machines that got sick with users.
fn not_staying(healthy: usize, wanted: usize) -> Fault {
    Fault::new(format!("only {healthy} of {wanted} machines stayed healthy under their share of the traffic"))
}

/// Adds to an error where users are, and the ways to go on. They are the hint, unless the error has a hint of its own: that one
/// comes first, such as a login.
pub(super) fn with_ways(error: anyhow::Error, place: &str, ways: &str, class: Class) -> anyhow::Error {
    let fault = match error::hint(&error) {
        Some(_) => Fault::new(format!("{place}; {ways}")),
        None => Fault::new(place).hint(ways),
    };
    error.context(fault.class(class))
}
