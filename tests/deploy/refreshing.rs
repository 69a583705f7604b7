//! The strategy `instance-refresh`: one group whose machines are replaced part by part.

use std::sync::OnceLock;

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Turn, changes, of},
    world::{Event, Refresh, Scene, World},
};

const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";
const BUSY: &str = "UPDATE_IN_PROGRESS";
const CONSOLE: &str = "\
-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\r
instance: i-new\r
step: copy_http_resources\r
error: fetching https://jars.example.com/app-2.jar\r
caused by: the server answered 404 Not Found\r
hint: check the URL, or that the file was uploaded\r
-----END GLOVO-BOOTSTRAP FAILURE-----\r
";

pub fn deploy(operator: &Operator, arguments: &[&str], build: &str) -> Finished {
    let arguments = operator.with_agent(&[arguments, &["--strategy", "instance-refresh"]].concat());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    operator.deploy(&arguments, &[("BUILD_NUMBER", build), ("CLOUD_INIT_PATH", "")])
}

fn ask(operator: &Operator, verb: &str) -> Finished {
    operator.deploy(&[verb, "--strategy", "instance-refresh"], &[("CLOUD_INIT_PATH", "")])
}

/// Returns an operator whose group has build 1.
pub fn serving() -> Operator {
    static MADE: OnceLock<Vec<World>> = OnceLock::new();
    Operator::after(&MADE, "1", || {
        let operator = Operator::refreshing();
        let _ = deploy(&operator, &["create-stack", "--yes"], "1").expect(0);
        operator
    })
}

/// Has the next update last for so many looks at the machines, and then end like this.
fn lasting(operator: &Operator, looks: usize, end: Vec<Scene>) {
    let begin = Scene(BUSY, vec![("Group", GROUP, BUSY, "")]);
    // Each fifth look at the stack is one at its machines.
    let wait = (0..looks * 5).map(|_| Scene(BUSY, vec![]));
    operator.world(|world| world.plot = std::iter::once(begin).chain(wait).chain(end).collect());
}

#[test]
fn the_machines_of_a_first_build_complete_the_hook_and_signal() {
    let operator = Operator::refreshing();
    let _ = deploy(&operator, &["create-stack", "--yes"], "1")
        .expect(0)
        .says("build 1: a new stack with one group")
        .says("  group  build 1, 100 % of the traffic, 2 machines")
        .says("every serving target runs build 1");
    let calls = operator.calls();
    let made = of(&calls, "CreateChangeSet")[0];
    let body = made.get("TemplateBody");
    assert!(body.contains("--lifecycle-hook") && body.contains("glovo-app/converged"), "{body}");
    assert!(
        body.contains("AutoScalingGroupName: !Ref AWS::StackName") && body.contains("LifecycleHookName: converged")
    );
    assert_eq!(made.parameter("CheckpointPercentages"), None, "the template's default");
}

#[test]
fn an_update_replaces_the_machines_in_their_group() {
    let operator = serving();
    lasting(&operator, 4, vec![Scene("UPDATE_COMPLETE", vec![])]);
    operator.world(|world| {
        world.refreshes = [
            Refresh("Successful", "100", "", vec![]),
            Refresh("Successful", "100", "an earlier one", vec![]),
            Refresh("InProgress", "", "", vec![("i-new", "Pending:Wait")]),
            Refresh("InProgress", "50", "Waiting for the checkpoint delay", vec![("i-new", "InService")]),
            Refresh("Baking", "100", "", vec![]),
        ]
        .into();
    });
    let told = deploy(&operator, &["update-stack", "--yes"], "2")
        .expect(0)
        .says("build 1 → 2: Auto Scaling replaces the machines part by part, new ones first")
        .says("machine i-new: booting (Pending:Wait)")
        .says(": 0 % of the machines are replaced, InProgress\n")
        .says(": 50 % of the machines are replaced, InProgress: Waiting for the checkpoint delay")
        .says(": 100 % of the machines are replaced, Baking")
        .says("every serving target runs build 2");
    assert!(!told.stdout.contains("an earlier one"), "{}", told.stdout);
    let calls = operator.calls();
    assert!(changes(&calls).iter().all(|call| ["PutObject", "CreateChangeSet", "ExecuteChangeSet"].contains(call)));
    assert_eq!(operator.world(|world| world.groups[""].replaced), 0);
    let _ = ask(&operator, "rollback").expect(1).says("the stack has one slot, so it holds no previous build");
}

#[test]
fn settings_of_the_refresh_are_parameters_that_the_stack_keeps() {
    let operator = serving();
    operator.world(|world| world.alarms.extend([("errors", [("OK", "")].into()), ("latency", [("OK", "")].into())]));
    let given = ["--shift", "50,100", "--pause", "5m", "--watch", "15m", "--alarm", "errors", "--alarm", "latency"];
    let _ = deploy(&operator, &[&["update-stack", "--yes"], given.as_slice()].concat(), "2").expect(0);
    let wanted = [
        ("CheckpointPercentages", "50,100"),
        ("CheckpointDelay", "300"),
        ("BakeTime", "900"),
        ("Alarms", "errors,latency"),
    ];
    for (name, value) in wanted {
        assert_eq!(operator.parameter(name), value, "{name}");
    }
    let _ = deploy(&operator, &["update-stack", "--yes", "--alarm", ""], "3").expect(0);
    assert_eq!(["BakeTime", "Alarms"].map(|name| operator.parameter(name)), ["900", ""]);
}

#[test]
fn no_machine_is_replaced_while_an_alarm_rings() {
    let operator = serving();
    operator.world(|world| {
        _ = world.alarms.insert("errors", [("ALARM", "slow")].into());
        _ = world.alarms.insert("glovo-app-ErrorAlarm", [("ALARM", "11 answers")].into());
    });
    let update = |more: &[&str]| deploy(&operator, &[&["update-stack", "--yes"], more].concat(), "2");
    let _ = update(&["--alarm", "errors"]).expect(2).says("alarm errors is in the state ALARM: slow");
    let _ = update(&["--alarm", "mispelt"]).expect(2).says("alarm mispelt does not exist");
    // The stack keeps the names that an earlier command gave.
    operator.world(|world| _ = world.parameters.insert("Alarms".into(), "errors".into()));
    let _ = update(&[]).expect(2).says("alarm errors is in the state ALARM: slow");
    operator.world(|world| _ = world.parameters.remove("Alarms"));
    operator.world(|world| _ = world.parameters.insert("MaxErrors".into(), "10".into()));
    let _ = update(&[])
        .expect(2)
        .says("alarm glovo-app-ErrorAlarm is in the state ALARM: 11 answers (to deploy without alarms of the stack:");
    assert!(changes(&operator.calls()).iter().all(|call| *call == "PutObject"));
    let _ = update(&["--parameter", "MaxErrors=", "--parameter", "MaxResponseTime="]).expect(0);
}

#[test]
fn the_words_of_a_launched_machine_end_a_failed_refresh() {
    let operator = serving();
    let failed = "Instance refresh failed: 1 instance could not be launched";
    let end: Vec<Event> = vec![("Group", GROUP, "UPDATE_FAILED", failed)];
    let end = vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", end), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])];
    lasting(&operator, 2, end);
    operator.world(|world| {
        world.refreshes = [
            Refresh("Successful", "100", "", vec![]),
            Refresh("InProgress", "0", "", vec![("i-new", "Pending:Wait")]),
            Refresh("InProgress", "0", "", vec![("i-new", "Terminating")]),
        ]
        .into();
        world.console = CONSOLE.into();
    });
    let told = deploy(&operator, &["update-stack", "--yes"], "2")
        .expect(1)
        .says("caused by: Group (UPDATE_FAILED): Instance refresh failed")
        .says("caused by: machine i-new failed: step copy_http_resources")
        .says("caused by: the server answered 404 Not Found")
        .says("hint: check the URL, or that the file was uploaded; then: glovo-bootstrap deploy update-stack");
    assert!(!told.stderr.contains("machine i-glovo-app"), "no machine of the build that serves: {}", told.stderr);
    let told = ask(&operator, "diagnose").expect(1).says("machine i-new failed: step copy_http_resources");
    assert!(!told.stdout.contains("machine i-glovo-app"), "{}", told.stdout);
}

#[test]
fn what_an_instance_refresh_cannot_do_is_refused() {
    let operator = serving();
    let update = |more: &[&str]| deploy(&operator, &[&["update-stack", "--yes"], more].concat(), "2");
    let _ = update(&["--keep-for", "1h"]).expect(2).says("keeps no previous build, so keep_for has no effect");
    let _ = update(&["--alarm", "a,b"]).expect(2).says("the parameter Alarms cannot hold the name `a,b`");
    let many = ["--alarm", "a"].repeat(9);
    let _ = update(&many).expect(2).says("takes at most 8 alarms besides those of the template");
    let own = ["update-stack", "--yes", "--strategy", "instance-refresh"];
    let _ = operator.deploy(&own, &[("BUILD_NUMBER", "2")]).expect(2).says("cloud_init_path cannot be used");
    let _ = deploy(&operator, &["update-stack", "--yes", "--instance-type", "t3.small"], "1")
        .expect(2)
        .says("build 1 is already serving, with other content");
    assert!(changes(&operator.calls()).iter().all(|call| *call == "PutObject"));
}

#[test]
fn the_quota_is_that_of_the_machines_that_come_first() {
    let operator = serving();
    // Machines of two vCPUs each: one of the new build comes before one of the previous build goes.
    operator.world(|world| world.quota = Some((6, vec![2, 2])));
    let _ = deploy(&operator, &["plan"], "2").expect(0);
    let twice = ["update-stack", "--yes", "--parameter", "MaxHealthyPercentage=200"];
    let _ = deploy(&operator, &twice, "3").expect(2).says("2 machines of t3.micro need 4 vCPUs");
    operator.world(|world| world.quota = Some((5, vec![2, 2])));
    let _ = deploy(&operator, &["plan"], "2").expect(2).says("1 machine of t3.micro need 2 vCPUs; 4 of the 5");
    let _ = deploy(&operator, &["plan"], "1").expect(0);
}

#[test]
fn a_machine_that_fails_is_explained_while_the_refresh_continues() {
    let operator = serving();
    lasting(&operator, 3, vec![Scene("UPDATE_COMPLETE", vec![])]);
    operator.world(|world| {
        world.refreshes = [
            Refresh("Successful", "100", "", vec![]),
            Refresh("InProgress", "0", "", vec![("i-new", "Pending:Wait")]),
            Refresh("InProgress", "50", "", vec![]),
        ]
        .into();
        world.console = CONSOLE.into();
    });
    let _ = deploy(&operator, &["update-stack", "--yes"], "2")
        .expect(0)
        .says("step: copy_http_resources")
        .says("hint: check the URL, or that the file was uploaded")
        .says("every serving target runs build 2");
}

#[test]
fn a_warm_pool_is_declared_shown_and_counted() {
    let operator = Operator::refreshing();
    // Two machines of the group and three of the pool, of two vCPUs each.
    operator.world(|world| world.quota = Some((9, vec![])));
    let create = ["create-stack", "--yes", "--parameter", "WarmPoolSize=3"];
    let _ = deploy(&operator, &create, "1").expect(2).says("quota: 5 machines of t3.micro need 10 vCPUs");
    operator.world(|world| {
        world.quota = Some((10, vec![]));
        world.pool = [("i-pool-1", "1"), ("i-pool-2", "1")].map(|(id, build)| (id.into(), build.into())).into();
    });
    let _ = deploy(&operator, &create, "1")
        .expect(0)
        .says("3 machines of the warm pool: prepared and stopped")
        .says("2 machines (min 1, max 3, warm pool 3)")
        .says("i-pool-1  build 1  Warmed:Stopped, in the warm pool")
        .says("i-pool-2  build 1  Warmed:Stopped, in the warm pool");
    let status = operator.deploy(&["status", "--json", "--strategy", "instance-refresh"], &[("CLOUD_INIT_PATH", "")]);
    let _ = status.says(r#""pool":[{"id":"i-pool-1","state":"Warmed:Stopped","build":"1"}"#);
    // The stack keeps the pool. Its machines are prepared anew when those of the group are replaced.
    operator.world(|world| world.quota = Some((9, vec![2, 2])));
    let _ = deploy(&operator, &["plan"], "2").expect(2).says("quota: 3 machines of t3.micro need 6 vCPUs");
    let _ = deploy(&operator, &["plan", "--parameter", "WarmPoolSize=0"], "2").expect(0);
    // A larger pool of the same build gets its machines at once.
    let larger = ["update-stack", "--yes", "--parameter", "WarmPoolSize=6"];
    let _ = deploy(&operator, &larger, "1").expect(2).says("quota: 3 machines of t3.micro need 6 vCPUs");
    let _ = deploy(&operator, &["plan", "--parameter", "WarmPoolSize=5"], "1").expect(0);
}

#[test]
fn a_run_ends_before_the_time_that_is_waited_for_it() {
    let user_data = |operator: &Operator, given: &[&str], build: &str| {
        let _ = deploy(operator, &[&["update-stack", "--yes"], given].concat(), build).expect(0);
        let calls = operator.calls();
        of(&calls, "CreateChangeSet")[0].get("TemplateBody").to_owned()
    };
    let operator = serving();
    let usual = user_data(&operator, &[], "2");
    assert!(usual.contains("--lifecycle-hook") && !usual.contains("--signal-within"), "the program has the same limit");
    let longer =
        user_data(&operator, &["--parameter", "SetupTimeoutSeconds=3600", "--parameter", "SignalTimeout=PT1H"], "3");
    assert!(longer.contains("--signal-within 2520s"), "{longer}");
    // The stack keeps both. The shorter one counts.
    assert!(user_data(&operator, &[], "4").contains("--signal-within 2520s"));
    assert!(user_data(&operator, &["--parameter", "SetupTimeoutSeconds=100"], "5").contains("--signal-within 70s"));
    let _ = deploy(&operator, &["plan", "--parameter", "SetupTimeoutSeconds=200"], "5")
        .expect(2)
        .says("build 5 is already serving, with other content");
    // The other strategies have no hook.
    let operator = Operator::new();
    let create = operator.with_agent(&["create-stack", "--yes", "--parameter", "SignalTimeout=PT1H30M"]);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let _ = operator.deploy(&create, &[("CLOUD_INIT_PATH", "")]).expect(0);
    let calls = operator.calls();
    assert!(of(&calls, "CreateChangeSet")[0].get("TemplateBody").contains("--signal-within 3780s"));
}

#[test]
fn the_machines_of_a_warm_pool_are_replaced_last() {
    let operator = Operator::refreshing();
    let _ = deploy(&operator, &["create-stack", "--yes", "--parameter", "WarmPoolSize=1"], "1").expect(0);
    lasting(&operator, 2, vec![Scene("UPDATE_COMPLETE", vec![])]);
    operator.world(|world| {
        world.pool = vec![("i-pool".into(), "1".into())];
        world.pool_state = "Warmed:Pending:Wait";
        world.console = CONSOLE.into();
        world.refreshes = [Refresh("Successful", "100", "", vec![]), Refresh("InProgress", "50", "", vec![])].into();
    });
    let _ = deploy(&operator, &["update-stack", "--yes"], "2")
        .expect(0)
        .says(": 50 % of the machines are replaced (of the warm pool 0 %), InProgress")
        .says("step: copy_http_resources")
        .says("i-pool  build 1  Warmed:Pending:Wait, in the warm pool");
}

#[test]
fn a_machine_that_has_left_the_group_is_explained_by_the_bucket() {
    let operator = serving();
    lasting(&operator, 4, vec![Scene("UPDATE_COMPLETE", vec![])]);
    operator.world(|world| {
        world.refreshes = [
            Refresh("Successful", "100", "", vec![]),
            Refresh("InProgress", "0", "", vec![("i-new", "Pending:Wait")]),
            Refresh("InProgress", "0", "", vec![]),
            Refresh("InProgress", "50", "", vec![]),
        ]
        .into();
        let key = "/artifacts/glovo-app.failures/arn%3Aaws%3Aec2%3Aeu-central-1%3A123456789012%3Ainstance/i-new";
        _ = world.objects.insert(key.into(), CONSOLE.into());
    });
    let _ = deploy(&operator, &["update-stack", "--yes"], "2")
        .expect(0)
        .says("step: copy_http_resources")
        .says("hint: check the URL, or that the file was uploaded");
}

#[test]
fn diagnose_names_the_machines_that_have_left_the_group() {
    const ABANDONED: &str = "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token 1-2 was \
                             abandoned: Lifecycle Action Completed with ABANDON Result";
    let operator = serving();
    let failed = vec![("Group", GROUP, "UPDATE_FAILED", "Instance refresh failed")];
    lasting(
        &operator,
        0,
        vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", failed), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])],
    );
    let _ = deploy(&operator, &["update-stack", "--yes"], "2").expect(1);
    let left = |machine: &str, reason: &str| -> &'static str {
        Box::leak(format!("Launching a new EC2 instance: {machine}.  Status Reason: {reason}").into_boxed_str())
    };
    operator.world(|world| {
        world.activities = vec![
            ("2026-11-24T21:00:03.123Z", left("i-9", "\u{202e}forged")),
            ("2026-11-24T21:00:02Z", left("i-new", ABANDONED)),
            ("2026-11-24T21:00:01Z", "Terminating EC2 instance: i-glovo-app10"),
            ("2026-11-23T20:00:00Z", left("i-of-an-earlier-update", ABANDONED)),
        ];
        let key = "/artifacts/glovo-app.failures/arn%3Aaws%3Aec2%3Aeu-central-1%3A123456789012%3Ainstance/i-new";
        _ = world.objects.insert(key.into(), CONSOLE.into());
    });
    let told = ask(&operator, "diagnose").expect(1);
    let told = told.says("machine i-new failed: step copy_http_resources").says("machine i-9 failed: \\u{202e}forged");
    assert!(!told.stdout.contains("earlier") && !told.stdout.contains("i-glovo-app10"), "{}", told.stdout);
    // Without the permission, the rest is told.
    operator.tape.script("DescribeScalingActivities", [Turn::Refusal(403, "AccessDenied", "not authorized")]);
    let told = ask(&operator, "diagnose").expect(1).says("Instance refresh failed");
    assert!(told.stderr.contains("Auto Scaling does not tell which machines have left glovo-app: "), "{}", told.stderr);
}
