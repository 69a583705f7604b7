//! What looks at machines: alarms, and the instance refresh of a group.

use std::collections::VecDeque;

use super::{Group, World, members, text, xml};
use crate::tape::Call;

/// A look at an instance refresh: its status, the replaced machines in percent, its reason; and the machines in the group
/// besides those that stay, each with its state.
#[derive(Debug, Clone)]
pub struct Refresh(pub &'static str, pub &'static str, pub &'static str, pub Vec<(&'static str, &'static str)>);

/// The progress of an instance refresh in a warm pool, as a part of its description.
const POOL_PROGRESS: &str = "<ProgressDetails><WarmPoolProgress><PercentageComplete>0</PercentageComplete>\
    </WarmPoolProgress></ProgressDetails>";

impl World {
    /// Returns the groups of these names.
    pub(super) fn describe_groups(&self, call: &Call) -> String {
        let names = call.list("AutoScalingGroupNames.member");
        let groups = self.groups.iter().filter(|(slot, _)| names.contains(&self.group_name(slot).as_str()));
        let machine = |(id, _): &(String, String)| text("InstanceId", id) + &text("LifecycleState", "InService");
        let group = |(slot, group): (&&str, &Group)| {
            let machines = group.machines.iter().map(machine).chain(self.refreshed_machines());
            text("AutoScalingGroupName", &self.group_name(slot))
                + &text("MinSize", &group.min.to_string())
                + &text("DesiredCapacity", &group.desired.to_string())
                + &text("MaxSize", &group.max.to_string())
                + &members("Instances", "member", machines)
                + &self.pool_configuration()
        };
        members("AutoScalingGroups", "member", groups.map(group))
    }

    /// Returns the configuration of the group's warm pool, as a part of the group's description; empty if it has none.
    pub(super) fn pool_configuration(&self) -> String {
        let size = self.parameters.get("WarmPoolSize").filter(|size| *size != "0");
        size.map(|size| xml("WarmPoolConfiguration", &text("MinSize", size))).unwrap_or_default()
    }

    /// Returns the machines in the warm pool, one on each page.
    pub(super) fn describe_pool(&self, call: &Call) -> String {
        let page: usize = call.get("NextToken").parse().unwrap_or_default();
        let machine = |(id, _): &(String, String)| text("InstanceId", id) + &text("LifecycleState", self.pool_state);
        let next = if page + 1 < self.pool.len() { text("NextToken", &(page + 1).to_string()) } else { String::new() };
        members("Instances", "member", self.pool.get(page).map(machine)) + &next
    }

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
            let pool = if self.pool.is_empty() { "" } else { POOL_PROGRESS };
            text("Status", status) + &text("PercentageComplete", percent) + &text("StatusReason", reason) + pool
        });
        members("InstanceRefreshes", "member", refresh)
    }

    pub(super) fn describe_activities(&self) -> String {
        let activity = |(time, description): &(&str, &str)| {
            text("ActivityId", "activity-1")
                + &text("AutoScalingGroupName", self.name)
                + &text("Description", description)
                + &text("Cause", "At 2021-01-11T00:35:53Z an instance was started")
                + &text("StartTime", time)
                + &text("StatusCode", "Cancelled")
        };
        members("Activities", "member", self.activities.iter().map(activity))
    }

    /// Returns the machines that the instance refresh has launched or ends, in the format of a group's machines.
    pub(super) fn refreshed_machines(&self) -> Vec<String> {
        let machine = |(id, state): &(&str, &str)| text("InstanceId", id) + &text("LifecycleState", state);
        self.refreshes.front().into_iter().flat_map(|Refresh(.., machines)| machines).map(machine).collect()
    }
}
