//! `run --failures`: the block of a failure in a bucket. The bucket, the metadata service and CloudFormation are in this
//! process.

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
    let mut command = aws.command(&[&["app/Group", "--steps", &manifest, "--failures", PLACE], arguments].concat());
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
    assert_eq!(String::from_utf8_lossy(&put.body), block(&finished));
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
        assert!(lines.len() == 1 && lines[0].contains("the failure block was not uploaded"), "{}", finished.stderr);
        assert!(!of_bucket(&aws).is_empty());
    }
}

#[test]
fn a_run_that_converges_puts_nothing() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let _ = run(&aws, &[]).expect(0);
    assert!(of_bucket(&aws).is_empty(), "{:?}", of_bucket(&aws));
}

#[test]
fn an_invalid_command_line_is_put_too() {
    let aws = Aws::with_bucket(|_| Reply::ok(""));
    aws.manifest("true");
    let finished = run(&aws, &["--no-such-flag"]).expect(2);
    let [put] = &of_bucket(&aws)[..] else { panic!("{:?}", of_bucket(&aws)) };
    assert_eq!(String::from_utf8_lossy(&put.body), block(&finished));
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
