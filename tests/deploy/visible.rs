//! Foreign text from AWS: its control characters have no effect on a terminal.

use crate::{
    operator::Operator,
    sandbox::Finished,
    server::{Reply, Server},
    tape::Turn,
    world::{Scene, text, xml},
};

/// The control characters that XML can contain. They set the clipboard (OSC in C1), clear the screen, reverse the line,
/// delete, and forge a line.
const HOSTILE: &str = "a\u{9d}52;c;ZXZpbA==\u{9c}b\u{9b}2Jc\u{202e}d\x7fe\u{2066}f\u{85}g\nforged: line";
const SHOWN: &str = "a\\u{9d}52;c;ZXZpbA==\\u{9c}b\\u{9b}2Jc\\u{202e}d\\x7fe\\u{2066}f\\u{85}g\\nforged: line";
const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";
const SIGNAL: &str = "Received FAILURE signal with UniqueId i-0123456789abcdef0 copy_http_resources";
const CONSOLE: &str = "\
-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\r
step: s\x1b]52;c;ZXZpbA==\x07\r
error: \x1b[2J\u{9b}2J\u{202e}\r
-----END GLOVO-BOOTSTRAP FAILURE-----\r
";

/// Checks that the output has no raw control characters.
#[track_caller]
fn harmless(finished: Finished) -> Finished {
    for text in [&finished.stdout, &finished.stderr] {
        let raw =
            |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!text.contains(raw), "reaches a terminal raw: {text:?}");
        assert!(!text.contains("\nforged"), "a line was forged: {text}");
    }
    finished
}

#[test]
fn stack_events_and_console_blocks_are_made_visible() {
    let operator = Operator::serving();
    operator.content("2");
    let fail = || {
        operator.world(|world| {
            let events = vec![
                ("GreenGroup", GROUP, "CREATE_IN_PROGRESS", SIGNAL),
                ("GreenGroup", GROUP, "CREATE_FAILED", HOSTILE),
            ];
            world.plot = vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", events), Scene("UPDATE_ROLLBACK_FAILED", vec![])];
            world.console = CONSOLE.into();
            world.reason = HOSTILE;
            let hook = text("EventType", "HOOK_INVOCATION_ERROR") + &text("HookStatusReason", HOSTILE);
            world.operation_events = xml("OperationEvents", &xml("member", &hook));
        });
    };
    fail();
    let failed = harmless(operator.update("2")).expect(1).says(SHOWN).says("step: s");
    assert!(failed.stderr.contains("caused by: GreenGroup (CREATE_FAILED): a\\u{9d}52"), "{}", failed.stderr);
    for verb in ["diagnose", "history", "status", "watch"] {
        for json in [&[][..], &["--json"]] {
            let finished = harmless(operator.deploy(&[&[verb], json].concat(), &[]));
            if !json.is_empty() {
                finished.stdout.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
            }
        }
    }
    let _ = harmless(operator.deploy(&["diagnose"], &[])).says(&format!("refuses the stack: {SHOWN}"));
}

#[test]
fn the_build_that_an_application_tells_is_made_visible() {
    let server = Server::start(|_| Reply::ok("{\"build\": \"\u{9b}2J\u{202e}\\n\\u001bforged\"}"));
    let operator = Operator::serving();
    operator.world(|world| world.url = server.url("/"));
    let asked = operator.deploy(&["status", "--build-field", "json:build"], &[]);
    let _ = harmless(asked).expect(1).says("answers as build \\u{9b}2J\\u{202e}\\n\\x1bforged, not 1");
}

#[test]
fn differences_and_refusals_of_aws_are_made_visible() {
    let operator = Operator::serving();
    let property = xml("Target", &(text("Attribute", "Properties") + &text("Name", HOSTILE) + &text("Path", HOSTILE)))
        + &text("ChangeSource", "DirectModification");
    let change = text("Action", "Modify")
        + &text("LogicalResourceId", HOSTILE)
        + &text("ResourceType", HOSTILE)
        + &xml("Details", &xml("member", &property));
    operator.content("2");
    operator.world(|world| {
        world.changes = xml("member", &xml("ResourceChange", &change));
        world.drifts = xml(
            "member",
            &(text("LogicalResourceId", HOSTILE)
                + &text("ResourceType", "AWS::X")
                + &text("StackResourceDriftStatus", "MODIFIED")),
        );
    });
    let _ = harmless(operator.deploy(&["plan"], &[("BUILD_NUMBER", "2")])).expect(0).says(SHOWN);
    let _ = harmless(operator.deploy(&["plan", "--json"], &[("BUILD_NUMBER", "2")])).expect(0);
    let _ = harmless(operator.deploy(&["drift"], &[])).expect(3).says(SHOWN);
    operator.tape.script("DescribeStacks", [Turn::Refusal(400, "AccessDenied", HOSTILE)]);
    let _ = harmless(operator.deploy(&["status"], &[])).says("a\\u{9d}52;c;ZXZpbA==");
}
