//! Two whole stacks behind the weighted records of one name.

use nix::sys::signal::Signal;

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Call, Meeting, changes, names, of, weight},
    world::Scene,
};

const STACKS: [&str; 2] = ["glovo-app-blue", "glovo-app-green"];
const STRATEGY: [&str; 2] = ["--strategy", "weighted-dns"];

fn deploy(operator: &Operator, arguments: &[&str], build: &str) -> Finished {
    let variables = [("BUILD_NUMBER", build), ("DNSRECORD", "app.example.com")];
    operator.deploy(&[arguments, &["--yes", "--pause", "0s"], &STRATEGY].concat(), &variables)
}

/// With build 1 in blue.
fn serving() -> Operator {
    let operator = Operator::of_two_stacks();
    let _ = deploy(&operator, &["create-stack", "--parameter", "HealthCheckPath=/health"], "1").expect(0);
    drop(operator.calls());
    operator
}

/// The same after build 2 has taken over.
fn serving_twice() -> Operator {
    let operator = serving();
    operator.content("2");
    let _ = deploy(&operator, &["update-stack"], "2").expect(0);
    drop(operator.calls());
    operator
}

/// What the records of both stacks got, call by call.
fn weights(calls: &[Call]) -> Vec<[String; 2]> {
    let of_stack = |call: &Call, stack| weight(call, stack).unwrap_or_else(|| "none".into());
    of(calls, "ChangeResourceRecordSets").into_iter().map(|call| STACKS.map(|stack| of_stack(call, stack))).collect()
}

/// The weights that the records have now.
fn records(operator: &Operator) -> [Option<String>; 2] {
    [operator.world(|world| world.record.clone()), operator.tape.other_world(|world| world.record.clone())]
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
    assert!(made.get("TemplateBody").contains(r##"Fn::Base64: "#!/bin/sh\necho content 1\n""##));
}

#[test]
fn without_a_name_there_is_nothing_to_share() {
    let operator = Operator::of_two_stacks();
    let arguments = [&["create-stack", "--yes"], STRATEGY.as_slice()].concat();
    let _ = operator.deploy(&arguments, &[]).expect(2).says("two stacks need a name that they share");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_new_build_gets_a_stack_of_its_own_and_the_answers_in_steps() {
    let operator = serving();
    operator.world(|world| world.groups.get_mut("").unwrap().resize("", "1", "3", ""));
    operator.content("2");
    let _ = deploy(&operator, &["update-stack"], "2")
        .expect(0)
        .says("the stack glovo-app-green is filled with 3 machines")
        .says("10, 50, 100 % of the answers of DNS")
        .says("green (build 2) takes 50 % of the traffic")
        .says("blue (build 1) keeps 1 machine")
        .says("every serving target runs build 2");
    let calls = operator.calls();
    let made = of(&calls, "CreateChangeSet")[0];
    assert_eq!((made.get("StackName"), made.get("ChangeSetType")), ("glovo-app-green", "CREATE"));
    for (name, value) in [("VersionId", "2"), ("Weight", "0"), ("DesiredCapacity", "3"), ("HealthCheckPath", "/health")]
    {
        assert_eq!(made.parameter(name), Some(value), "{name}");
    }
    assert_eq!(weights(&calls), [["90", "10"], ["50", "50"], ["0", "100"]]);
    let followed: Vec<_> = of(&calls, "UpdateStack")
        .into_iter()
        .map(|call| ["Weight", "DesiredCapacity"].map(|name| call.parameter(name).unwrap()))
        .collect();
    assert_eq!(followed, [["0", "1"], ["100", "3"]], "blue's, then green's");
    let _ = operator.deploy(&[&["drift"], STRATEGY.as_slice()].concat(), &[]).expect(0).says("no drift");
    let shown = operator.deploy(&[&["status"], STRATEGY.as_slice()].concat(), &[]).expect(0);
    let _ = shown.says("blue   build 1, 0 % of the traffic").says("green  build 2, 100 % of the traffic");
}

#[test]
fn the_build_after_that_goes_into_the_stack_that_was_kept_with_what_the_other_has() {
    let operator = serving_twice();
    operator.content("3");
    let told = deploy(&operator, &["update-stack", "--parameter", "HealthCheckPath=/ready"], "3").expect(0);
    let _ = told.says("every serving target runs build 3");
    let calls = operator.calls();
    let filled = of(&calls, "CreateChangeSet")[0];
    assert_eq!((filled.get("StackName"), filled.get("ChangeSetType")), ("glovo-app-blue", "UPDATE"));
    assert_eq!((filled.parameter("Weight"), filled.parameter("HealthCheckPath")), (Some("0"), Some("/ready")));
    assert_eq!(weights(&calls).last().unwrap(), &["100", "0"]);
}

#[test]
fn what_stays_the_same_changes_nothing_and_a_used_number_is_refused() {
    let operator = serving_twice();
    let _ = deploy(&operator, &["update-stack"], "2").expect(0).says("no changes: glovo-app-green is as declared");
    operator.content("3");
    let told = deploy(&operator, &["update-stack"], "1").expect(2);
    let _ = told.says("build 1 is not newer than build 2 of the stack glovo-app");
    assert!(of(&operator.calls(), "ExecuteChangeSet").is_empty());
}

#[test]
fn the_way_back_is_one_change_of_both_weights_also_while_cloudformation_is_busy() {
    let operator = serving_twice();
    operator.tape.other_world(|world| {
        world.state = "UPDATE_IN_PROGRESS";
        world.then([Scene("UPDATE_IN_PROGRESS", vec![]), Scene("UPDATE_COMPLETE", vec![])]);
    });
    let _ = deploy(&operator, &["rollback"], "2")
        .expect(0)
        .says("all traffic is on blue (build 1) again, 1 healthy machine so far")
        .says("blue (build 1) gets 2 machines, as many as green had")
        .says("users are on blue (build 1)");
    let calls = operator.calls();
    let until = calls.iter().position(|call| call.operation == "ChangeResourceRecordSets").unwrap() + 1;
    assert_eq!(until, 5, "{:?}", names(&calls));
    assert_eq!(weights(&calls), [["100", "0"]]);
    assert_eq!(records(&operator).map(Option::unwrap), ["100", "0"]);
    let _ = operator.deploy(&[&["drift"], STRATEGY.as_slice()].concat(), &[]).expect(0);
}

#[test]
fn a_machine_that_fails_under_traffic_sends_all_answers_back_also_after_the_last_step() {
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
    assert_eq!(weights(&calls), [["90", "10"], ["50", "50"], ["0", "100"], ["100", "0"]]);
    assert!(of(&calls, "UpdateAutoScalingGroup").is_empty(), "blue keeps its machines");
}

#[test]
fn a_stack_that_could_not_be_made_leaves_the_other_alone_and_is_named_with_the_way_out() {
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
    assert_eq!(records(&operator)[0].as_deref(), Some("100"));
    let _ = deploy(&operator, &["update-stack"], "2").expect(1).says(way_out);
    drop(operator.calls());
    let one = ["delete-stack", "--yes", "--stack", "glovo-app-green", "--strategy", "weighted-dns"];
    let _ = operator.deploy(&one, &[]).expect(0).says("the stack glovo-app-green is deleted");
    let calls = operator.calls();
    assert!(of(&calls, "DeleteStack").iter().all(|call| call.get("StackName").contains("glovo-app-green")));
    let _ = deploy(&operator, &["update-stack"], "2").expect(0).says("every serving target runs build 2");
}

#[test]
fn whoever_goes_is_told_how_to_go_on_with_this_strategy() {
    let operator = serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    operator.tape.script("ChangeResourceRecordSets", [turn]);
    let variables = [("BUILD_NUMBER", "2"), ("DNSRECORD", "app.example.com")];
    let arguments = [&["update-stack", "--yes", "--pause", "1m"], STRATEGY.as_slice()].concat();
    let running = operator.start(&arguments, &variables);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running
        .finish()
        .expect(130)
        .says("back: glovo-bootstrap deploy rollback --build 1 --stack glovo-app --strategy weighted-dns");
    assert_eq!(records(&operator)[0].as_deref(), Some("90"), "the share stays");
    let _ = operator
        .deploy(&[&["watch"], STRATEGY.as_slice()].concat(), &[])
        .expect(0)
        .says("to have green (build 2) take over");
    drop(operator.calls());
    let on = ["rollback", "--build", "2", "--stack", "glovo-app-green", "--pause", "0s", "--yes"];
    let _ = operator.deploy(&[&on, STRATEGY.as_slice()].concat(), &[]).expect(0).says("users are on green (build 2)");
    assert_eq!(weights(&operator.calls()), [["0", "100"]]);
}

#[test]
fn both_stacks_go_together() {
    let operator = serving_twice();
    let told = deploy(&operator, &["delete-stack"], "2").expect(0);
    let _ = told.says("the stack glovo-app-blue is deleted").says("the stack glovo-app-green is deleted");
    let next = operator.deploy(&[&["diagnose"], STRATEGY.as_slice()].concat(), &[]);
    let _ = next.says("glovo-bootstrap deploy create-stack --stack glovo-app");
}
