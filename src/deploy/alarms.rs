//! Alarms of CloudWatch that a roll-out heeds.

use anyhow::Result;

use super::{Deploy, preflight::Findings};
use crate::{
    aws::{answer::Element, query::Call, service::CLOUDWATCH},
    error::{self, Class, Fault},
    view::complain,
};

/// An alarm in the state ALARM.
struct RingingAlarm {
    name: String,
    /// CloudWatch's reason for the state.
    reason: String,
}

/// What CloudWatch says of the alarms.
struct AlarmStates {
    /// The names of those that exist.
    known: Vec<String>,
    ringing: Vec<RingingAlarm>,
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
        let mut seen = AlarmStates { known: vec![], ringing: vec![] };
        let names: Vec<&str> = self.alarm_names().collect();
        if names.is_empty() {
            return Ok(seen);
        }
        let call = Call::new(&CLOUDWATCH, "DescribeAlarms").with_list("AlarmNames.member", names);
        let call = call.with_list("AlarmTypes.member", ["MetricAlarm", "CompositeAlarm"]).with("MaxRecords", "100");
        let answer = self.system.aws(call)?;
        let lists = ["MetricAlarms", "CompositeAlarms"].map(|list| format!("DescribeAlarmsResult/{list}"));
        for alarm in lists.iter().flat_map(|list| answer.list(list)) {
            let text = |name| Element::text(alarm, name).to_owned();
            seen.known.push(text("AlarmName"));
            // An alarm without data says nothing about the machines.
            if alarm.text("StateValue") == "ALARM" {
                seen.ringing.push(RingingAlarm { name: text("AlarmName"), reason: text("StateReason") });
            }
        }
        Ok(seen)
    }

    /// Adds a fault for each alarm that does not exist, or that is in the state ALARM before anything is changed.
    pub(super) fn check_alarms(&self, found: &mut Findings) -> Result<()> {
        let seen = match self.look_at_alarms() {
            Ok(seen) => seen,
            Err(error) => return found.refused("alarms", error),
        };
        for name in self.alarm_names().filter(|name| !seen.known.iter().any(|known| known == name)) {
            found.fault(format!("alarm {name} does not exist in this account and region"));
        }
        for alarm in &seen.ringing {
            found.fault(format!("{} (to deploy without alarms: --alarm '')", alarm.text()));
        }
        Ok(())
    }

    /// Returns what the alarms mean now, with the fault of the first one in the state ALARM.
    pub(super) fn alarms(&self) -> Result<Alarms> {
        match self.look_at_alarms() {
            Ok(seen) => Ok(match seen.ringing.first() {
                Some(alarm) => Alarms::Ringing(Fault::new(alarm.text())),
                None => Alarms::Quiet,
            }),
            Err(error) if error::class(&error) == Class::Transient => {
                complain(format!("CloudWatch does not answer, still trying: {error:#}"));
                Ok(Alarms::Unknown)
            }
            Err(error) => Err(error),
        }
    }
}

impl RingingAlarm {
    fn text(&self) -> String {
        format!("alarm {} is in the state ALARM: {}", self.name, self.reason)
    }
}
