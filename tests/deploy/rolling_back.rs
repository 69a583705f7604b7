//! Rolling back.

use crate::{
    operator::Operator,
    tape::{Call, changes, names, of, shares},
    world::{GREEN, Scene},
};

/// Returns the number of calls until the other build serves the traffic.
fn calls_until_users_are_back(calls: &[Call]) -> usize {
    calls.iter().position(|call| call.operation == "ModifyListener").unwrap() + 1
}

#[test]
fn traffic_is_back_on_the_old_build_after_three_calls() {
    let operator = Operator::serving_twice();
    let _ = operator
        .deploy(&["rollback"], &[])
        .expect(0)
        .says("all traffic is on blue (build 1) again, with 1 healthy machine so far")
        .says("blue (build 1) grows to 2 machines, as many as green has")
        .says("rollback complete: blue (build 1)");
    let calls = operator.calls();
    assert_eq!(calls_until_users_are_back(&calls), 3, "{:?}", names(&calls));
    assert_eq!(shares(&calls), [["100", "0"]]);
    assert_eq!(changes(&calls), ["ModifyListener", "UpdateAutoScalingGroup", "UpdateAutoScalingGroup", "UpdateStack"]);
    let sizes: Vec<&str> =
        of(&calls, "UpdateAutoScalingGroup").iter().map(|call| call.get("DesiredCapacity")).collect();
    assert_eq!(sizes, ["2", "1"], "blue grows, green is kept at one");
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
    let told = operator.deploy(&["rollback"], &[]).expect(0);
    let calls = operator.calls();
    assert_eq!(calls_until_users_are_back(&calls), 3, "{:?}", names(&calls));
    let at = |words: &str| told.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", told.stdout));
    assert!(at("all traffic is on blue") < at("waiting for CloudFormation: the stack glovo-app is UPDATE_IN_PROGRESS"));
    assert!(at("waiting for CloudFormation") < at("updating the parameters of stack glovo-app"));
    assert_eq!(of(&calls, "UpdateStack").len(), 1, "it is not asked before it has time");
    assert_eq!(operator.parameter("BlueWeight"), "100");
}

#[test]
fn no_traffic_goes_to_a_build_that_does_not_answer() {
    let operator = Operator::serving_twice();
    operator.world(|world| {
        let _ = world.health.insert("Blue", [vec!["unhealthy"]].into());
    });
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
    let _ = operator.deploy(&["rollback", "--build", "1"], &[]).expect(0).says("rollback complete: blue (build 1)");
    let _ = operator.deploy(&["rollback", "--build", "2"], &[]).expect(0).says("rollback complete: green (build 2)");
    assert_eq!(shares(&operator.calls()), [["100", "0"], ["0", "100"]]);
    let _ = operator
        .deploy(&["rollback", "--build", "9"], &[])
        .expect(2)
        .says("no slot holds build 9")
        .says("choose a build that a slot holds: 1 and 2");
    assert!(changes(&operator.calls()).is_empty());
}
