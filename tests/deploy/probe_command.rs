//! A command on the operator's machine checks a new build before it receives any traffic.

use std::sync::mpsc::channel;
use std::{sync::Mutex, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    operator::Operator,
    sandbox::Finished,
    server::{Reply, Server},
    tape::{changes, shares},
};

fn update(operator: &Operator, more: &[&str]) -> Finished {
    operator.deploy(&[&["update-stack", "--yes", "--pause", "0s"], more].concat(), &[("BUILD_NUMBER", "2")])
}

/// Returns an operator who serves build 1 at this URL, and has new content and a script.
fn with_script(url: &str, script: &str) -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| url.clone_into(&mut world.url));
    let _ = operator.sandbox.write("check.sh", script);
    operator
}

const RUNS_CHECK: [&str; 2] = ["--probe-command", "sh check.sh 'a b'"];
const URL: &str = "http://app.example.com/";

#[test]
fn a_command_is_told_how_to_reach_the_idle_slot() {
    let operator =
        with_script(URL, "env | grep ^GLOVO_BOOTSTRAP_PROBE_ | sort > told; echo \"$1\" >> told; pwd >> told\n");
    let told = update(&operator, &RUNS_CHECK).expect(0);
    let at = |words: &str| told.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", told.stdout));
    let ran = at("green (build 2): running the probe command sh check.sh 'a b', for at most 5 min 00 s");
    assert!(ran < at("green (build 2): the probe command passed in "));
    assert!(at("the probe command passed in ") < at("receives 10 % of the traffic"));
    let (key, here) = (operator.parameter("ProbeKey"), operator.sandbox.path.display());
    assert_eq!(key.len(), 36, "a random key: {key}");
    let wanted = format!(
        "GLOVO_BOOTSTRAP_PROBE_BUILD=2\nGLOVO_BOOTSTRAP_PROBE_CONNECT_TO=127.0.0.1\n\
         GLOVO_BOOTSTRAP_PROBE_HEADER=x-glovo-bootstrap-probe: {key}-green\n\
         GLOVO_BOOTSTRAP_PROBE_URL=http://app.example.com\na b\n{here}\n"
    );
    assert_eq!(std::fs::read_to_string(operator.sandbox.at("told")).unwrap(), wanted);
    // A way back starts no command: users wait.
    let _ = operator.sandbox.write("deploy.toml", "probe_command = \"sh missing.sh\"\n");
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
}

#[test]
fn a_build_that_fails_the_command_gets_no_traffic() {
    let operator = with_script(URL, "seq 1000 | sed 's/^/line /'; printf 'no \\033[31mlogin\\n' >&2; exit 3\n");
    let told = update(&operator, &RUNS_CHECK)
        .expect(1)
        .says("the new build does not take over: all traffic is on blue (build 1)")
        .says("caused by: the probe command sh check.sh 'a b' failed with exit code 3")
        .says("| line 1000")
        .says("| no \\x1b[31mlogin");
    assert!(told.stderr.matches("| line").count() < 13 && !told.stderr.contains('\x1b'), "{}", told.stderr);
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn a_command_without_an_end_is_ended_at_its_limit() {
    let operator = with_script(URL, "echo waiting for the login; sleep 600\n");
    let _ = update(&operator, &[&RUNS_CHECK[..], &["--probe-time", "100ms"]].concat())
        .expect(1)
        .says("caused by: the probe command sh check.sh 'a b' did not pass")
        .says("timed out after 100 ms");
    let missing = ["--probe-command", "/missing/check --quick"];
    let _ = update(&operator, &missing).expect(1).says("did not pass").says("starting /missing/check");
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn ctrl_c_ends_the_command_and_says_where_users_are() {
    let (here, reached) = channel();
    let here = Mutex::new(here);
    let server = Server::start(move |_| {
        let _ = here.lock().unwrap().send(());
        Reply::ok("")
    });
    let script = "host=${GLOVO_BOOTSTRAP_PROBE_URL#http://}\nexec 3<> /dev/tcp/${host%:*}/${host#*:}\n\
                  printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3\nsleep 600\n";
    let operator = with_script(&server.url("/"), script);
    let running = operator.start(
        &["update-stack", "--yes", "--pause", "0s", "--probe-command", "bash check.sh"],
        &[("BUILD_NUMBER", "2")],
    );
    reached.recv_timeout(Duration::from_mins(1)).expect("the command runs");
    running.signal(Signal::SIGINT);
    let _ = running
        .finish()
        .expect(130)
        .says("detached from glovo-app: green (build 2) receives 0 % of the traffic")
        .says("to continue, run the same command again");
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn machines_that_get_sick_during_the_command_receive_no_traffic() {
    let (here, reached) = channel();
    let (go, gone) = channel::<()>();
    let (here, gone) = (Mutex::new(here), Mutex::new(gone));
    let server = Server::start(move |_| {
        let _ = here.lock().unwrap().send(());
        let _ = gone.lock().unwrap().recv();
        Reply::ok("")
    });
    let script = "host=${GLOVO_BOOTSTRAP_PROBE_URL#http://}\nexec 3<> /dev/tcp/${host%:*}/${host#*:}\n\
                  printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3\nread -r line <&3\n";
    let operator = with_script(&server.url("/"), script);
    let update = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "100ms"];
    let command = ["--probe-command", "bash check.sh"];
    let running = operator.start(&[&update[..], &command].concat(), &[("BUILD_NUMBER", "2")]);
    reached.recv_timeout(Duration::from_mins(1)).expect("the command runs");
    operator.health("Green", [vec!["unhealthy"]]);
    drop(go);
    let _ = running
        .finish()
        .expect(1)
        .says("the probe command passed in")
        .says("the new build does not take over: all traffic is on blue (build 1)");
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn a_first_build_and_one_group_are_checked_at_the_public_url() {
    let (target, machine) = ("serving target", "machine in service");
    for (operator, strategy, served) in
        [(Operator::new(), "blue-green", target), (Operator::compatible(), "compatible", machine)]
    {
        operator.world(|world| URL.clone_into(&mut world.url));
        let _ = operator
            .sandbox
            .write("check.sh", "echo \"$GLOVO_BOOTSTRAP_PROBE_URL,$GLOVO_BOOTSTRAP_PROBE_HEADER\"; exit 1\n");
        let create = ["create-stack", "--yes", "--strategy", strategy];
        let _ = operator
            .deploy(&[&create, &RUNS_CHECK[..]].concat(), &[("BUILD_NUMBER", "1")])
            .expect(1)
            .says(&format!("every {served} runs build 1"))
            .says("error: the probe command sh check.sh 'a b' failed with exit code 1")
            .says("| http://app.example.com,\n");
        assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet"], "{strategy}");
        // The same command again is no way around it.
        let _ = operator
            .deploy(&[&create, &RUNS_CHECK[..]].concat(), &[("BUILD_NUMBER", "1")])
            .expect(1)
            .says("error: the probe command sh check.sh 'a b' failed with exit code 1");
    }
}

#[test]
fn a_command_without_a_program_is_refused_first() {
    let operator = Operator::serving();
    for command in ["'", "'' a", " "] {
        let _ = update(&operator, &["--probe-command", command]).expect(2).says("names no program");
    }
    let arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1";
    let secure = update(&operator, &[&RUNS_CHECK[..], &["--certificate", arn]].concat()).expect(2);
    let _ = secure.says("needs a DNS name: the balancer's own name is not in the certificate");
    assert!(changes(&operator.calls()).is_empty());
}
