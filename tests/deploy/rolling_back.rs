//! Rolling back.

use crate::{
    operator::Operator,
    rolling_out::left_at,
    tape::{Call, Turn, changes, names, of, shares},
    world::{GREEN, Scene, World},
};

/// Returns the number of calls until the other build serves the traffic.
fn calls_until_users_are_back(calls: &[Call]) -> usize {
    calls.iter().position(|call| call.operation == "ModifyListener").unwrap() + 1
}

#[test]
fn traffic_is_back_on_the_old_build_after_four_calls() {
    let operator = Operator::serving_twice();
    let _ = operator
        .deploy(&["rollback", "--now"], &[])
        .expect(0)
        .says("all traffic is on blue (build 1) again, with 1 healthy machine so far")
        .says("blue (build 1) grows to 2 machines, as many as green has")
        .says("rollback complete: blue (build 1)");
    let calls = operator.calls();
    assert_eq!(calls_until_users_are_back(&calls), 4, "{:?}", names(&calls));
    assert_eq!(shares(&calls), [["100", "0"]]);
    let sizes: Vec<[&str; 2]> = of(&calls, "UpdateAutoScalingGroup")
        .iter()
        .map(|call| ["MinSize", "DesiredCapacity"].map(|name| call.get(name)))
        .collect();
    assert_eq!(sizes, [["2", "2"], ["1", ""], ["1", "1"]], "blue grows and may shrink, green is kept at one");
    let followed = of(&calls, "UpdateStack")[0];
    for (name, value) in
        [("BlueWeight", "100"), ("GreenWeight", "0"), ("BlueDesiredCapacity", "2"), ("GreenDesiredCapacity", "1")]
    {
        assert_eq!(followed.parameter(name), Some(value), "{name}");
    }
    let _ = operator.deploy(&["drift"], &[]).expect(0).says("no drift");
}

#[test]
fn traffic_is_back_at_once_even_if_cloudformation_is_busy() {
    let operator = Operator::serving_twice();
    operator.world(|world| {
        world.state = "UPDATE_IN_PROGRESS";
        world.then([
            Scene("UPDATE_IN_PROGRESS", vec![]),
            Scene("UPDATE_IN_PROGRESS", vec![]),
            Scene("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", vec![]),
            Scene("UPDATE_COMPLETE", vec![]),
        ]);
    });
    let told = operator.deploy(&["rollback", "--now"], &[]).expect(0);
    let calls = operator.calls();
    assert_eq!(calls_until_users_are_back(&calls), 4, "{:?}", names(&calls));
    let at = |words: &str| told.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", told.stdout));
    assert!(at("all traffic is on blue") < at("waiting for CloudFormation: the stack glovo-app is UPDATE_IN_PROGRESS"));
    assert!(at("waiting for CloudFormation") < at("updating the parameters of stack glovo-app"));
    assert_eq!(of(&calls, "UpdateStack").len(), 1, "it is not asked before it has time");
    assert_eq!(operator.parameter("BlueWeight"), "100");
}

#[test]
fn no_traffic_goes_to_a_build_that_does_not_answer() {
    let operator = Operator::serving_twice();
    operator.health("Blue", [vec!["unhealthy"]]);
    let _ = operator
        .deploy(&["rollback", "--health-timeout", "1s"], &[])
        .expect(1)
        .says("no machine of blue (build 1) is healthy");
    assert!(changes(&operator.calls()).is_empty());
    assert_eq!(operator.world(|world| world.weights[GREEN].clone()), "100");
}

#[test]
fn without_another_build_there_is_no_way_back() {
    let operator = Operator::serving();
    let _ = operator.deploy(&["rollback"], &[]).expect(1).says("the stack holds no other build than 1");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_build_can_be_named() {
    let operator = Operator::serving_twice();
    let _ = operator
        .deploy(&["rollback", "--now", "--build", "1"], &[])
        .expect(0)
        .says("rollback complete: blue (build 1)");
    let _ = operator
        .deploy(&["rollback", "--now", "--build", "2"], &[])
        .expect(0)
        .says("rollback complete: green (build 2)");
    assert_eq!(shares(&operator.calls()), [["100", "0"], ["0", "100"]]);
    let _ = operator
        .deploy(&["rollback", "--build", "9"], &[])
        .expect(2)
        .says("no slot holds build 9")
        .says("choose a build that a slot holds: 1 and 2");
    assert!(changes(&operator.calls()).is_empty());
}

/// An operator whose green slot serves build 2 on three machines; blue has one of build 1, as after `--keep-for`.
fn serving_on_three() -> Operator {
    let operator = Operator::serving_twice();
    operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "1", "3", ""));
    operator
}

#[test]
fn traffic_returns_by_the_number_of_healthy_machines() {
    let operator = serving_on_three();
    let rows = [vec!["healthy"], vec!["healthy", "initial", "initial"], vec!["healthy", "healthy", "initial"]];
    operator.health("Blue", rows.into_iter().chain([vec![]]));
    let told = operator.deploy(&["rollback"], &[]).expect(0);
    let at = |words: &str| told.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", told.stdout));
    let said = at("blue (build 1) has 1 healthy machine, green (build 2) has 3: 25 % of the traffic returns now");
    assert!(said < at("with 3.0 times the load for each machine: glovo-bootstrap deploy rollback --now --build 1"));
    assert!(said < at("blue (build 1) receives 25 % of the traffic, with 1 healthy machine"));
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["25", "75"], ["40", "60"], ["100", "0"]]);
    assert_eq!(operator.tape.highest_load(), 34, "as before, on three machines");
    let first = of(&calls, "PutScheduledUpdateGroupAction")[0];
    assert_eq!((first.get("MinSize"), first.get("DesiredCapacity")), ("1", ""), "a pin ends by itself");
    assert_eq!(operator.world(|world| world.groups["Blue"].min), 1);
}

#[test]
fn a_rollback_that_must_wait_for_machines_names_the_way_at_once() {
    let operator = left_at("50", "50");
    operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "1", "3", ""));
    let rows = [vec!["healthy"], vec!["healthy", "initial", "initial"], vec![]];
    operator.health("Blue", rows);
    let _ = operator
        .deploy(&["rollback"], &[])
        .expect(0)
        .says(
            "blue (build 1) has 1 healthy machine, green (build 2) has 3: it keeps 50 % of the traffic until it grows",
        )
        .says("with 3.0 times the load for each machine: glovo-bootstrap deploy rollback --now --build 1");
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
}

#[test]
fn a_whole_fleet_takes_all_traffic_back_at_once() {
    let operator = serving_on_three();
    operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "3", "3", ""));
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
}

#[test]
fn without_a_healthy_machine_elsewhere_all_traffic_returns_at_once() {
    let operator = serving_on_three();
    operator.health("Green", [vec!["unhealthy", "unhealthy", "unhealthy"]]);
    let _ = operator.deploy(&["rollback"], &[]).expect(0).says("all traffic is on blue (build 1) again");
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
}

#[test]
fn the_previous_fleet_stays_whole_for_a_time() {
    let operator = Operator::serving();
    operator.content("2");
    let _ = operator
        .deploy(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")])
        .expect(0)
        .says("blue (build 1) keeps 2 machines for 15 min 00 s, then 1, for deploy rollback");
    let blue = operator.world(|world| world.groups["Blue"].clone());
    assert_eq!((blue.machines.len(), blue.scheduled), (2, Some(("1".into(), "1".into()))));
    drop(operator.calls());
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    assert_eq!(shares(&operator.calls()), [["100", "0"]], "the way back carries the load");
    let blue = operator.world(|world| world.groups["Blue"].clone());
    assert_eq!((blue.min, blue.scheduled), (1, None), "what serves is not shrunk later");
}

#[test]
fn a_slot_that_is_to_shrink_later_keeps_the_next_build() {
    let operator = Operator::serving();
    for build in ["2", "3"] {
        operator.content(build);
        let _ = operator.deploy(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", build)]).expect(0);
    }
    operator.world(World::let_scheduled_time_come);
    let sizes = operator.world(|world| ["Blue", "Green"].map(|slot| world.groups[slot].machines.len()));
    assert_eq!(sizes, [2, 1], "build 3 is in blue");
}

#[test]
fn a_silent_balancer_is_no_reason_to_move_all_traffic_at_once() {
    let operator = serving_on_three();
    operator.health("Blue", [vec!["healthy"], vec![]]);
    // For blue, then for green.
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, Turn::Refusal(400, "Throttling", "Rate exceeded")]);
    let _ = operator.deploy(&["rollback", "--patience", "0s"], &[]).expect(0);
    assert!(operator.tape.highest_load() <= 50, "{:?}", shares(&operator.calls()));
}

#[test]
fn a_slot_that_takes_the_traffic_back_does_not_shrink_meanwhile() {
    let operator = Operator::serving();
    let update = ["update-stack", "--yes", "--pause", "0s"];
    let _ = operator.deploy(&update, &[("BUILD_NUMBER", "1"), ("MINSIZE", "2")]).expect(0);
    operator.content("2");
    let _ = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(0).says("blue (build 1) keeps 2 machines for");
    drop(operator.calls());
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    let calls = operator.calls();
    let before = names(&calls).into_iter().take_while(|name| *name != "ModifyListener").collect::<Vec<_>>();
    assert!(before.contains(&"DeleteScheduledAction"), "the action that would shrink it goes first: {before:?}");
    assert!(!operator.tape.was_endangered());
}

#[test]
fn without_an_answer_of_the_group_users_go_back_first() {
    let operator = Operator::serving();
    operator.content("2");
    let _ = operator.deploy(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")]).expect(0);
    drop(operator.calls());
    let throttled = || Turn::Refusal(400, "Throttling", "Rate exceeded");
    operator.tape.script("DeleteScheduledAction", (0..6).map(|_| throttled()));
    let _ = operator.deploy(&["rollback", "--patience", "0s"], &[]);
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
}

#[test]
fn a_slot_with_a_smaller_largest_size_grows_past_it() {
    let operator = Operator::serving_twice();
    operator.world(|world| {
        let green = world.groups.get_mut("Green").unwrap();
        green.max = 10;
        green.resize("Green", "1", "10", "");
        world.groups.get_mut("Blue").unwrap().max = 4;
        let _ = world.parameters.insert("BlueMaxSize".into(), "4".into());
    });
    let _ = operator
        .deploy(&["rollback", "--health-timeout", "5s"], &[])
        .expect(0)
        .says("blue (build 1) grows to 10 machines, as many as green has; its largest size rises from 4 to 10")
        .says("rollback complete: blue (build 1) serves all traffic");
    assert_eq!(operator.world(|world| (world.groups["Blue"].max, world.groups["Blue"].desired)), (10, 10));
    assert_eq!(operator.parameter("BlueMaxSize"), "10", "the next update keeps it");
}

#[test]
fn the_previous_fleet_stays_whole_for_as_long_as_the_new_one_is_watched() {
    let operator = Operator::serving();
    operator.content("2");
    let plan = ["plan", "--watch", "40m"];
    let _ = operator.deploy(&plan, &[("BUILD_NUMBER", "2")]).expect(0).says("blue then keeps its machines for 40 min");
    let short = ["plan", "--watch", "40m", "--keep-for", "10m"];
    let _ = operator.deploy(&short, &[("BUILD_NUMBER", "2")]).expect(2).says("--keep-for is shorter than --watch");
}
