//! `--json`: each verb tells programs what it tells people, an error too.

use serde_json::{Value, json};

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::Turn,
    world::{Scene, text, xml},
};

const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";

/// Returns the documents on standard output. Each line is one.
fn documents(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn diagnose_is_one_document() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let signal = "Received FAILURE signal with UniqueId i-0123456789abcdef0 start_servers";
        let events = vec![
            ("GreenGroup", GROUP, "CREATE_IN_PROGRESS", signal),
            ("GreenGroup", GROUP, "CREATE_FAILED", "Received 1 FAILURE signal(s)"),
        ];
        world.plot = vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", events), Scene("UPDATE_ROLLBACK_FAILED", vec![])];
        world.console = "-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\nstep: start_servers\nerror: no port\n\
                         caused by: in use\nhint: free it\n-----END GLOVO-BOOTSTRAP FAILURE-----\n"
            .into();
    });
    let _ = operator.update("2").expect(1);
    let told = documents(&operator.deploy(&["diagnose", "--json"], &[]).expect(1));
    assert_eq!(told.len(), 1, "{told:?}");
    let diagnosis = &told[0];
    assert_eq!(diagnosis["state"], "UPDATE_ROLLBACK_FAILED");
    assert_eq!(diagnosis["failures"][0]["resource"], "GreenGroup");
    let machine = &diagnosis["machines"][0];
    assert_eq!((&machine["machine"], &machine["step"]), (&"i-0123456789abcdef0".into(), &"start_servers".into()));
    assert_eq!((&machine["causes"], &machine["hint"]), (&json!(["no port", "in use"]), &"free it".into()));
    assert_eq!(diagnosis["holds"][0]["resource"], "Balancer");
    assert!(diagnosis["next"].as_str().unwrap().contains("continue-update-rollback"));
}

#[test]
fn drift_is_one_document() {
    let operator = Operator::serving();
    let whole = documents(&operator.deploy(&["drift", "--json"], &[]).expect(0));
    assert_eq!((&whole[0]["drifts"], whole.len()), (&json!([]), 1));
    let difference = text("PropertyPath", "/MaxSize") + &text("ExpectedValue", "3") + &text("ActualValue", "8");
    let drift = text("LogicalResourceId", "GreenGroup")
        + &text("ResourceType", GROUP)
        + &text("StackResourceDriftStatus", "MODIFIED")
        + &xml("PropertyDifferences", &xml("member", &difference));
    operator.world(|world| {
        world.drifts = xml("member", &drift);
        let _ = world.weights.insert(crate::world::BLUE.into(), "30".into());
        let _ = world.weights.insert(crate::world::GREEN.into(), "70".into());
    });
    let told = documents(&operator.deploy(&["drift", "--json"], &[]).expect(3));
    assert_eq!(told[0]["drifts"][0]["differences"], json!([{ "path": "/MaxSize", "declared": "3", "actual": "8" }]));
    assert_eq!(told[0]["weights"][0], json!({ "slot": "blue", "share": 30, "declared": "100" }));
}

#[test]
fn delete_tells_what_goes_and_that_it_is_gone() {
    let operator = Operator::serving();
    let told = documents(&operator.deploy(&["delete-stack", "--yes", "--json"], &[]).expect(0));
    let (first, last) = (told.first().unwrap(), told.last().unwrap());
    assert_eq!((&first["state"], &first["holds"][0]["resource"]), (&"CREATE_COMPLETE".into(), &"Balancer".into()));
    assert_eq!((&last["stack"], &last["state"]), (&"glovo-app".into(), &"DELETE_COMPLETE".into()));
}

#[test]
fn an_error_is_the_last_document() {
    let operator = Operator::serving();
    let missing = operator.deploy(&["status", "--json", "--stack", "other"], &[]).expect(1);
    let told = documents(&missing);
    let last = told.last().unwrap();
    assert_eq!(last["exit_code"], 1);
    assert_eq!(last["error"]["causes"][0], "stack other does not exist");
    assert!(last["error"]["hint"].as_str().unwrap().contains("create-stack"), "{last}");
    assert!(missing.stderr.contains("error: stack other does not exist"), "{}", missing.stderr);
    let invalid = operator.deploy(&["status", "--json", "--stack", "no_name"], &[]).expect(2);
    assert_eq!(documents(&invalid)[0]["exit_code"], 2);
}

#[test]
fn a_mistyped_stack_is_answered_with_the_nearest_one() {
    let operator = Operator::serving();
    let near = "hint: a stack with a similar name exists: pass --stack glovo-app; to create this one";
    for verb in ["status", "history", "watch", "rollback", "release"] {
        let _ = operator.deploy(&[verb, "--stack", "glvo-app"], &[]).expect(1).says(near);
    }
    let told = operator.deploy(&["diagnose", "--stack", "glvo-app"], &[]).expect(0);
    let _ = told.says("a stack with a similar name exists: glovo-app");
    let _ = operator.deploy(&["status", "--stack", "sales"], &[]).expect(1).says("hint: glovo-bootstrap deploy create");
    operator.tape.script("ListStacks", [Turn::Refusal(403, "AccessDenied", "no")]);
    let _ = operator.deploy(&["status", "--stack", "glvo-app"], &[]).expect(1).says("hint: glovo-bootstrap deploy c");
}

#[test]
fn a_new_stack_with_a_similar_name_is_a_note() {
    let operator = Operator::serving();
    operator.tape.script("CreateChangeSet", [Turn::Refusal(403, "AccessDenied", "no")]);
    let near = "note: stack glvo-app does not exist; creating it; a stack with a similar name exists: glovo-app";
    let _ = operator.deploy(&["update-stack", "--stack", "glvo-app", "--yes"], &[]).says(near);
}
