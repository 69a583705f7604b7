//! What looks at machines: alarms, and the instance refresh of a group.

use std::collections::VecDeque;

use super::{World, members, text};
use crate::tape::Call;

/// A look at an instance refresh: its status, the replaced machines in percent, its reason; and the machines in the group
/// besides those that stay, each with its state.
#[derive(Debug, Clone)]
pub struct Refresh(pub &'static str, pub &'static str, pub &'static str, pub Vec<(&'static str, &'static str)>);

impl World {
    /// Returns the outputs of the alarms that a slot's stack has, each with the alarm's name.
    pub(super) fn own_alarms(&self, slot: &str) -> Vec<(String, String)> {
        let is_set = |name: &str| self.parameters.get(name).is_some_and(|value| !value.is_empty());
        let all = [("MaxErrors", "ErrorAlarm"), ("MaxResponseTime", "ResponseTimeAlarm")];
        let set = all.into_iter().filter(|(parameter, _)| is_set(parameter));
        set.map(|(_, alarm)| (format!("{slot}{alarm}"), format!("{}-{slot}{alarm}", self.name))).collect()
    }

    pub(super) fn describe_alarms(&mut self, call: &Call) -> String {
        let names = call.list("AlarmNames.member");
        let own: Vec<String> =
            self.groups.keys().flat_map(|slot| self.own_alarms(slot)).map(|(_, alarm)| alarm).collect();
        let unset = own.iter().filter(|own| names.contains(&own.as_str()) && !self.alarms.contains_key(own.as_str()));
        let unset: Vec<(bool, String)> =
            unset.map(|own| (false, text("AlarmName", own) + &text("StateValue", "OK"))).collect();
        let period = if self.alarm_period > 0 { text("Period", &self.alarm_period.to_string()) } else { String::new() };
        let asked = self.alarms.iter_mut().filter(|(name, _)| names.contains(name));
        let alarm = |(name, rows): (&&str, &mut VecDeque<(&str, &str)>)| {
            let row = if rows.len() > 1 { rows.pop_front() } else { rows.front().copied() };
            let (state, reason) = row.unwrap_or(("OK", ""));
            let (is_composite, name) = (name.starts_with("all-"), text("AlarmName", name));
            (is_composite, name + &text("StateValue", state) + &text("StateReason", reason) + &period)
        };
        let (composite, metric): (Vec<_>, Vec<_>) =
            asked.map(alarm).chain(unset).partition(|(is_composite, _)| *is_composite);
        let list =
            |name, alarms: Vec<(bool, String)>| members(name, "member", alarms.into_iter().map(|(_, alarm)| alarm));
        list("CompositeAlarms", composite) + &list("MetricAlarms", metric)
    }

    /// Returns the newest instance refresh; of several looks, the next one. The last one repeats.
    pub(super) fn describe_refreshes(&mut self) -> String {
        if self.refreshes.len() > 1 {
            _ = self.refreshes.pop_front();
        }
        let refresh = self.refreshes.front().map(|Refresh(status, percent, reason, _)| {
            text("Status", status) + &text("PercentageComplete", percent) + &text("StatusReason", reason)
        });
        members("InstanceRefreshes", "member", refresh)
    }

    /// Returns the machines that the instance refresh has launched or ends, in the format of a group's machines.
    pub(super) fn refreshed_machines(&self) -> Vec<String> {
        let machine = |(id, state): &(&str, &str)| text("InstanceId", id) + &text("LifecycleState", state);
        self.refreshes.front().into_iter().flat_map(|Refresh(.., machines)| machines).map(machine).collect()
    }
}
