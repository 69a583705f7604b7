//! The sizes of the groups, and what the stack's parameters say of them, between deploys.

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    operator::Operator,
    tape::{Meeting, Turn, changes, of},
    world::{World, text, xml},
};

/// Deploys build 2; the previous build keeps its machines for a time.
fn deploy_and_keep(operator: &Operator, variables: &[(&str, &str)]) {
    operator.content("2");
    let given = [&[("BUILD_NUMBER", "2")], variables].concat();
    let _ = operator.deploy(&["update-stack", "--yes", "--pause", "0s"], &given).expect(0);
    drop(operator.calls());
}

#[test]
fn a_slot_that_has_shrunk_can_still_be_changed_in_place() {
    for least in ["1", "2"] {
        let operator = Operator::new();
        let _ = operator.deploy(&["create-stack", "--yes"], &[("MINSIZE", least)]).expect(0);
        deploy_and_keep(&operator, &[("MINSIZE", least)]);
        assert_eq!(operator.parameter("BlueMinSize"), least, "as declared, not as pinned");
        operator.world(World::let_scheduled_time_come);
        let threshold = ["update-stack", "--yes", "--parameter", "ScaleDownThreshold=40"];
        let _ = operator.deploy(&threshold, &[("BUILD_NUMBER", "2")]).expect(0).says("the stack changes in place");
        let sizes = ["BlueMinSize", "BlueDesiredCapacity"].map(|name| operator.parameter(name));
        assert_eq!(sizes, ["1", "1"], "a group made of them is valid");
        assert_eq!(operator.world(|world| world.groups["Blue"].machines.len()), 1);
    }
}

#[test]
fn what_deploy_does_to_the_idle_slot_is_no_drift() {
    let operator = Operator::serving();
    deploy_and_keep(&operator, &[]);
    operator.world(World::let_scheduled_time_come);
    let drift = |group: &str, paths: &[&str]| {
        let difference = |path: &&str| {
            let values = text("ExpectedValue", "2") + &text("ActualValue", "1");
            xml("member", &(text("PropertyPath", path) + &values))
        };
        let differences: String = paths.iter().map(difference).collect();
        let named = text("LogicalResourceId", group) + &text("ResourceType", "AWS::AutoScaling::AutoScalingGroup");
        let drift = named + &text("StackResourceDriftStatus", "MODIFIED") + &xml("PropertyDifferences", &differences);
        operator.world(|world| world.drifts = xml("member", &drift));
        operator.deploy(&["drift"], &[])
    };
    let _ = drift("BlueGroup", &["/DesiredCapacity", "/MinSize"]).expect(0).says("no drift");
    let _ = drift("GreenGroup", &["/MinSize"]).expect(3).says("/MinSize: declared 2, is 1");
    let _ = drift("BlueGroup", &["/MinSize", "/Cooldown"]).expect(3).says("/Cooldown");
}

#[test]
fn a_smallest_size_of_another_program_is_no_unfinished_deploy() {
    let operator = Operator::serving_twice();
    // A scheduled action of the company holds two machines.
    operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "2", "2", ""));
    let threshold = ["update-stack", "--yes", "--parameter", "ScaleDownThreshold=40"];
    let _ = operator.deploy(&threshold, &[("BUILD_NUMBER", "2")]).expect(0).says("the stack changes in place");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet"]);
    assert_eq!(operator.world(|world| world.groups["Green"].min), 2);
    // Nor is it taken for the declared size.
    operator.content("3");
    let _ = operator.update("3").expect(0);
    assert_eq!(operator.parameter("GreenMinSize"), "1");
    assert_eq!(operator.parameter("BlueDeclaredMinSize"), "1");
}

#[test]
fn a_stack_without_machines_can_be_changed() {
    let operator = Operator::new();
    let _ = operator.deploy(&["create-stack", "--yes"], &[("MINSIZE", "0")]).expect(0);
    // A scheduled action of the company ends all machines for the night.
    operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "0", "0", "1"));
    drop(operator.calls());
    let threshold = ["update-stack", "--yes", "--parameter", "ScaleDownThreshold=40"];
    let _ = operator.deploy(&threshold, &[]);
    let asked = operator.calls();
    assert_eq!(of(&asked, "CreateChangeSet")[0].parameter("BlueDesiredCapacity"), Some("1"), "its smallest value");
}

#[test]
fn a_time_that_is_over_for_auto_scaling_is_set_again() {
    let operator = Operator::serving();
    operator.content("2");
    let past = Turn::Refusal(400, "ValidationError", "Given start time is in the past");
    // Green's pin, blue's pin, then the time until blue shrinks, by a clock that is slow.
    operator.tape.script("PutScheduledUpdateGroupAction", [Turn::Usual, Turn::Usual, past]);
    let began = OffsetDateTime::now_utc();
    let soon = ["update-stack", "--yes", "--pause", "0s", "--keep-for", "1s"];
    let _ = operator.deploy(&soon, &[("BUILD_NUMBER", "2")]).expect(0);
    let calls = operator.calls();
    let [.., last] = *of(&calls, "PutScheduledUpdateGroupAction") else { panic!("no action") };
    assert_eq!((last.get("MinSize"), last.get("DesiredCapacity")), ("1", "1"));
    let time = OffsetDateTime::parse(last.get("StartTime"), &Rfc3339).unwrap();
    assert!(time > began + Duration::minutes(5), "later than a signed call may be off: {time}");
}

#[test]
fn machines_that_alarms_add_meanwhile_and_the_slots_parameters_stay() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    // Green's pin, then blue's. Before it, an alarm adds a machine to blue.
    operator.tape.script("PutScheduledUpdateGroupAction", [Turn::Usual, turn]);
    let running = operator.start(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "1", "3", "")));
    let _ = running.finish().expect(0);
    let sizes = ["BlueMinSize", "BlueDesiredCapacity"].map(|name| operator.parameter(name));
    assert_eq!(sizes, ["1", "2"], "else CloudFormation sets all sizes of the group");
    assert_eq!(operator.world(|world| world.groups["Blue"].machines.len()), 3);
}
