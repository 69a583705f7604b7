//! Each call of a roll-out and of a rollback fails, one after the other: users stay on machines that carry them,
//! the last lines say where they are and what to do, and the same command again finishes.
//!
//! The first call of each operation fails in each way. Later ones take turns at the ways that the command notices: it does
//! not notice what the retries of one call overcome. `GLOVO_CALL_FAULTS=all` lets each call fail in each way, as
//! `tests/nightly` does.

mod other_shapes;

use std::{sync::OnceLock, thread};

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Turn, names},
    world::{BLUE, GREEN, World},
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Throttled once.
    Throttled,
    /// Throttled for longer than the patience of a call.
    ThrottledForLong,
    /// Refused for want of a permission.
    Refused,
    /// The connection is cut before the call is made.
    Cut,
    /// The call is made, and its answer is lost.
    Unanswered,
}

const FAULTS: [Fault; 5] = [Fault::Throttled, Fault::ThrottledForLong, Fault::Refused, Fault::Cut, Fault::Unanswered];

/// Those that the command notices: the call fails in the end, or is done twice.
const NOTICED: [Fault; 3] = [Fault::ThrottledForLong, Fault::Refused, Fault::Unanswered];

/// A command, in a shape of deployment.
struct Scenario {
    begin: fn() -> Operator,
    command: fn(&Operator, &[&str]) -> Finished,
    /// The command that lets the groups shrink again.
    release: &'static [&'static str],
    /// The words at the end of its success.
    done: &'static str,
    /// The operation that moves traffic; empty if it does not move any.
    moves: &'static str,
    /// Returns what a finished command has left undone.
    unfinished: fn(&Operator) -> Vec<String>,
}

fn update(operator: &Operator, more: &[&str]) -> Finished {
    // With an alarm of the slot, CloudWatch is asked, too.
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "5m", "--parameter", "MaxErrors=10"];
    operator.deploy(&[&arguments, more].concat(), &[("BUILD_NUMBER", "2")])
}

fn roll_back(operator: &Operator, more: &[&str]) -> Finished {
    operator.deploy(&[&["rollback", "--pause", "0s", "--health-timeout", "5m"], more].concat(), &[])
}

fn serving_new_content() -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    operator
}

fn scripted(fault: Fault) -> Turn {
    match fault {
        Fault::Throttled | Fault::ThrottledForLong => Turn::Refusal(400, "Throttling", "Rate exceeded"),
        Fault::Refused => Turn::Refusal(403, "AccessDenied", "not authorized"),
        Fault::Cut => Turn::Lost,
        Fault::Unanswered => Turn::Unanswered,
    }
}

fn unless_green_serves(operator: &Operator) -> Vec<String> {
    operator.world(|world| unfinished(world, [("Green", GREEN), ("Blue", BLUE)]))
}

fn unless_blue_serves(operator: &Operator) -> Vec<String> {
    operator.world(|world| unfinished(world, [("Blue", BLUE), ("Green", GREEN)]))
}

/// Returns what is left undone: the slot that is to serve comes first, each slot with its target group.
fn unfinished(world: &World, [(serving, its_targets), (idle, other_targets)]: [(&str, &str); 2]) -> Vec<String> {
    let (Some(group), Some(kept)) = (world.groups.get(serving), world.groups.get(idle)) else {
        return vec![format!("{serving} or {idle} is empty")];
    };
    let weights = [its_targets, other_targets].map(|targets| world.weights[targets].as_str());
    let parameters = [serving, idle].map(|slot| world.parameters[&format!("{slot}Weight")].as_str());
    let checks = [
        (weights == ["100", "0"], format!("the shares are {weights:?}")),
        (parameters == ["100", "0"], format!("the parameters say {parameters:?}")),
        (group.min == 1, format!("{serving} is still pinned: {group:?}")),
        (group.machines.len() == 2, format!("{serving} has another size: {group:?}")),
        (
            kept.machines.len() == 1 || kept.scheduled == Some(("1".into(), "1".into())),
            format!("{idle} stays large: {kept:?}"),
        ),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, text)| text).collect()
}

impl Scenario {
    /// Returns the calls of an undisturbed run.
    fn calls(&self) -> Vec<String> {
        let operator = (self.begin)();
        let _ = (self.command)(&operator, &[]).expect(0).says(self.done);
        let calls = operator.calls();
        names(&calls).into_iter().map(str::to_owned).collect()
    }

    /// Runs it with a fault at the call of this number; returns what is wrong.
    fn try_one(&self, number: usize, name: &str, fault: Fault) -> Vec<String> {
        let operator = (self.begin)();
        let patience = ["--patience", "0s"];
        let more: &[&str] = if fault == Fault::ThrottledForLong { &patience } else { &[] };
        let times = if fault == Fault::ThrottledForLong { 6 } else { 1 };
        operator.tape.script_from(number, (0..times).map(|_| scripted(fault)));
        let first = (self.command)(&operator, more);
        operator.tape.forget_script();
        // AWS keeps a change set that could not be deleted. The next one has another name.
        operator.tape.worlds(World::forget_change_set);
        let mut wrong = vec![];
        let load = operator.tape.highest_load();
        if load > 50 {
            wrong.push(format!("a machine got {load} % of the traffic"));
        }
        // Without an answer of Auto Scaling users go first.
        let may_stay = name == "DeleteScheduledAction" && [Fault::Refused, Fault::ThrottledForLong].contains(&fault);
        if operator.tape.was_endangered() && !may_stay {
            wrong.push("a slot with traffic was to shrink by a scheduled action".to_owned());
        }
        let moved = operator.calls().iter().any(|call| call.operation == self.moves);
        let said = &first.stderr;
        if first.code == Some(0) && !first.stdout.contains(self.done) {
            wrong.push(format!("it says nothing of success:\n{}", first.stdout));
        }
        if first.code != Some(0) {
            let tells = said.contains("% of the traffic") || said.contains("all traffic is on");
            if moved && !(tells && said.contains("glovo-bootstrap deploy rollback")) {
                wrong.push(format!("its last lines do not say where users are, or how to go back:\n{said}"));
            }
            if moved && !said.contains("hint:") {
                wrong.push(format!("its last lines have no hint:\n{said}"));
            }
        }
        if fault != Fault::Refused && fault != Fault::ThrottledForLong && first.code != Some(0) {
            wrong.push(format!("it ends with {:?}:\n{said}", first.code));
        }
        let again = (self.command)(&operator, &[]);
        if again.code != Some(0) {
            wrong.push(format!("the same command again ends with {:?}:\n{}", again.code, again.stderr));
        }
        if (name, fault) == ("PutScheduledUpdateGroupAction", Fault::Refused) {
            // Nothing shrinks the previous build then.
            let _ = operator.deploy(self.release, &[]).expect(0);
        }
        wrong.extend((self.unfinished)(&operator));
        wrong.into_iter().map(|text| format!("call {number} ({name}), {fault:?}: {text}")).collect()
    }

    /// Runs it with the faults at each call.
    fn try_all(&self) {
        let calls = self.calls();
        let all = std::env::var_os("GLOVO_CALL_FAULTS").is_some_and(|which| which == "all");
        let mut cases = vec![];
        for (number, name) in calls.iter().enumerate() {
            let before = calls[..number].iter().filter(|call| *call == name).count();
            let turn = before % NOTICED.len();
            let faults = if all || before == 0 { &FAULTS[..] } else { &NOTICED[turn..=turn] };
            cases.extend(faults.iter().map(|fault| (number, name, *fault)));
        }
        let workers = thread::available_parallelism().map_or(2, usize::from) * 2;
        let wrong: Vec<String> = thread::scope(|scope| {
            let part = |first: usize| {
                let cases = cases.iter().skip(first).step_by(workers);
                cases.flat_map(|(number, name, fault)| self.try_one(*number, name, *fault)).collect::<Vec<_>>()
            };
            let started: Vec<_> = (0..workers).map(|first| scope.spawn(move || part(first))).collect();
            started.into_iter().flat_map(|worker| worker.join().expect("a case")).collect()
        });
        assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }
}

const MODIFY: &str = "ModifyListener";
const RELEASE: &[&str] = &["release"];
const BLUE_IS_BACK: &str = "rollback complete: blue (build 1) serves all traffic";

#[test]
fn every_call_of_an_update_may_fail() {
    let done = "every serving target runs build 2";
    let unfinished = unless_green_serves;
    Scenario { begin: serving_new_content, command: update, release: RELEASE, done, moves: MODIFY, unfinished }
        .try_all();
}

/// Returns the rollback to blue.
fn back_from(begin: fn() -> Operator) -> Scenario {
    let unfinished = unless_blue_serves;
    Scenario { begin, command: roll_back, release: RELEASE, done: BLUE_IS_BACK, moves: MODIFY, unfinished }
}

#[test]
fn every_call_of_a_rollback_may_fail() {
    back_from(Operator::serving_twice).try_all();
}

#[test]
fn every_call_of_a_rollback_to_one_machine_may_fail() {
    let begin = || {
        let operator = Operator::serving_twice();
        operator.world(World::let_scheduled_time_come);
        operator
    };
    back_from(begin).try_all();
}

#[test]
fn every_call_of_a_rollback_to_a_whole_fleet_may_fail() {
    let begin = || {
        static MADE: OnceLock<Vec<World>> = OnceLock::new();
        Operator::after(&MADE, "2", || {
            let operator = serving_new_content();
            let _ = update(&operator, &[]).expect(0);
            operator
        })
    };
    back_from(begin).try_all();
}
