//! The output and the actions in each state of a stack.

use crate::{
    operator::Operator,
    tape::{changes, names},
};

const CREATE: &str = "glovo-bootstrap deploy create-stack --stack glovo-app";
const UPDATE: &str = "glovo-bootstrap deploy update-stack --stack glovo-app";
const WATCH: &str = "glovo-bootstrap deploy watch --stack glovo-app";
const DELETE: &str = "glovo-bootstrap deploy delete-stack --stack glovo-app";
const CONTINUE: &str = "aws cloudformation continue-update-rollback --stack-name glovo-app";
const ROLL_BACK: &str = "aws cloudformation rollback-stack --stack-name glovo-app";
const CONSOLE: &str = "look at the stack in the AWS console";

/// The state, the exit code of `diagnose`, words of its meaning, and the next step.
type Row = (&'static str, i32, &'static str, &'static str);

const ABSENT: [Row; 2] =
    [("REVIEW_IN_PROGRESS", 0, "the stack holds nothing", CREATE), ("DELETE_COMPLETE", 0, "it was deleted", CREATE)];

const READY: [Row; 5] = [
    ("CREATE_COMPLETE", 0, "it was created", UPDATE),
    ("UPDATE_COMPLETE", 0, "the last update succeeded", UPDATE),
    ("UPDATE_ROLLBACK_COMPLETE", 1, "the last update failed and was rolled back", UPDATE),
    ("IMPORT_COMPLETE", 0, "resources were imported", UPDATE),
    ("IMPORT_ROLLBACK_COMPLETE", 1, "an import failed and was rolled back", UPDATE),
];

const BUSY: [Row; 10] = [
    ("CREATE_IN_PROGRESS", 4, "it is being created", WATCH),
    ("ROLLBACK_IN_PROGRESS", 4, "CloudFormation is removing its resources", WATCH),
    ("DELETE_IN_PROGRESS", 4, "it is being deleted", WATCH),
    ("UPDATE_IN_PROGRESS", 4, "it is being updated", WATCH),
    ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", 4, "CloudFormation is removing what the update replaced", WATCH),
    ("UPDATE_ROLLBACK_IN_PROGRESS", 4, "CloudFormation is rolling it back", WATCH),
    ("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", 4, "failed and is rolled back", WATCH),
    ("IMPORT_IN_PROGRESS", 4, "resources are being imported", WATCH),
    ("IMPORT_ROLLBACK_IN_PROGRESS", 4, "an import failed; CloudFormation is rolling it back", WATCH),
    ("RESHAPE_IN_PROGRESS", 4, "this program does not know this state", WATCH),
];

const STUCK: [Row; 8] = [
    ("CREATE_FAILED", 1, "its resources are still there", DELETE),
    ("ROLLBACK_COMPLETE", 1, "can only be deleted", DELETE),
    ("ROLLBACK_FAILED", 1, "removing its resources failed too", DELETE),
    ("DELETE_FAILED", 1, "what still uses the remaining resources", DELETE),
    ("UPDATE_FAILED", 1, "applied in part", ROLL_BACK),
    ("UPDATE_ROLLBACK_FAILED", 1, "so did its rollback", CONTINUE),
    ("IMPORT_ROLLBACK_FAILED", 1, "so did its rollback", CONTINUE),
    ("RESHAPE_FAILED", 1, "this program does not know this state", CONSOLE),
];

#[test]
fn diagnose_explains_every_state_and_names_the_next_step() {
    let operator = Operator::serving();
    for (state, code, meaning, next) in ABSENT.iter().chain(&READY).chain(&BUSY).chain(&STUCK) {
        operator.world(|world| world.state = state);
        let _ = operator
            .deploy(&["diagnose"], &[])
            .expect(*code)
            .says(&format!("stack glovo-app: {state} since 2026-11-24T20:00:00Z"))
            .says(meaning)
            .says(&format!("next: {next}"));
        assert!(changes(&operator.calls()).is_empty(), "{state}");
    }
}

#[test]
fn diagnose_tells_how_to_make_a_stack_that_is_not_there() {
    let operator = Operator::new();
    let _ = operator.deploy(&["diagnose"], &[]).expect(0).says("stack glovo-app does not exist").says(CREATE);
}

#[test]
fn diagnose_tells_the_cause_of_a_stuck_stack() {
    let operator = Operator::serving();
    operator.world(|world| {
        let group = "AWS::AutoScaling::AutoScalingGroup";
        world.reason = "it has been a bad day";
        world.enter(crate::world::Scene("UPDATE_IN_PROGRESS", vec![]));
        world.enter(crate::world::Scene(
            "UPDATE_ROLLBACK_FAILED",
            vec![
                ("GreenGroup", group, "CREATE_FAILED", "You have requested more vCPU capacity"),
                (
                    "GreenTargets",
                    "AWS::ElasticLoadBalancingV2::TargetGroup",
                    "CREATE_FAILED",
                    "Resource creation cancelled",
                ),
            ],
        ));
    });
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    let told = told
        .says("reason: it has been a bad day")
        .says("CREATE_FAILED GreenGroup")
        .says("more vCPU capacity")
        .says("it holds 2 resources")
        .says("Balancer (AWS::ElasticLoadBalancingV2::LoadBalancer)");
    assert!(!told.stdout.contains("cancelled"), "a consequence is no cause: {}", told.stdout);
}

#[test]
fn an_update_in_the_midst_of_something_is_refused_naming_it() {
    let operator = Operator::serving();
    operator.content("2");
    for (state, _, _, next) in BUSY {
        operator.world(|world| world.state = state);
        let refused = operator.update("2").expect(4).says("another operation is running").says(state).says(next);
        assert!(refused.stderr.contains("since 2026-11-24T20:00:00Z"), "{state}");
        assert_eq!(names(&operator.calls()), ["DescribeStacks"], "{state}");
    }
}

#[test]
fn an_update_of_a_stuck_stack_is_refused_and_deletes_nothing() {
    let operator = Operator::serving();
    operator.content("2");
    for (state, _, meaning, next) in STUCK {
        operator.world(|world| world.state = state);
        let _ = operator.update("2").expect(1).says(state).says(meaning).says(&format!("hint: {next}"));
        let again = ["create-stack", "--yes"];
        let _ = operator.deploy(&again, &[("BUILD_NUMBER", "2")]).expect(1).says(&format!("hint: {next}"));
        assert_eq!(names(&operator.calls()), ["DescribeStacks", "DescribeStacks"], "{state}");
    }
}

#[test]
fn an_update_of_a_ready_stack_goes_on() {
    for (state, ..) in READY {
        let operator = Operator::serving();
        operator.world(|world| world.state = state);
        operator.content("2");
        let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    }
}

#[test]
fn an_update_of_no_stack_makes_it_and_says_so() {
    let operator = Operator::new();
    let _ = operator.update("1").expect(0).says("note: stack glovo-app does not exist; creating it");
    for (state, ..) in ABSENT {
        operator.world(|world| world.state = state);
        let _ = operator.update("1").expect(0).says("note: stack glovo-app does not exist; creating it");
        assert_eq!(changes(&operator.calls()).last(), Some(&"ExecuteChangeSet"), "{state}");
    }
}
