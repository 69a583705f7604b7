//! Why machines and operations failed: in the last lines of a deploy, and afterwards.

use crate::{
    operator::Operator,
    tape::{Turn, of},
    world::{Event, Group, Scene, members, text},
};

const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";
const MACHINE: &str = "i-0123456789abcdef0";
const SIGNAL: &str = "Received FAILURE signal with UniqueId i-0123456789abcdef0 copy_http_resources";
const UNSATISFIED: &str = "Received 1 FAILURE signal(s) out of 2";
pub const CONSOLE: &str = "\
-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\r
instance: i-0123456789abcdef0\r
step: copy_http_resources\r
resource: download /var/www/glovo-app/app.jar\r
error: fetching https://jars.example.com/app-2.jar\r
caused by: the server answered 404 Not Found\r
hint: check the URL, or that the file was uploaded\r
log: last words\r
-----END GLOVO-BOOTSTRAP FAILURE-----\r
";

/// Lets build 2 fail with a signal and roll back, with this console.
pub fn failing(console: &str) -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let events: Vec<Event> = vec![
            ("GreenGroup", GROUP, "CREATE_IN_PROGRESS", SIGNAL),
            ("GreenGroup", GROUP, "CREATE_FAILED", UNSATISFIED),
        ];
        world.plot = vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", events), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])];
        world.console = console.into();
    });
    operator
}

#[test]
fn the_last_lines_repeat_step_cause_and_hint() {
    let operator = failing(CONSOLE);
    let said = operator.update("2").expect(1).stderr;
    let last = said.rsplit("error: ").next().unwrap();
    let lines = [
        "caused by: GreenGroup (CREATE_FAILED): Received 1 FAILURE signal(s) out of 2",
        "caused by: machine i-0123456789abcdef0 failed: step copy_http_resources, download /var/www/glovo-app/app.jar",
        "caused by: fetching https://jars.example.com/app-2.jar",
        "caused by: the server answered 404 Not Found",
        "hint: check the URL, or that the file was uploaded; then: glovo-bootstrap deploy update-stack",
    ];
    let at = |line: &str| last.find(line).unwrap_or_else(|| panic!("missing: {line}\n{said}"));
    assert!(lines.map(at).is_sorted(), "{said}");
}

#[test]
fn without_a_console_the_signal_tells_the_step() {
    let operator = failing("");
    let said = operator.update("2").expect(1).stderr;
    assert!(said.contains("caused by: machine i-0123456789abcdef0 failed: copy_http_resources\n"), "{said}");
}

#[test]
fn diagnose_reads_signal_and_console_afterwards() {
    let operator = failing(CONSOLE);
    let _ = operator.update("2").expect(1);
    drop(operator.calls());
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    for words in [
        "CREATE_FAILED GreenGroup",
        "machine i-0123456789abcdef0 failed: step copy_http_resources, download /var/www/glovo-app/app.jar",
        "error: fetching https://jars.example.com/app-2.jar",
        "caused by: the server answered 404 Not Found",
        "hint: check the URL, or that the file was uploaded",
        "log: last words",
        "next: glovo-bootstrap deploy update-stack",
    ] {
        assert!(told.stdout.contains(words), "missing: {words}\n{}", told.stdout);
    }
    assert_eq!(of(&operator.calls(), "GetConsoleOutput")[0].get("InstanceId"), MACHINE);
}

#[test]
fn diagnose_asks_the_machines_of_a_group_without_signals() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let failed = vec![("GreenGroup", GROUP, "CREATE_FAILED", "Received 0 SUCCESS signal(s) out of 1")];
        world.plot = vec![Scene("UPDATE_FAILED", failed)];
        let machines = [("i-new-1".to_owned(), "2".to_owned())].into();
        let group = Group { min: 1, desired: 1, max: 3, machines, scheduled: None, replaced: 0 };
        let _ = world.groups.insert("Green", group);
        world.console = "glovo-bootstrap: https://b.s3.test/agent: HTTP Error 403: Forbidden\r\n".into();
    });
    let _ = operator.update("2").expect(1);
    let words = "machine i-new-1 failed: glovo-bootstrap: https://b.s3.test/agent: HTTP Error 403: Forbidden";
    let _ = operator.deploy(&["diagnose"], &[]).expect(1).says(words);
}

#[test]
fn a_console_that_is_gone_leaves_the_words_of_the_signal() {
    let operator = failing(CONSOLE);
    let _ = operator.update("2").expect(1);
    let gone = || Turn::Refusal(400, "InvalidInstanceID.NotFound", "The instance ID does not exist");
    operator.tape.script("GetConsoleOutput", [gone(), gone()]);
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    let told = told.says("machine i-0123456789abcdef0 failed: copy_http_resources\n");
    assert!(told.stdout.contains("next: "), "{}", told.stdout);
}

/// A failure as `DescribeEvents` tells it.
fn operation_event(kind: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| text(name, value)).collect();
    text("EventType", kind) + &text("LogicalResourceId", "GreenGroup") + &text("ResourceType", GROUP) + &fields
}

fn invalid_property() -> String {
    operation_event(
        "VALIDATION_ERROR",
        &[
            ("ValidationName", "PROPERTY_VALIDATION"),
            ("ValidationStatus", "FAILED"),
            ("ValidationFailureMode", "FAIL"),
            ("ValidationStatusReason", "expected type: Number, found: String"),
            ("ValidationPath", "/Resources/GreenGroup/Properties/MaxSize"),
        ],
    )
}

fn refusing_hook() -> String {
    operation_event(
        "HOOK_INVOCATION_ERROR",
        &[
            ("HookType", "Acme::Guard::Tags"),
            ("HookStatus", "HOOK_COMPLETE_FAILED"),
            ("HookFailureMode", "FAIL"),
            ("HookStatusReason", "the tag cost-center is missing"),
        ],
    )
}

#[test]
fn a_refused_change_set_names_the_property() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        world.change_set_failure = "The following validations failed";
        world.operation_events = members("OperationEvents", "member", [invalid_property(), refusing_hook()]);
    });
    let said = operator.update("2").expect(1).stderr;
    for words in [
        "error: CloudFormation cannot make these changes: The following validations failed",
        "GreenGroup at /Resources/GreenGroup/Properties/MaxSize: expected type: Number, found: String",
        "the hook Acme::Guard::Tags refuses GreenGroup: the tag cost-center is missing",
    ] {
        assert!(said.contains(words), "missing: {words}\n{said}");
    }
    let calls = operator.calls();
    let asked = of(&calls, "DescribeEvents")[0];
    assert!(asked.get("ChangeSetName").starts_with("arn:change-set/"));
    assert_eq!(asked.get("Filters.FailedEvents"), "true");
}

#[test]
fn diagnose_tells_what_only_the_operation_knows() {
    let operator = failing("");
    operator.world(|world| {
        world.operation_events = members("OperationEvents", "member", [refusing_hook()]);
    });
    let said = operator.update("2").expect(1).stderr;
    let words = "the hook Acme::Guard::Tags refuses GreenGroup: the tag cost-center is missing";
    assert!(said.contains(words), "{said}");
    drop(operator.calls());
    let _ = operator.deploy(&["diagnose"], &[]).expect(1).says(words);
    assert_eq!(of(&operator.calls(), "DescribeEvents")[0].get("OperationId"), "operation-1");
}

#[test]
fn a_region_without_operation_events_has_the_stacks_events() {
    let operator = failing(CONSOLE);
    for (status, code) in [(400, "InvalidAction"), (403, "AccessDenied")] {
        let refused = (0..2).map(|_| Turn::Refusal(status, code, "Could not find operation DescribeEvents"));
        operator.tape.script("DescribeEvents", refused);
    }
    let _ = operator.update("2").expect(1).says("caused by: GreenGroup (CREATE_FAILED)");
    let _ = operator.deploy(&["diagnose"], &[]).expect(1).says("CREATE_FAILED GreenGroup");
}
