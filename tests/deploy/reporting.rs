//! Status, drift and history, and the verbs that need no AWS.

use crate::{
    operator::Operator,
    tape::{Turn, changes, of},
    world::{BLUE, GREEN, Refresh, Scene, text, xml},
};

fn share(operator: &Operator, blue: &str, green: &str) {
    operator.world(|world| {
        let _ = world.weights.insert(BLUE.into(), blue.into());
        let _ = world.weights.insert(GREEN.into(), green.into());
    });
}

#[test]
fn status_says_that_every_serving_target_runs_one_build() {
    let operator = Operator::serving_twice();
    let _ = operator
        .deploy(&["status"], &[])
        .expect(0)
        .says("stack glovo-app: UPDATE_COMPLETE since 2026-11-24T20:00:00Z")
        .says("blue   build 1, 0 % of the traffic, 1 machine (min 1, max 3)")
        .says("green  build 2, 100 % of the traffic, 2 machines (min 1, max 3)")
        .says("i-green20  build 2  healthy")
        .says("every serving target runs build 2");
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    let _ = operator.deploy(&["status"], &[]).expect(0).says("every serving target runs build 1");
    drop(operator.calls());
    let _ = operator.deploy(&["status"], &[]);
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn status_names_the_machines_of_each_build_where_they_differ() {
    let operator = Operator::serving_twice();
    share(&operator, "50", "50");
    let _ = operator
        .deploy(&["status"], &[])
        .expect(1)
        .says("serving targets run different builds: build 1 on i-blue10; build 2 on i-green20, i-green21");
}

#[test]
fn status_names_what_is_not_healthy() {
    let operator = Operator::serving();
    operator.health("Blue", [vec!["healthy", "unhealthy"]]);
    let _ =
        operator.deploy(&["status"], &[]).expect(1).says("every serving target runs build 1; not healthy: i-blue11");
    operator.world(|world| world.groups.get_mut("Blue").unwrap().machines.clear());
    let _ = operator.deploy(&["status"], &[]).expect(1).says("no machine serves");
}

#[test]
fn status_ends_with_4_during_an_operation_1_without_a_stack() {
    let operator = Operator::serving();
    operator.world(|world| world.state = "UPDATE_IN_PROGRESS");
    let _ = operator.deploy(&["status"], &[]).expect(4).says("stack glovo-app: UPDATE_IN_PROGRESS");
    let _ =
        Operator::new().deploy(&["status"], &[]).expect(1).says("stack glovo-app does not exist").says("create-stack");
}

#[test]
fn status_tells_programs_the_same() {
    let operator = Operator::serving_twice();
    let told = operator.deploy(&["status", "--json"], &[]).expect(0);
    let lines: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let status = &lines[0];
    assert_eq!((&status["stack"], &status["stacks"]["glovo-app"]), (&"glovo-app".into(), &"UPDATE_COMPLETE".into()));
    let green = &status["slots"][1];
    assert_eq!((&green["slot"], &green["build"], &green["share"]), (&"green".into(), &"2".into(), &100.into()));
    assert_eq!(green["targets"][0]["state"], "healthy");
    assert_eq!(lines[1]["message"], "every serving target runs build 2");
}

/// The object of a machine of these tests.
fn object(machine: &str) -> String {
    format!("/artifacts/glovo-app.failures/arn%3Aaws%3Aec2%3Aeu-central-1%3A123456789012%3Ainstance/{machine}")
}

/// What a machine uploads, long ago.
fn last_run(fields: &str) -> Vec<u8> {
    format!("{{\"version\":\"0.1.0\",\"ended\":\"2020-01-01T00:00:00Z\",{fields}}}\n").into()
}

/// Two machines of build 2 behind a bucket, of which one has told its last run; and build 1's machine, which has failed.
fn telling() -> Operator {
    let operator = Operator::serving_twice();
    let _ = operator.sandbox.write("deploy.toml", "bucket = 'artifacts'\n");
    let block = "-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\nerror: create\ncaused by: the server answered 404\n\
                 -----END GLOVO-BOOTSTRAP FAILURE-----\n";
    let failed = last_run(r#""outcome":"failed","exit_code":1,"changes":0,"step":"web""#);
    operator.world(|world| {
        let converged = last_run(r#""outcome":"changed","exit_code":0,"changes":2,"drift":2"#);
        let _ = world.objects.insert(object("i-green20"), converged);
        let _ = world.objects.insert(object("i-blue10"), [block.as_bytes(), &failed].concat());
    });
    operator
}

#[test]
fn status_says_what_each_machine_did_last() {
    let operator = telling();
    let told = operator.deploy(&["status"], &[]).expect(0).says("every serving target runs build 2").stdout;
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    let after = |machine: &str| lines[1 + lines.iter().position(|line| line.starts_with(machine)).unwrap()];
    let is_aged = |line: &str, rest: &str| line.starts_with("last run ") && line.ends_with(rest);
    assert!(
        is_aged(after("i-green20"), " days ago: converged, drift corrected with 2 changes, version 0.1.0"),
        "{told}"
    );
    let failed = " days ago: failed in step web, exit code 1: create: the server answered 404, version 0.1.0";
    assert!(is_aged(after("i-blue10"), failed), "{told}");
    assert_eq!(after("i-green21"), "no report of a run");

    let told = operator.deploy(&["status", "--json"], &[]).expect(0).stdout;
    let document = told.lines().find(|line| line.contains("\"slots\"")).unwrap();
    let told: serde_json::Value = serde_json::from_str(document).unwrap();
    let targets = told["slots"][1]["targets"].as_array().unwrap();
    assert_eq!((&targets[0]["last_run"]["drift"], &targets[1]["last_run"]), (&2.into(), &serde_json::Value::Null));
    let failed = &told["slots"][0]["targets"][0]["last_run"];
    assert_eq!((&failed["step"], &failed["error"]), (&"web".into(), &"create: the server answered 404".into()));
}

#[test]
fn status_without_a_bucket_says_nothing_of_last_runs() {
    let operator = telling();
    std::fs::remove_file(operator.sandbox.at("deploy.toml")).unwrap();
    let told = operator.deploy(&["status"], &[]).expect(0);
    assert!(!told.stdout.contains("last run") && !told.stdout.contains("no report"), "{}", told.stdout);
    let told = operator.deploy(&["status", "--json"], &[]).expect(0);
    assert!(!told.stdout.contains("last_run"), "{}", told.stdout);
    assert!(of(&operator.calls(), "GetObject").is_empty());
}

#[test]
fn a_bucket_that_does_not_tell_leaves_status_as_it_is() {
    let operator = telling();
    let refused = || Turn::Refusal(403, "AccessDenied", "Access Denied");
    operator.tape.script("GetObject", [refused()]);
    let told = operator.deploy(&["status"], &[]).expect(0).says("its last run is not known").says("no report of a run");
    let line = "the last run of 1 machine cannot be read: ";
    assert!(told.stderr.matches(line).count() == 1 && told.stderr.contains("s3:GetObject"), "{}", told.stderr);

    // The next machines are not asked.
    drop(operator.calls());
    operator.tape.script("GetObject", [Turn::Refusal(503, "SlowDown", "Please reduce your request rate.")]);
    let told = operator.deploy(&["status"], &[]).expect(0);
    assert_eq!(told.stdout.matches("its last run is not known").count(), 3, "{}", told.stdout);
    assert_eq!(of(&operator.calls(), "GetObject").len(), 1);
}

#[test]
fn drift_is_what_was_changed_past_cloudformation() {
    let operator = Operator::serving_twice();
    let _ = operator.deploy(&["drift"], &[]).expect(0).says("no drift");
    share(&operator, "30", "70");
    let difference = text("PropertyPath", "/MaxSize") + &text("ExpectedValue", "3") + &text("ActualValue", "8");
    let drift = text("LogicalResourceId", "GreenGroup")
        + &text("ResourceType", "AWS::AutoScaling::AutoScalingGroup")
        + &text("StackResourceDriftStatus", "MODIFIED")
        + &xml("PropertyDifferences", &xml("member", &difference));
    operator.world(|world| world.drifts = xml("member", &drift));
    let _ = operator
        .deploy(&["drift"], &[])
        .expect(3)
        .says("GreenGroup (AWS::AutoScaling::AutoScalingGroup) MODIFIED")
        .says("/MaxSize: declared 3, is 8")
        .says("blue receives 30 % of the traffic, but its declared weight is 0")
        .says("green receives 70 % of the traffic, but its declared weight is 100")
        .says("3 differences");
}

#[test]
fn history_tells_what_was_done_with_the_stack() {
    let operator = Operator::serving();
    operator.world(|world| {
        world.enter(Scene("UPDATE_IN_PROGRESS", vec![("GreenGroup", "AWS::X", "CREATE_COMPLETE", "")]));
        world.enter(Scene("UPDATE_COMPLETE", vec![]));
    });
    let told = operator.deploy(&["history"], &[]).expect(0);
    let states: Vec<&str> = told.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(states, ["CREATE_IN_PROGRESS", "CREATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"]);
    let told = operator.deploy(&["history", "--json"], &[]).expect(0);
    let last: serde_json::Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "UPDATE_COMPLETE");
}

#[test]
fn events_are_told_to_programs_as_they_come() {
    let operator = Operator::serving();
    operator.content("2");
    let event = ("GreenGroup", "AWS::AutoScaling::AutoScalingGroup", "CREATE_COMPLETE", "");
    operator.world(|world| world.plot = vec![Scene("UPDATE_COMPLETE", vec![event])]);
    let update = ["update-stack", "--yes", "--pause", "0s", "--json"];
    let told = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(0);
    let lines: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let group = lines.iter().find(|line| line["resource"] == "GreenGroup").unwrap();
    assert_eq!((&group["status"], &group["time"]), (&"CREATE_COMPLETE".into(), &"2026-11-24T20:00:03Z".into()));
}

#[test]
fn template_and_user_data_can_be_had_without_aws() {
    let operator = Operator::new();
    let render = operator.with_agent(&["render", "--output-dir", "rendered"]);
    let render: Vec<&str> = render.iter().map(String::as_str).collect();
    let mut command = operator.command(&render, &[("CLOUD_INIT_PATH", "")]);
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let _ = command.env_remove(name);
    }
    let _ = crate::sandbox::Finished::from(command.output().unwrap())
        .expect(0)
        .says("deploy will upload s3://artifacts/glovo-app/agent/");
    assert!(operator.calls().is_empty());
    let user_data = std::fs::read_to_string(operator.sandbox.at("rendered/user-data")).unwrap();
    let template = std::fs::read_to_string(operator.sandbox.at("rendered/template.yml")).unwrap();
    assert!(user_data.starts_with("#!/bin/sh") && user_data.contains("--signal glovo-app/BlueGroup"), "{user_data}");
    assert!(template.contains(&serde_json::to_string(&user_data).unwrap()), "{template}");
}

#[test]
fn a_group_behind_a_classic_balancer_shows_its_machines() {
    let operator = Operator::compatible();
    let strategy = ["--strategy", "compatible"];
    let create = [&["create-stack", "--yes"], &strategy[..]].concat();
    let _ = operator.deploy(&create, &[("BUILD_NUMBER", "7")]).expect(0).says("every machine in service runs build 7");
    let status = |more: &[&str]| operator.deploy(&[&["status"], more, &strategy[..]].concat(), &[]);
    let _ = status(&[])
        .expect(0)
        .says("stack glovo-app: CREATE_COMPLETE since 2026-11-24T20:00:00Z\n")
        .says("  group  build 7, 2 machines (min 1, max 3)")
        .says("         i-glovo-app70  build 7  InService\n")
        .says("every machine in service runs build 7\n");
    let _ = status(&["--json"]).says(r#""share":null"#).says(r#"{"id":"i-glovo-app70","state":"InService""#);
}

#[test]
fn machines_that_start_or_leave_do_not_fail_the_proof() {
    let operator = Operator::compatible();
    let strategy = ["--strategy", "compatible"];
    let create = [&["create-stack", "--yes"], &strategy[..]].concat();
    let _ = operator.deploy(&create, &[("BUILD_NUMBER", "7")]).expect(0);
    let others = vec![("i-new", "Pending:Wait"), ("i-old", "Terminating")];
    operator.world(|world| world.refreshes = [Refresh("", "", "", others)].into());
    let update = [&["update-stack", "--yes", "--max-size", "9"], &strategy[..]].concat();
    let _ = operator
        .deploy(&update, &[("BUILD_NUMBER", "7")])
        .expect(0)
        .says("every machine in service runs build 7; not in service: i-new (Pending:Wait), i-old (Terminating)");
    operator.world(|world| world.groups.get_mut("").unwrap().machines.clear());
    let told = operator.deploy(&[&["status"], &strategy[..]].concat(), &[]).expect(1);
    let _ = told.says("no machine serves; not in service: i-new (Pending:Wait), i-old (Terminating)");
}
