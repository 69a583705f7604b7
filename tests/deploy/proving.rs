//! The proof at the end of a deploy that moves no traffic.

use nix::sys::signal::Signal;

use crate::{
    operator::Operator,
    tape::{Meeting, changes},
};

const LATE: [&str; 2] = ["initial", "initial"];
const WELL: [&str; 2] = ["healthy", "healthy"];

#[test]
fn a_new_stack_is_proven_when_its_machines_are_healthy() {
    let operator = Operator::new();
    operator.health("Blue", [LATE.into(), vec!["healthy", "initial"], WELL.into()]);
    let _ = operator
        .deploy(&["create-stack", "--yes"], &[])
        .expect(0)
        .says("machine i-blue11: initial")
        .says("every serving target runs build 1");
}

#[test]
fn a_change_in_place_is_proven_when_its_machines_are_healthy() {
    let operator = Operator::serving_twice();
    operator.health("Green", [LATE.into(), WELL.into()]);
    let security = ["update-stack", "--yes", "--parameter", "InstanceSecurityGroups=sg-2"];
    let _ = operator.deploy(&security, &[("BUILD_NUMBER", "2")]).expect(0).says("every serving target runs build 2");
}

#[test]
fn a_stack_whose_machines_stay_sick_is_not_proven() {
    let operator = Operator::new();
    operator.health("Blue", [vec!["healthy", "unhealthy"]]);
    let _ = operator
        .deploy(&["create-stack", "--yes", "--health-timeout", "1s"], &[])
        .expect(1)
        .says("the stack is updated, but not every serving machine is healthy")
        .says("not healthy: i-blue11");
}

#[test]
fn settings_for_shares_are_named_where_no_traffic_moves() {
    let operator = Operator::new();
    let _ = operator.sandbox.write("deploy.toml", "alarm = [\"errors\"]\nwatch = \"1m\"\n");
    // The alarm watches the balancer of this stack.
    let _ = operator
        .deploy(&["create-stack", "--yes"], &[])
        .expect(0)
        .says("note: no traffic is moved, so these settings have no effect: alarm, watch")
        .says("note: alarm errors does not exist in this account and region");
    operator.world(|world| {
        let _ = world.alarms.insert("errors", [("ALARM", "slow")].into());
    });
    // The change may be what ends the alarm.
    let _ = operator
        .deploy(&["update-stack", "--yes", "--parameter", "ScaleDownThreshold=40"], &[])
        .expect(0)
        .says("note: alarm errors is in the state ALARM: slow");
}

#[test]
fn a_strategy_without_shares_takes_no_settings_for_them() {
    let operator = Operator::new();
    for (flag, value, name) in [("--alarm", "errors", "alarm"), ("--watch", "1m", "watch"), ("--shift", "100", "shift")]
    {
        let _ = operator
            .deploy(&["create-stack", "--yes", "--strategy", "compatible", flag, value], &[])
            .expect(2)
            .says(&format!("these settings have no effect: {name}"))
            .says("or use --strategy blue-green");
    }
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn ctrl_c_before_the_proof_names_the_way_to_look_again() {
    let operator = Operator::new();
    operator.health("Blue", [LATE.into()]);
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeTargetHealth", [turn]);
    let running = operator.start(&["create-stack", "--yes"], &[]);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running
        .finish()
        .expect(130)
        .says("the stack is complete; whether it serves is unknown")
        .says("to look again: glovo-bootstrap deploy status --stack glovo-app");
}
