//! Follows a stack's events until the operation ends, and shows what failed, in the failing machine's own words.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Deploy,
    board::Board,
    cause::{self, FailedMachine},
    event::{GROUP_TYPE, STACK_TYPE, StackEvent},
    failure::MachineObjects,
    fleet, operation,
    rollout::{Silence, answered},
    stack::Stack,
    state::{Condition, StackState},
};
use crate::{
    aws::{query::Call, service::CLOUDFORMATION},
    value::spoken,
    view::{coloured, complain, say},
    visible::Shown,
};

/// How often to look again at the consoles that showed no failure, after the end of the operation. EC2 delivers a
/// console's output late:
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html>
const CONSOLE_LOOKS_AFTER_END: u32 = 10;

/// The most machines that have left a group and are explained: each launch of a broken build fails like the one before.
const MAX_LEFT_MACHINES: usize = 3;

/// A stack that is watched.
pub struct Watch<'a> {
    deploy: &'a Deploy,
    stack: String,
    /// Id of the newest event that was shown.
    last: Option<String>,
    /// Start of each resource's change that is in progress.
    began: BTreeMap<String, String>,
    /// The first failure that no other failure caused.
    failure: Option<StackEvent>,
    /// The failed machines, in the order of their failures.
    failed: Vec<FailedMachine>,
    /// The blocks of failures in the bucket, once the stack is known.
    blocks: Option<MachineObjects>,
    /// The id of the operation; empty if CloudFormation does not tell it.
    operation: String,
    board: Board,
}

impl<'a> Watch<'a> {
    /// Starts now; earlier events are not shown.
    pub fn from_now(deploy: &'a Deploy, stack: &str) -> Result<Self> {
        let mut watch = Self::new(deploy, stack);
        watch.last = watch.page("")?.0.into_iter().next().map(|event| event.id);
        Ok(watch)
    }

    /// Starts at the beginning of the running operation, or of the last one.
    pub fn from_its_beginning(deploy: &'a Deploy, stack: &str) -> Result<Self> {
        let mut watch = Self::new(deploy, stack);
        let (events, _) = watch.page("")?;
        let beginning = events.iter().position(StackEvent::is_start);
        watch.last = beginning.and_then(|index| events.get(index + 1)).map(|event| event.id.clone());
        Ok(watch)
    }

    fn new(deploy: &'a Deploy, stack: &str) -> Self {
        Self {
            deploy,
            stack: stack.to_owned(),
            last: None,
            began: BTreeMap::new(),
            failure: None,
            failed: vec![],
            blocks: None,
            operation: String::new(),
            board: Board::default(),
        }
    }

    /// Returns a page of events, newest first, and the token of the next page.
    fn page(&self, next: &str) -> Result<(Vec<StackEvent>, String)> {
        let call = Call::new(&CLOUDFORMATION, "DescribeStackEvents").with("StackName", &self.stack);
        let answer = self.deploy.system.aws(if next.is_empty() { call } else { call.with("NextToken", next) })?;
        let events = answer.list("DescribeStackEventsResult/StackEvents").map(StackEvent::read).collect();
        Ok((events, answer.text("DescribeStackEventsResult/NextToken").into()))
    }

    /// Returns the events since the last call, oldest first.
    fn fresh(&mut self) -> Result<Vec<StackEvent>> {
        let mut fresh = vec![];
        let mut next = String::new();
        loop {
            let (events, after) = self.page(&next)?;
            for event in events {
                if Some(&event.id) == self.last.as_ref() {
                    next.clear();
                    break;
                }
                fresh.push(event);
                next.clone_from(&after);
            }
            if next.is_empty() {
                break;
            }
        }
        fresh.reverse();
        if let Some(newest) = fresh.last() {
            self.last = Some(newest.id.clone());
        }
        Ok(fresh)
    }

    /// Shows events until the operation ends, also across lost connections. Returns the stack as it is then.
    ///
    /// # Errors
    /// If it is interrupted, or CloudFormation refuses to answer, or is silent for too long.
    pub fn until_done(&mut self) -> Result<Stack> {
        let mut silence = Silence::default();
        loop {
            let (looked, unanswered) = answered(self.look())?;
            if let Some(Some(stack)) = looked {
                self.await_consoles();
                return Ok(stack);
            }
            self.deploy.endure(&mut silence, unanswered, "what the stack does")?;
            self.deploy.system.host.stop.wait(self.deploy.poll)?;
        }
    }

    /// Looks once; returns the stack if its operation has ended.
    fn look(&mut self) -> Result<Option<Stack>> {
        // The state is read first, so that no event between the two calls is missed.
        let stack = Stack::find(&self.deploy.system, &self.stack)?;
        if self.blocks.is_none() {
            self.blocks = stack.as_ref().and_then(|stack| MachineObjects::of(self.deploy, stack));
        }
        self.look_at_machines();
        for event in self.fresh()? {
            self.show(&event);
        }
        for machine in self.board.look(self.deploy) {
            self.explain(&machine, "");
        }
        Ok(stack.filter(|stack| stack.state.condition != Condition::Busy))
    }

    fn show(&mut self, event: &StackEvent) {
        self.board.learn(event);
        let began = if event.is_in_progress() {
            _ = self.began.entry(event.resource.clone()).or_insert_with(|| event.time.clone());
            None
        } else {
            self.began.remove(&event.resource)
        };
        let took = began.and_then(|began| between(&began, &event.time));
        if self.deploy.json {
            Deploy::tell(event);
        } else {
            let took = took.map(|took| format!("  {}", spoken(took))).unwrap_or_default();
            let reason = if event.reason.is_empty() { String::new() } else { format!("  {}", event.reason) };
            let status = coloured(colour(&event.status), &format!("{:<28}", event.status));
            let what = format!("  {}{took}{reason}", event.resource);
            say(Shown::from(format!("{}  ", clock(&event.time))) + status + what);
        }
        if self.operation.is_empty() {
            self.operation.clone_from(&event.operation);
        }
        if let Some((machine, signal)) = event.failure_of() {
            self.explain(machine, signal);
        }
        if event.is_failure() {
            // If no machine has said why, the machines that never signalled are asked.
            if event.kind == GROUP_TYPE && self.failed.is_empty() {
                self.board.silent().iter().for_each(|machine| self.explain(machine, ""));
            }
            _ = self.failure.get_or_insert_with(|| event.clone());
        }
    }

    /// Shows a machine's own words before CloudFormation removes the machine.
    fn explain(&mut self, machine: &str, signal: &str) {
        if self.failed.iter().any(|known| known.id == machine) {
            return;
        }
        let mut failed = FailedMachine::new(machine, signal);
        if failed.read_words(&self.deploy.system, self.blocks.as_ref()) {
            self.quote(&failed);
        }
        self.failed.push(failed);
    }

    /// Looks again at the machines that have shown no failure yet.
    fn look_at_machines(&mut self) {
        let mut failed = std::mem::take(&mut self.failed);
        for machine in failed.iter_mut().filter(|machine| !machine.is_explained()) {
            if machine.read_words(&self.deploy.system, self.blocks.as_ref()) {
                self.quote(machine);
            }
        }
        self.failed = failed;
    }

    /// Waits a bounded time for the consoles that have shown no failure yet, and names those that never did. A signal
    /// ends the wait, because the operation has ended already.
    fn await_consoles(&mut self) {
        let silent = |watch: &Self| -> Vec<String> {
            watch.failed.iter().filter(|machine| !machine.is_explained()).map(|machine| machine.id.clone()).collect()
        };
        if !silent(self).is_empty() {
            complain(format!("waiting for the console output of {}", silent(self).join(", ")));
        }
        for _ in 0..CONSOLE_LOOKS_AFTER_END {
            if silent(self).is_empty() || self.deploy.system.host.stop.wait(self.deploy.poll).is_err() {
                break;
            }
            self.look_at_machines();
        }
        self.failed.iter().filter(|machine| !machine.is_explained()).for_each(|machine| self.quote(machine));
    }

    fn quote(&self, machine: &FailedMachine) {
        if self.deploy.json {
            Deploy::tell(&machine.json(&self.deploy.repeated.account));
        } else {
            for line in machine.text(&self.deploy.repeated.account).lines() {
                say(Shown::from("          ") + coloured("31", line));
            }
        }
    }

    /// Returns the cause of a failure: the event, what only the operation tells, and the words of a machine.
    pub fn cause(&self) -> Option<anyhow::Error> {
        let event = self.failure.iter().map(|event| format!("{} ({}): {}", event.resource, event.status, event.reason));
        self.deploy.system.aws.be_brief();
        let told = operation::failures_of(&self.deploy.system, &self.operation);
        let machine = self.machine().map(|machine| (machine.headline(), machine.causes()));
        let (headline, causes) = machine.unzip();
        let sentences: Vec<String> = event.chain(told).chain(headline).chain(causes.into_iter().flatten()).collect();
        cause::chain(sentences.into_iter())
    }

    /// Returns what a failed machine hints at.
    pub fn hint(&self) -> Option<&str> {
        self.machine()?.hint()
    }

    /// Returns the failed machine that tells most; of several, the first.
    fn machine(&self) -> Option<&FailedMachine> {
        self.failed.iter().rev().max_by_key(|machine| (machine.causes().len().min(1), machine.is_explained()))
    }
}

/// What the last operation on a stack has left to tell.
#[derive(Default)]
pub(super) struct Aftermath {
    /// The failures, oldest first, without those that another failure caused.
    pub(super) failures: Vec<StackEvent>,
    /// What only the operation tells: refusals by early validation and hooks.
    pub(super) told: Vec<String>,
    /// The failed machines.
    pub(super) machines: Vec<FailedMachine>,
}

/// Returns what failed in the last operation. The words of a machine are read once.
pub(super) fn aftermath(deploy: &Deploy, stack: &Stack) -> Result<Aftermath> {
    let events = Watch::from_its_beginning(deploy, &stack.id)?.fresh()?;
    let operation = events.iter().map(|event| event.operation.as_str()).find(|id| !id.is_empty()).unwrap_or_default();
    let told = operation::failures_of(&deploy.system, operation);
    let mut machines: Vec<FailedMachine> = vec![];
    for (machine, signal) in events.iter().filter_map(StackEvent::failure_of) {
        if !machines.iter().any(|known| known.id == machine) {
            machines.push(FailedMachine::new(machine, signal));
        }
    }
    let began = events.first().map(|event| event.time.clone()).unwrap_or_default();
    let failures: Vec<StackEvent> = events.into_iter().filter(StackEvent::is_failure).collect();
    if machines.is_empty() {
        let names = failures.iter().filter(|event| event.kind == GROUP_TYPE && !event.physical.is_empty());
        let names: Vec<&str> = names.map(|event| event.physical.as_str()).collect();
        // Without a signal, the machines of a group that still exists are asked.
        let groups = if names.is_empty() { vec![] } else { fleet::groups(&deploy.system, &names)? };
        let of = groups.into_iter().flat_map(|group| group.machines);
        // A group whose machines are replaced has others that serve.
        let has_others = deploy.shape().launch_hook(&deploy.stack).is_some();
        let of = of.filter(|(_, state)| !(has_others && state == "InService"));
        machines.extend(of.map(|(machine, _)| FailedMachine::new(&machine, "")));
        machines.extend(left_machines(deploy, &began).into_iter().take(MAX_LEFT_MACHINES));
    }
    let blocks = MachineObjects::of(deploy, stack);
    for machine in &mut machines {
        _ = machine.read_words(&deploy.system, blocks.as_ref());
    }
    Ok(Aftermath { failures, told, machines })
}

/// Returns the machines that have left the group during an instance refresh, the newest first: none of them signals.
fn left_machines(deploy: &Deploy, began: &str) -> Vec<FailedMachine> {
    let Some(hook) = deploy.shape().launch_hook(&deploy.stack) else { return vec![] };
    let Ok(began) = OffsetDateTime::parse(began, &Rfc3339) else { return vec![] };
    let left = fleet::abandoned(&deploy.system, &hook.group, began).unwrap_or_else(|error| {
        complain(format!("Auto Scaling does not tell which machines have left {}: {error:#}", hook.group));
        vec![]
    });
    left.into_iter().map(|(machine, reason)| FailedMachine::new(&machine, &reason)).collect()
}

/// Returns the events of the stack itself, oldest first.
pub(super) fn milestones(deploy: &Deploy, stack: &str) -> Result<Vec<StackEvent>> {
    let mut events = Watch::new(deploy, stack).fresh()?;
    events.retain(|event| event.kind == STACK_TYPE && event.physical == stack);
    Ok(events)
}

/// Times as CloudFormation writes them.
fn between(from: &str, until: &str) -> Option<Duration> {
    let parse = |text| OffsetDateTime::parse(text, &Rfc3339).ok();
    (parse(until)? - parse(from)?).try_into().ok()
}

fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

fn colour(status: &str) -> &'static str {
    if status.ends_with("_FAILED") || StackState::of(status).failed {
        "31"
    } else if status.ends_with("_COMPLETE") {
        "32"
    } else {
        "33"
    }
}
