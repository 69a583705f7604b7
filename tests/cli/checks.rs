//! The kinds `http_check` and `tcp_check` against servers of the test.

use std::{
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use nix::sys::socket::{Backlog, listen};

use crate::{
    sandbox::{Finished, Sandbox, lone_listener},
    server::{Reply, Server},
    standin::Machine,
};

fn http(url: &str, fields: &str) -> String {
    format!("[[resource]]\nkind = \"http_check\"\nurl = \"{url}\"\n{fields}\n")
}

fn tcp(address: &str) -> String {
    format!("[[resource]]\nkind = \"tcp_check\"\naddress = \"{address}\"\ndeadline = \"0s\"\n")
}

#[test]
fn one_of_several_statuses_is_right() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let server = Server::start(|_| Reply::new(401, "who are you?"));
    let _ = sandbox.run_resources(&http(&server.url("/"), "status = [200, 401]")).expect(0).says("0 changes");
    let none = sandbox.run_resources(&http(&server.url("/"), "status = [200, 204]\ndeadline = \"0s\"")).expect(1);
    let _ = none.says("did not answer 200 or 204 within 0 ms: status 401");
}

#[test]
fn a_body_is_waited_for() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        Reply::ok(if asked.fetch_add(1, Ordering::Relaxed) < 3 {
            "{\"status\": \"starting\"}"
        } else {
            "{\"status\": \"up\"}"
        })
    });
    let up = http(&server.url("/"), "body = '\"status\": \"up\"'");
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&up)]).expect(0);
    let _ = plan.says("wait for 200, a body with").says("the body begins with");
    let _ = sandbox.run_resources(&up).expect(0).says("1 change");
    let _ = sandbox.run_resources(&up).expect(0).says("0 changes");
    let down = http(&server.url("/"), "body = \"down\"\ndeadline = \"0s\"");
    let _ = sandbox.run_resources(&down).expect(1).says("did not answer 200, a body with `down` within 0 ms");
}

#[test]
fn a_body_does_not_reach_the_terminal_raw() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let server = Server::start(|_| Reply::ok("\u{1b}]52;c;AAAA\u{7}\u{202e}"));
    let said = sandbox.run_resources(&http(&server.url("/"), "body = \"x\"\ndeadline = \"0s\"")).expect(1);
    assert!(!(said.stdout + &said.stderr).contains(['\u{1b}', '\u{7}', '\u{202e}']));
}

#[test]
fn a_message_shows_a_body_on_one_line() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let server = Server::start(|_| Reply::ok("first\n\"second\"\r\n"));
    let check = http(&server.url("/"), "body = \"up\\nagain\"\ndeadline = \"0s\"");
    let said = sandbox.run_resources(&check).expect(1);
    let _ = said.says("a body with `up\\nagain` within 0 ms: the body begins with `first\\n\"second\"\\r\\n`");
}

#[test]
fn a_silent_server_is_not_awaited_after_the_deadline() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    // The kernel accepts the connections, but no program answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let check = http(&format!("http://{address}/"), "deadline = \"200ms\"");
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&check)]).expect(0);
    let _ = plan.says("wait for 200 (now: no answer within 200 ms)");
    let words = "did not answer 200 within 200 ms: no answer within 200 ms";
    let _ = sandbox.run_resources(&check).expect(75).says(words);
}

#[test]
fn a_full_queue_is_not_awaited_after_the_deadline() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let fill = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let _queue: Vec<_> = (0..9).map_while(fill).collect();
    let check = format!("[[resource]]\nkind = \"tcp_check\"\naddress = \"{address}\"\ndeadline = \"200ms\"\n");
    let words = "accepted no connection within 200 ms: no connection within 200 ms";
    let _ = sandbox.run_resources(&check).expect(75).says(words);
}

#[test]
fn declarations_of_checks_that_cannot_hold_are_refused() {
    let sandbox = Sandbox::new();
    for (resource, words) in [
        (http("http://127.0.0.1/", "status = []"), "the list of statuses is empty"),
        (
            http("http://127.0.0.1/", "status = \"x\""),
            "`status`: expected a number from 100 to 599, or a list of them, found \"x\"",
        ),
        (http("http://127.0.0.1/", "status = 70000"), "or a list of them, found 70000"),
        (
            http("http://127.0.0.1/", "status = [200, \"x\"]"),
            "`status`: expected a number from 0 to 65535, found \"x\"",
        ),
        (http("http://127.0.0.1/", "status = [200, 99]"), "99 is not an HTTP status"),
        (http("http://127.0.0.1/", "ca = \"/etc/ca.pem\""), "`ca` needs an https URL"),
        (tcp("127.0.0.1"), "`127.0.0.1` is not HOST:PORT"),
        (tcp("127.0.0.1:0"), "is not HOST:PORT"),
        (tcp(":5432"), "is not HOST:PORT"),
        (tcp("::1:5432"), "is not HOST:PORT"),
        (tcp("a b:5432"), "is not HOST:PORT"),
        (tcp("[::1:5432"), "is not HOST:PORT"),
    ] {
        let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&resource)]).expect(2).says(words);
    }
}

#[test]
fn a_file_of_certificates_is_there_before_its_check() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let ca = sandbox.at("ca.pem");
    let check = http("https://127.0.0.1:1/", &format!("deadline = \"0s\"\nca = \"{ca}\""));
    let manifest = sandbox.manifest(&check);
    for verb in ["plan", "run"] {
        let _ = sandbox.run(&[verb, "--steps", &manifest]).expect(1).says("which does not exist");
    }
    let _ = sandbox.write("ca.pem", "not a certificate\n");
    for verb in ["plan", "run"] {
        let _ = sandbox.run(&[verb, "--steps", &manifest]).expect(1).says("there is no certificate in PEM form");
    }
}

#[test]
fn a_connection_is_enough_for_a_tcp_check() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let listener = lone_listener();
    let address = listener.local_addr().unwrap().to_string();
    let _ = sandbox.run_resources(&tcp(&address)).expect(0).says("0 changes");
    drop(listener);
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&tcp(&address))]).expect(0);
    let _ = plan.says("wait for a connection (now: connection refused)");
    let refused = sandbox.run_resources(&tcp(&address)).expect(75);
    let refused = refused.says("accepted no connection within 0 ms: connection refused");
    let _ = refused.says("ss --listening");
    let _ = sandbox.run_resources(&tcp("no-such-host.invalid:5432")).expect(75).says("can't be resolved");
}

#[test]
fn a_check_does_not_take_itself_for_the_server() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    // Only one port is left for the check's own end: that of the server that does not run.
    let script = "ip link set lo up; echo 40001 40001 > /proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"";
    let mut command = sandbox.shell("exec unshare --net sh -euc \"$@\"");
    let _ = command.args([script, "sh", env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps"]);
    let _ = command.arg(sandbox.manifest(&tcp("127.0.0.1:40001")));
    let _ = Finished::from(command.output().unwrap()).expect(75).says("connection refused");
}

#[test]
fn an_image_checks_no_server() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    let manifest = sandbox.manifest(&tcp("127.0.0.1:1"));
    let run = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0);
    let _ = run.says("connect (deferred: ");
}
