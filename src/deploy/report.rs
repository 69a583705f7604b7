//! What is: the stack, its slots, every machine's build and health; what can be done; what was.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Deploy,
    fleet::{self, Group, Target},
    stack::{self, Stack},
    state::Condition,
    template::Slot,
    watch::{self},
};
use crate::{
    error::{Class, Fault},
    system::fetch::aws::{CLOUDFORMATION, Call},
    view::{count, say},
};

/// A slot as it is now.
struct View {
    slot: Slot,
    build: String,
    share: u32,
    group: Option<Group>,
    targets: Vec<Target>,
}

impl Deploy {
    fn views(&self, stack: &Stack) -> Result<Vec<View>> {
        let shares = fleet::shares(&self.system, stack)?;
        let view = |(slot, share): (Slot, u32)| {
            Ok(View {
                slot,
                build: stack.parameter(&slot.named("VersionId")).to_owned(),
                share,
                group: fleet::group(&self.system, stack, slot)?,
                targets: fleet::targets(&self.system, stack.output(&slot.named("Targets"))?)?,
            })
        };
        Slot::ALL.into_iter().zip(shares).map(view).collect()
    }

    /// Shows the stack, its slots and machines; returns 0 if all machines that serve run one build and are healthy, 4 if
    /// something goes on, else 1.
    pub fn status(&self) -> Result<u8> {
        let stack = Stack::get(&self.system, &self.stack)?;
        let state = &stack.state;
        if !stack.outputs.contains_key("Listener") {
            self.say(&format!("stack {}: {} since {}: {}", self.stack, state.name, stack.changed, state.meaning));
            return Ok(exit_code(state.condition, !state.failed));
        }
        let views = self.views(&stack)?;
        let machines: Vec<&str> =
            views.iter().flat_map(|view| &view.targets).map(|target| target.id.as_str()).collect();
        let builds = fleet::builds(&self.system, &machines)?;
        let build_of = |view: &View, target: &Target| {
            builds.get(&target.id).filter(|build| !build.is_empty()).unwrap_or(&view.build).clone()
        };
        if self.json {
            let slots = views.iter().map(|view| slot_json(view, |target| build_of(view, target)));
            let slots: Vec<Value> = slots.collect();
            say(&json!({ "stack": self.stack, "state": state.name, "slots": slots }).to_string());
        } else {
            say(&format!("stack {}: {} since {}", self.stack, state.name, stack.changed));
            for view in &views {
                show(view, |target| build_of(view, target));
            }
        }
        let serving = views.iter().filter(|view| view.share > 0);
        let serving: Vec<(String, &Target)> =
            serving.flat_map(|view| view.targets.iter().map(move |target| (build_of(view, target), target))).collect();
        let sick: Vec<&str> = serving
            .iter()
            .filter(|(_, target)| target.state != "healthy")
            .map(|(_, target)| target.id.as_str())
            .collect();
        let mut running: Vec<&str> = serving.iter().map(|(build, _)| build.as_str()).collect();
        running.sort_unstable();
        running.dedup();
        let well = match (running.as_slice(), sick.as_slice()) {
            ([], _) => {
                self.say("no machine serves");
                false
            }
            ([build], []) => {
                self.say(&format!("every serving target runs build {build}"));
                true
            }
            ([build], sick) => {
                self.say(&format!("every serving target runs build {build}; not healthy: {}", sick.join(", ")));
                false
            }
            (builds, _) => {
                let of = |wanted: &str| {
                    let of = serving.iter().filter(|(build, _)| build == wanted).map(|(_, target)| target.id.as_str());
                    format!("build {wanted} on {}", of.collect::<Vec<_>>().join(", "))
                };
                let each: Vec<String> = builds.iter().map(|build| of(build)).collect();
                self.say(&format!("serving targets run different builds: {}", each.join("; ")));
                false
            }
        };
        Ok(exit_code(state.condition, well))
    }

    /// The last word of a deploy: which build serves.
    pub(super) fn prove(&self) -> Result<()> {
        match self.status()? {
            0 => Ok(()),
            4 => Err(Fault::new("something else has begun with the stack").class(Class::Locked).into()),
            _ => Err(Fault::new("the stack is changed, but not all that serves is as it should be")
                .hint(format!("glovo-bootstrap deploy diagnose --stack {}", self.stack))
                .into()),
        }
    }

    /// Says what state the stack is in, what that means, and the next safe step.
    pub fn diagnose(&self) -> Result<u8> {
        let Some(stack) = Stack::find(&self.system, &self.stack)? else {
            self.say(&format!("there is no stack {}", self.stack));
            self.say(&format!("next: glovo-bootstrap deploy create-stack --stack {}", self.stack));
            return Ok(0);
        };
        let state = &stack.state;
        self.say(&format!("stack {}: {} since {}", self.stack, state.name, stack.changed));
        self.say(&format!("meaning: {}", state.meaning));
        if !stack.reason.is_empty() {
            self.say(&format!("reason: {}", stack.reason));
        }
        if state.failed {
            for event in watch::failures(self, &stack.id)? {
                self.say(&format!("  {} {} ({}): {}", event.status, event.resource, event.kind, event.reason));
            }
        }
        if state.condition == Condition::Stuck {
            let held = stack::resources(&self.system, &stack.id)?;
            let held: Vec<_> = held.iter().filter(|resource| resource.status != "DELETE_COMPLETE").collect();
            self.say(&format!("it holds {}", count(held.len(), "resource")));
            for resource in held {
                self.say(&format!("  - {} ({}) {} {}", resource.name, resource.kind, resource.status, resource.id));
            }
        }
        self.say(&format!("next: {}", state.next_for(&self.stack)));
        Ok(exit_code(state.condition, !state.failed))
    }

    /// Shows what differs from the template; 3 if anything does.
    pub fn drift(&self) -> Result<u8> {
        let stack = Stack::get(&self.system, &self.stack)?;
        let started = self.system.aws(Call::new(&CLOUDFORMATION, "DetectStackDrift").with("StackName", &self.stack))?;
        let id = started.text("DetectStackDriftResult/StackDriftDetectionId").to_owned();
        loop {
            let call = Call::new(&CLOUDFORMATION, "DescribeStackDriftDetectionStatus");
            let answer = self.system.aws(call.with("StackDriftDetectionId", &id))?;
            let result = "DescribeStackDriftDetectionStatusResult";
            match answer.text(&format!("{result}/DetectionStatus")) {
                "DETECTION_COMPLETE" => break,
                "DETECTION_FAILED" => {
                    let reason = answer.text(&format!("{result}/DetectionStatusReason"));
                    return Err(Fault::new(format!("CloudFormation can't tell: {reason}")).into());
                }
                _ => self.system.wait(self.poll)?,
            }
        }
        let call = Call::new(&CLOUDFORMATION, "DescribeStackResourceDrifts").with("StackName", &self.stack);
        let call = call.with_list("StackResourceDriftStatusFilters.member", ["MODIFIED", "DELETED"]);
        let answer = self.system.aws(call)?;
        let mut drifted = 0;
        for drift in answer.list("DescribeStackResourceDriftsResult/StackResourceDrifts") {
            drifted += 1;
            self.say(&format!(
                "  {} ({}) {}",
                drift.text("LogicalResourceId"),
                drift.text("ResourceType"),
                drift.text("StackResourceDriftStatus")
            ));
            for difference in drift.list("PropertyDifferences") {
                let (path, before, after) =
                    (difference.text("PropertyPath"), difference.text("ExpectedValue"), difference.text("ActualValue"));
                self.say(&format!("      {path}: declared {before}, is {after}"));
            }
        }
        // The weights are moved past CloudFormation.
        if stack.outputs.contains_key("Listener") {
            for (slot, share) in Slot::ALL.into_iter().zip(fleet::shares(&self.system, &stack)?) {
                let declared = stack.parameter(&slot.named("Weight"));
                if declared != share.to_string() {
                    drifted += 1;
                    self.say(&format!("  {} gets {share} of the traffic, declared {declared}", slot.name()));
                }
            }
        }
        self.say(&if drifted == 0 { "no drift".to_owned() } else { count(drifted, "difference") });
        Ok(if drifted == 0 { 0 } else { 3 })
    }

    /// Shows what was done with the stack, the newest last.
    pub fn history(&self) -> Result<()> {
        let stack = Stack::get(&self.system, &self.stack)?;
        for event in watch::milestones(self, &stack.id)? {
            if self.json {
                say(&serde_json::to_string(&event)?);
            } else {
                let reason = if event.reason.is_empty() { String::new() } else { format!("  {}", event.reason) };
                say(&format!("{}  {}{reason}", event.time, event.status));
            }
        }
        Ok(())
    }
}

fn exit_code(condition: Condition, well: bool) -> u8 {
    match condition {
        Condition::Busy => 4,
        _ if well => 0,
        _ => 1,
    }
}

fn slot_json(view: &View, build: impl Fn(&Target) -> String) -> Value {
    let group = view.group.as_ref();
    let target = |target: &Target| json!({ "id": target.id, "state": target.state, "reason": target.reason, "build": build(target) });
    json!({
        "slot": view.slot.name(),
        "build": view.build,
        "share": view.share,
        "min": group.map(|group| group.min),
        "desired": group.map(|group| group.desired),
        "max": group.map(|group| group.max),
        "targets": view.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn show(view: &View, build: impl Fn(&Target) -> String) {
    let name = view.slot.name();
    let Some(group) = &view.group else {
        say(&format!("  {name:5}  empty"));
        return;
    };
    say(&format!(
        "  {name:5}  build {}, {} % of the traffic, {} (min {}, max {})",
        view.build,
        view.share,
        count(group.desired as usize, "machine"),
        group.min,
        group.max
    ));
    for target in &view.targets {
        let reason = if target.reason.is_empty() { String::new() } else { format!(": {}", target.reason) };
        say(&format!("         {}  build {}  {}{reason}", target.id, build(target), target.state));
    }
    let known = |id: &str| view.targets.iter().any(|target| target.id == id);
    for (id, state) in group.machines.iter().filter(|(id, _)| !known(id)) {
        say(&format!("         {id}  {state}, not behind the balancer yet"));
    }
}
