//! Alarms of CloudWatch that a roll-out heeds: those that the operator names, and the slot's own ones, which its stack has.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    Deploy,
    layout::Slot,
    parameters::{Parameter, SlotOutput, SlotParameter},
    preflight::Findings,
    prepare::Intent,
    rollout::{OF_BUILD, Silence, answered},
    slots::Slots,
};
use crate::{
    aws::{answer::Element, query::Call, service::CLOUDWATCH},
    error::Fault,
    value::spoken,
};

/// An alarm as CloudWatch has it now.
#[derive(Debug)]
pub(super) struct AlarmState {
    pub(super) name: String,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`; `MISSING` if the alarm does not exist.
    pub(super) state: String,
    /// CloudWatch's reason for the state.
    pub(super) reason: String,
    /// The period that it looks at; none for a composite alarm.
    period: Option<Duration>,
}

/// What CloudWatch says of the alarms, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct AlarmStates(Vec<AlarmState>);

/// What the alarms mean for a share of the traffic.
pub(super) enum Alarms {
    /// None is in the state ALARM.
    Quiet,
    /// One is in the state ALARM, or no longer exists.
    Ringing {
        /// What to tell of it.
        fault: Fault,
        /// Whether it looks at nothing but this slot's machines.
        is_own: bool,
    },
}

impl Deploy {
    /// Returns the names of the given alarms. An empty name stands for none.
    fn given_alarms(&self) -> Vec<&str> {
        self.settings.alarm.iter().map(String::as_str).filter(|name| !name.is_empty()).collect()
    }

    /// Returns the names of the slot's own alarms that this deploy heeds; none if the operator wants no alarms.
    fn own_alarms<'a>(&self, slots: &'a Slots, slot: Slot) -> Vec<&'a str> {
        if self.settings.alarm.iter().any(String::is_empty) { vec![] } else { slots.alarm_names(slot) }
    }

    /// Returns what CloudWatch says of these alarms now.
    pub(super) fn look_at_alarms(&self, names: &[&str]) -> Result<AlarmStates> {
        if names.is_empty() {
            return Ok(AlarmStates::default());
        }
        let call = Call::new(&CLOUDWATCH, "DescribeAlarms").with_list("AlarmNames.member", names.iter().copied());
        let call = call.with_list("AlarmTypes.member", ["MetricAlarm", "CompositeAlarm"]).with("MaxRecords", "100");
        let answer = self.system.aws(call)?;
        let lists = ["MetricAlarms", "CompositeAlarms"].map(|list| format!("DescribeAlarmsResult/{list}"));
        let known: Vec<&Element> = lists.iter().flat_map(|list| answer.list(list)).collect();
        let state = |name: &&str| match known.iter().find(|alarm| alarm.text("AlarmName") == *name) {
            Some(alarm) => AlarmState::read(alarm),
            None => AlarmState {
                name: (*name).to_owned(),
                state: "MISSING".into(),
                reason: "it does not exist".into(),
                period: None,
            },
        };
        Ok(AlarmStates(names.iter().map(state).collect()))
    }

    /// Looks at the given alarms before anything is changed.
    pub(super) fn check_alarms(&self, found: &mut Findings) -> Result<()> {
        match self.look_at_alarms(&self.given_alarms()) {
            Ok(seen) => found.alarms = seen,
            Err(error) => found.refused("alarms", error)?,
        }
        Ok(())
    }

    /// Makes faults or notes of what the alarms say before anything is changed. Returns the fault of an alarm that condemns a
    /// build which has a share of the traffic already.
    pub(super) fn judge_alarms(
        &self,
        found: &mut Findings,
        slots: &Slots,
        intent: &Intent,
        shares: [u32; 2],
    ) -> Result<Option<Fault>> {
        let mut seen = std::mem::take(&mut found.alarms);
        let Some(slot) = intent.promoted() else {
            let given = self.settings.of_shares();
            if !given.is_empty() {
                self.say(&format!("note: no traffic is moved, so these settings have no effect: {}", given.join(", ")));
            }
            seen.faults().for_each(|fault| self.say(&format!("note: {fault}")));
            return Ok(None);
        };
        let share = shares[slot.index()];
        match self.look_at_alarms(&self.own_alarms(slots, slot)) {
            // Without traffic, they still tell of an earlier build.
            Ok(own) => seen.0.extend(own.0.into_iter().filter(|alarm| share > 0 || !alarm.is_ringing())),
            Err(error) => found.refused("alarms", error)?,
        }
        if let Some(alarm) = seen.0.iter().find(|alarm| alarm.is_ringing()).filter(|_| share > 0) {
            return Ok(Some(Fault::new(alarm.text())));
        }
        if let Some((period, name)) = seen.longest().filter(|(period, _)| *period > self.last_watch()) {
            let (period, watch) = (spoken(period), spoken(self.last_watch()));
            self.say(&format!(
                "note: alarm {name} has a period of {period}, but all traffic is watched for {watch} only; pass a longer \
                 --watch"
            ));
        }
        seen.faults().for_each(|fault| found.fault(fault));
        if share > 0 && seen.faults().next().is_some() {
            let build = slots.parameter(slot.other(), SlotParameter::Build);
            let back = self.command(&format!("rollback --build {build}"));
            let here = slots.described(slot);
            found.fault(format!("{here} receives {share} % of the traffic; to roll back: {back}"));
        }
        Ok(None)
    }

    /// Makes faults of all alarms that ring or are missing before anything is changed: they look at the machines that serve,
    /// and would stop an update that replaces these.
    pub(super) fn judge_all_alarms(&self, found: &mut Findings, slots: &Slots, slot: Slot) -> Result<()> {
        let given = std::mem::take(&mut found.alarms);
        given.faults().for_each(|fault| found.fault(fault));
        // A threshold that this command removes takes its alarm along.
        let goes = |alarm: &&(SlotOutput, &str)| {
            let threshold =
                if alarm.0 == SlotOutput::ErrorAlarm { Parameter::MaxErrors } else { Parameter::MaxResponseTime };
            self.settings.given(threshold.name()) == Some("")
        };
        let own: Vec<&str> = slots.alarms(slot).iter().filter(|alarm| !goes(alarm)).map(|(_, name)| *name).collect();
        // The stack keeps the names that an earlier command gave.
        let kept = slots.stack(slot).filter(|_| self.settings.alarm.is_empty());
        let kept = kept.map(|stack| stack.parameter(Parameter::Alarms.name())).unwrap_or_default();
        let kept: Vec<&str> = kept.split(',').filter(|name| !name.is_empty()).collect();
        match self.look_at_alarms(&kept) {
            Ok(kept) => kept.faults().for_each(|fault| found.fault(fault)),
            Err(error) => found.refused("alarms", error)?,
        }
        match self.look_at_alarms(&own) {
            Ok(own) => {
                let without = "--parameter MaxErrors= --parameter MaxResponseTime=";
                let faults =
                    own.0.iter().filter(|alarm| alarm.is_ringing() || alarm.is_missing()).map(AlarmState::text);
                faults
                    .for_each(|text| found.fault(format!("{text} (to deploy without alarms of the stack: {without})")));
                Ok(())
            }
            Err(error) => found.refused("alarms", error),
        }
    }

    /// Returns what the alarms mean now for the build of this slot.
    pub(super) fn alarms(&self, slots: &Slots, slot: Slot) -> Result<Alarms> {
        let own = self.own_alarms(slots, slot);
        let seen = self.look_at_alarms(&[self.given_alarms(), own.clone()].concat())?;
        let is_own = |alarm: &AlarmState| own.contains(&alarm.name.as_str());
        let ringing = seen.0.iter().find(|alarm| alarm.is_ringing());
        Ok(match ringing.or_else(|| seen.0.iter().find(|alarm| alarm.is_missing())) {
            None => Alarms::Quiet,
            // A gate that has gone stops nothing.
            Some(alarm) if alarm.is_missing() => {
                Alarms::Ringing { fault: Fault::new(format!("alarm {} no longer exists", alarm.name)), is_own: false }
            }
            Some(alarm) => Alarms::Ringing { fault: Fault::new(alarm.text()), is_own: is_own(alarm) },
        })
    }

    /// Waits until CloudWatch says what the alarms are, before a slot receives any traffic. The slot's own alarms may still
    /// tell of an earlier build: they get time to become quiet.
    ///
    /// # Errors
    /// If the operator detaches, or if CloudWatch refuses to answer, or is silent for too long.
    pub(super) fn await_alarms(&self, slots: &Slots, slot: Slot) -> Result<Option<Fault>> {
        let (began, mut is_told, mut silence) = (Instant::now(), false, Silence::default());
        loop {
            let (alarms, unanswered) = answered(self.alarms(slots, slot))?;
            self.endure(&mut silence, unanswered, OF_BUILD)?;
            match alarms {
                Some(Alarms::Quiet) => return Ok(None),
                Some(Alarms::Ringing { fault, is_own }) if !is_own || began.elapsed() > self.health_timeout() => {
                    return Ok(Some(fault));
                }
                Some(Alarms::Ringing { fault, .. }) if !is_told => {
                    self.say(&format!("waiting, because {} receives no traffic yet: {fault}", slots.described(slot)));
                    is_told = true;
                }
                Some(Alarms::Ringing { .. }) | None => {}
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }
}

impl AlarmStates {
    /// Returns the alarms.
    pub(super) fn iter(&self) -> impl Iterator<Item = &AlarmState> {
        self.0.iter()
    }

    /// Returns the longest period, with the alarm's name.
    fn longest(&self) -> Option<(Duration, &str)> {
        self.0.iter().filter_map(|alarm| Some((alarm.period?, alarm.name.as_str()))).max()
    }

    /// Returns a fault for each alarm that does not exist, or that is in the state ALARM.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        let missing = self.0.iter().filter(|alarm| alarm.is_missing());
        let missing = missing.map(|alarm| format!("alarm {} does not exist in this account and region", alarm.name));
        let ringing = self.0.iter().filter(|alarm| alarm.is_ringing());
        let ringing = ringing.map(|alarm| format!("{} (to deploy without alarms: --alarm '')", alarm.text()));
        missing.chain(ringing)
    }
}

impl AlarmState {
    fn read(alarm: &Element) -> Self {
        let text = |name| alarm.text(name).to_owned();
        let period = alarm.text("Period").parse().ok().map(Duration::from_secs);
        Self { name: text("AlarmName"), state: text("StateValue"), reason: text("StateReason"), period }
    }

    fn is_missing(&self) -> bool {
        self.state == "MISSING"
    }

    /// Returns whether it is in the state ALARM. One without data says nothing about the machines.
    fn is_ringing(&self) -> bool {
        self.state == "ALARM"
    }

    fn text(&self) -> String {
        format!("alarm {} is in the state {}: {}", self.name, self.state, self.reason)
    }
}
