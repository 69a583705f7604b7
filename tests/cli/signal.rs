//! `run --signal`: the signals to CloudFormation. The metadata service and the endpoint are in this process.

use std::{fs, process::Command, sync::Mutex};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    journald::Journald,
    sandbox::{Finished, Sandbox, eventually, is_alive},
    server::{Reply, Request, Server},
    standin::Machine,
};

const DOCUMENT: &str =
    r#"{"accountId": "123456789012", "instanceId": "i-0123456789abcdef0", "region": "eu-central-1"}"#;
const STACK: &str = "arn:aws:cloudformation:eu-central-1:123456789012:stack/app/7d2e3dd0-f5f3-11e7-93f5-50a686e4bb4a";

/// An instance, and a CloudFormation that answers the first signals with these statuses and all others with 200.
pub struct Aws {
    pub sandbox: Sandbox,
    pub server: Server,
}

impl Aws {
    fn new() -> Self {
        Self::with_answers(vec![])
    }

    fn with_answers(answers: Vec<(u16, &'static str)>) -> Self {
        Self::with(answers, |_| Reply::new(404, ""))
    }

    /// The same, with a bucket that answers each upload like this.
    pub fn with_bucket(bucket: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(vec![], bucket)
    }

    fn with(answers: Vec<(u16, &'static str)>, bucket: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let answers = Mutex::new(answers.into_iter());
        let server = Server::start(move |request| match request.target.as_str() {
            "/latest/api/token" => {
                Reply { headers: "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", ..Reply::ok("token") }
            }
            "/latest/meta-data/tags/instance/build" => Reply::ok("42"),
            "/latest/meta-data/instance-id" => Reply::ok("i-0123456789abcdef0"),
            "/latest/dynamic/instance-identity/document" => Reply::ok(DOCUMENT),
            "/latest/dynamic/instance-identity/signature" => Reply::ok("c2lnbmF0\ndXJl\n"),
            signal if signal.starts_with("/?Action=SignalResource&") => {
                let (status, body) = answers.lock().unwrap().next().unwrap_or((200, "{}"));
                Reply::new(status, body)
            }
            "/" => Reply::ok("<CompleteLifecycleActionResponse/>"),
            _ if request.method == "PUT" && request.target != "/latest/api/token" => bucket(request),
            _ => Reply::new(404, ""),
        });
        let sandbox = Sandbox::new();
        let _ = sandbox.write("console", "");
        Self { sandbox, server }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(&[&["run", "--signal"], arguments].concat());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            let _ = command.env_remove(name);
        }
        let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.server.url("/"));
        let _ = command.env("AWS_ENDPOINT_URL_CLOUDFORMATION", self.server.url("")).env("HOME", &self.sandbox.path);
        command
    }

    /// Runs the sandbox's manifest to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let manifest = self.sandbox.at("manifest.toml");
        let all = [&["app/Group", "--steps", &manifest], arguments].concat();
        Finished::from(self.command(&all).output().unwrap())
    }

    fn start(&self, arguments: &[&str]) -> std::process::Child {
        let manifest = self.sandbox.at("manifest.toml");
        let mut command = self.command(&[&["app/Group", "--steps", &manifest], arguments].concat());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    }

    /// Returns the requests to CloudFormation.
    fn requests(&self) -> Vec<Request> {
        let mut requests = self.server.requests();
        requests.retain(|request| request.target.starts_with("/?"));
        requests
    }

    /// Returns the status and the `UniqueId` of each signal.
    pub fn signals(&self) -> Vec<String> {
        let value = |target: &str, name: &str| {
            let value = target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().replace("%20", " ")
        };
        let all = self.requests().into_iter().map(|request| request.target);
        all.map(|target| format!("{} {}", value(&target, "Status"), value(&target, "UniqueId"))).collect()
    }

    /// Writes a manifest whose step `second` waits for the file `go`. If its run is killed, it ends with the sandbox.
    fn manifest_that_waits(&self) {
        self.manifest(&format!(
            "touch {0}; while [ -e {0} ] && [ ! -e {1} ]; do sleep 0.05; done",
            self.sandbox.at("at-work"),
            self.sandbox.at("go")
        ));
    }

    /// A manifest with two steps, the second one of a file whose validator does something.
    pub fn manifest(&self, script: &str) {
        let text = format!(
            "[[step]]\nname = \"first\"\n[[step.resource]]\nkind = \"file\"\npath = \"{0}/one\"\ncontent = \"\"\n\
             [[step]]\nname = \"second\"\n[[step.resource]]\nkind = \"file\"\npath = \"{0}/two\"\ncontent = \"new\"\n\
             validate = [\"sh\", \"-c\", ': {{}}; {script}']\n",
            self.sandbox.path.display()
        );
        let _ = self.sandbox.write("manifest.toml", text);
    }

    fn wait_for_the_run(&self) {
        eventually("the validator runs", || fs::exists(self.sandbox.at("at-work")).unwrap());
    }

    fn console(&self) -> String {
        fs::read_to_string(self.sandbox.at("console")).unwrap()
    }
}

/// Returns the process id of the run that a supervisor has started.
fn child_of(supervisor: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    children.trim().to_owned()
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[test]
fn success_is_signalled_only_when_all_steps_have_converged() {
    let aws = Aws::new();
    aws.manifest("true");
    let manifest = aws.sandbox.at("manifest.toml");
    let target = format!("{STACK}/Group");
    let finished = Finished::from(aws.command(&[&target, "--steps", &manifest]).output().unwrap()).expect(0);
    let finished = finished.says("converged: 2 changes").says("signalled SUCCESS to arn:aws:");
    assert!(!finished.stderr.contains("BEGIN") && aws.console().is_empty(), "{finished:?}");
    let [request] = &aws.requests()[..] else { panic!("{:?}", aws.requests()) };
    let stack = STACK.replace(':', "%3A").replace('/', "%2F");
    let query = format!(
        "/?Action=SignalResource&ContentType=JSON&LogicalResourceId=Group&StackName={stack}&Status=SUCCESS\
         &UniqueId=i-0123456789abcdef0&Version=2010-05-15"
    );
    assert_eq!(request.target, query);
    assert_eq!(request.authorization, format!("CFN_V1 {}:c2lnbmF0dXJl", BASE64_STANDARD.encode(DOCUMENT)));
}

#[test]
fn a_failing_step_is_named_at_once_and_explained_in_one_block() {
    let aws = Aws::new();
    aws.manifest("echo it is not right >&2; exit 1");
    let finished = aws.run(&[]).expect(1).says("signalled FAILURE to app/Group");
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 second"]);
    let block = format!(
        "-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\ninstance: i-0123456789abcdef0\nbuild: 42\nstep: second\n\
         resource: file {0}/two\n",
        aws.sandbox.path.display()
    );
    let _ = finished.says(&block).says("\nlog: it is not right\n-----END GLOVO-BOOTSTRAP FAILURE-----\n");
    if fs::exists("/dev/console").unwrap() {
        // A login prompt may stand in the console's last line, so the block begins a line of its own.
        assert!(aws.console().starts_with(&format!("\n{block}")), "{}", aws.console());
    }
}

#[test]
fn the_block_of_a_failure_is_in_the_journal() {
    let aws = Aws { sandbox: Machine::new().sandbox, ..Aws::new() };
    let _ = aws.sandbox.write("console", "");
    let journald = Journald::listen(&aws.sandbox);
    aws.manifest("echo it is not right >&2; exit 1");
    let _ = aws.run(&[]).expect(1);
    let records = journald.records();
    let blocks: Vec<&String> =
        records.iter().filter(|record| record.contains("BEGIN GLOVO-BOOTSTRAP FAILURE")).collect();
    let [block] = blocks[..] else { panic!("{records:?}") };
    assert!(block.contains("SYSLOG_IDENTIFIER=glovo-bootstrap\n") && block.contains("\nstep: second\n"), "{block}");
    // The run is a process of its own, and its changes are records.
    assert!(records.iter().any(|record| record.contains("GLOVO_STEP=first\n")), "{records:?}");
}

#[test]
fn a_manifest_that_is_none_is_a_failure_too() {
    let aws = Aws::new();
    let _ = aws.sandbox.write(
        "manifest.toml",
        "name = \"a\"\n[[resource]]\nkind = \"link\"\npath = \"/x\"\ntarget = \"{{ none }}\"\n",
    );
    let _ = aws.run(&[]).expect(2).says("\ncaused by: ").says("variable `none` is not set");
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0"]);
    let _ = aws.run(&["--no-such-option"]).expect(2).says("caused by: unexpected argument");
    assert_eq!(aws.signals()[1..], ["FAILURE i-0123456789abcdef0 usage"]);
}

#[test]
fn whatever_kills_the_run_is_not_silent() {
    for (signal, code, how, cause) in [
        ("-KILL", 137, "SIGKILL", "error: the run was ended by SIGKILL"),
        ("-ABRT", 134, "panic", "error: the run panicked"),
    ] {
        let aws = Aws::new();
        aws.manifest_that_waits();
        let run = aws.start(&[]);
        aws.wait_for_the_run();
        kill(signal, &child_of(run.id()));
        // This does not stop the program that the run waits for.
        fs::write(aws.sandbox.at("go"), "").unwrap();
        let _ = Finished::from(run.wait_with_output().unwrap()).expect(code).says(cause).says("step: second");
        assert_eq!(aws.signals(), [format!("FAILURE i-0123456789abcdef0 second {how}")]);
    }
}

#[test]
fn sigterm_is_passed_on_and_signalled() {
    let aws = Aws::new();
    aws.manifest_that_waits();
    let run = aws.start(&[]);
    aws.wait_for_the_run();
    let child = child_of(run.id());
    kill("-TERM", &run.id().to_string());
    let finished = Finished::from(run.wait_with_output().unwrap()).expect(143);
    let _ = finished.says("caused by: stopped by SIGTERM").says("step: second");
    assert!(!is_alive(&child));
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 second SIGTERM"]);
    assert_eq!(aws.sandbox.report()["exit_code"], 143);
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_leaves_its_report() {
    let aws = Aws::new();
    aws.manifest_that_waits();
    let finished = aws.run(&["--signal-within", "5s"]).expect(143);
    let _ = finished.says("error: the run did not end within 5.0 s").says("hint: find the step that it waited for");
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 second deadline"]);
    assert_eq!(aws.sandbox.report()["exit_code"], 143);
}

#[test]
fn a_signal_is_sent_until_it_is_acknowledged() {
    let throttled = r#"{"Error":{"Code":"Throttling","Message":"Rate exceeded","Type":"Sender"}}"#;
    let aws = Aws::with_answers(vec![(503, ""), (400, throttled), (500, "<html>")]);
    aws.manifest("true");
    let _ = aws.run(&[]).expect(0).says("503").says("Rate exceeded").says("signalled SUCCESS");
    assert_eq!(aws.signals(), vec!["SUCCESS i-0123456789abcdef0"; 4]);
}

#[test]
fn on_a_scale_out_nobody_waits_and_that_is_no_failure() {
    let complete = r#"{"Error":{"Code":"ValidationError","Message":"Stack app is in CREATE_COMPLETE state and cannot be signaled","Type":"Sender"}}"#;
    let aws = Aws::with_answers(vec![(400, complete)]);
    aws.manifest("true");
    let told = aws.run(&[]).expect(0).says("no resource waits for the signal SUCCESS to app/Group");
    let _ = told.says("state and cannot be signaled");
    assert_eq!(aws.signals().len(), 1);
}

#[test]
fn a_signal_to_a_mistyped_name_has_a_hint() {
    let stack = "<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack app does not exist</Message></Error></ErrorResponse>";
    let resource = r#"{"Error":{"Code":"ValidationError","Message":"Resource Group does not exist for stack app","Type":"Sender"}}"#;
    for (answer, words) in
        [(stack, "Stack app does not exist"), (resource, "Resource Group does not exist for stack app")]
    {
        let aws = Aws::with_answers(vec![(400, answer)]);
        aws.manifest("true");
        let told = aws.run(&[]).expect(0).says(&format!("SUCCESS to app/Group reached no resource: {words}"));
        let _ = told.says("hint: check the names in --signal STACK/RESOURCE");
        assert_eq!(aws.signals().len(), 1);
    }
}

#[test]
fn a_refused_signal_has_a_hint_and_leaves_the_exit_code() {
    let denied = r#"{"Error":{"Code":"AccessDenied","Message":"not yours","Type":"Sender"}}"#;
    let aws = Aws::with_answers(vec![(403, denied)]);
    aws.manifest("true");
    let _ = aws
        .run(&[])
        .expect(0)
        .says("error: signalling SUCCESS to app/Group")
        .says("AccessDenied: not yours (HTTP 403")
        .says("hint: ");
    assert_eq!(aws.signals().len(), 1);
}

#[test]
fn what_is_left_out_is_not_signalled_as_done() {
    let aws = Aws::new();
    aws.manifest("true");
    for arguments in
        [&["first"][..], &["--from", "second"], &["--skip", "first"], &["--phase", "bake"], &["--root", "/"]]
    {
        let _ = aws.run(arguments).expect(2).says("cannot be used with");
    }
    assert!(aws.signals().iter().all(|signal| signal.starts_with("FAILURE")), "{:?}", aws.signals());
    assert!(!fs::exists(aws.sandbox.at("one")).unwrap());
}

#[test]
fn a_deferred_change_is_not_signalled_as_success() {
    let aws = Aws::new();
    let url = aws.server.url("/");
    let _ = aws.sandbox.manifest(&format!("[[resource]]\nkind = \"http_check\"\nurl = \"{url}\"\n"));
    let inner = aws.command(&["app/Group", "--steps", &aws.sandbox.at("manifest.toml")]);
    // A machine on which systemd does not run, as in a container: nothing can be started or checked.
    let script =
        r#"mount --make-rprivate / && { [ ! -e /run/systemd ] || mount -t tmpfs none /run/systemd; } && exec "$@""#;
    let mut command = Command::new("unshare");
    let _ = command.args(["--mount", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        let _ = match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let _ = Finished::from(command.output().unwrap()).expect(0).says("error: not done in this run: expect ");
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 step"]);
}

#[test]
fn no_secret_is_told() {
    let aws = Aws::new();
    let variables = aws.sandbox.write("secrets.toml", "password = \"canary-7461\"\n");
    // A validator that prints what it reads, and a download whose URL holds a signature.
    let path = aws.sandbox.at("two");
    let file = format!(
        "name = \"a\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"password={{{{ password }}}}\\n\"\n\
         secret = true\nvalidate = [\"sh\", \"-c\", \"cat {{}}; echo no {{{{ password }}}}; exit 1\"]\n"
    );
    let url = aws.server.url("/none?X-Amz-Signature=canary-7461");
    let download = format!(
        "name = \"b\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"{url}\"\nsha256 = \"{:064}\"\n",
        0
    );
    let named = "name = \"c-{{ password }}\"\n[[resource]]\nkind = \"link\"\npath = \"/none/{{ password }}/x\"\ntarget = \"{{ password }}\"\n";
    for manifest in [&file, &download, named] {
        let _ = aws.sandbox.write("manifest.toml", manifest);
        let finished = aws.run(&["--variables", &variables]).expect(1);
        let block = finished.stderr.split("-----BEGIN").nth(1).unwrap_or_else(|| panic!("{finished:?}"));
        assert!(!block.contains("canary"), "{block}");
        if manifest != named {
            assert!(!finished.stdout.contains("canary") && !finished.stderr.contains("canary"), "{finished:?}");
        }
        assert!(block.contains("error: "), "{block}");
    }
    assert_eq!(aws.signals().len(), 3);
    assert!(aws.requests().iter().all(|request| !request.target.contains("canary")));
    assert!(!aws.console().contains("canary"));
}

#[test]
fn a_lifecycle_hook_is_completed_with_the_role() {
    for (script, code, result) in [("true", 0, "CONTINUE"), ("exit 1", 1, "ABANDON")] {
        let aws = Aws::new();
        aws.manifest(script);
        let manifest = aws.sandbox.at("manifest.toml");
        let mut command =
            aws.command(&["app/Group", "--lifecycle-hook", "app-Group-1/launch/ing", "--steps", &manifest]);
        let _ = command.env("AWS_ENDPOINT_URL_AUTO_SCALING", aws.server.url("")).env("AWS_REGION", "eu-central-1");
        let _ = command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
        let finished = Finished::from(command.output().unwrap()).expect(code);
        let _ = finished.says(&format!("completed the lifecycle hook app-Group-1/launch/ing: {result}"));
        let told = aws.server.requests();
        let at = |is: fn(&Request) -> bool| told.iter().position(is).unwrap();
        let (signal, hook) = (at(|request| request.target.starts_with("/?")), at(|request| request.target == "/"));
        // The order matters: after a signal, the stack continues with the instance or terminates it.
        assert_eq!(hook < signal, result == "CONTINUE");
        assert!(told[hook].authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIATEST/"), "{told:?}");
        let form = format!(
            "Action=CompleteLifecycleAction&Version=2011-01-01&AutoScalingGroupName=app-Group-1\
             &LifecycleHookName=launch%2Fing&LifecycleActionResult={result}&InstanceId=i-0123456789abcdef0"
        );
        assert_eq!(told[hook].body, form.as_bytes());
    }
}

#[test]
fn a_machine_that_does_not_enter_its_group_has_failed() {
    let denying = Server::start(|_| {
        Reply::new(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>")
    });
    let aws = Aws::new();
    aws.manifest("true");
    let run = |arguments: &[&str]| {
        let mut command = aws.command(&[&["app/Group", "--lifecycle-hook", "app/converged"], arguments].concat());
        let _ = command.env("AWS_ENDPOINT_URL_AUTO_SCALING", denying.url("")).env("AWS_REGION", "eu-central-1");
        let _ = command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
        Finished::from(command.output().unwrap())
    };
    let _ = run(&["--steps", &aws.sandbox.at("manifest.toml")])
        .expect(1)
        .says("the steps have converged, but the machine does not enter its group")
        .says("completing the lifecycle hook app/converged with CONTINUE");
    assert_eq!(aws.signals(), ["FAILURE i-0123456789abcdef0 hook"]);
    // A usage error must not hold the machine up until the hook's own timeout.
    let _ = run(&["--no-such-option"]).expect(2).says("completing the lifecycle hook app/converged with ABANDON");
}

#[test]
fn a_recorded_run_signals_no_value_of_the_machines_variables() {
    let aws = Aws::new();
    for directory in ["machine/etc", "machine/run", "machine/bin"] {
        fs::create_dir_all(aws.sandbox.at(directory)).unwrap();
    }
    let _ = aws.sandbox.write("machine/swaps", "");
    let _ = aws.sandbox.write("machine/etc/glovo-bootstrap/variables.toml", "token = \"hunter22secret\"\n");
    let text = format!(
        "name = \"web-{{{{ token }}}}\"\n[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\n\
         validate = [\"sh\", \"-c\", 'echo {{}} hunter22secret; exit 1']\n",
        aws.sandbox.at("x")
    );
    let _ = aws.sandbox.write("manifest.toml", text);
    let run = aws.run(&["--record"]).expect(1);
    let signals = aws.signals();
    assert!(signals.len() == 1 && signals[0].starts_with("FAILURE i-0123456789abcdef0 web-"), "{signals:?}");
    let told = format!("{}{}{signals:?}{}", run.stdout, run.stderr, aws.console());
    assert!(told.contains("error: ") && !told.contains("hunter22"), "{told}");
}
