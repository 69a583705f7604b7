//! The same for weighted records, for one group, and for one whose machines are replaced part by part.

use std::sync::OnceLock;

use super::Scenario;
use crate::{operator::Operator, refreshing, sandbox::Finished, weighted_dns, world::World};

/// The command that lets the groups of both stacks shrink again.
const RELEASE: &[&str] = &["release", "--strategy", "weighted-dns"];
const BUILD_2_SERVES: &str = "every serving target runs build 2";

/// Returns what is left undone of two stacks: the weights, then blue's machines and those of green.
fn unless(operator: &Operator, weights: [&str; 2], machines: [usize; 2]) -> Vec<String> {
    let now = weighted_dns::weights(operator);
    let blue = operator.world(|world| world.groups[""].clone());
    let green = operator.tape.other_world(|world| world.groups[""].clone());
    let checks = [
        (now == weights, format!("the weights are {now:?}")),
        (
            [&blue, &green].map(|group| group.machines.len()) == machines,
            format!("blue is {blue:?}, green is {green:?}"),
        ),
        ([&blue, &green].iter().all(|group| group.min == 1), format!("one is pinned: {blue:?}, {green:?}")),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, text)| text).collect()
}

#[test]
fn every_call_of_an_update_with_weighted_records_may_fail() {
    let begin = || {
        let operator = weighted_dns::serving();
        operator.content("2");
        operator
    };
    let command = |operator: &Operator, more: &[&str]| {
        weighted_dns::deploy(operator, &[&["update-stack", "--health-timeout", "5m"], more].concat(), "2")
    };
    let unfinished = |operator: &Operator| unless(operator, ["0", "100"], [1, 2]);
    Scenario { begin, command, release: RELEASE, done: BUILD_2_SERVES, moves: "UpdateStack", unfinished }.try_all();
}

#[test]
fn every_call_of_a_rollback_with_weighted_records_may_fail() {
    let command = |operator: &Operator, more: &[&str]| {
        weighted_dns::deploy(operator, &[&["rollback", "--health-timeout", "5m"], more].concat(), "2")
    };
    let unfinished = |operator: &Operator| unless(operator, ["100", "0"], [2, 1]);
    let done = "rollback complete: blue (build 1)";
    let begin = weighted_dns::serving_twice;
    Scenario { begin, command, release: RELEASE, done, moves: "UpdateStack", unfinished }.try_all();
}

/// Returns what is left undone of one group.
fn unless_replaced(operator: &Operator) -> Vec<String> {
    let (build, group) = operator.world(|world| (world.parameters["VersionId"].clone(), world.groups[""].clone()));
    let is_new = group.machines.len() == 2 && group.machines.iter().all(|(_, build)| build == "2");
    if build == "2" && is_new { vec![] } else { vec![format!("the stack has build {build}, the group is {group:?}")] }
}

#[test]
fn every_call_of_an_instance_refresh_may_fail() {
    let command = |operator: &Operator, more: &[&str]| {
        refreshing::deploy(operator, &[&["update-stack", "--yes", "--health-timeout", "5m"], more].concat(), "2")
    };
    let (begin, unfinished) = (refreshing::serving, unless_replaced);
    Scenario { begin, command, release: &[], done: BUILD_2_SERVES, moves: "", unfinished }.try_all();
}

fn deploy_compatible(operator: &Operator, arguments: &[&str], build: &str) -> Finished {
    operator.deploy(&[arguments, &["--yes", "--strategy", "compatible"]].concat(), &[("BUILD_NUMBER", build)])
}

#[test]
fn every_call_of_a_compatible_update_may_fail() {
    let begin = || {
        static MADE: OnceLock<Vec<World>> = OnceLock::new();
        Operator::after(&MADE, "2", || {
            let operator = Operator::compatible();
            let _ = deploy_compatible(&operator, &["create-stack"], "1").expect(0);
            operator
        })
    };
    let command = |operator: &Operator, more: &[&str]| {
        deploy_compatible(operator, &[&["update-stack", "--health-timeout", "5m"], more].concat(), "2")
    };
    let done = "every machine in service runs build 2";
    Scenario { begin, command, release: &[], done, moves: "", unfinished: unless_replaced }.try_all();
}
