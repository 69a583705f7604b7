//! The operator's side: from a new build to the proof that it serves.
//!
//! ```text
//! settings → preflight → artifacts and template → change set → the stack's events → health → traffic
//! ```
//!
//! [`settings`] says what is wanted, [`preflight`] looks whether it can be had, [`prepare`] makes of it, with [`artifacts`]
//! and [`template`], what CloudFormation gets, [`preview`] shows what will change, [`stack`] has it changed, [`watch`]
//! follows its [`event`]s with a [`board`] of its machines, [`replacing`] makes sure that these signal. [`alarms`] and the
//! [`application`] itself stop a new build, [`rollout`] moves the traffic from one of the [`slots`] to the other, and back, as
//! its [`shape`] says; [`fleet`] is what serves. [`state`] knows what to do in each state of a stack. [`report`] shows what
//! is, and [`diagnosis`] what failed, with the [`cause`] that machines tell and that of the [`operation`].

mod alarms;
pub mod application;
pub mod artifacts;
mod board;
mod cause;
mod deletion;
mod diagnosis;
mod event;
mod failure;
pub mod fleet;
mod last_runs;
pub mod layout;
mod operation;
mod parameters;
pub mod preflight;
mod prepare;
mod preview;
mod protection;
mod replacing;
mod report;
mod rollout;
pub mod settings;
pub mod shape;
pub mod slots;
pub mod stack;
pub mod state;
pub mod template;
pub mod variables;
pub mod watch;

use std::{io::IsTerminal, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use self::{
    artifacts::{Artifacts, OutcomeTarget},
    layout::{Layout, Slot},
    parameters::SlotOutput,
    prepare::{Intent, Prepared},
    settings::DeploySettings,
    shape::{Shape, Strategy},
    slots::Slots,
    stack::{ChangeSet, Stack},
    state::Condition,
    watch::Watch,
};
use crate::{
    aws::{refusal::Refusal, s3::upload::Upload},
    error::{self, Class, Fault},
    manifest::{secrets::NamedSecrets, texts::Texts},
    packages::manager::Family,
    system::System,
    user_data::MAX_USER_DATA_BYTES,
    view,
};

/// The most edits between the name of a stack that does not exist and one that may be meant.
const MAX_DISTANCE: usize = 3;

/// Returns for each resource that needs a package manager on a distribution those that it can work with; or the fault that the
/// steps have on this distribution.
pub type ManagersOn = Box<dyn Fn(&str) -> Result<Vec<Vec<Family>>, String>>;

/// Flags of this command that the commands in its messages repeat, each after a space.
#[derive(Debug, Default)]
pub struct RepeatedFlags {
    /// Those that choose account and region; the AWS CLI has them, too.
    pub account: String,
    /// The one that names the settings file.
    pub file: String,
}

/// A deployment and what the operator wants of it.
pub struct Deploy {
    /// The door to AWS.
    pub system: System,
    /// The settings.
    pub settings: DeploySettings,
    /// The shape of the deployment.
    pub strategy: Strategy,
    /// The operator's own steps, in place of those built into the program.
    pub texts: Option<Texts>,
    /// The package managers that the steps need.
    pub package_managers: ManagersOn,
    /// The secrets that the steps name.
    pub secrets: NamedSecrets,
    /// The stack's name.
    pub stack: String,
    /// The flags that commands in messages repeat.
    pub repeated: RepeatedFlags,
    /// Time between two questions to AWS.
    pub poll: Duration,
    /// Whether output is for programs.
    pub json: bool,
    /// Whether to answer yes to every question.
    pub yes: bool,
}

impl Deploy {
    /// Shows a text, as JSON if a program reads it.
    pub fn say(&self, text: &str) {
        if self.json {
            Self::tell(&json!({ "message": text.trim_start() }));
        } else {
            view::say(text);
        }
    }

    /// Prints a JSON document for a program.
    fn tell(value: &impl Serialize) {
        // JSON can represent every value that is passed here.
        _ = view::say_json_line(value);
    }

    fn shape(&self) -> &'static dyn Shape {
        self.strategy.shape()
    }

    fn layout(&self) -> Layout {
        self.shape().layout()
    }

    /// Returns whether the deployment has several stacks.
    fn is_one_of_several(&self) -> bool {
        self.stack_of(Slot::Blue) != self.stack_of(Slot::Green)
    }

    /// Returns the name of the deployment, which several stacks share.
    pub fn name(&self) -> &str {
        self.layout().base_name(&self.stack)
    }

    /// Returns the name of the stack that holds a slot.
    pub fn stack_of(&self, slot: Slot) -> String {
        self.layout().stack_of(self.name(), slot)
    }

    /// Returns what waits for the outcome of the first run of a slot's machines.
    fn outcome_target(&self, slot: Slot) -> OutcomeTarget {
        let stack = self.stack_of(slot);
        let hook = self.shape().launch_hook(&stack);
        OutcomeTarget { stack, resource: self.layout().output(slot, SlotOutput::Group), hook }
    }

    /// Returns the names of the selected stacks: the named one, or both stacks of the deployment.
    pub fn stacks(&self) -> Result<Vec<String>> {
        if !self.is_one_of_several() || self.name() != self.stack {
            return Ok(vec![self.stack.clone()]);
        }
        let names: Vec<String> = Slots::find(self)?.stacks().map(|stack| stack.name.clone()).collect();
        // A stack with the plain name is not part of the deployment.
        Ok(if names.is_empty() { vec![self.stack_of(Slot::Blue)] } else { names })
    }

    /// Returns the arguments that select a stack.
    fn arguments(&self, stack: &str) -> String {
        let RepeatedFlags { account, file } = &self.repeated;
        format!("--stack {stack}{}{file}{account}", self.strategy.arguments())
    }

    /// Returns the command line of a verb for this stack.
    fn command(&self, verb: &str) -> String {
        format!("glovo-bootstrap deploy {verb} {}", self.arguments(&self.stack))
    }

    /// Returns the next command for a stack.
    fn next(&self, stack: &Stack) -> String {
        let next = stack.state.next_for(&stack.name, &self.arguments(&stack.name));
        if next.starts_with("aws ") { next + &self.repeated.account } else { next }
    }

    /// Returns the fault of a stack that does not exist, with the nearest name of one that does.
    fn no_stack(&self) -> Fault {
        let fault = Fault::new(format!("stack {} does not exist", self.stack));
        let create = self.command("create-stack");
        fault.hint(match self.nearest() {
            Some(near) => {
                format!("a stack with a similar name exists: pass --stack {near}; to create this one: {create}")
            }
            None => create,
        })
    }

    /// Returns the existing stack with the most similar name. Returns none if CloudFormation does not tell.
    fn nearest(&self) -> Option<String> {
        let names = stack::names(&self.system).unwrap_or_else(|error| {
            tracing::debug!("the names of the stacks are not known: {error:#}");
            vec![]
        });
        let near =
            names.iter().map(|name| (strsim::damerau_levenshtein(self.layout().base_name(name), self.name()), name));
        near.filter(|(distance, _)| (1..=MAX_DISTANCE).contains(distance))
            .min()
            .map(|(_, name)| self.layout().base_name(name).to_owned())
    }

    /// Returns the stack, which must exist.
    fn get(&self) -> Result<Stack> {
        if let Some(stack) = Stack::find(&self.system, &self.stack)? {
            return Ok(stack);
        }
        // Another strategy gives the stacks of this deployment other names.
        slots::check_other_names(self)?;
        Err(self.no_stack().into())
    }

    /// Fails unless a stack can be deployed to now; names the running operation, or the next safe command.
    fn check_ready(&self, stack: &Stack) -> Result<()> {
        let Stack { name, state, changed, reason, .. } = stack;
        let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        match state.condition {
            Condition::Ready | Condition::Absent => Ok(()),
            Condition::Busy => {
                let fault = Fault::new(format!(
                    "another operation is running: stack {name} is {} since {changed}{because}",
                    state.name
                ));
                Err(fault.hint(self.next(stack)).class(Class::Locked).into())
            }
            Condition::Stuck => {
                let fault = Fault::new(format!("the stack {name} is {}{because}: {}", state.name, state.meaning));
                Err(fault.hint(self.next(stack)).into())
            }
        }
    }

    /// Returns the template and the user-data of a first build, and what must be uploaded for it. Asks AWS nothing.
    pub fn render(&self) -> Result<(String, String, Vec<Upload>)> {
        self.check_given_parameters()?;
        let mut artifacts = Artifacts::collect(&self.settings, &self.stack, self.texts.as_ref())?;
        artifacts.run_limit = self.run_limit(None);
        let user_data = artifacts.user_data(&self.outcome_target(Slot::Blue), MAX_USER_DATA_BYTES)?;
        let slots = [(Slot::Blue, user_data.clone()), (Slot::Green, String::new())];
        Ok((
            template::with_user_data(self.shape().template(), self.shape().layout(), &slots)?,
            user_data,
            artifacts.uploads,
        ))
    }

    /// Shows what a deploy would change, and leaves nothing behind.
    pub fn plan(&self) -> Result<()> {
        let prepared = self.prepare()?;
        if let Some(fault) = &prepared.condemned {
            self.say(&format!("{fault}: update-stack would return the traffic to the previous build"));
            return Ok(());
        }
        let Some(changes) = self.propose(&prepared)? else { return Ok(()) };
        stack::discard(&self.system, &prepared.stack, &changes.id, prepared.current.is_none())
    }

    /// Creates or updates the stack, and moves the traffic to the new build.
    pub fn execute(&self, wants_new: bool) -> Result<()> {
        self.check_asking()?;
        let mut prepared = self.prepare()?;
        let is_first = prepared.intent == Intent::Create;
        if is_first != wants_new {
            let (is, does) = if is_first { ("does not exist", "creating") } else { ("exists", "updating") };
            let near = if is_first { self.nearest() } else { None };
            let near = near.map(|near| format!("; a stack with a similar name exists: {near}")).unwrap_or_default();
            self.say(&format!("note: stack {} {is}; {does} it{near}", self.stack));
        }
        let promoted = prepared.intent.promoted();
        if let (Some(slot), Some(fault)) = (promoted, prepared.condemned.take()) {
            self.say(&fault.to_string());
            let agreed = self.ask("return the traffic to the previous build?")?;
            let back = format!("to return the traffic by hand: {}", self.command("rollback"));
            ensure!(agreed, Fault::new("cancelled; nothing was changed").hint(back));
            self.system.aws.be_patient();
            return self.roll_out(&Slots::get(self)?, slot, Some(fault));
        }
        if let Intent::Fill(slot) = prepared.intent
            && prepared.is_behind
        {
            self.catch_up(slot.other())?;
            prepared = self.prepare()?;
        }
        match self.propose(&prepared)? {
            Some(changes) => self.make(&mut prepared, &changes)?,
            None if promoted.is_none() => {
                self.protect_as_wanted(&prepared)?;
                return self.prove_again();
            }
            // The slot is ready, but does not receive all traffic yet.
            None => ensure!(self.ask("move the traffic?")?, Fault::new("cancelled; nothing was changed")),
        }
        let again = format!("to look again: {}", self.command("status"));
        let proven = if let Some(slot) = promoted {
            self.system.aws.be_patient();
            self.roll_out(&Slots::get(self)?, slot, None)?;
            let ways = format!("{again}; to roll back: {}", self.command("rollback"));
            self.prove().map_err(|error| unproven(error, "the new build receives 100 % of the traffic", &ways))
        } else {
            let proven = self.await_serving().and_then(|()| self.prove()).and_then(|()| self.command_at_public());
            proven.map_err(|error| unproven(error, "the stack is complete", &again))
        };
        // Users come first: an operator who may not protect a stack may deploy to it.
        let protected = self.protect(&prepared);
        if let (Err(_), Err(error)) = (&proven, &protected) {
            self.say(&format!("{error:#}"));
        }
        proven.and(protected)
    }

    /// Has the application and the command of the settings answer once more: the deploy that made the changes may have ended
    /// before they did.
    fn prove_again(&self) -> Result<()> {
        if self.settings.probe()?.is_none() && self.settings.probe_command()?.is_none() {
            return Ok(());
        }
        let again = format!("to look again: {}", self.command("status"));
        let proven = self.prove().and_then(|()| self.command_at_public());
        proven.map_err(|error| unproven(error, "nothing was changed", &again))
    }

    /// Asks, executes the changes, and waits for CloudFormation.
    fn make(&self, prepared: &mut Prepared, changes: &ChangeSet) -> Result<()> {
        let mut freed = None;
        let replaced = self.group_to_replace(prepared);
        let begun = self.ask("make these changes?").and_then(|agreed| {
            ensure!(agreed, Fault::new("cancelled; nothing was changed"));
            prepared.artifacts.upload(&self.system, |text| self.say(text))?;
            let watch = Watch::from_now(self, &prepared.stack)?;
            self.system.aws.be_patient();
            if let (Intent::Fill(slot), Some(stack)) = (&prepared.intent, &prepared.current) {
                freed = self.cancel_schedule(stack, *slot)?.then_some(*slot);
            }
            replaced.iter().try_for_each(|group| self.have_a_machine(group))?;
            stack::execute(&self.system, &prepared.stack, &changes.id).map(|()| watch)
        });
        match begun {
            Ok(mut watch) => {
                self.follow(&mut watch)?;
                replaced.iter().try_for_each(|group| self.check_replaced(prepared, group))
            }
            Err(error) => {
                self.take_back(prepared, changes, freed);
                Err(error)
            }
        }
    }

    /// Deletes a change set that was not begun, which would be in the way of the next one. Then the idle slot may shrink again
    /// whose action was cancelled for it. The error that led here says more than one of this clean-up.
    fn take_back(&self, prepared: &Prepared, changes: &ChangeSet, freed: Option<Slot>) {
        self.system.aws.be_brief();
        let is_new = prepared.current.is_none();
        let taken_back = self.system.host.stop.interrupt.aside(|| {
            // A change set that cannot be deleted may have been begun: the slot is being filled then.
            stack::discard(&self.system, &prepared.stack, &changes.id, is_new)?;
            let Some(slot) = freed else { return Ok(()) };
            self.shrink_later(&Slots::get(self)?, slot, self.keep_time())
        });
        if let (Err(_), Some(slot)) = (taken_back, freed) {
            let release = self.command("release");
            self.say(&format!("note: {} keeps its machines; to let it shrink: {release}", slot.name()));
        }
    }

    /// Shows the events of the running operation until it ends.
    fn follow(&self, watch: &mut Watch<'_>) -> Result<()> {
        let stack = watch.until_done().map_err(|error| self.detached(error, "working on"))?;
        if stack.state.failed || stack.state.condition != Condition::Ready {
            let message = format!("the stack {} is {}: {}", stack.name, stack.state.name, stack.state.meaning);
            let next = self.next(&stack);
            let hint = watch.hint().map_or_else(|| next.clone(), |hint| format!("{hint}; then: {next}"));
            let fault = Fault::new(message).hint(hint);
            return Err(match watch.cause() {
                Some(cause) => fault.caused_by(cause).into(),
                None => fault.into(),
            });
        }
        Ok(())
    }

    /// Adds to the error of a watch that ended early what CloudFormation keeps doing with the stack, and how to watch it again.
    fn detached(&self, error: anyhow::Error, doing: &str) -> anyhow::Error {
        let verb = match error::class(&error) {
            Class::Interrupted(_) => "detached",
            Class::Transient => "this command stops watching",
            _ => return error,
        };
        let message = format!("{verb}; CloudFormation keeps {doing} {}", self.stack);
        error.context(Fault::new(message).hint(self.command("watch")))
    }

    /// Follows the running or last operation on the stack; of several stacks, on the one that changed last.
    pub fn watch(&self) -> Result<()> {
        let slots = Slots::get(self)?;
        let is_meant = |stack: &&Stack| self.name() == self.stack || stack.name == self.stack;
        let is_later = |stack: &&Stack| {
            let condition = stack.state.condition;
            (condition == Condition::Busy, condition != Condition::Absent, stack.changed.clone())
        };
        let stack = slots.stacks().filter(is_meant).max_by_key(is_later).with_context(|| self.no_stack())?;
        let mut watch = Watch::from_its_beginning(self, &stack.id)?;
        self.follow(&mut watch)?;
        self.name_waiting(&Slots::get(self)?)
    }

    /// Fails if a question would have to be asked without a terminal.
    fn check_asking(&self) -> Result<()> {
        ensure!(
            self.yes || std::io::stdin().is_terminal(),
            Fault::new("standard input is not a terminal, so the question cannot be answered; pass --yes").invalid()
        );
        Ok(())
    }

    /// Asks the operator, unless `--yes` has answered.
    fn ask(&self, question: &str) -> Result<bool> {
        self.check_asking()?;
        if self.yes {
            return Ok(true);
        }
        view::ask(&format!("{question} [y/N]"));
        let answer = self.system.host.stop.interrupt.read_line(&mut std::io::stdin().lock())?;
        Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
    }

    fn propose(&self, prepared: &Prepared) -> Result<Option<ChangeSet>> {
        let is_new = prepared.current.is_none();
        let Some(changes) = stack::propose(&self.system, &prepared.stack, is_new, &prepared.wanted, self.poll)? else {
            match prepared.intent.promoted() {
                Some(_) => prepared.meaning.lines().for_each(|line| self.say(line)),
                None if self.protection_to_set(prepared).is_some() => {}
                None => self.say(&format!("no changes: {} is as declared", prepared.stack)),
            }
            self.tell_protection(prepared);
            return Ok(None);
        };
        prepared.meaning.lines().for_each(|line| self.say(line));
        self.preview(prepared.current.as_ref(), &prepared.wanted, &changes);
        self.tell_protection(prepared);
        Ok(Some(changes))
    }
}

/// Adds to the error of a proof that AWS or the operator ended what is known, and how to look again.
fn unproven(error: anyhow::Error, known: &str, ways: &str) -> anyhow::Error {
    let class = match error::class(&error) {
        class @ Class::Interrupted(_) => class,
        Class::Transient => Class::Permanent,
        _ if Refusal::of(&error).is_some() => Class::Permanent,
        _ => return error,
    };
    rollout::with_ways(error, &format!("{known}; whether it serves is unknown"), ways, class)
}
