//! Follows a stack's events until the operation ends, and shows what failed, in the failing machine's own words.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Deploy,
    board::Board,
    event::{GROUP_TYPE, STACK_TYPE, StackEvent},
    fleet,
    stack::Stack,
    state::{Condition, StackState},
};
use crate::{
    aws::{query::Call, service::CLOUDFORMATION},
    error::{self, Class},
    notify::block::{self, Block},
    value::spoken,
    view::{coloured, complain, say},
    visible::Shown,
};

/// How often to look again at the consoles that showed no failure, after the end of the operation. EC2 delivers a
/// console's output late:
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html>
const CONSOLE_LOOKS_AFTER_END: u32 = 10;

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
    explained: Vec<String>,
    /// The failed machines whose consoles have shown no failure yet.
    unexplained: Vec<String>,
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
            explained: vec![],
            unexplained: vec![],
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
    /// If it is interrupted, or CloudFormation refuses to answer.
    pub fn until_done(&mut self) -> Result<Stack> {
        let mut silent: Option<Instant> = None;
        loop {
            let looked = self.look();
            match looked {
                Ok(Some(stack)) => {
                    self.await_consoles();
                    return Ok(stack);
                }
                Ok(None) => silent = None,
                Err(error) if error::class(&error) == Class::Transient => {
                    if silent.is_none() {
                        complain(format!("CloudFormation does not answer, still trying: {error:#}"));
                    }
                    silent = silent.or(Some(Instant::now()));
                }
                Err(error) => return Err(error),
            }
            self.deploy.system.host.stop.wait(self.deploy.poll)?;
        }
    }

    /// Looks once; returns the stack if its operation has ended.
    fn look(&mut self) -> Result<Option<Stack>> {
        // The state is read first, so that no event between the two calls is missed.
        let stack = Stack::find(&self.deploy.system, &self.stack)?;
        self.look_at_consoles();
        for event in self.fresh()? {
            self.show(&event);
        }
        self.board.look(self.deploy);
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
        if let Some(machine) = event.failure_of() {
            self.explain(machine);
        }
        if event.is_failure() {
            // If no machine has said why, the machines that never signalled are asked.
            if event.kind == GROUP_TYPE && self.explained.is_empty() {
                self.board.silent().iter().for_each(|machine| self.explain(machine));
            }
            _ = self.failure.get_or_insert_with(|| event.clone());
        }
    }

    /// Shows the end of a machine's console before CloudFormation removes the machine.
    fn explain(&mut self, machine: &str) {
        if !machine.starts_with("i-") || self.explained.iter().any(|known| known == machine) {
            return;
        }
        self.explained.push(machine.to_owned());
        if !self.quote_console(machine) {
            self.unexplained.push(machine.to_owned());
        }
    }

    /// Looks again at the consoles that have shown no failure yet.
    fn look_at_consoles(&mut self) {
        let machines = std::mem::take(&mut self.unexplained);
        self.unexplained = machines.into_iter().filter(|machine| !self.quote_console(machine)).collect();
    }

    /// Waits a bounded time for the consoles that have shown no failure yet, and names those that never did. A signal
    /// ends the wait, because the operation has ended already.
    fn await_consoles(&mut self) {
        if !self.unexplained.is_empty() {
            complain(format!("waiting for the console output of {}", self.unexplained.join(", ")));
        }
        for _ in 0..CONSOLE_LOOKS_AFTER_END {
            if self.unexplained.is_empty() || self.deploy.system.host.stop.wait(self.deploy.poll).is_err() {
                break;
            }
            self.look_at_consoles();
        }
        for machine in std::mem::take(&mut self.unexplained) {
            let text = format!(
                "{machine}: its console output shows no failure yet; to look again: aws ec2 get-console-output --instance-id \
                 {machine}{}",
                self.deploy.repeated.account
            );
            self.quote(&machine, &text);
        }
    }

    /// Shows why a machine failed, by its console. Returns false if the console does not show it yet.
    fn quote_console(&self, machine: &str) -> bool {
        let console = fleet::console(&self.deploy.system, machine);
        let text = match console.as_ref().map(|console| (Block::find(console), block::of_user_data(console))) {
            Ok((Some(block), _)) => block.to_string(),
            Ok((None, Some(line))) => format!("{machine}: {line}"),
            Ok((None, None)) => return false,
            Err(error) if error::class(error) == Class::Transient => return false,
            Err(error) => format!("the console of {machine} cannot be read: {error:#}"),
        };
        self.quote(machine, &text);
        true
    }

    fn quote(&self, machine: &str, text: &str) {
        if self.deploy.json {
            Deploy::tell(&serde_json::json!({ "machine": machine, "console": text }));
        } else {
            for line in text.lines() {
                say(Shown::from("          ") + coloured("31", line));
            }
        }
    }

    /// Returns the cause of a failure in one line.
    pub fn cause(&self) -> Option<String> {
        let event = self.failure.as_ref()?;
        Some(format!("{} ({}): {}", event.resource, event.status, event.reason))
    }
}

/// Returns the failures of the last operation, oldest first, without those that another failure caused.
pub(super) fn failures(deploy: &Deploy, stack: &str) -> Result<Vec<StackEvent>> {
    let mut watch = Watch::from_its_beginning(deploy, stack)?;
    let mut events = watch.fresh()?;
    events.retain(StackEvent::is_failure);
    Ok(events)
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
