//! The user's credentials are used only in the signatures of requests.

use std::{fs, path::Path};

use crate::{
    operator::{Operator, Running, SECRET, TOKEN},
    tape::{Meeting, Turn},
};

/// The secret key of the signature, and the session token.
const CANARIES: [&str; 2] = [SECRET, TOKEN];

#[track_caller]
fn is_clean(where_: &str, text: &[u8]) {
    for canary in CANARIES {
        let found = text.windows(canary.len()).position(|window| window == canary.as_bytes());
        if let Some(at) = found {
            let around = &text[at.saturating_sub(400)..(at + canary.len() + 50).min(text.len())];
            panic!("{canary} in {where_}:\n{}", String::from_utf8_lossy(around));
        }
    }
}

fn search(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            search(&entry.path());
        } else {
            is_clean(&entry.path().to_string_lossy(), &fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn credentials_are_in_no_output_no_log_and_no_file() {
    for (flags, level) in
        [(&[][..], ""), (&["--verbose"], ""), (&[], "debug"), (&["--verbose"], "trace"), (&[], "aws_sigv4=trace")]
    {
        let operator = Operator::new();
        let mut variables = vec![("AWS_SESSION_TOKEN", TOKEN), ("CLOUD_INIT_PATH", "")];
        variables.extend(Some(("GLOVO_BOOTSTRAP_LOG", level)).filter(|_| !level.is_empty()));
        operator.tape.script("DescribeStacks", [Turn::Lost]);
        let create = operator.with_agent(&[&["create-stack", "--yes"], flags].concat());
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        let made = operator.deploy(&create, &variables).expect(0);
        is_clean(&format!("output with {flags:?} and {level:?}"), made.stdout.as_bytes());
        is_clean(&format!("log with {flags:?} and {level:?}"), made.stderr.as_bytes());
        if level == "trace" {
            assert!(made.stderr.contains("DEBUG"), "there is a log to look at: {}", made.stderr);
        }
        assert!(!made.stderr.contains("AKIDEXAMPLE"), "the key's id with {level:?}: {}", made.stderr);
        operator.tape.script("DescribeStacks", [Turn::Refusal(403, "SignatureDoesNotMatch", "The request signature")]);
        let refused =
            operator.deploy(&[&["status"], flags].concat(), &variables).expect(1).says("check the credentials");
        is_clean("an error", refused.stderr.as_bytes());
        search(&operator.sandbox.path);
        for call in operator.calls() {
            is_clean(&call.operation, &call.body);
            assert!(!call.authorization.contains(SECRET) && call.authorization.contains("AWS4-HMAC-SHA256"));
        }
    }
}

#[test]
fn credentials_of_a_file_are_in_no_process_list() {
    let operator = Operator::serving();
    let file = format!(
        "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
    );
    let _ = operator.sandbox.write(".aws/credentials", file);
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeTargetHealth", [turn]);
    let mut command = operator.command(&["status"], &[]);
    let _ = command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let running = Running::start(command);
    let (arguments, environment, children) = meeting.then(|| {
        let process = format!("/proc/{}", running.id());
        let read = |file: &str| fs::read(format!("{process}/{file}")).unwrap();
        (read("cmdline"), read("environ"), read(&format!("task/{}/children", running.id())))
    });
    let _ = running.finish().expect(0);
    assert!(String::from_utf8_lossy(&arguments).contains("deploy"));
    is_clean("its arguments", &arguments);
    is_clean("its environment", &environment);
    assert!(children.is_empty(), "no other process is told");
    assert!(operator.calls().iter().all(|call| call.authorization.contains("Credential=AKIDFILE/")));
}
