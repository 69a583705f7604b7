//! Throttling, lost connections, Ctrl-C.

use nix::sys::signal::Signal;

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Meeting, Turn, changes, of, shares},
    world::Scene,
};

fn throttled() -> Turn {
    Turn::Refusal(400, "Throttling", "Rate exceeded")
}

/// Runs an update that gets SIGINT while it waits for the answer to a call of this operation, after these turns.
fn interrupted_at(operator: &Operator, operation: &str, turns: usize) -> Finished {
    let (meeting, turn) = Meeting::new();
    operator.tape.script(operation, (0..turns).map(|_| Turn::Usual).chain([turn]));
    let update = operator.start(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| update.signal(Signal::SIGINT));
    update.finish()
}

/// Deploys a build without a second attempt of any call, once something has changed.
fn hasty(operator: &Operator, build: &str) -> Finished {
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--keep-for", "0s", "--patience", "0s"];
    operator.deploy(&hasty, &[("BUILD_NUMBER", build)])
}

#[test]
fn throttled_polling_goes_on() {
    let operator = Operator::serving();
    operator.content("2");
    // The first request for events comes before the change.
    let throttle = |first: usize| (0..first).map(|_| Turn::Usual).chain((0..6).map(|_| throttled()));
    operator.tape.script("DescribeStackEvents", throttle(1));
    let told = hasty(&operator, "2").expect(0).says("every serving target runs build 2");
    assert!(told.stderr.contains("AWS does not answer, still trying"), "{}", told.stderr);
    assert_eq!(of(&operator.calls(), "ExecuteChangeSet").len(), 1);
    operator.content("3");
    operator.tape.script("DescribeStacks", throttle(1));
    let _ = hasty(&operator, "3").expect(0).says("every serving target runs build 3");
    assert_eq!(of(&operator.calls(), "ExecuteChangeSet").len(), 1);
}

#[test]
fn a_silent_balancer_costs_a_healthy_build_no_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    // The first check succeeds. Then, at the first share, the balancer is silent for longer than the retries of a call.
    operator.tape.script("DescribeTargetHealth", std::iter::once(Turn::Usual).chain((0..6).map(|_| throttled())));
    let told = hasty(&operator, "2").expect(0).says("every serving target runs build 2");
    let lines = |words: &str| told.stderr.lines().filter(|line| line.contains(words)).count();
    assert_eq!((lines("does not answer"), lines("AWS answers again, after ")), (1, 1), "{}", told.stderr);
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"], ["0", "100"]]);
}

#[test]
fn a_silence_at_a_share_ends_the_deploy_at_its_limit() {
    let operator = Operator::serving();
    operator.content("2");
    let silence = || std::iter::once(Turn::Usual).chain((0..6).map(|_| throttled()));
    operator.tape.script("DescribeTargetHealth", silence());
    let update = ["update-stack", "--yes", "--pause", "0s", "--patience", "0s", "--health-timeout", "0s"];
    let _ = operator
        .deploy(&update, &[("BUILD_NUMBER", "2")])
        .expect(75)
        .says("the deploy stopped; stack glovo-app: green (build 2) receives 10 % of the traffic")
        .says("caused by: AWS has not told for 0 ms whether the new build is healthy")
        .says("Throttling: Rate exceeded")
        .says("hint: to continue, run the same command again; to roll back: glovo-bootstrap deploy rollback --build 1");
    assert_eq!(shares(&operator.calls()), [["90", "10"]]);
    operator.tape.forget_script();
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
}

#[test]
fn lost_connections_are_survived() {
    let operator = Operator::serving();
    operator.content("2");
    for operation in ["DescribeStacks", "DescribeStackEvents", "DescribeTargetHealth", "ModifyListener"] {
        operator.tape.script(operation, [Turn::Usual, Turn::Lost, Turn::Unanswered]);
    }
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    assert_eq!(shares(&operator.calls()).last(), Some(&["0", "100"]));
}

#[test]
fn a_change_with_a_lost_answer_is_requested_again_as_the_same() {
    let operator = Operator::serving();
    operator.content("2");
    let tokens = [
        ("CreateChangeSet", "ClientToken"),
        ("ExecuteChangeSet", "ClientRequestToken"),
        ("UpdateStack", "ClientRequestToken"),
    ];
    for (operation, _) in tokens {
        operator.tape.script(operation, [Turn::Unanswered]);
    }
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    let calls = operator.calls();
    for (operation, token) in tokens {
        let asked = of(&calls, operation);
        assert_eq!(asked.len(), 2, "{operation}");
        assert!(!asked[0].get(token).is_empty(), "{operation}");
        assert_eq!(asked[0].parameters, asked[1].parameters, "{operation}");
    }
}

#[test]
fn ctrl_c_detaches_and_says_how_to_attach_again() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.plot = vec![Scene("UPDATE_IN_PROGRESS", vec![])]);
    let _ = interrupted_at(&operator, "DescribeStackEvents", 2)
        .expect(130)
        .says("detached; CloudFormation keeps working on glovo-app")
        .says("hint: glovo-bootstrap deploy watch --stack glovo-app");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet"]);

    let event = ("GreenGroup", "AWS::AutoScaling::AutoScalingGroup", "CREATE_COMPLETE", "");
    operator.world(|world| world.then([Scene("UPDATE_IN_PROGRESS", vec![event]), Scene("UPDATE_COMPLETE", vec![])]));
    let on = "blue (build 1) is serving; to switch to green (build 2), run update-stack again; to switch at once: glovo-bootstrap deploy rollback --build 2";
    let _ = operator.deploy(&["watch"], &[]).expect(0).says("GreenGroup").says("UPDATE_COMPLETE").says(on);
    assert!(changes(&operator.calls()).is_empty());
    let _ = operator.deploy(&["rollback", "--build", "2"], &[]).expect(0).says("rollback complete: green (build 2)");
}

#[test]
fn watching_ends_with_what_the_stack_ends_with() {
    let operator = Operator::serving();
    operator.world(|world| {
        world.enter(Scene("UPDATE_IN_PROGRESS", vec![]));
        let failed = ("GreenGroup", "AWS::AutoScaling::AutoScalingGroup", "CREATE_FAILED", "no capacity");
        world.then([Scene("UPDATE_IN_PROGRESS", vec![failed]), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])]);
    });
    let told = operator.deploy(&["watch"], &[]).expect(1).says("caused by: GreenGroup (CREATE_FAILED): no capacity");
    assert!(!told.stdout.contains("CREATE_COMPLETE"), "what was before is not shown: {}", told.stdout);
    // The deploy has ended. The next one sees the same state.
    let _ = operator.deploy(&["watch"], &[]).expect(1).says("no capacity");
}

#[test]
fn ctrl_c_before_the_traffic_moves_leaves_it_where_it_is() {
    let operator = Operator::serving();
    operator.content("2");
    operator.health("Green", [vec!["initial", "initial"]]);
    let _ = interrupted_at(&operator, "DescribeTargetHealth", 3)
        .expect(130)
        .says("green (build 2) receives 0 % of the traffic");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet", "PutScheduledUpdateGroupAction"]);
}

#[test]
fn ctrl_c_between_two_shares_leaves_them_and_names_both_ways() {
    let operator = Operator::serving();
    operator.content("2");
    // Before any traffic, then at 10 %.
    let _ = interrupted_at(&operator, "DescribeTargetHealth", 1)
        .expect(130)
        .says("green (build 2) receives 10 % of the traffic")
        .says("to continue, run the same command again")
        .says("to roll back: glovo-bootstrap deploy rollback --build 1");
    assert_eq!(shares(&operator.calls()), [["90", "10"]]);
    let _ = operator.deploy(&["rollback", "--build", "2"], &[]).expect(0).says("rollback complete: green (build 2)");
    assert_eq!(shares(&operator.calls()), [["0", "100"]]);
    let _ = operator.deploy(&["drift"], &[]).expect(0);
}

#[test]
fn ctrl_c_after_the_rollback_of_traffic_names_the_rest() {
    let operator = Operator::serving_twice();
    let (meeting, turn) = Meeting::new();
    operator.tape.script("UpdateAutoScalingGroup", [turn]);
    let running = operator.start(&["rollback"], &[]);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running
        .finish()
        .expect(130)
        .says("detached from glovo-app: blue (build 1) receives 33 % of the traffic; its machine counts and parameters")
        .says("to continue: glovo-bootstrap deploy rollback --build 1 --stack glovo-app")
        .says("to move all traffic at once: glovo-bootstrap deploy rollback --now --build 1 --stack glovo-app");
    let _ = operator.deploy(&["rollback", "--build", "1"], &[]).expect(0).says("rollback complete: blue (build 1)");
    let _ = operator.deploy(&["drift"], &[]).expect(0);
}

#[test]
fn the_line_of_a_retry_says_the_reason() {
    let operator = Operator::serving();
    operator.content("2");
    operator.tape.script("ModifyListener", [throttled(), Turn::Lost]);
    let said = operator.update("2").expect(0).stderr;
    for reason in ["Throttling: Rate exceeded (HTTP 400, request id r-1)", "connection closed before message completed"]
    {
        let is_it = |line: &str| line.contains("for elasticloadbalancing ModifyListener") && line.contains(reason);
        assert!(said.lines().any(is_it), "{reason}: {said}");
    }
}

#[test]
fn a_silent_cloudformation_ends_the_watch_at_its_limit() {
    let operator = Operator::serving();
    operator.content("2");
    let silence = |usual: usize| (0..usual).map(|_| Turn::Usual).chain((0..9).map(|_| throttled()));
    operator.tape.script("DescribeStackEvents", silence(1));
    let update = ["update-stack", "--yes", "--pause", "0s", "--patience", "0s", "--health-timeout", "0s"];
    let _ = operator
        .deploy(&update, &[("BUILD_NUMBER", "2")])
        .expect(75)
        .says("this command stops watching; CloudFormation keeps working on glovo-app")
        .says("caused by: AWS has not told for 0 ms what the stack does")
        .says("Throttling: Rate exceeded")
        .says("hint: glovo-bootstrap deploy watch --stack glovo-app");
    operator.tape.forget_script();
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet"]);
    operator.world(|world| world.then([Scene("UPDATE_IN_PROGRESS", vec![]), Scene("UPDATE_COMPLETE", vec![])]));
    operator.tape.script("DescribeStackEvents", silence(1));
    let watch = operator.deploy(&["watch", "--health-timeout", "0s"], &[]).expect(75);
    let _ = watch.says("this command stops watching").says("AWS has not told for 0 ms what the stack does");
    operator.tape.forget_script();
    let _ = operator.deploy(&["watch"], &[]).expect(0);
}

#[test]
fn a_silent_cloudformation_keeps_deleting() {
    let operator = Operator::serving();
    let _ = operator.sandbox.write("deploy.toml", "patience = \"0s\"\nhealth_timeout = \"0s\"\n");
    operator.tape.script("DescribeStackEvents", [Turn::Usual].into_iter().chain((0..9).map(|_| throttled())));
    let _ = operator
        .deploy(&["delete-stack", "--yes"], &[])
        .expect(75)
        .says("this command stops watching; CloudFormation keeps deleting glovo-app")
        .says("caused by: AWS has not told for 0 ms what the stack does")
        .says("hint: glovo-bootstrap deploy watch --stack glovo-app");
    assert_eq!(changes(&operator.calls()), ["DeleteStack"]);
}

#[test]
fn a_silent_slot_on_the_way_back_keeps_its_share() {
    let operator = Operator::serving_twice();
    operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "1", "3", ""));
    // Of both target groups the first look succeeds. Then that of the slot that serves is silent, while blue grows.
    operator.tape.script(
        "DescribeTargetHealth",
        [Turn::Usual, Turn::Usual, Turn::Usual].into_iter().chain((0..6).map(|_| throttled())),
    );
    let told = operator.deploy(&["rollback", "--pause", "0s"], &[]).expect(0);
    let _ = told.says("rollback complete: blue (build 1) serves all traffic");
    let calls = operator.calls();
    let steps = shares(&calls);
    assert_eq!(steps.first(), Some(&["25", "75"]), "{steps:?}");
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1] || pair[1] == ["100", "0"]), "{steps:?}");
    assert!(operator.tape.highest_load() <= 50, "{}", operator.tape.highest_load());
}
