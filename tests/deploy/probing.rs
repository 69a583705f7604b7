//! Proof before and after: the application itself is asked, in the idle slot and at the public URL.

use std::sync::{Arc, Mutex};

use crate::{
    operator::Operator,
    sandbox::Finished,
    server::{Reply, Request, Server},
    tape::{changes, shares},
    world::{BLUE, Scene},
};

/// The application behind the balancer: its answers to probes of the idle slot, and to all other requests.
struct Application {
    server: Server,
    answers: Arc<Mutex<Answers>>,
}

struct Answers {
    idle: (u16, &'static str),
    public: (u16, &'static str),
    asked: Vec<Request>,
}

impl Application {
    fn new(idle: (u16, &'static str), public: (u16, &'static str)) -> Self {
        let answers = Arc::new(Mutex::new(Answers { idle, public, asked: vec![] }));
        let shared = answers.clone();
        let server = Server::start(move |request| {
            let mut answers = shared.lock().unwrap();
            answers.asked.push(request.clone());
            let (status, body) = if request.probe.is_empty() { answers.public } else { answers.idle };
            Reply { headers: "X-Build: 2\r\n", ..Reply::new(status, body) }
        });
        Self { server, answers }
    }

    /// Returns an operator that serves build 1 of it, and has new content.
    fn served(&self) -> Operator {
        let operator = Operator::serving();
        operator.content("2");
        operator.world(|world| world.url = self.server.url("/"));
        operator
    }

    fn asked(&self) -> Vec<Request> {
        self.answers.lock().unwrap().asked.clone()
    }
}

fn update(operator: &Operator, more: &[&str]) -> Finished {
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "100ms"];
    operator.deploy(&[&hasty, more].concat(), &[("BUILD_NUMBER", "2")])
}

const HEALTH: [&str; 4] = ["--probe", "/health?full=1", "--build-field", "json:app.build"];
const BUILD_2: (u16, &str) = (200, r#"{"app": {"build": 2}}"#);
const BUILD_1: (u16, &str) = (200, r#"{"app": {"build": 1}}"#);

#[test]
fn the_idle_slot_and_the_public_url_are_asked() {
    let application = Application::new(BUILD_2, BUILD_2);
    let operator = application.served();
    let url = application.server.url("/health?full=1");
    let told = update(&operator, &HEALTH).expect(0);
    let confirmed = format!("green (build 2): {url} answers with status 200, as build 2 (2 answers)");
    let at = |words: &str| told.stdout.match_indices(words).map(|(at, _)| at).collect::<Vec<_>>();
    let (asked, share) = (at(&confirmed), at("receives 10 % of the traffic"));
    assert!(asked.len() == 2 && asked[0] < share[0] && share[0] < asked[1], "{}", told.stdout);
    let _ = told.says(&format!("every serving target runs build 2; {url} answers with status 200, as build 2"));
    let asked = application.asked();
    let key = operator.parameter("ProbeKey");
    assert_eq!(key.len(), 36, "a random key: {key}");
    assert!(asked[..2].iter().all(|request| request.probe == format!("{key}-green")), "{asked:?}");
    assert!(asked[2..].iter().all(|request| request.probe.is_empty() && request.target == "/health?full=1"));
    // The key stays.
    operator.content("3");
    let _ = operator.deploy(&[&["plan"], &HEALTH[..]].concat(), &[("BUILD_NUMBER", "3")]).expect(0);
    assert_eq!(operator.parameter("ProbeKey"), key);
}

#[test]
fn a_build_that_fails_its_probe_gets_no_traffic() {
    for (idle, objection) in [
        ((503, ""), "answers with status 503, not 200, after 100 ms"),
        (BUILD_1, "answers as build 1, not 2, after 100 ms"),
        ((200, "hello"), "answers, but does not tell its build, after 100 ms"),
    ] {
        let application = Application::new(idle, BUILD_1);
        let operator = application.served();
        let _ = update(&operator, &HEALTH)
            .expect(1)
            .says(objection)
            .says("the new build does not take over: all traffic is on blue (build 1)");
        assert!(shares(&operator.calls()).is_empty(), "{objection}");
    }
}

#[test]
fn a_public_url_with_another_build_returns_the_traffic() {
    let application = Application::new(BUILD_2, BUILD_1);
    let operator = application.served();
    let told = update(&operator, &HEALTH).expect(1);
    let _ = told.says("answers as build 1, not 2, after 100 ms: the traffic returns to blue (build 1)");
    assert_eq!(shares(&operator.calls()).last(), Some(&["100", "0"]));
    assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
}

#[test]
fn a_header_may_tell_the_build_and_another_status_be_right() {
    let application = Application::new((204, ""), (204, ""));
    let operator = application.served();
    let header = ["--probe", "/", "--probe-status", "204", "--build-field", "header:X-Build"];
    let _ = update(&operator, &header).expect(0);
    let _ = operator.sandbox.write("deploy.toml", "build_field = \"header:x-build\"\nprobe_status = 204\n");
    let _ = operator.deploy(&["status"], &[]).expect(0).says("answers with status 204, as build 2");
    // Here, the idle slot answers as build 2, too.
    let _ = operator.deploy(&["rollback", "--now"], &[]).expect(0);
    let _ = operator.deploy(&["status"], &[]).expect(1).says("answers as build 2, not 1");
}

#[test]
fn an_application_that_is_not_there_gets_no_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.url = "http://127.0.0.1:9/".into());
    let _ = update(&operator, &["--probe", "/"]).expect(1).says("does not answer: connection refused");
    assert!(shares(&operator.calls()).is_empty());
}

#[test]
fn a_probe_connects_to_the_balancer_of_the_slot() {
    let application = Application::new((200, ""), (200, ""));
    let operator = application.served();
    let port = application.server.url("").rsplit(':').next().unwrap().to_owned();
    operator.world(|world| world.url = format!("http://app.invalid:{port}/"));
    // The public name leads nowhere: the build passes its probe, and the traffic returns afterwards.
    let told = update(&operator, &["--probe", "/"]).expect(1).says("green (build 2): http://app.invalid");
    assert!(told.stderr.contains("the name app.invalid can't be resolved"), "{}", told.stderr);
    assert_eq!(application.asked()[0].host, format!("app.invalid:{port}"));
    assert_eq!(shares(&operator.calls()).last(), Some(&["100", "0"]));
}

#[test]
fn settings_of_a_probe_are_checked_first() {
    let operator = Operator::serving();
    for (arguments, words) in [
        (["--probe", "health"], "`--probe health` is no path"),
        (["--build-field", "build"], "write --build-field header:X-Build, or --build-field json:build"),
    ] {
        let _ = update(&operator, &arguments).expect(2).says(words);
    }
    let arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1";
    let secure = update(&operator, &["--probe", "/", "--certificate", arn]).expect(2);
    let _ = secure.says("--probe needs a DNS name: the balancer's own name is not in the certificate");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn the_balancer_of_an_idle_stack_is_asked() {
    let application = Application::new((500, ""), (200, ""));
    let port = application.server.url("").rsplit(':').next().unwrap().to_owned();
    let operator = Operator::of_two_stacks();
    let dns = ["--strategy", "weighted-dns", "--dns-record", "app.example.com", "--yes", "--health-timeout", "100ms"];
    let _ = operator.deploy(&[&["create-stack"], &dns[..]].concat(), &[("BUILD_NUMBER", "1")]).expect(0);
    operator.content("2");
    operator.tape.other_world(|world| world.url = format!("http://app.invalid:{port}/"));
    let update = [&["update-stack", "--pause", "0s", "--probe", "/up"], &dns[..]].concat();
    let told = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(1);
    let told = told.says(&format!("green (build 2): http://app.invalid:{port}/up answers with status 200"));
    assert!(told.stderr.contains("the name app.invalid can't be resolved"), "{}", told.stderr);
    let asked = application.asked();
    assert!(asked.iter().all(|request| request.probe.is_empty() && request.host.starts_with("app.invalid")));
}

#[test]
fn one_group_is_asked_at_the_public_url_afterwards() {
    let application = Application::new((500, ""), BUILD_1);
    let operator = Operator::compatible();
    operator.world(|world| world.url = application.server.url("/"));
    let strategy = ["--strategy", "compatible", "--build-field", "json:app.build", "--health-timeout", "100ms"];
    let create = [&["create-stack", "--yes"], &strategy[..]].concat();
    let _ = operator.deploy(&create, &[("BUILD_NUMBER", "1")]).expect(0).says("answers with status 200, as build 1");
    operator.content("2");
    let update = [&["update-stack", "--yes"], &strategy[..]].concat();
    let _ = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(1).says("answers as build 1, not 2");
}

#[test]
fn a_first_build_is_asked_at_the_public_url() {
    let application = Application::new((500, ""), (200, ""));
    let operator = Operator::new();
    operator.world(|world| {
        world.url = application.server.url("/");
        world.plot = vec![Scene("CREATE_COMPLETE", vec![])];
    });
    let create = ["create-stack", "--yes", "--probe", "/", "--health-timeout", "100ms"];
    let _ = operator.deploy(&create, &[]).expect(0).says("answers with status 200");
    application.answers.lock().unwrap().public = (502, "");
    let _ = operator.deploy(&["status", "--probe", "/"], &[]).expect(1).says("answers with status 502, not 200");
}

#[test]
fn a_rollback_asks_the_previous_build_first() {
    let application = Application::new(BUILD_2, BUILD_2);
    let operator = application.served();
    let _ = update(&operator, &HEALTH).expect(0);
    drop(operator.calls());
    let back = |more: &[&str]| operator.deploy(&[&["rollback"], more, &HEALTH[..]].concat(), &[]);
    application.answers.lock().unwrap().idle = (503, "");
    let _ = back(&["--health-timeout", "100ms"])
        .expect(1)
        .says("error: blue (build 1) does not answer as it should; no traffic was moved")
        .says("answers with status 503, not 200, after 100 ms")
        .says("hint: to return the traffic in spite of that: glovo-bootstrap deploy rollback --no-probe --build 1");
    // It would have shrunk, and will again.
    assert_eq!(changes(&operator.calls()), ["DeleteScheduledAction", "PutScheduledUpdateGroupAction"]);
    application.answers.lock().unwrap().idle = BUILD_1;
    let told = back(&[]).expect(0);
    let at = |words: &str| told.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", told.stdout));
    assert!(at("blue (build 1): http") < at("all traffic is on blue"), "{}", told.stdout);
    let asked = application.asked();
    assert!(asked.last().unwrap().probe.ends_with("-blue"), "{asked:?}");
    // Without a wait for it, where each second counts, or where that build never knew the path.
    application.answers.lock().unwrap().idle = (503, "");
    let _ = back(&["--now", "--build", "2"]).expect(0);
    let _ = back(&["--no-probe", "--build", "1"]).expect(0);
    let _ = back(&["--no-probe", "--build", "2"]).expect(0);
    // A stack whose builds were never asked has no key that leads to a slot.
    operator.world(|world| _ = world.parameters.insert("ProbeKey".into(), String::new()));
    let _ = back(&["--build", "1"]).expect(0);
}
