//! `run --failures`: how a run ended, and the block of its failure, in a bucket. The bucket, the metadata service and
//! CloudFormation are in this process.

use std::process::Command;

use serde_json::Value;

use crate::{
    sandbox::Finished,
    server::{Reply, Request},
    signal::Aws,
};

const PLACE: &str = "s3://artifacts/glovo-app.failures";
/// The object of the instance whose identity document `signal.rs` has.
const OBJECT: &str =
    "/artifacts/glovo-app.failures/arn%3Aaws%3Aec2%3Aeu-central-1%3A123456789012%3Ainstance/i-0123456789abcdef0";

/// Runs a command of a machine that has a role.
fn run(aws: &Aws, arguments: &[&str]) -> Finished {
    let manifest = aws.sandbox.at("manifest.toml");
    finish(aws, aws.command(&[&["app/Group", "--steps", &manifest, "--failures", PLACE], arguments].concat()))
}

/// Runs a command as the machine's units do.
fn later(aws: &Aws, arguments: &[&str]) -> Finished {
    let mut command = aws.sandbox.command(&[&["run"], arguments].concat());
    let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.server.url("/")).env("HOME", &aws.sandbox.path);
    finish(aws, command)
}

fn finish(aws: &Aws, mut command: Command) -> Finished {
    let _ = command.env("AWS_ENDPOINT_URL_S3", aws.server.url("")).env("AWS_REGION", "eu-central-1");
    let _ = command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
    Finished::from(command.output().unwrap())
}

/// Returns the requests to the bucket.
fn of_bucket(aws: &Aws) -> Vec<Request> {
    let mut requests = aws.server.requests();
    requests.retain(|request| request.target.starts_with("/artifacts"));
    requests
}

/// Returns the block in the last object, and the last run below it.
fn last_object(aws: &Aws) -> (String, serde_json::Value) {
    let body = String::from_utf8(of_bucket(aws).pop().expect("an object").body).unwrap();
    let (block, line) = body.trim_end().rsplit_once('\n').unwrap_or(("", body.trim_end()));
    let block = if block.is_empty() { String::new() } else { format!("{block}\n") };
    (block, serde_json::from_str(line).unwrap())
}

/// Returns the block in the output of a run.
fn block(finished: &Finished) -> &str {
    let from =
        finished.stderr.find("-----BEGIN GLOVO-BOOTSTRAP FAILURE-----").unwrap_or_else(|| panic!("{finished:?}"));
    let end = "-----END GLOVO-BOOTSTRAP FAILURE-----\n";
    &finished.stderr[from..from + finished.stderr[from..].find(end).unwrap() + end.len()]
}

#[test]
fn a_failure_is_put_under_the_instances_arn_before_the_signal() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("echo it is not right >&2; exit 1");
    let finished = run(&aws, &[]).expect(1).says("signalled FAILURE to app/Group");
    // The role may put this object, and nothing else: no HEAD goes before.
    let [put] = &of_bucket(&aws)[..] else { panic!("{:?}", of_bucket(&aws)) };
    assert_eq!((put.method.as_str(), put.target.as_str()), ("PUT", OBJECT));
    assert!(put.authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIATEST/"), "{put:?}");
    let (text, last) = last_object(&aws);
    assert_eq!(text, block(&finished));
    assert_eq!((&last["outcome"], &last["exit_code"]), (&"failed".into(), &1.into()));
    assert_eq!((&last["step"], &last["build"], &last["changes"]), (&"second".into(), &"42".into(), &1.into()));
    assert!(block(&finished).contains("step: second\n") && block(&finished).contains("log: it is not right\n"));
    // After the signal, CloudFormation may end the machine.
    let order: Vec<_> = aws.server.requests().into_iter().map(|request| request.target).collect();
    let at = |start: &str| order.iter().position(|target| target.starts_with(start)).unwrap();
    assert!(at("/artifacts") < at("/?Action=SignalResource"), "{order:?}");
}

#[test]
fn a_bucket_that_does_not_take_it_costs_one_line() {
    let answers: [fn(&Request) -> Reply; 3] = [
        |_| Reply::new(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
        |_| Reply::none(),
        // It never answers.
        |_| loop {
            std::thread::park();
        },
    ];
    for answer in answers {
        let aws = Aws::with_bucket(answer);
        aws.manifest("exit 1");
        let finished = run(&aws, &[]).expect(1).says("signalled FAILURE to app/Group");
        assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 second"]);
        let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(PLACE)).collect();
        assert!(
            lines.len() == 1 && lines[0].contains("the outcome of the run was not uploaded"),
            "{}",
            finished.stderr
        );
        assert!(!of_bucket(&aws).is_empty());
    }
}

#[test]
fn a_run_that_converges_says_so_after_the_signal() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let _ = run(&aws, &[]).expect(0);
    let (block, last) = last_object(&aws);
    assert_eq!((block.as_str(), &last["outcome"], &last["changes"]), ("", &"changed".into(), &2.into()), "{last}");
    assert_eq!((&last["exit_code"], &last["drift"], &last["step"]), (&0.into(), &Value::Null, &Value::Null));
    assert_eq!((&last["version"], &last["build"]), (&env!("CARGO_PKG_VERSION").into(), &"42".into()));
    let order: Vec<_> = aws.server.requests().into_iter().map(|request| request.target).collect();
    let at = |start: &str| order.iter().position(|target| target.starts_with(start)).unwrap();
    assert!(at("/artifacts") > at("/?Action=SignalResource"), "{order:?}");
}

#[test]
fn later_runs_of_the_record_say_how_they_ended() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let _ = run(&aws, &["--record"]).expect(0);
    let _ = later(&aws, &[]).expect(0);
    let (_, last) = last_object(&aws);
    assert_eq!((&last["outcome"], &last["drift"]), (&"unchanged".into(), &0.into()), "{last}");

    std::fs::remove_file(aws.sandbox.at("one")).unwrap();
    let _ = later(&aws, &[]).expect(0);
    let (_, last) = last_object(&aws);
    assert_eq!((&last["outcome"], &last["drift"], &last["changes"]), (&"changed".into(), &1.into(), &1.into()));

    aws.manifest("echo it is not right >&2; exit 1");
    std::fs::remove_file(aws.sandbox.at("two")).unwrap();
    let _ = later(&aws, &[]).expect(1);
    let (block, last) = last_object(&aws);
    assert!(block.contains("step: second\n") && block.contains("log: it is not right\n"), "{block}");
    assert_eq!((&last["outcome"], &last["step"]), (&"failed".into(), &"second".into()), "{last}");

    let _ = aws.sandbox.write("manifest.toml", "name = 1");
    let _ = later(&aws, &[]).expect(2);
    let (block, last) = last_object(&aws);
    assert!(block.contains("error: ") && block.contains("invalid manifest"), "{block}");
    assert_eq!((&last["exit_code"], &last["changes"]), (&2.into(), &0.into()), "{last}");
    assert_eq!(of_bucket(&aws).len(), 5);
}

#[test]
fn a_later_run_uploads_no_value_of_a_secret_variable() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    let variables = aws.sandbox.write("variables.toml", "token = \"hunter22secret\"\n");
    let text = format!(
        "name = \"web-{{{{ token }}}}\"\n[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\n\
         validate = [\"sh\", \"-c\", 'echo {{}} hunter22secret; exit 1']\n",
        aws.sandbox.at("x")
    );
    let manifest = aws.sandbox.write("manifest.toml", text);
    let _ = later(&aws, &["--steps", &manifest, "--variables", &variables, "--failures", PLACE]).expect(1);
    let _ = run(&aws, &["--variables", &variables]).expect(1);
    let bodies = of_bucket(&aws).into_iter().map(|request| String::from_utf8(request.body).unwrap());
    let bodies: Vec<String> = bodies.collect();
    let is_safe = |body: &String| body.contains("step: web-") && !body.contains("hunter22");
    assert!(bodies.len() == 2 && bodies.iter().all(is_safe), "{bodies:?}");
}

#[test]
fn a_run_of_a_part_or_of_other_steps_says_nothing() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let _ = run(&aws, &["--record"]).expect(0);
    let _ = later(&aws, &["first"]).expect(0);
    let _ = later(&aws, &["--skip", "second"]).expect(0);
    let manifest = aws.sandbox.at("manifest.toml");
    let _ = later(&aws, &["--steps", &manifest]).expect(0);
    assert_eq!(of_bucket(&aws).len(), 1);
    let _ = later(&aws, &["--steps", &manifest, "--failures", PLACE]).expect(0);
    assert_eq!(of_bucket(&aws).len(), 2);
    // Without this option, a later record keeps it.
    let _ = later(&aws, &["--record", "--steps", &manifest]).expect(0);
    let _ = later(&aws, &[]).expect(0);
    assert_eq!(of_bucket(&aws).len(), 3);
}

#[test]
fn a_bucket_that_is_away_costs_a_later_run_one_line() {
    let aws = Aws::with_bucket(|_| Reply::new(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"));
    aws.manifest("true");
    let _ = run(&aws, &["--record"]).expect(0);
    let finished = later(&aws, &[]).expect(0);
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(PLACE)).collect();
    assert!(lines.len() == 1 && lines[0].contains("the outcome of the run was not uploaded"), "{}", finished.stderr);
}

#[test]
fn an_invalid_command_line_is_put_too() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let finished = run(&aws, &["--no-such-flag"]).expect(2);
    let [put] = &of_bucket(&aws)[..] else { panic!("{:?}", of_bucket(&aws)) };
    assert_eq!(put.method, "PUT");
    let (text, last) = last_object(&aws);
    assert_eq!((text.as_str(), &last["exit_code"]), (block(&finished), &2.into()));
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 usage"]);
}

#[test]
fn a_place_that_is_none_is_refused_with_a_signal() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    for wrong in ["artifacts/failures", "s3://artifacts", "s3://artifacts/", "s3:///failures"] {
        let manifest = aws.sandbox.at("manifest.toml");
        let mut command = aws.command(&["app/Group", "--steps", &manifest, "--failures", wrong]);
        let _ = Finished::from(command.output().unwrap()).expect(2).says("s3://BUCKET/PREFIX");
    }
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 usage"; 4]);
}
