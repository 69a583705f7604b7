//! The stack's own calls.

use std::collections::BTreeMap;

use super::{Answer, LISTENER, Scene, Wanted, World, members, text, xml};
use crate::{operator::template_defaults, tape::Call};

const UNCHANGED: &str =
    "The submitted information didn't contain changes. Submit different information to create a change set.";
const STACK_TYPE: &str = "AWS::CloudFormation::Stack";

impl World {
    fn id(&self) -> String {
        format!("arn:aws:cloudformation:eu-central-1:123456789012:stack/{}/1-2-3", self.name)
    }

    pub(super) fn stack(&mut self, call: &Call) -> Answer {
        let is_known = !self.state.is_empty() && [self.name, &self.id()].contains(&call.get("StackName"));
        let free = ["CreateChangeSet", "DescribeStackDriftDetectionStatus", "DescribeEvents", "ListStacks"];
        if !is_known && !free.contains(&call.operation.as_str()) {
            return Err(("ValidationError", format!("Stack with id {} does not exist", call.get("StackName"))));
        }
        match call.operation.as_str() {
            "DescribeStacks" => Ok(self.describe()),
            "DescribeStackEvents" => Ok(self.describe_events(call)),
            "ListStacks" => {
                assert!(!call.list("StackStatusFilter.member").contains(&"DELETE_COMPLETE"));
                let summary = |name: &str| text("StackName", name) + &text("StackStatus", "CREATE_COMPLETE");
                Ok(members("StackSummaries", "member", ["billing", self.name].map(summary)))
            }
            "DescribeEvents" => Ok(self.operation_events.clone()),
            "DescribeStackResources" => {
                let resource = |(name, kind): (&str, &str)| {
                    text("LogicalResourceId", name)
                        + &text("ResourceType", kind)
                        + &text("PhysicalResourceId", &format!("{name}-1ABC"))
                        + &text("ResourceStatus", "CREATE_COMPLETE")
                };
                let held = [
                    ("Balancer", "AWS::ElasticLoadBalancingV2::LoadBalancer"),
                    ("BlueGroup", "AWS::AutoScaling::AutoScalingGroup"),
                ];
                Ok(members("StackResources", "member", held.map(resource)))
            }
            "GetTemplate" => Ok(text("TemplateBody", &self.template)),
            "CreateChangeSet" => self.create_change_set(call),
            "DescribeChangeSet" => Ok(self.describe_change_set()),
            "DeleteChangeSet" => {
                self.wanted = None;
                Ok(String::new())
            }
            "ExecuteChangeSet" => {
                let token = call.get("ClientRequestToken").to_owned();
                if self.executed.replace(token.clone()) == Some(token) {
                    return Ok(String::new());
                }
                assert!(self.wanted.as_ref().is_some_and(|wanted| wanted.id == call.get("ChangeSetName")));
                let made = self.template.is_empty();
                self.begin(if made { "CREATE_IN_PROGRESS" } else { "UPDATE_IN_PROGRESS" });
                Ok(String::new())
            }
            "UpdateStack" => {
                let token = call.get("ClientRequestToken").to_owned();
                if self.executed.as_ref() == Some(&token) {
                    return Ok(String::new());
                }
                self.check_idle()?;
                let wanted = self.resolve(call);
                if wanted.parameters == self.parameters && wanted.template == self.template {
                    return Err(("ValidationError", "No updates are to be performed.".into()));
                }
                (self.wanted, self.executed) = (Some(wanted), Some(token));
                self.begin("UPDATE_IN_PROGRESS");
                Ok(String::new())
            }
            "UpdateTerminationProtection" => {
                call.get("EnableTerminationProtection").clone_into(&mut self.protection);
                Ok(text("StackId", &self.id()))
            }
            "DeleteStack" if self.protection == "true" => {
                let name = self.name;
                Err((
                    "ValidationError",
                    format!("Stack [{name}] cannot be deleted while TerminationProtection is enabled"),
                ))
            }
            "DeleteStack" => {
                if self.state == "REVIEW_IN_PROGRESS" {
                    self.state = "";
                } else {
                    self.begin("DELETE_IN_PROGRESS");
                }
                Ok(String::new())
            }
            "DetectStackDrift" => Ok(text("StackDriftDetectionId", "drift-1")),
            "DescribeStackDriftDetectionStatus" => Ok(text("DetectionStatus", "DETECTION_COMPLETE")),
            "DescribeStackResourceDrifts" => Ok(xml("StackResourceDrifts", &self.drifts)),
            other => panic!("the world does not know {other}"),
        }
    }

    /// What goes on from now: `state`, then the plot, else what it leads to.
    fn begin(&mut self, state: &'static str) {
        let end = match state {
            "CREATE_IN_PROGRESS" => "CREATE_COMPLETE",
            "UPDATE_IN_PROGRESS" => "UPDATE_COMPLETE",
            _ => "DELETE_COMPLETE",
        };
        self.enter(Scene(state, vec![]));
        let plot = std::mem::take(&mut self.plot);
        self.scenes = if plot.is_empty() { [Scene(end, vec![])].into() } else { plot.into() };
    }

    /// Sets the stack's state. After a success, the requested change is made.
    pub fn enter(&mut self, Scene(state, events): Scene) {
        self.events.extend(events);
        if self.state != state {
            self.events.push((self.name, STACK_TYPE, state, ""));
        }
        self.state = state;
        if state.ends_with("ROLLBACK_COMPLETE") {
            self.wanted = None;
        }
        if state == "DELETE_COMPLETE" {
            self.template.clear();
            self.groups.clear();
        }
        if ["CREATE_COMPLETE", "UPDATE_COMPLETE"].contains(&state)
            && let Some(wanted) = self.wanted.take()
        {
            self.apply(&wanted);
        }
    }

    /// Deletes the change set that was not executed.
    pub fn forget_change_set(&mut self) {
        if !self.state.ends_with("_IN_PROGRESS") {
            self.wanted = None;
        }
    }

    /// What happens with the next looks at the stack.
    pub fn then(&mut self, scenes: impl IntoIterator<Item = Scene>) {
        self.scenes.extend(scenes);
    }

    fn apply(&mut self, wanted: &Wanted) {
        let before = std::mem::replace(&mut self.parameters, wanted.parameters.clone());
        self.template.clone_from(&wanted.template);
        let is_refreshed = self.template.contains("AutoScalingInstanceRefresh");
        for (slot, targets) in self.slots.clone() {
            let is_changed = |name: &str| {
                let name = format!("{slot}{name}");
                before.get(&name) != self.parameters.get(&name)
            };
            let of = |name: &str| self.parameters[&format!("{slot}{name}")].clone();
            if is_changed("Weight") {
                let _ = self.weights.insert(targets, of("Weight"));
            }
            if of("VersionId").is_empty() {
                continue;
            }
            let loses = std::mem::take(&mut self.loses_machines_at_update) && is_changed("VersionId");
            let is_new = !self.groups.contains_key(slot);
            let group = self.groups.entry(slot).or_default();
            if is_changed("VersionId") {
                // A group without machines is updated in place.
                let is_replaced = !is_refreshed && !is_new && !loses && !group.machines.is_empty();
                group.replaced += usize::from(is_replaced);
                group.machines.clear();
            }
            if ["VersionId", "MinSize", "DesiredCapacity"].into_iter().any(is_changed) {
                let slot = if slot.is_empty() { self.name } else { slot };
                group.resize(slot, &of("MinSize"), &of("DesiredCapacity"), &of("VersionId"));
            }
            group.max = of("MaxSize").parse().unwrap();
        }
    }

    fn outputs(&self) -> Vec<(String, String)> {
        if self.template.is_empty() {
            return vec![];
        }
        let mut outputs = vec![];
        if !self.is_classic {
            outputs.push(("Listener".to_owned(), LISTENER.to_owned()));
        }
        if !self.url.is_empty() {
            outputs.push(("Url".to_owned(), self.url.clone()));
            outputs.push(("BalancerDns".to_owned(), "127.0.0.1".to_owned()));
        }
        for (slot, targets) in &self.slots {
            outputs.push((format!("{slot}Targets"), targets.clone()));
            if self.groups.contains_key(slot) {
                outputs.push((format!("{slot}Group"), self.group_name(slot)));
                outputs.extend(self.own_alarms(slot));
            }
        }
        outputs
    }

    fn describe(&mut self) -> String {
        if let Some(scene) = self.scenes.pop_front() {
            self.enter(scene);
        }
        let parameter = |(name, value): (&String, &String)| text("ParameterKey", name) + &text("ParameterValue", value);
        let output = |(name, value): (String, String)| text("OutputKey", &name) + &text("OutputValue", &value);
        let stack = text("StackName", self.name)
            + &text("StackId", &self.id())
            + &text("StackStatus", self.state)
            + &text("StackStatusReason", self.reason)
            + &text("EnableTerminationProtection", &self.protection)
            + &text("CreationTime", "2026-11-24T20:00:00Z")
            + &members("Parameters", "member", self.parameters.iter().map(parameter))
            + &members("Outputs", "member", self.outputs().into_iter().map(output));
        members("Stacks", "member", [stack])
    }

    /// Newest first, a page of them.
    fn describe_events(&self, call: &Call) -> String {
        const PAGE: usize = 3;
        let from: usize = call.get("NextToken").parse().unwrap_or(0);
        let event = |(n, (resource, kind, status, reason)): (usize, &super::Event)| {
            let physical = match resource.strip_suffix("Group") {
                _ if *kind == STACK_TYPE => self.id(),
                Some(slot) => self.group_name(slot),
                None => format!("{resource}-1ABC"),
            };
            text("EventId", &format!("event-{n}"))
                + &text("OperationId", "operation-1")
                + &text("Timestamp", &format!("2026-11-24T20:{:02}:{:02}Z", n / 60, n % 60))
                + &text("LogicalResourceId", resource)
                + &text("ResourceType", kind)
                + &text("PhysicalResourceId", &physical)
                + &text("ResourceStatus", status)
                + &text("ResourceStatusReason", reason)
        };
        let events = self.events.iter().enumerate().rev().skip(from);
        let next =
            if from + PAGE < self.events.len() { text("NextToken", &(from + PAGE).to_string()) } else { String::new() };
        members("StackEvents", "member", events.take(PAGE).map(event)) + &next
    }

    /// What a call wants: its parameters, the stack's where it says so, else the template's defaults.
    fn resolve(&self, call: &Call) -> Wanted {
        let template = match call.get("UsePreviousTemplate") {
            "true" => self.template.clone(),
            _ => call.get("TemplateBody").to_owned(),
        };
        let mut parameters: BTreeMap<String, String> = template_defaults(&template);
        for n in 1.. {
            let member = format!("Parameters.member.{n}");
            let name = call.get(&format!("{member}.ParameterKey"));
            if name.is_empty() {
                break;
            }
            let value = match call.get(&format!("{member}.UsePreviousValue")) {
                "true" => self.parameters[name].clone(),
                _ => call.get(&format!("{member}.ParameterValue")).to_owned(),
            };
            assert!(parameters.insert(name.to_owned(), value).is_some(), "the template has no parameter {name}");
        }
        let token = call.get("ClientToken").to_owned();
        Wanted { id: format!("arn:change-set/{token}"), token, parameters, template }
    }

    fn check_idle(&self) -> Result<(), (&'static str, String)> {
        if self.state.ends_with("_IN_PROGRESS") && self.state != "REVIEW_IN_PROGRESS" {
            return Err(("ValidationError", format!("Stack is in {} state and can not be updated.", self.state)));
        }
        Ok(())
    }

    fn create_change_set(&mut self, call: &Call) -> Answer {
        self.check_idle()?;
        let wanted = self.resolve(call);
        if self.wanted.as_ref().is_some_and(|known| known.token != wanted.token) {
            return Err(("AlreadyExistsException", "a change set was left behind".into()));
        }
        let is_same = wanted.parameters == self.parameters && wanted.template == self.template;
        if is_same && self.refuses_unchanged {
            return Err(("ValidationError", "No updates are to be performed.".into()));
        }
        if call.get("ChangeSetType") == "CREATE" && self.wanted.is_none() {
            assert!(["", "REVIEW_IN_PROGRESS", "DELETE_COMPLETE"].contains(&self.state), "a new stack of that name");
            (self.state, self.template) = ("REVIEW_IN_PROGRESS", String::new());
            (self.parameters, self.groups, self.weights) = Default::default();
        }
        let id = text("Id", &wanted.id);
        self.wanted = Some(wanted);
        Ok(id)
    }

    fn describe_change_set(&self) -> String {
        let wanted = self.wanted.as_ref().expect("a change set");
        if !self.change_set_failure.is_empty() {
            return text("Status", "FAILED") + &text("StatusReason", self.change_set_failure);
        }
        if wanted.parameters == self.parameters && wanted.template == self.template {
            return text("Status", "FAILED") + &text("StatusReason", UNCHANGED);
        }
        text("Status", "CREATE_COMPLETE") + &xml("Changes", &self.changes)
    }
}
