//! Shows the stack, its slots, every machine's build and health; and the stack's history.

use anyhow::Result;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Deploy,
    alarms::{AlarmState, AlarmStates},
    failure::MachineObjects,
    fleet::{self, ScalingGroup, TargetHealth},
    last_runs::LastRuns,
    layout::Slot,
    parameters::SlotParameter,
    slots::Slots,
    stack::Stack,
    state::Condition,
    watch,
};
use crate::{
    error::{Class, Fault},
    view::{complain, count, say},
};

/// A slot as it is now.
struct SlotView {
    slot: Slot,
    name: &'static str,
    build: String,
    /// Its share of the traffic, in percent; `None` behind a balancer without shares.
    share: Option<u32>,
    group: Option<ScalingGroup>,
    /// The machines in the group's warm pool, each with its state.
    pool: Vec<(String, String)>,
    /// Its machines as the balancer sees them; behind one without shares, as the group does.
    targets: Vec<TargetHealth>,
    alarms: AlarmStates,
}

impl Deploy {
    fn views(&self, slots: &Slots) -> Result<Vec<SlotView>> {
        let has_shares = slots.have_traffic();
        let shares = if has_shares {
            self.shape().shares(&self.system, slots)?.map(Some)
        } else {
            <[Option<u32>; 2]>::default()
        };
        let view = |(slot, share): (Slot, Option<u32>)| {
            let group = slots.group(&self.system, slot)?;
            let of_group = |(id, state): &(String, String)| TargetHealth {
                id: id.clone(),
                state: state.clone(),
                reason: String::new(),
            };
            let targets = match &group {
                Some(group) if !has_shares => group.machines.iter().map(of_group).collect(),
                _ => slots.targets(&self.system, slot)?,
            };
            let pooling = group.as_ref().filter(|group| group.pool_size.is_some());
            Ok(SlotView {
                slot,
                name: self.layout().slot_name(slot),
                build: slots.parameter(slot, SlotParameter::Build).to_owned(),
                share,
                pool: pooling.map_or(Ok(vec![]), |group| fleet::pool(&self.system, &group.name))?,
                group,
                targets,
                alarms: self.alarms_of(slots, slot),
            })
        };
        self.layout().slots().iter().copied().zip(shares).map(view).collect()
    }

    /// Returns what the machines say of their last runs; nothing if the stacks have no bucket.
    fn last_runs(&self, slots: &Slots, views: &[SlotView]) -> LastRuns {
        let mut runs = LastRuns::default();
        for view in views {
            let objects = slots.stack(view.slot).and_then(|stack| MachineObjects::of(self, stack));
            let Some(objects) = objects else { continue };
            let targets = view.targets.iter().map(|target| target.id.as_str());
            let machines = view.group.iter().flat_map(|group| &group.machines).map(|(id, _)| id.as_str());
            targets.chain(machines).for_each(|machine| runs.ask(&self.system, &objects, machine));
        }
        runs.complain();
        runs
    }

    /// Returns what CloudWatch says of the slot's own alarms; nothing if it does not answer.
    fn alarms_of(&self, slots: &Slots, slot: Slot) -> AlarmStates {
        self.look_at_alarms(&slots.alarm_names(slot)).unwrap_or_else(|error| {
            complain(format!("CloudWatch does not tell the alarms of {}: {error:#}", slots.described(slot)));
            AlarmStates::default()
        })
    }

    /// Shows the stack, its slots and machines. Returns 0 if all serving machines run one build and are healthy, 4 while an
    /// operation is running, else 1.
    pub fn status(&self) -> Result<u8> {
        self.show_status(true)
    }

    fn show_status(&self, wants_runs: bool) -> Result<u8> {
        let slots = Slots::get(self)?;
        if !slots.have_traffic() && slots.group(&self.system, Slot::Blue)?.is_none() {
            return self.show_states(&slots);
        }
        let views = self.views(&slots)?;
        let runs = if wants_runs { self.last_runs(&slots, &views) } else { LastRuns::default() };
        let served = views.iter().flat_map(|view| &view.targets).map(|target| target.id.as_str());
        let pooled = views.iter().flat_map(|view| &view.pool).map(|(id, _)| id.as_str());
        // A machine that EC2 does not know yet hides the builds of all that are asked for with it.
        let mut builds = fleet::builds(&self.system, &served.collect::<Vec<_>>())?;
        builds.extend(fleet::builds(&self.system, &pooled.collect::<Vec<_>>())?);
        let build_of =
            |view: &SlotView, id: &str| builds.get(id).filter(|build| !build.is_empty()).unwrap_or(&view.build).clone();
        self.show_views(&slots, &views, &runs, build_of);
        let serving = views.iter().filter(|view| view.share != Some(0));
        // Where only the group tells, its machines serve while they are in service. Others start or leave, which is no fault.
        let has_shares = slots.have_traffic();
        let (serving, others): (Vec<(String, &TargetHealth)>, Vec<_>) = serving
            .flat_map(|view| view.targets.iter().map(move |target| (build_of(view, &target.id), target)))
            .partition(|(_, target)| has_shares || target.state == "InService");
        let (served, others) = (if has_shares { "serving target" } else { "machine in service" }, named(&others));
        let well = self.judge(&slots, &serving, served, &others)?;
        Ok(exit_code(&slots, well))
    }

    /// Shows the stacks, the slots and their machines; `build_of` returns the build of a slot's machine.
    fn show_views(
        &self,
        slots: &Slots,
        views: &[SlotView],
        runs: &LastRuns,
        build_of: impl Fn(&SlotView, &str) -> String,
    ) {
        if self.json {
            let all = views.iter().map(|view| slot_json(view, runs, |id| build_of(view, id)));
            let all: Vec<Value> = all.collect();
            let stacks = slots.stacks().map(|stack| (stack.name.clone(), stack.state.name.as_ref().into()));
            let stacks: serde_json::Map<String, Value> = stacks.collect();
            let protected = slots.stacks().filter(|stack| stack.is_protected).map(|stack| &stack.name);
            let protected: Vec<_> = protected.collect();
            Self::tell(&json!({ "stack": self.stack, "stacks": stacks, "protected": protected, "slots": all }));
        } else {
            for Stack { name, state, changed, is_protected, .. } in slots.stacks() {
                let protection = if *is_protected { ", with termination protection" } else { "" };
                say(format!("stack {name}: {} since {changed}{protection}", state.name));
            }
            for view in views {
                show(view, runs, |id| build_of(view, id));
            }
        }
    }

    /// Says whether all of `what` run one build and are healthy, and whether the application answers as that build; and
    /// returns whether it is so. `others` is the end of a sentence.
    fn judge(&self, slots: &Slots, serving: &[(String, &TargetHealth)], what: &str, others: &str) -> Result<bool> {
        let sick: Vec<&str> = serving
            .iter()
            .filter(|(_, target)| !["healthy", "InService"].contains(&target.state.as_str()))
            .map(|(_, target)| target.id.as_str())
            .collect();
        let mut running: Vec<&str> = serving.iter().map(|(build, _)| build.as_str()).collect();
        running.sort_unstable();
        running.dedup();
        Ok(match (running.as_slice(), sick.as_slice()) {
            ([], _) => {
                self.say(&format!("no machine serves{others}"));
                false
            }
            ([build], []) => {
                let asked = self.ask_public(slots, build)?;
                let (is_right, answer) =
                    asked.map_or_else(|| (true, String::new()), |(is_right, told)| (is_right, format!("; {told}")));
                self.say(&format!("every {what} runs build {build}{others}{answer}"));
                is_right
            }
            ([build], sick) => {
                self.say(&format!("every {what} runs build {build}; not healthy: {}", sick.join(", ")));
                false
            }
            (builds, _) => {
                let of = |wanted: &str| {
                    let of = serving.iter().filter(|(build, _)| build == wanted).map(|(_, target)| target.id.as_str());
                    format!("build {wanted} on {}", of.collect::<Vec<_>>().join(", "))
                };
                let each: Vec<String> = builds.iter().map(|build| of(build)).collect();
                self.say(&format!("{what}s run different builds: {}{others}", each.join("; ")));
                false
            }
        })
    }

    /// Shows the states of stacks that have no machines.
    fn show_states(&self, slots: &Slots) -> Result<u8> {
        for Stack { name, state, changed, .. } in slots.stacks() {
            self.say(&format!("stack {name}: {} since {changed}: {}", state.name, state.meaning));
        }
        let well = slots.stacks().all(|stack| !stack.state.failed);
        let asked = self.ask_public(slots, slots.parameter(Slot::Blue, SlotParameter::Build))?;
        let is_right = asked.is_none_or(|(is_right, told)| {
            self.say(&told);
            is_right
        });
        Ok(exit_code(slots, well && is_right))
    }

    /// Proves at the end of a deploy which build serves.
    pub(super) fn prove(&self) -> Result<()> {
        self.await_public()?;
        // Machines upload the outcome of their first run after they have signalled it: it may be missing now.
        match self.show_status(false)? {
            0 => Ok(()),
            4 => Err(Fault::new("another operation has started on this stack").class(Class::Locked).into()),
            _ => Err(Fault::new(
                "the stack is updated, but not every serving machine is healthy and answers as the same build",
            )
            .hint(self.command("diagnose"))
            .into()),
        }
    }

    /// Shows the stack's name where the deployment has several stacks.
    pub(super) fn name_one_of_two(&self) {
        if self.is_one_of_several() {
            self.say(&format!("stack {}", self.stack));
        }
    }

    /// Shows the operations that the stack has been through, the newest last.
    pub fn history(&self) -> Result<()> {
        let stack = self.get()?;
        self.name_one_of_two();
        for event in watch::milestones(self, &stack.id)? {
            if self.json {
                Self::tell(&event);
            } else {
                let reason = if event.reason.is_empty() { String::new() } else { format!("  {}", event.reason) };
                say(format!("{}  {}{reason}", event.time, event.status));
            }
        }
        Ok(())
    }
}

/// Returns the end of a sentence that names the machines of a group that are not in service; empty if all are.
fn named(machines: &[(String, &TargetHealth)]) -> String {
    let each = |(_, machine): &(String, &TargetHealth)| format!("{} ({})", machine.id, machine.state);
    let each: Vec<String> = machines.iter().map(each).collect();
    if each.is_empty() { String::new() } else { format!("; not in service: {}", each.join(", ")) }
}

fn exit_code(slots: &Slots, well: bool) -> u8 {
    if slots.stacks().any(|stack| stack.state.condition == Condition::Busy) { 4 } else { u8::from(!well) }
}

fn slot_json(view: &SlotView, runs: &LastRuns, build: impl Fn(&str) -> String) -> Value {
    let group = view.group.as_ref();
    let alarm = |alarm: &AlarmState| json!({ "name": alarm.name, "state": alarm.state, "reason": alarm.reason });
    let target = |target: &TargetHealth| {
        let TargetHealth { id, state, reason } = target;
        let mut value = json!({ "id": id, "state": state, "reason": reason, "build": build(id) });
        if let Some(last) = runs.json(id) {
            value["last_run"] = last;
        }
        value
    };
    let pooled = |(id, state): &(String, String)| json!({ "id": id, "state": state, "build": build(id) });
    json!({
        "slot": view.name,
        "build": view.build,
        "share": view.share,
        "min": group.map(|group| group.min),
        "desired": group.map(|group| group.desired),
        "max": group.map(|group| group.max),
        "targets": view.targets.iter().map(target).collect::<Vec<_>>(),
        "pool": view.pool.iter().map(pooled).collect::<Vec<_>>(),
        "alarms": view.alarms.iter().map(alarm).collect::<Vec<_>>(),
    })
}

fn show(view: &SlotView, runs: &LastRuns, build: impl Fn(&str) -> String) {
    let name = view.name;
    let Some(group) = &view.group else {
        say(format!("  {name:5}  empty"));
        return;
    };
    let pool = group.pool_size.map(|size| format!(", warm pool {size}")).unwrap_or_default();
    let share = view.share.map(|share| format!("{share} % of the traffic, ")).unwrap_or_default();
    say(format!(
        "  {name:5}  build {}, {share}{} (min {}, max {}{pool})",
        view.build,
        count(group.desired as usize, "machine"),
        group.min,
        group.max
    ));
    let now = OffsetDateTime::now_utc();
    let say_run = |machine| {
        if let Some(words) = runs.words(machine, now) {
            say(format!("             {words}"));
        }
    };
    for target in &view.targets {
        let reason = if target.reason.is_empty() { String::new() } else { format!(": {}", target.reason) };
        say(format!("         {}  build {}  {}{reason}", target.id, build(&target.id), target.state));
        say_run(&target.id);
    }
    let known = |id: &str| view.targets.iter().any(|target| target.id == id);
    for (id, state) in group.machines.iter().filter(|(id, _)| !known(id)) {
        say(format!("         {id}  {state}, not behind the balancer yet"));
        say_run(id);
    }
    for (id, state) in &view.pool {
        say(format!("         {id}  build {}  {state}, in the warm pool", build(id)));
    }
    for alarm in view.alarms.iter() {
        let reason = if alarm.state == "OK" { String::new() } else { format!(": {}", alarm.reason) };
        say(format!("         alarm {}  {}{reason}", alarm.name, alarm.state));
    }
}
