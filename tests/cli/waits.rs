//! Waits for other processes: what a log and `status` say of a long one.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::Child,
};

use crate::{
    sandbox::{Sandbox, eventually, lone_listener},
    standin::Machine,
};

/// Starts a run whose output is a file, and waits until it tells its wait in these words.
fn waits(sandbox: &Sandbox, resources: &str, words: &str) -> Child {
    let output = File::create(sandbox.at("output")).unwrap();
    let mut run = sandbox.command(&["run", "--steps", &sandbox.manifest(resources)]);
    let run = run.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    eventually("the wait is told", || told(sandbox).contains(words));
    let status = sandbox.run(&["status"]).expect(4).says(words).says(", for up to ").says(", since 20");
    assert!(status.stdout.contains("running: pid "), "{status:?}");
    let _ = sandbox.run(&["status", "--json"]).expect(4).says(&format!("\"waiting\": \"{words}"));
    run
}

fn told(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.at("output")).unwrap()
}

fn ends(sandbox: &Sandbox, mut run: Child) {
    assert!(run.wait().unwrap().success(), "{}", told(sandbox));
    assert_eq!(told(sandbox).matches("    waiting for ").count(), 1, "{}", told(sandbox));
    let status = sandbox.run(&["status"]).expect(0);
    assert!(!status.stdout.contains("waiting"), "{status:?}");
}

#[test]
fn a_long_wait_for_a_lock_is_told_with_its_holder() {
    let machine = Machine::new();
    let pid = std::process::id();
    machine.write("etc/passwd.lock", format!("{pid}\0"));
    let run = waits(
        &machine.sandbox,
        "[[resource]]\nkind = \"group\"\nname = \"app\"\n",
        &format!("waiting for pid {pid} ("),
    );
    assert!(told(&machine.sandbox).contains(") to release /etc/passwd.lock, for up to 14 min"));
    fs::remove_file(machine.at("etc/passwd.lock")).unwrap();
    ends(&machine.sandbox, run);
}

#[test]
fn a_long_wait_for_a_server_is_told_with_its_answer() {
    let machine = Machine::new();
    let address = lone_listener().local_addr().unwrap();
    let check = format!("[[resource]]\nkind = \"tcp_check\"\naddress = \"{address}\"\ndeadline = \"30m\"\n");
    let run = waits(&machine.sandbox, &check, &format!("waiting for {address}: connection refused"));
    let _listener = TcpListener::bind(address).unwrap();
    ends(&machine.sandbox, run);
}
