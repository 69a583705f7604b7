//! Alarms of CloudWatch that a roll-out heeds.

use std::time::Duration;

use anyhow::Result;

use super::{Deploy, parameters::SlotParameter, preflight::Findings, prepare::Intent, slots::Slots};
use crate::{
    aws::{answer::Element, query::Call, service::CLOUDWATCH},
    error::{self, Class, Fault},
    value::spoken,
    view::complain,
};

/// An alarm in the state ALARM.
#[derive(Debug)]
struct RingingAlarm {
    name: String,
    /// CloudWatch's reason for the state.
    reason: String,
}

/// What CloudWatch says of the alarms.
#[derive(Debug, Default)]
pub struct AlarmStates {
    /// The names of those that do not exist.
    missing: Vec<String>,
    ringing: Vec<RingingAlarm>,
    /// The longest period, with the alarm's name.
    longest: Option<(Duration, String)>,
}

/// What the alarms mean for a share of the traffic.
pub(super) enum Alarms {
    /// None is in the state ALARM.
    Quiet,
    /// One is in the state ALARM.
    Ringing(Fault),
    /// There was a temporary failure.
    Unknown,
}

impl Deploy {
    /// Returns the names of the alarms. An empty name stands for none.
    fn alarm_names(&self) -> impl Iterator<Item = &str> {
        self.settings.alarm.iter().map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Returns what CloudWatch says of the alarms now.
    fn look_at_alarms(&self) -> Result<AlarmStates> {
        let mut seen = AlarmStates::default();
        let names: Vec<&str> = self.alarm_names().collect();
        if names.is_empty() {
            return Ok(seen);
        }
        let call = Call::new(&CLOUDWATCH, "DescribeAlarms").with_list("AlarmNames.member", names.iter().copied());
        let call = call.with_list("AlarmTypes.member", ["MetricAlarm", "CompositeAlarm"]).with("MaxRecords", "100");
        let answer = self.system.aws(call)?;
        let lists = ["MetricAlarms", "CompositeAlarms"].map(|list| format!("DescribeAlarmsResult/{list}"));
        let known: Vec<&Element> = lists.iter().flat_map(|list| answer.list(list)).collect();
        let is_missing = |name: &&str| !known.iter().any(|alarm| alarm.text("AlarmName") == *name);
        seen.missing = names.into_iter().filter(is_missing).map(str::to_owned).collect();
        // An alarm without data says nothing about the machines.
        let ringing = known.iter().filter(|alarm| alarm.text("StateValue") == "ALARM");
        let text = |alarm: &Element, name| alarm.text(name).to_owned();
        let ringing =
            ringing.map(|alarm| RingingAlarm { name: text(alarm, "AlarmName"), reason: text(alarm, "StateReason") });
        seen.ringing = ringing.collect();
        // A composite alarm has none.
        let periods = known.iter().filter_map(|alarm| {
            Some((Duration::from_secs(alarm.text("Period").parse().ok()?), text(alarm, "AlarmName")))
        });
        seen.longest = periods.max();
        Ok(seen)
    }

    /// Looks at the alarms before anything is changed.
    pub(super) fn check_alarms(&self, found: &mut Findings) -> Result<()> {
        match self.look_at_alarms() {
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
    ) -> Option<Fault> {
        let seen = std::mem::take(&mut found.alarms);
        let Some(slot) = intent.promoted() else {
            let given = self.settings.of_shares();
            if !given.is_empty() {
                self.say(&format!("note: no traffic is moved, so these settings have no effect: {}", given.join(", ")));
            }
            seen.faults().for_each(|fault| self.say(&format!("note: {fault}")));
            return None;
        };
        let share = shares[slot.index()];
        if let Some(alarm) = seen.ringing.first().filter(|_| share > 0) {
            return Some(Fault::new(alarm.text()));
        }
        if let Some((period, name)) = seen.longest.as_ref().filter(|(period, _)| *period > self.last_watch()) {
            let (period, watch) = (spoken(*period), spoken(self.last_watch()));
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
        None
    }

    /// Returns what the alarms mean now, with the fault of the first one in the state ALARM.
    pub(super) fn alarms(&self) -> Result<Alarms> {
        match self.look_at_alarms() {
            Ok(seen) => Ok(match (seen.ringing.first(), seen.missing.first()) {
                (Some(alarm), _) => Alarms::Ringing(Fault::new(alarm.text())),
                // A gate that has gone stops nothing.
                (None, Some(name)) => Alarms::Ringing(Fault::new(format!("alarm {name} no longer exists"))),
                (None, None) => Alarms::Quiet,
            }),
            Err(error) if error::class(&error) == Class::Transient => {
                complain(format!("CloudWatch does not answer, still trying: {error:#}"));
                Ok(Alarms::Unknown)
            }
            Err(error) => Err(error),
        }
    }
}

impl AlarmStates {
    /// Returns a fault for each alarm that does not exist, or that is in the state ALARM.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        let missing = self.missing.iter().map(|name| format!("alarm {name} does not exist in this account and region"));
        let ringing =
            self.ringing.iter().map(|alarm| format!("{} (to deploy without alarms: --alarm '')", alarm.text()));
        missing.chain(ringing)
    }
}

impl RingingAlarm {
    fn text(&self) -> String {
        format!("alarm {} is in the state ALARM: {}", self.name, self.reason)
    }
}
