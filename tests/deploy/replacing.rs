//! CloudFormation replaces a group only if it has a machine. Otherwise it updates the group in place, and waits for no
//! signal: <https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1475>.

use crate::{
    operator::Operator,
    tape::{changes, of, shares},
    world::{BLUE, group_name},
};

/// Returns an operator whose idle slot, with build 1, has no machines.
fn with_empty_idle_slot() -> Operator {
    let operator = Operator::serving_twice();
    operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "0", "0", ""));
    operator.content("3");
    operator
}

#[test]
fn an_idle_group_without_machines_gets_one_before_its_update() {
    let operator = with_empty_idle_slot();
    let told = operator.update("3").expect(0);
    let words = "the group glovo-app-BlueGroup-1ABC has no machine: one is started, because CloudFormation \
                 would wait for no signal";
    assert!(told.stdout.contains(words), "{}", told.stdout);
    let calls = operator.calls();
    let begun: Vec<&str> = changes(&calls).into_iter().take(4).collect();
    assert_eq!(begun, ["CreateChangeSet", "DeleteScheduledAction", "UpdateAutoScalingGroup", "ExecuteChangeSet"]);
    let grown = of(&calls, "UpdateAutoScalingGroup")[0];
    assert_eq!((grown.get("DesiredCapacity"), grown.get("MinSize")), ("1", ""));
    assert_eq!(operator.world(|world| world.group_name("Blue")), "glovo-app-BlueGroup-2ABC");
    assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
}

#[test]
fn a_group_that_loses_its_machine_meanwhile_gets_no_traffic() {
    let operator = Operator::serving_twice();
    operator.content("3");
    operator.world(|world| world.loses_machines_at_update = true);
    let _ = operator
        .update("3")
        .expect(1)
        .says("CloudFormation updated the group glovo-app-BlueGroup-1ABC in place, and waited for no signal")
        .says("to have the machines signal, deploy under BUILD_NUMBER=4; to continue by their health alone");
    assert!(shares(&operator.calls()).is_empty());
    // The operator knows it now.
    let _ = operator.update("3").expect(0);
}

#[test]
fn a_group_that_starts_no_machine_does_not_block_the_next_build() {
    let operator = with_empty_idle_slot();
    operator.world(|world| world.groups.get_mut("Blue").unwrap().desired = 1);
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "100ms"];
    let _ = operator
        .deploy(&hasty, &[("BUILD_NUMBER", "3")])
        .expect(1)
        .says("note: the group glovo-app-BlueGroup-1ABC has no machine in service after 100 ms")
        .says("in place, and waited for no signal");
    operator.content("4");
    let _ = operator.update("4").expect(0).says("every serving target runs build 4");
}

#[test]
fn a_group_with_machines_is_left_alone() {
    let operator = Operator::serving_twice();
    operator.content("3");
    let _ = operator.update("3").expect(0);
    assert_eq!(changes(&operator.calls())[..3], ["CreateChangeSet", "DeleteScheduledAction", "ExecuteChangeSet"]);
    assert_ne!(operator.world(|world| world.group_name("Blue")), group_name("Blue"));
}

#[test]
fn machines_of_another_build_are_not_counted_in_a_rollback() {
    let operator = Operator::serving_twice();
    operator.world(|world| {
        let _ = world.strays.insert("Blue", vec![("i-stray".into(), "0".into())]);
    });
    operator.health("Blue", [vec!["unhealthy", "healthy"]]);
    let _ = operator.deploy(&["rollback"], &[]).expect(1).says("no machine of blue (build 1) is healthy");
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn machines_of_another_build_give_a_new_build_no_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let strays = ["i-stray1", "i-stray2"].map(|id| (id.to_owned(), "0".to_owned()));
        let _ = world.strays.insert("Green", strays.into());
    });
    operator.health("Green", [vec!["initial", "initial", "healthy", "healthy"]]);
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "100ms"];
    let _ = operator.deploy(&hasty, &[("BUILD_NUMBER", "2")]).expect(1).says("0 of 2 machines are healthy after");
    assert!(shares(&operator.calls()).is_empty());
}
