//! Two whole stacks behind the weighted records of one name.

use std::sync::OnceLock;

use nix::sys::signal::Signal;

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Call, Meeting, Turn, changes, of},
    world::{Scene, World},
};

const STRATEGY: [&str; 2] = ["--strategy", "weighted-dns"];

pub fn deploy(operator: &Operator, arguments: &[&str], build: &str) -> Finished {
    let variables = [("BUILD_NUMBER", build), ("DNSRECORD", "app.example.com")];
    let keep: &[&str] = if arguments[0] == "rollback" { &[] } else { &["--keep-for", "0s"] };
    operator.deploy(&[arguments, &["--yes", "--pause", "0s"], keep, &STRATEGY].concat(), &variables)
}

/// Returns an operator whose blue stack has build 1.
pub fn serving() -> Operator {
    static MADE: OnceLock<Vec<World>> = OnceLock::new();
    Operator::after(&MADE, "1", || {
        let operator = Operator::of_two_stacks();
        let _ = deploy(&operator, &["create-stack", "--parameter", "HealthCheckPath=/health"], "1").expect(0);
        operator
    })
}

/// Returns the same operator after a deploy of build 2.
pub fn serving_twice() -> Operator {
    static MADE: OnceLock<Vec<World>> = OnceLock::new();
    Operator::after(&MADE, "2", || {
        let operator = serving();
        operator.content("2");
        let _ = deploy(&operator, &["update-stack"], "2").expect(0);
        operator
    })
}

/// Returns the weights that `UpdateStack` gave the stacks, in their order.
fn moves(calls: &[Call]) -> Vec<[&str; 2]> {
    let given = of(calls, "UpdateStack").into_iter();
    given
        .filter_map(|call| Some([call.get("StackName").strip_prefix("glovo-app-")?, call.parameter("Weight")?]))
        .collect()
}

/// Returns the present weights of the stacks.
pub fn weights(operator: &Operator) -> [String; 2] {
    [
        operator.world(|world| world.parameters["Weight"].clone()),
        operator.tape.other_world(|world| world.parameters["Weight"].clone()),
    ]
}

fn asks(operator: &Operator, verb: &str) -> Finished {
    operator.deploy(&[&[verb], STRATEGY.as_slice()].concat(), &[])
}

#[test]
fn the_first_build_makes_the_stack_of_blue_with_all_answers() {
    let operator = Operator::of_two_stacks();
    let _ = deploy(&operator, &["create-stack"], "1")
        .expect(0)
        .says("stack glovo-app-blue: CREATE_COMPLETE")
        .says("every serving target runs build 1");
    let calls = operator.calls();
    assert_eq!(changes(&calls), ["CreateChangeSet", "ExecuteChangeSet"]);
    let made = of(&calls, "CreateChangeSet")[0];
    assert_eq!((made.get("StackName"), made.get("ChangeSetType")), ("glovo-app-blue", "CREATE"));
    for (name, value) in [
        ("DNSRecord", "app.example.com"),
        ("HostedZoneId", "Z1"),
        ("VersionId", "1"),
        ("Weight", "100"),
        ("DesiredCapacity", "2"),
    ] {
        assert_eq!(made.parameter(name), Some(value), "{name}");
    }
    // The script is in the frame that signals its exit code.
    let body = made.get("TemplateBody");
    let at = body.find("Fn::Base64").unwrap();
    assert!(body[at..].contains(r"\necho content 1\n"));
}

#[test]
fn without_a_name_there_is_nothing_to_share() {
    let operator = Operator::of_two_stacks();
    let arguments = [&["create-stack", "--yes"], STRATEGY.as_slice()].concat();
    let _ = operator.deploy(&arguments, &[]).expect(2).says("needs a DNS name that both stacks share");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_new_build_gets_a_stack_of_its_own_and_the_answers_in_steps() {
    let operator = serving();
    operator.world(|world| world.groups.get_mut("").unwrap().resize("", "1", "3", ""));
    operator.content("2");
    let _ = deploy(&operator, &["update-stack"], "2")
        .expect(0)
        .says("stack glovo-app-green is filled with 3 machines")
        .says("10, 50, 100 % of the traffic")
        .says("green (build 2) receives 50 % of the traffic")
        .says("blue (build 1) keeps 1 machine")
        .says("every serving target runs build 2");
    let calls = operator.calls();
    let made = of(&calls, "CreateChangeSet")[0];
    assert_eq!((made.get("StackName"), made.get("ChangeSetType")), ("glovo-app-green", "CREATE"));
    for (name, value) in [("VersionId", "2"), ("Weight", "0"), ("DesiredCapacity", "3"), ("HealthCheckPath", "/health")]
    {
        assert_eq!(made.parameter(name), Some(value), "{name}");
    }
    let steps = [["green", "10"], ["blue", "90"], ["green", "50"], ["blue", "50"], ["green", "100"], ["blue", "0"]];
    assert_eq!(moves(&calls)[..6], steps, "what gets more first");
    let sizes = |world: &mut World| ["DesiredCapacity", "MinSize"].map(|name| world.parameters[name].clone());
    assert_eq!(operator.world(sizes), ["1", "1"]);
    assert_eq!(operator.tape.other_world(sizes), ["3", "1"], "it was held at 3 while it had little traffic");
    assert_eq!(made.parameter("MinSize"), Some("3"));
    let _ = asks(&operator, "drift").expect(0).says("stack glovo-app-blue").says("no drift");
    let shown = asks(&operator, "status").expect(0);
    let _ = shown.says("blue   build 1, 0 % of the traffic").says("green  build 2, 100 % of the traffic");
}

#[test]
fn the_third_build_goes_into_the_stack_that_was_kept() {
    let operator = serving_twice();
    operator.content("3");
    let told = deploy(&operator, &["update-stack", "--parameter", "HealthCheckPath=/ready"], "3").expect(0);
    let _ = told.says("every serving target runs build 3");
    let calls = operator.calls();
    let filled = of(&calls, "CreateChangeSet")[0];
    assert_eq!((filled.get("StackName"), filled.get("ChangeSetType")), ("glovo-app-blue", "UPDATE"));
    assert_eq!((filled.parameter("Weight"), filled.parameter("HealthCheckPath")), (Some("0"), Some("/ready")));
    assert_eq!(weights(&operator), ["100", "0"]);
}

#[test]
fn the_same_build_changes_nothing_and_a_used_one_is_refused() {
    let operator = serving_twice();
    let _ = deploy(&operator, &["update-stack"], "2").expect(0).says("no changes: glovo-app-green is as declared");
    operator.content("3");
    let told = deploy(&operator, &["update-stack"], "1").expect(2);
    let _ = told.says("build 1 is not newer than build 2 of the stack glovo-app");
    assert!(of(&operator.calls(), "ExecuteChangeSet").is_empty());
}

#[test]
fn a_rollback_waits_for_cloudformation_then_moves_weights() {
    let operator = serving_twice();
    operator.tape.other_world(|world| {
        world.state = "UPDATE_IN_PROGRESS";
        let busy = Scene("UPDATE_IN_PROGRESS", vec![]);
        world.then([busy.clone(), busy.clone(), busy, Scene("UPDATE_COMPLETE", vec![])]);
    });
    let _ = deploy(&operator, &["rollback", "--now"], "2")
        .expect(0)
        .says("waiting for CloudFormation: the stack glovo-app-green is UPDATE_IN_PROGRESS")
        .says("all traffic is on blue (build 1) again, with 1 healthy machine so far")
        .says("blue (build 1) grows to 2 machines, as many as green has")
        .says("rollback complete: blue (build 1)");
    assert_eq!(moves(&operator.calls())[..2], [["blue", "100"], ["green", "0"]]);
    assert_eq!(weights(&operator), ["100", "0"]);
}

#[test]
fn a_machine_that_fails_under_traffic_sends_all_answers_back() {
    let operator = serving();
    operator.content("2");
    operator.tape.other_world(|world| {
        let healthy = || vec!["healthy", "healthy"];
        // Before any traffic, at 10, 50 and 100 %.
        let rows = [healthy(), healthy(), healthy(), vec!["healthy", "unhealthy"]];
        let _ = world.health.insert("", rows.into());
    });
    let told = deploy(&operator, &["update-stack"], "2").expect(1);
    let _ = told.says("all traffic is on blue (build 1)").says("only 1 of 2 machines stayed healthy");
    let calls = operator.calls();
    assert_eq!(moves(&calls)[4..], [["green", "100"], ["blue", "0"], ["blue", "100"], ["green", "0"]]);
    let blue = operator.world(|world| world.groups[""].clone());
    assert_eq!((blue.min, blue.desired, blue.scheduled), (1, 2, None), "blue keeps its machines");
}

#[test]
fn a_stack_that_fails_leaves_the_other_alone_and_is_named() {
    let operator = serving();
    operator.content("2");
    let failed = ("Group", "AWS::AutoScaling::AutoScalingGroup", "CREATE_FAILED", "Received 1 FAILURE signal(s)");
    operator.tape.other_world(|world| {
        world.plot = vec![Scene("ROLLBACK_IN_PROGRESS", vec![failed]), Scene("ROLLBACK_COMPLETE", vec![])];
    });
    let way_out = "glovo-bootstrap deploy delete-stack --stack glovo-app-green --strategy weighted-dns";
    let _ = deploy(&operator, &["update-stack"], "2")
        .expect(1)
        .says("the stack glovo-app-green is ROLLBACK_COMPLETE")
        .says("Received 1 FAILURE signal(s)")
        .says(way_out);
    assert_eq!(operator.parameter("Weight"), "100");
    let _ = deploy(&operator, &["update-stack"], "2").expect(1).says(way_out);
    drop(operator.calls());
    let one = ["delete-stack", "--yes", "--stack", "glovo-app-green", "--strategy", "weighted-dns"];
    let _ = operator.deploy(&one, &[]).expect(0).says("the stack glovo-app-green is deleted");
    let calls = operator.calls();
    assert!(of(&calls, "DeleteStack").iter().all(|call| call.get("StackName").contains("glovo-app-green")));
    let _ = deploy(&operator, &["update-stack"], "2").expect(0).says("every serving target runs build 2");
}

/// Returns an operator whose green stack has build 2 and 10 % of the traffic.
fn left() -> (Operator, Finished) {
    let operator = serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    // Before any traffic, then at 10 %.
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, turn]);
    let variables = [("BUILD_NUMBER", "2"), ("DNSRECORD", "app.example.com"), ("AMIID", "ami-3")];
    let arguments = [&["update-stack", "--yes", "--pause", "1m"], STRATEGY.as_slice()].concat();
    let running = operator.start(&arguments, &variables);
    meeting.then(|| running.signal(Signal::SIGINT));
    let told = running.finish().expect(130);
    drop(operator.calls());
    (operator, told)
}

#[test]
fn a_detachment_tells_how_to_continue_with_this_strategy() {
    let (operator, told) = left();
    let _ = told
        .says("green (build 2) receives 10 % of the traffic")
        .says("to roll back: glovo-bootstrap deploy rollback --build 1 --stack glovo-app --strategy weighted-dns");
    assert_eq!(weights(&operator), ["90", "10"], "the share stays");
    let _ = asks(&operator, "watch").expect(0).says("to switch to green (build 2)");
    let on = ["rollback", "--build", "2", "--stack", "glovo-app-green", "--pause", "0s", "--yes"];
    let _ =
        operator.deploy(&[&on, STRATEGY.as_slice()].concat(), &[]).expect(0).says("rollback complete: green (build 2)");
    assert_eq!(weights(&operator), ["0", "100"]);
}

#[test]
fn the_same_command_goes_on_with_the_machines_that_there_are() {
    let (operator, _) = left();
    let arguments = [&["update-stack", "--yes", "--pause", "0s"], STRATEGY.as_slice()].concat();
    let variables = [("BUILD_NUMBER", "2"), ("DNSRECORD", "app.example.com"), ("AMIID", "ami-3")];
    let told = operator.deploy(&arguments, &variables).expect(0);
    let _ = told.says("glovo-app-green already runs this build").says("every serving target runs build 2");
    let calls = operator.calls();
    assert!(of(&calls, "ExecuteChangeSet").is_empty(), "nothing is made again");
    assert_eq!(moves(&calls)[..2], [["green", "50"], ["blue", "50"]]);
    let green = operator.tape.other_world(|world| ["VersionId", "AMIId"].map(|name| world.parameters[name].clone()));
    assert_eq!(green, ["2", "ami-3"]);
}

#[test]
fn a_third_build_does_not_replace_machines_that_have_users() {
    let (operator, _) = left();
    operator.content("3");
    let told = deploy(&operator, &["update-stack"], "3").expect(4);
    let _ = told.says("green (build 2) receives 10 % of the traffic: another deploy is running or was interrupted");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn what_both_stacks_have_in_common_can_t_change_in_one() {
    let operator = serving();
    operator.content("2");
    let arguments =
        [&["update-stack", "--yes", "--parameter", "IpAddressType=dualstack"], STRATEGY.as_slice()].concat();
    let _ =
        operator.deploy(&arguments, &[("BUILD_NUMBER", "2")]).expect(2).says("IpAddressType cannot change from ipv4");
    let other = [&["update-stack", "--yes"], STRATEGY.as_slice()].concat();
    let told = operator.deploy(&other, &[("BUILD_NUMBER", "2"), ("DNSRECORD", "b.example.com")]).expect(2);
    let _ = told.says("DNSRecord cannot change from app.example.com to b.example.com: both stacks share it");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_stack_that_is_left_alone_has_all_users_whatever_its_weight() {
    let operator = serving_twice();
    let one = ["delete-stack", "--yes", "--stack", "glovo-app-green", "--strategy", "weighted-dns"];
    let _ = operator.deploy(&one, &[]).expect(0).says("it receives 100 % of the traffic");
    let _ = asks(&operator, "status").expect(0).says("blue   build 1, 100 % of the traffic");
    let _ = deploy(&operator, &["update-stack"], "3").expect(0).says("every serving target runs build 3");
}

#[test]
fn a_stack_that_only_has_the_plain_name_is_another_one() {
    let operator = Operator::serving();
    operator.world(|world| world.parameters.clear());
    let told = operator.deploy(&[&["delete-stack", "--yes"], STRATEGY.as_slice()].concat(), &[]).expect(1);
    let _ = told.says("stack glovo-app-blue does not exist");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn both_stacks_go_together() {
    let operator = serving_twice();
    let told = operator.deploy(&[&["delete-stack", "--yes"], STRATEGY.as_slice()].concat(), &[]).expect(0);
    let _ = told.says("the stack glovo-app-blue is deleted").says("the stack glovo-app-green is deleted");
    let next = asks(&operator, "diagnose").expect(0);
    let _ = next.says("glovo-bootstrap deploy create-stack --stack glovo-app-blue --strategy weighted-dns");
}

#[test]
fn the_own_alarm_of_the_new_stack_sends_all_answers_back() {
    let operator = serving();
    operator.content("2");
    let alarm = "glovo-app-green-ErrorAlarm";
    // Before any traffic, at 10, 50 and 100 %.
    let rows = [("OK", ""), ("OK", ""), ("OK", ""), ("ALARM", "slow")];
    operator.tape.other_world(|world| _ = world.alarms.insert(alarm, rows.into()));
    let told = deploy(&operator, &["update-stack", "--parameter", "MaxErrors=10"], "2").expect(1);
    let _ =
        told.says("alarm glovo-app-green-ErrorAlarm is in the state ALARM").says("all traffic is on blue (build 1)");
    assert_eq!(moves(&operator.calls())[4..], [["green", "100"], ["blue", "0"], ["blue", "100"], ["green", "0"]]);
}

#[test]
fn another_scheme_is_for_a_new_stack_only() {
    let operator = serving();
    operator.content("2");
    // The stack of green is new: it may have another scheme than that of blue.
    let internal = ["update-stack", "--parameter", "Scheme=internal"];
    let _ = deploy(&operator, &internal, "2").expect(0).says("every serving target runs build 2");
    let schemes = || {
        let of = |world: &mut World| world.parameters["Scheme"].clone();
        [operator.world(of), operator.tape.other_world(of)]
    };
    assert_eq!(schemes(), ["internet-facing", "internal"]);
    drop(operator.calls());
    // Blue would take over the scheme of green.
    operator.content("3");
    let refused = deploy(&operator, &["update-stack"], "3").expect(2);
    let _ = refused
        .says("the balancer of stack glovo-app-blue is internet-facing, and stays so: Scheme=internal")
        .says("and deploy again: glovo-bootstrap deploy delete-stack --stack glovo-app-blue --strategy weighted-dns");
    assert!(changes(&operator.calls()).is_empty());
    let delete = ["delete-stack", "--yes", "--stack", "glovo-app-blue", STRATEGY[0], STRATEGY[1]];
    let _ = operator.deploy(&delete, &[]).expect(0);
    let _ = deploy(&operator, &["update-stack"], "3").expect(0).says("every serving target runs build 3");
    assert_eq!(schemes(), ["internal", "internal"]);
}

#[test]
fn a_verb_without_the_strategy_names_it() {
    let operator = serving();
    for verb in ["history", "drift", "delete-stack", "watch", "status"] {
        let told = operator.deploy(&[verb], &[]).expect(2);
        let _ = told
            .says("the stack glovo-app-blue has the strategy weighted-dns, not blue-green")
            .says("pass --strategy weighted-dns --stack glovo-app");
    }
    assert!(changes(&operator.calls()).is_empty());
}
