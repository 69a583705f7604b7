//! Confirmation: no change is made before the operator agrees.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Meeting, Turn, changes},
};

/// Runs the command on a terminal, and types this text when it asks.
fn on_a_terminal(operator: &Operator, arguments: &[&str], variables: &[(&str, &str)], typed: &str) -> Finished {
    answering(operator, &operator.command(arguments, variables), "[y/N] ", typed)
}

/// Runs a command on a terminal, and types a text after a question with this end.
pub fn answering(operator: &Operator, inner: &Command, question: &str, typed: &str) -> Finished {
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")));
    let line = quoted.collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    let _ = command.args(["-qec", &line, "/dev/null"]).env_clear().current_dir(&operator.sandbox.path);
    let _ = command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "dumb");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = vec![];
    while !shown.ends_with(question.as_bytes()) {
        let mut byte = [0];
        screen.read_exact(&mut byte).unwrap_or_else(|_| panic!("it did not ask: {}", String::from_utf8_lossy(&shown)));
        shown.extend(byte);
    }
    keyboard.write_all(typed.as_bytes()).unwrap();
    // A program that still waits for a line gets the end of the input.
    drop(keyboard);
    let _ = screen.read_to_end(&mut shown).unwrap();
    let code = child.wait().unwrap().code();
    Finished { code, stdout: String::from_utf8(shown).unwrap(), stderr: String::new() }
}

#[test]
fn without_a_terminal_nothing_begins_without_yes() {
    let operator = Operator::serving();
    operator.content("2");
    for verb in ["create-stack", "update-stack"] {
        let _ = operator
            .deploy(&[verb], &[("BUILD_NUMBER", "2")])
            .expect(2)
            .says("standard input is not a terminal")
            .says("pass --yes");
        assert!(operator.calls().is_empty(), "{verb}");
    }
    let _ = operator
        .deploy(&["delete-stack"], &[])
        .expect(2)
        .says("it holds 2 resources")
        .says("standard input is not a terminal");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn answering_no_changes_nothing() {
    let operator = Operator::serving();
    operator.content("2");
    for answer in ["n\n", "\n", "maybe\n"] {
        let _ = on_a_terminal(&operator, &["update-stack"], &[("BUILD_NUMBER", "2")], answer)
            .expect(1)
            .says("make these changes? [y/N]")
            .says("cancelled; nothing was changed");
        assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "DeleteChangeSet"], "{answer:?}");
    }
    assert_eq!(operator.parameter("GreenVersionId"), "");
}

#[test]
fn ctrl_c_is_a_no_and_leaves_nothing_behind() {
    let operator = Operator::new();
    let _ = on_a_terminal(&operator, &["create-stack"], &[], "\x03").expect(130).says("stopped by SIGINT");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"]);
    assert_eq!(operator.world(|world| world.state), "");
}

#[test]
fn answering_yes_makes_the_changes() {
    let operator = Operator::serving();
    operator.content("2");
    let update = ["update-stack", "--pause", "0s"];
    let _ = on_a_terminal(&operator, &update, &[("BUILD_NUMBER", "2")], "y\n")
        .expect(0)
        .says("every serving target runs build 2");
}

#[test]
fn a_stack_is_deleted_only_after_listing_it_and_agreement() {
    let operator = Operator::serving();
    let held = "Balancer (AWS::ElasticLoadBalancingV2::LoadBalancer) Balancer-1ABC";
    let _ = on_a_terminal(&operator, &["delete-stack"], &[], "n\n")
        .expect(1)
        .says(held)
        .says("delete the stack and all these resources? [y/N]")
        .says("cancelled; nothing was deleted");
    assert!(changes(&operator.calls()).is_empty());
    let _ =
        operator.deploy(&["delete-stack", "--yes"], &[]).expect(0).says(held).says("the stack glovo-app is deleted");
    assert_eq!(changes(&operator.calls()), ["DeleteStack"]);
}

#[test]
fn a_stack_that_is_not_deleted_is_a_failure() {
    let operator = Operator::serving();
    operator.world(|world| {
        let used = ("BalancerSecurityGroup", "AWS::EC2::SecurityGroup", "DELETE_FAILED", "it has a dependent object");
        world.plot = vec![crate::world::Scene("DELETE_FAILED", vec![used])];
    });
    let _ = operator
        .deploy(&["delete-stack", "--yes"], &[])
        .expect(1)
        .says("it has a dependent object")
        .says("the stack glovo-app is DELETE_FAILED");
}

#[test]
fn a_failed_upload_or_change_set_leaves_nothing_behind() {
    let operator = Operator::new();
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    for (operation, refusal, words) in [
        ("PutObject", Turn::Refusal(403, "AccessDenied", "Access Denied"), "is not allowed s3:PutObject"),
        ("DescribeChangeSet", Turn::Refusal(400, "ValidationError", "no such thing"), "no such thing"),
    ] {
        operator.tape.script(operation, [refusal]);
        let _ = operator.deploy(&create, &[("CLOUD_INIT_PATH", "")]).expect(1).says(words);
        assert_eq!(operator.world(|world| world.state), "", "{operation}");
    }
    assert!(!changes(&operator.calls()).contains(&"ExecuteChangeSet"));
}

#[test]
fn a_refusal_at_the_beginning_changes_nothing_else() {
    let operator = Operator::serving();
    operator.content("2");
    operator.tape.script("ExecuteChangeSet", [Turn::Refusal(403, "AccessDenied", "not you")]);
    let _ = operator.update("2").expect(1).says("allow cloudformation:ExecuteChangeSet in the caller's IAM policy");
    assert_eq!(operator.parameter("GreenVersionId"), "");
}

#[test]
fn a_stack_made_by_another_operator_is_not_deleted() {
    let operator = Operator::new();
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DeleteChangeSet", [turn]);
    let plan = operator.start(&["plan"], &[]);
    meeting.then(|| operator.world(|world| world.state = "CREATE_IN_PROGRESS"));
    let _ = plan.finish().expect(0);
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "DeleteChangeSet"]);
}
