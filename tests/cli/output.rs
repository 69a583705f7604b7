//! Runs whose output has no reader: a stopped journald, a full pipe.

use std::{
    fs,
    io::Read,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::{Child, Command, Stdio},
};

use crate::{journald::Journald, sandbox::eventually, standin::Machine};

/// The number of files whose output fills each queue and buffer.
const FILES: usize = 2000;

/// A manifest of many files below `/run/files`.
fn many_files(machine: &Machine) -> String {
    let mut resources = "[[resource]]\nkind = \"directory\"\npath = \"/run/files\"\n".to_owned();
    for number in 0..FILES {
        resources += &format!(
            "[[resource]]\nkind = \"file\"\npath = \"/run/files/one-of-many-files-{number}\"\ncontent = \"x\"\n"
        );
    }
    machine.sandbox.manifest(&resources)
}

/// A run whose standard error is the journal's, with a journald that never reads what it gets.
fn run_with_a_stopped_journald(machine: &Machine) -> (Child, UnixDatagram) {
    fs::create_dir_all(machine.at("run/systemd/journal")).unwrap();
    let journald = UnixDatagram::bind(machine.at("run/systemd/journal/socket")).unwrap();
    let stderr = fs::File::create(machine.sandbox.at("stderr")).unwrap();
    let status = stderr.metadata().unwrap();
    let manifest = many_files(machine);
    let mut command = machine.sandbox.command(&["run", "--steps", &manifest]);
    let command = command.env("JOURNAL_STREAM", format!("{}:{}", status.dev(), status.ino()));
    (command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap(), journald)
}

fn ends(mut run: Child) -> Option<i32> {
    let mut status = None;
    for _ in 0..2400 {
        status = run.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    if status.is_none() {
        run.kill().unwrap();
        panic!("the run hangs");
    }
    status.and_then(|status| status.code())
}

#[test]
fn a_journald_that_does_not_read_holds_no_run_up() {
    let machine = Machine::new();
    let (run, journald) = run_with_a_stopped_journald(&machine);
    assert_eq!(ends(run), Some(0));
    assert_eq!(fs::read_dir(machine.at("run/files")).unwrap().count(), FILES);
    // The records sent before its queue was full have the native protocol.
    let mut record = vec![0; 64 << 10];
    let length = journald.recv(&mut record).unwrap();
    let text = String::from_utf8_lossy(&record[..length]).into_owned();
    for words in
        ["PRIORITY\n", "SYSLOG_IDENTIFIER\n", "GLOVO_STEP\n", "GLOVO_RESOURCE\n", "directory /run/files: create"]
    {
        assert!(text.contains(words), "no {words:?} in {text:?}");
    }
}

#[test]
fn sigterm_ends_a_run_whose_journald_does_not_read() {
    let machine = Machine::new();
    let (run, _journald) = run_with_a_stopped_journald(&machine);
    eventually("some files are written", || fs::exists(machine.at("run/files/one-of-many-files-40")).unwrap());
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    assert_eq!(ends(run), Some(143));
}

#[test]
fn an_unread_pipe_holds_no_run_up() {
    let machine = Machine::new();
    let manifest = many_files(&machine);
    let run = machine.sandbox.start(&["run", "--steps", &manifest]);
    assert_eq!(ends(run), Some(0));
    assert_eq!(fs::read_dir(machine.at("run/files")).unwrap().count(), FILES);
    assert_eq!(machine.sandbox.report()["exit_code"], 0);
}

#[test]
fn sigterm_ends_a_plan_with_an_unread_pipe() {
    let machine = Machine::new();
    let manifest = many_files(&machine);
    let mut plan = machine.sandbox.start(&["plan", "--steps", &manifest]);
    // The test reads only the first byte, so the pipe is soon full.
    plan.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(Command::new("kill").args(["-TERM", &plan.id().to_string()]).status().unwrap().success());
    assert_eq!(ends(plan), Some(143));
}

#[test]
fn a_run_of_user_data_is_in_its_log_and_in_the_journal() {
    let machine = Machine::new();
    let journald = Journald::listen(&machine.sandbox);
    let resources = "[[resource]]\nkind = \"file\"\npath = \"/run/one\"\ncontent = \"x\"\n\
                     [[resource]]\nkind = \"command\"\nname = \"broken\"\nargv = [\"false\"]\nrun_on = [\"/run/one\"]\n";
    let manifest = machine.sandbox.manifest(resources);
    let run = machine.sandbox.run(&["run", "--record", "--steps", &manifest]).expect(1);
    let said = format!("{}{}", run.stdout, run.stderr);
    // People read each fact once.
    assert_eq!(said.matches("file /run/one: create").count(), 1, "{said}");
    assert_eq!(said.matches("failed with exit code 1").count(), 1, "{said}");
    let records = journald.records();
    let about = |words: &[&str]| records.iter().any(|record| words.iter().all(|word| record.contains(word)));
    let fields = ["SYSLOG_IDENTIFIER=glovo-bootstrap\n", "GLOVO_STEP=step\n", "GLOVO_RESOURCE=file /run/one\n"];
    assert!(about(&fields) && about(&["PRIORITY=3\n", "command broken: ", "failed with exit code 1"]), "{records:?}");
    assert!(about(&["GLOVO_RUN_ID=", "GLOVO_EXIT_CODE=1\n", "MESSAGE=failed after 1 change"]), "{records:?}");
}

#[test]
fn an_invalid_manifest_of_user_data_is_in_the_journal() {
    let machine = Machine::new();
    let journald = Journald::listen(&machine.sandbox);
    let manifest = machine.sandbox.manifest("[[resource]]\nkind = \"nothing\"\n");
    let _ = machine.sandbox.run(&["run", "--record", "--steps", &manifest]).expect(2);
    let records = journald.records();
    assert!(records.iter().any(|record| record.contains("PRIORITY=3\n") && record.contains("nothing")), "{records:?}");
}

#[test]
fn a_run_by_hand_is_not_in_the_journal() {
    let machine = Machine::new();
    let journald = Journald::listen(&machine.sandbox);
    let manifest = machine.sandbox.manifest("[[resource]]\nkind = \"file\"\npath = \"/run/one\"\ncontent = \"x\"\n");
    let _ = machine.sandbox.run(&["run", "--steps", &manifest]).expect(0);
    assert_eq!(journald.records(), Vec::<String>::new());
}
