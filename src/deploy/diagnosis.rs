//! Shows what a stack's state means, what failed, why, and the next safe command; and what differs from its template.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Deploy,
    event::StackEvent,
    stack::{self, Stack, StackResource},
    state::Condition,
    watch::{self, Aftermath},
};
use crate::{
    aws::{answer::Element, query::Call, service::CLOUDFORMATION},
    error::Fault,
    view::count,
};

impl Deploy {
    /// Shows the stack's state, what it means, and the next safe command.
    pub fn diagnose(&self) -> Result<u8> {
        let Some(stack) = Stack::find(&self.system, &self.stack)? else {
            let next = self.command("create-stack");
            if self.json {
                Self::tell(&json!({ "stack": self.stack, "state": null, "near": self.nearest(), "next": next }));
                return Ok(0);
            }
            self.say(&format!("stack {} does not exist", self.stack));
            if let Some(near) = self.nearest() {
                self.say(&format!("a stack with a similar name exists: {near}"));
            }
            self.say(&format!("next: {next}"));
            return Ok(0);
        };
        let state = &stack.state;
        let after = if state.failed { watch::aftermath(self, &stack)? } else { Aftermath::default() };
        let held = if state.condition == Condition::Stuck { self.held(&stack)? } else { vec![] };
        if self.json {
            Self::tell(&self.diagnosis_json(&stack, &after, &held));
        } else {
            self.show_diagnosis(&stack, &after, &held);
        }
        Ok(match state.condition {
            Condition::Busy => 4,
            _ => u8::from(state.failed),
        })
    }

    fn show_diagnosis(&self, stack: &Stack, after: &Aftermath, held: &[StackResource]) {
        self.say(&format!("stack {}: {} since {}", self.stack, stack.state.name, stack.changed));
        self.say(&format!("meaning: {}", stack.state.meaning));
        if !stack.reason.is_empty() {
            self.say(&format!("reason: {}", stack.reason));
        }
        for StackEvent { status, resource, kind, reason, .. } in &after.failures {
            self.say(&format!("  {status} {resource} ({kind}): {reason}"));
        }
        after.told.iter().for_each(|told| self.say(&format!("  {told}")));
        for machine in &after.machines {
            self.say(&format!("  {}", machine.headline()));
            for line in machine.text(&self.repeated.account).lines() {
                self.say(&format!("      {line}"));
            }
        }
        if stack.state.condition == Condition::Stuck {
            self.say(&format!("it holds {}", count(held.len(), "resource")));
            for StackResource { name, kind, status, id } in held {
                self.say(&format!("  - {name} ({kind}) {status} {id}"));
            }
        }
        self.say(&format!("next: {}", self.next(stack)));
    }

    fn diagnosis_json(&self, stack: &Stack, after: &Aftermath, held: &[StackResource]) -> Value {
        json!({
            "stack": stack.name,
            "state": stack.state.name,
            "since": stack.changed,
            "meaning": stack.state.meaning,
            "reason": stack.reason,
            "failures": after.failures,
            "told": after.told,
            "machines": after.machines.iter().map(|machine| machine.json(&self.repeated.account)).collect::<Vec<_>>(),
            "holds": held_json(held),
            "next": self.next(stack),
        })
    }

    /// Returns the resources that a stack still holds.
    pub(super) fn held(&self, stack: &Stack) -> Result<Vec<StackResource>> {
        let mut held = stack::resources(&self.system, &stack.id)?;
        held.retain(|resource| resource.status != "DELETE_COMPLETE");
        Ok(held)
    }

    /// Shows what differs from the template; returns 3 if anything does.
    pub fn drift(&self) -> Result<u8> {
        let stack = self.get()?;
        self.await_drift_detection()?;
        let call = Call::new(&CLOUDFORMATION, "DescribeStackResourceDrifts").with("StackName", &self.stack);
        let call = call.with_list("StackResourceDriftStatusFilters.member", ["MODIFIED", "DELETED"]);
        let answer = self.system.aws(call)?;
        let mut drifts = vec![];
        for drift in answer.list("DescribeStackResourceDriftsResult/StackResourceDrifts") {
            if !self.is_own_drift(&stack, drift)? {
                drifts.push(drift);
            }
        }
        let weights = self.shape().weight_drift(self, &stack)?;
        let drifted = drifts.len() + weights.len();
        if self.json {
            let weights = weights
                .iter()
                .map(|(slot, share, declared)| json!({ "slot": slot.name(), "share": share, "declared": declared }));
            Self::tell(&json!({
                "stack": self.stack,
                "drifts": drifts.iter().map(|drift| drift_json(drift)).collect::<Vec<_>>(),
                "weights": weights.collect::<Vec<_>>(),
            }));
        } else {
            self.name_one_of_two();
            for drift in drifts {
                self.show_drift(drift);
            }
            for (slot, share, declared) in weights {
                let slot = slot.name();
                self.say(&format!("  {slot} receives {share} % of the traffic, but its declared weight is {declared}"));
            }
            self.say(&if drifted == 0 { "no drift".to_owned() } else { count(drifted, "difference") });
        }
        Ok(if drifted == 0 { 0 } else { 3 })
    }

    /// Has CloudFormation detect drift, and waits until it has.
    fn await_drift_detection(&self) -> Result<()> {
        let started = self.system.aws(Call::new(&CLOUDFORMATION, "DetectStackDrift").with("StackName", &self.stack))?;
        let id = started.text("DetectStackDriftResult/StackDriftDetectionId");
        loop {
            let call = Call::new(&CLOUDFORMATION, "DescribeStackDriftDetectionStatus");
            let answer = self.system.aws(call.with("StackDriftDetectionId", id))?;
            let result = "DescribeStackDriftDetectionStatusResult";
            match answer.text(&format!("{result}/DetectionStatus")) {
                "DETECTION_COMPLETE" => return Ok(()),
                "DETECTION_FAILED" => {
                    let reason = answer.text(&format!("{result}/DetectionStatusReason"));
                    return Err(Fault::new(format!("CloudFormation cannot detect drift: {reason}")).into());
                }
                _ => self.system.host.stop.wait(self.poll)?,
            }
        }
    }

    fn show_drift(&self, drift: &Element) {
        let [resource, kind, status] =
            ["LogicalResourceId", "ResourceType", "StackResourceDriftStatus"].map(|name| drift.text(name));
        self.say(&format!("  {resource} ({kind}) {status}"));
        for difference in drift.list("PropertyDifferences") {
            let [path, declared, actual] =
                ["PropertyPath", "ExpectedValue", "ActualValue"].map(|name| difference.text(name));
            self.say(&format!("      {path}: declared {declared}, is {actual}"));
        }
    }
}

/// Returns resources for a program.
pub(super) fn held_json(held: &[StackResource]) -> Vec<Value> {
    let resource = |StackResource { name, kind, status, id }: &StackResource| json!({ "resource": name, "type": kind, "status": status, "id": id });
    held.iter().map(resource).collect()
}

fn drift_json(drift: &Element) -> Value {
    let property = |difference: &Element| {
        json!({
            "path": difference.text("PropertyPath"),
            "declared": difference.text("ExpectedValue"),
            "actual": difference.text("ActualValue"),
        })
    };
    json!({
        "resource": drift.text("LogicalResourceId"),
        "type": drift.text("ResourceType"),
        "status": drift.text("StackResourceDriftStatus"),
        "differences": drift.list("PropertyDifferences").map(property).collect::<Vec<_>>(),
    })
}
