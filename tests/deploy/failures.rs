//! The blocks of failures in the bucket: the words of machines without a console.

use nix::sys::signal::Signal;

use crate::{
    causes::{CONSOLE, failing},
    operator::Operator,
    sandbox::Finished,
    tape::{Meeting, Turn, of},
};

/// The object of the machine that fails.
const OBJECT: &str = "/artifacts/glovo-app.failures/arn%3Aaws%3Aec2%3Aeu-central-1%3A123456789012%3Ainstance/\
                      i-0123456789abcdef0";
const LINES: [&str; 4] = [
    "machine i-0123456789abcdef0 failed: step copy_http_resources, download /var/www/glovo-app/app.jar",
    "fetching https://jars.example.com/app-2.jar",
    "the server answered 404 Not Found",
    "hint: check the URL, or that the file was uploaded",
];

/// Lets build 2 fail on a machine without a console, which has put this object.
fn failing_with(object: impl Into<Vec<u8>>) -> Operator {
    let operator = failing("");
    operator.world(|world| _ = world.objects.insert(OBJECT.into(), object.into()));
    operator
}

fn update(operator: &Operator) -> Finished {
    let update = ["update-stack", "--yes", "--pause", "0s", "--keep-for", "0s", "--bucket", "artifacts"];
    operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(1)
}

#[test]
fn the_last_lines_have_the_words_of_a_machine_without_a_console() {
    let said = update(&failing_with(CONSOLE));
    let last = said.stderr.rsplit("error: ").next().unwrap();
    let at = |line: &str| last.find(line).unwrap_or_else(|| panic!("missing: {line}\n{}", said.stderr));
    assert!(LINES.map(at).is_sorted(), "{}", said.stderr);
    assert_eq!(said.stdout.matches("step: copy_http_resources").count(), 1, "below the event: {}", said.stdout);
    assert!(!said.stderr.contains("waiting for"), "{}", said.stderr);
}

#[test]
fn ctrl_c_while_an_object_is_read_detaches_and_loses_no_words() {
    let operator = failing_with(CONSOLE);
    let (meeting, turn) = Meeting::new();
    operator.tape.script("GetObject", [turn]);
    let update = ["update-stack", "--yes", "--pause", "0s", "--keep-for", "0s", "--bucket", "artifacts"];
    let running = operator.start(&update, &[("BUILD_NUMBER", "2")]);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running
        .finish()
        .expect(130)
        .says("detached; CloudFormation keeps working on glovo-app")
        .says("hint: glovo-bootstrap deploy watch --stack glovo-app");
    // The next watch reads them.
    let _ = operator.sandbox.write("deploy.toml", "bucket = 'artifacts'\n");
    let told = operator.deploy(&["watch"], &[]).expect(1);
    assert!(LINES.iter().all(|line| told.stderr.contains(line)), "{}", told.stderr);
}

#[test]
fn an_object_that_comes_late_is_awaited() {
    let operator = failing_with(CONSOLE);
    let missing = || Turn::Refusal(404, "NoSuchKey", "The specified key does not exist.");
    let failures = [Turn::Lost, Turn::Refusal(503, "SlowDown", "Please reduce your request rate."), missing()];
    operator.tape.script("GetObject", failures.into_iter().chain((0..5).map(|_| missing())));
    let said = update(&operator);
    assert!(LINES.iter().all(|line| said.stderr.contains(line)), "{}", said.stderr);
}

#[test]
fn diagnose_reads_the_object_of_settings_or_stack() {
    let operator = failing_with(CONSOLE);
    let _ = update(&operator);
    let without = operator.deploy(&["diagnose"], &[]).expect(1);
    assert!(!without.stdout.contains("step: copy_http_resources"), "{}", without.stdout);
    let settings = operator.sandbox.write("deploy.toml", "bucket = 'artifacts'\n");
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    assert!(LINES.iter().all(|line| told.stdout.contains(line)), "{}", told.stdout);
    std::fs::remove_file(settings).unwrap();
    operator.world(|world| {
        let of_stack = [("ArtifactBucket", "artifacts"), ("ArtifactPrefix", "glovo-app")];
        world.parameters.extend(of_stack.map(|(name, value)| (name.to_owned(), value.to_owned())));
    });
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    assert!(LINES.iter().all(|line| told.stdout.contains(line)), "{}", told.stdout);
}

#[test]
fn a_bucket_that_may_not_be_read_leaves_console_and_signal() {
    let refused = || Turn::Refusal(403, "AccessDenied", "Access Denied");
    let operator = failing(CONSOLE);
    operator.tape.script("GetObject", (0..20).map(|_| refused()));
    let said = update(&operator);
    assert!(LINES.iter().all(|line| said.stderr.contains(line)), "{}", said.stderr);
    let operator = failing("");
    operator.tape.script("GetObject", (0..20).map(|_| refused()));
    let said = update(&operator).says("is not allowed s3:GetObject on arn:aws:s3:::artifacts/glovo-app.failures/");
    assert!(said.stderr.contains("machine i-0123456789abcdef0 failed: copy_http_resources\n"), "{}", said.stderr);
}

#[test]
fn a_refused_object_does_not_hide_that_the_machine_is_gone() {
    let operator = failing_with(CONSOLE);
    // Without s3:ListBucket, S3 refuses an object that does not exist.
    operator.tape.script("GetObject", (0..20).map(|_| Turn::Refusal(403, "AccessDenied", "Access Denied")));
    let gone = || Turn::Refusal(400, "InvalidInstanceID.NotFound", "The instance ID does not exist");
    operator.tape.script("GetConsoleOutput", (0..20).map(|_| gone()));
    let told = update(&operator).says("EC2 no longer knows machine i-0123456789abcdef0");
    assert!(!told.stderr.contains("waiting for the console output"), "{}", told.stderr);
}

#[test]
fn a_bucket_that_does_not_answer_is_asked_again() {
    let operator = failing_with(CONSOLE);
    operator.tape.script("GetObject", [Turn::Lost]);
    operator.tape.script(
        "GetConsoleOutput",
        (0..2).map(|_| Turn::Refusal(400, "InvalidInstanceID.NotFound", "The instance ID does not exist")),
    );
    let said = update(&operator);
    assert!(LINES.iter().all(|line| said.stderr.contains(line)), "{}", said.stderr);
}

#[test]
fn only_the_first_64_kib_of_an_object_are_read() {
    let late = format!("{}\n{CONSOLE}", "x".repeat(64 << 10));
    let said = update(&failing_with(late));
    assert!(said.stderr.contains("machine i-0123456789abcdef0 failed: copy_http_resources\n"), "{}", said.stderr);
    let long = format!("{CONSOLE}{}", "x".repeat(4 << 20));
    let said = update(&failing_with(long));
    assert!(LINES.iter().all(|line| said.stderr.contains(line)), "{}", said.stderr);
}

#[test]
fn without_a_bucket_no_object_is_asked_for() {
    let operator = failing(CONSOLE);
    let _ = operator.update("2").expect(1);
    assert!(of(&operator.calls(), "GetObject").is_empty());
}

#[test]
fn the_text_of_a_hostile_object_has_no_effect_on_a_terminal() {
    let hostile = "a\u{1b}]52;c;ZXZpbA==\u{7}b\u{9b}2Jc\u{202e}d\rforged";
    let operator = failing_with(CONSOLE.replace("404 Not Found", hostile));
    let said = update(&operator);
    let _ = operator.sandbox.write("deploy.toml", "bucket = 'artifacts'\n");
    let told = operator.deploy(&["diagnose"], &[]).expect(1);
    for text in [&said.stdout, &said.stderr, &told.stdout] {
        let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(text.contains("the server answered a") && !text.contains(raw), "{text:?}");
    }
}
