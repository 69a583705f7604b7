//! Profiles whose credentials a program prints.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use super::Home;
use crate::agreeing::answering;

const PRINTED: &str = r#"{"Version": 1, "AccessKeyId": "ASIAPROC", "SecretAccessKey": "canary-secret",
                          "SessionToken": "canary-token", "Expiration": "2100-01-01T00:00:00Z"}"#;

#[test]
fn a_credential_process_runs_in_the_users_environment() {
    let home = Home::new("");
    let program =
        home.operator.sandbox.write("say \"keys\"", format!("#!/bin/sh\n[ \"$CORP\" = ok ] && echo '{PRINTED}'\n"));
    home.write("config", &format!("[profile proc]\ncredential_process = sh '{program}'\n"));
    let _ = home.run(&["status", "--profile", "proc"], &[("CORP", "ok")]).expect(0);
    assert_eq!(super::keys(&home.operator.calls()), ["ASIAPROC"]);
}

#[test]
fn a_failed_credential_process_shows_its_errors_alone() {
    let home = Home::new("");
    let script = "echo canary-output; printf 'no \\033[31mtoken\\n' >&2; exit 3";
    let program = home.operator.sandbox.write("fail", script);
    home.write("config", &format!("[profile proc]\ncredential_process = sh {program} canary-argument\n"));
    home.fails(
        "proc",
        77,
        r"
caused by: the credential_process of the AWS profile proc failed with exit code 3
  | no \x1b[31mtoken
hint: run it by hand: it is in the section of this profile in ~/.aws/config",
    );
    home.write("config", "[profile proc]\ncredential_process = echo canary\n");
    home.fails(
        "proc",
        1,
        "
caused by: the credential_process of the AWS profile proc printed no valid credentials: its output is no JSON object",
    );
}

#[test]
fn a_credential_process_of_another_user_is_not_started() {
    let home = Home::new("");
    let mark = home.operator.sandbox.at("mark");
    home.write("config", &format!("[profile proc]\ncredential_process = touch {mark}\n"));
    let config = home.operator.sandbox.at(".aws/config");
    std::os::unix::fs::chown(&config, Some(12_345), None).unwrap();
    home.fails(
        "proc",
        1,
        "
caused by: no program is started that the AWS profiles name: another user may have chosen it
caused by: ",
    );
    home.fails("proc", 1, "belongs to uid 12345, not to root");
    assert!(!std::path::Path::new(&mark).exists());
}

#[test]
fn ctrl_c_ends_a_credential_process() {
    let home = Home::new("");
    let fifo = home.operator.sandbox.at("fifo");
    home.write("config", &format!("[profile proc]\ncredential_process = sh -c 'echo $$ > {fifo}; exec sleep 1000'\n"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut command = home.command(&["status", "--profile", "proc"], &[]);
    let running = crate::operator::Running::start({
        let _ = command.stdin(Stdio::null());
        command
    });
    // The program has begun.
    let pid = std::fs::read_to_string(&fifo).unwrap();
    running.signal(nix::sys::signal::Signal::SIGINT);
    let finished = running.finish();
    super::without_secrets(&finished);
    let _ = finished.expect(130).says("stopped by SIGINT");
    // Its parent may be gone, and nothing may have asked for its exit code. SIGKILL takes effect when it is scheduled.
    let is_running = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    while is_running() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_credential_process_is_started_without_a_shell() {
    let home = Home::new("");
    // `$`, `;`, `*` and `>` are ordinary characters. Quotes and backslashes are those of a shell.
    let line =
        r#"printf %s '{"Version": 1, "AccessKeyId":' "\"$HOME;*>\"" , ' "SecretAccessKey":' \"canary\\\\x\" '}'"#;
    home.write("config", &format!("[profile proc]\ncredential_process = {line}\n"));
    home.serves("proc", "$HOME;*>");
    for (line, why) in [("echo 'canary", "has a quote without an end"), ("''", "names no program")] {
        home.write("config", &format!("[profile proc]\ncredential_process = {line}\n"));
        home.fails("proc", 2, &format!("the credential_process of the AWS profile proc {why}"));
    }
}

#[test]
fn what_a_credential_process_leaves_running_delays_nothing() {
    let home = Home::new("");
    let fifo = home.operator.sandbox.at("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let program = home.operator.sandbox.write("login", format!("read line < {fifo} &\nprintf '%s' '{PRINTED}'\n"));
    home.write("config", &format!("[profile proc]\ncredential_process = sh {program}\n"));
    home.serves("proc", "ASIAPROC");
    // It has run all the time, with the streams of the program.
    std::fs::write(&fifo, "end\n").unwrap();
}

#[test]
fn a_credential_process_asks_on_the_users_terminal() {
    let home = Home::new("");
    let program = home
        .operator
        .sandbox
        .write("ask", format!("printf 'code: ' >&2\nread code\n[ \"$code\" = 123456 ] && echo '{PRINTED}'\n"));
    home.write("config", &format!("[profile proc]\ncredential_process = sh {program}\n"));
    let command = home.command(&["status", "--profile", "proc"], &[]);
    let _ = answering(&home.operator, &command, "code: ", "123456\n").expect(0);
    assert_eq!(super::keys(&home.operator.calls()), ["ASIAPROC"]);
}

#[test]
fn secrets_in_the_errors_of_a_credential_process_are_hidden() {
    let home = Home::new("");
    let script = "echo '{\"SecretAccessKey\": \"canary-1\", \"SessionToken\":\"canary-2\"}' >&2\n\
                  echo SecretAccessKey canary-3 >&2; echo \"SessionToken 'canary-4'\" >&2\n\
                  printf '%s\\n' '\"SecretAccessKey\":' '  \"canary-5\"' 'no luck' >&2; exit 1\n";
    let program = home.operator.sandbox.write("fail", script);
    home.write("config", &format!("[profile proc]\ncredential_process = sh {program}\n"));
    home.fails("proc", 77, "failed with exit code 1");
    home.fails("proc", 77, "  | no luck");
}

#[test]
fn a_credential_process_that_takes_long_is_named() {
    let home = Home::new("");
    let fifo = home.operator.sandbox.at("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    home.write("config", &format!("[profile proc]\ncredential_process = cat {fifo}\n"));
    let mut command = home.command(&["status", "--profile", "proc"], &[]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting for the credential_process of the AWS profile proc")));
    std::fs::write(&fifo, PRINTED).unwrap();
    assert!(child.wait().unwrap().success());
}
