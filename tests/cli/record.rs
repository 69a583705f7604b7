//! The record of user-data's arguments, and its use by a run over SSH.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::{
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

const RECORD: &str = "var-lib/glovo-bootstrap/manifest.json";

/// A manifest that writes a variable into a file.
fn manifest(sandbox: &Sandbox, step: &str) -> String {
    let path = sandbox.at("file");
    sandbox.write(
        &format!("{step}.toml"),
        format!("[variables]\nname = \"nobody\"\nsecret = \"\"\n[[step]]\nname = \"{step}\"\n[[step.resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ name }}}} {{{{ secret }}}}\"\n"),
    )
}

/// Runs the command of the rendered user-data.
fn user_data(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let script = sandbox.run(&[&["user-data", "--baked", "--"], arguments].concat()).expect(0).stdout;
    let line = script.lines().find_map(|line| line.split_once("exec $to ")).unwrap().1;
    sandbox.run(&line.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>())
}

fn content(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.at("file")).unwrap()
}

#[test]
fn a_run_over_ssh_does_what_user_data_named() {
    let sandbox = Sandbox::new();
    let steps = manifest(&sandbox, "ours");
    let secrets = sandbox.write("secrets.toml", "secret = \"canary-7461\"\n");
    let _ = user_data(&sandbox, &["--steps", &steps, "--set", "name=one", "--variables", &secrets]).expect(0);
    let record = fs::read_to_string(sandbox.at(RECORD)).unwrap();
    assert!(record.contains("name=one") && record.contains(&secrets) && !record.contains("canary"), "{record}");
    assert_eq!(fs::metadata(sandbox.at(RECORD)).unwrap().permissions().mode() & 0o777, 0o600);

    let using = format!("using {steps} as recorded by user-data on 20");
    let _ = sandbox.run(&["run"]).expect(0).says(&using).says("converged: 0 changes");
    let _ = sandbox.run(&["plan"]).expect(0).says(&using).says("0 changes");
    let json = sandbox.run(&["plan", "--json"]).expect(0).stdout;
    assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    let _ = sandbox.run(&["validate"]).expect(0).says(&using);
    let _ = sandbox.run(&["steps", "list"]).expect(0).says("ours ");

    // The command line overrides the record, and is not recorded.
    let _ = sandbox.run(&["run", "ours", "--set", "name=two"]).expect(0).says(&using).says("1 change");
    assert_eq!(content(&sandbox), "two canary-7461");
    let _ = sandbox.run(&["run"]).expect(0).says("1 change");
    assert_eq!(content(&sandbox), "one canary-7461");
    let other = manifest(&sandbox, "other");
    let named = sandbox.run(&["run", "--steps", &other]).expect(0);
    assert!(!named.stderr.contains("using"), "{named:?}");
    assert_eq!((content(&sandbox), fs::read_to_string(sandbox.at(RECORD)).unwrap()), ("nobody ".into(), record));
    let _ = sandbox.run(&["run"]).expect(0);
    let mut from_environment = sandbox.command(&["run"]);
    let finished = Finished::from(from_environment.env("GLOVO_BOOTSTRAP_STEPS", &other).output().unwrap()).expect(0);
    assert_eq!((content(&sandbox), finished.stderr.contains("recorded")), ("nobody ".into(), false));
    fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    let _ = sandbox.run(&["run", "--root", &sandbox.at("tree")]).expect(2).says("is not set");

    // The next user-data replaces the record.
    let _ = user_data(&sandbox, &["--steps", &other]).expect(0);
    let _ = sandbox.run(&["run"]).expect(0).says(&format!("using {other} as"));
    assert_eq!(content(&sandbox), "nobody ");
}

#[test]
fn the_built_in_steps_are_recorded_with_their_variables() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run(&["plan"]).expect(2).says("variable `jar_url` is not set");
    let digest = format!("jar_sha256={:064}", 0);
    // The name is wrong, so that nothing runs here.
    let set = ["--set", "jar_url=https://a/x", "--set", &digest, "--set", "config_bucket=b", "nonsense"];
    let _ = user_data(&sandbox, &set).expect(2).says("there is no step `nonsense`");
    let using = "using the built-in steps as recorded by user-data on 20";
    let _ = sandbox.run(&["validate"]).expect(0).says(using).says("10 steps");
}

#[test]
fn what_may_hold_a_secret_is_not_recorded() {
    let sandbox = Sandbox::new();
    let steps = manifest(&sandbox, "ours");
    let _ = user_data(&sandbox, &["--steps", &steps, "--set", "name=https://a/x?sig=canary-7461"]).expect(0);
    assert!(!fs::read_to_string(sandbox.at(RECORD)).unwrap().contains("canary"));
    for command in ["run", "plan", "validate"] {
        let refused = sandbox.run(&[command]).expect(2).says("the value of `name` that user-data gave is not recorded");
        let _ = refused.says("--set-secret-file name=FILE");
    }
    assert_eq!(content(&sandbox), "https://a/x?sig=canary-7461 ");
    let _ = sandbox.run(&["run", "--set", "name=x"]).expect(0).says("using ");

    let input = fs::File::open(&steps).unwrap();
    let mut command = sandbox.command(&["run", "--record", "--steps", "-"]);
    let _ = Finished::from(command.stdin(input).output().unwrap()).expect(0);
    let _ = sandbox.run(&["run"]).expect(2).says("is not recorded: it came from standard input").says("--steps PATH");
}

#[test]
fn a_record_of_another_machine_counts_for_nothing() {
    let sandbox = Sandbox::new();
    let _ = user_data(&sandbox, &["--steps", &manifest(&sandbox, "ours")]).expect(0);
    let mut record: Value = serde_json::from_slice(&fs::read(sandbox.at(RECORD)).unwrap()).unwrap();
    record["machine"] = "i-0123456789abcdef0".into();
    fs::write(sandbox.at(RECORD), record.to_string()).unwrap();
    let _ = sandbox.run(&["run"]).expect(2).says("variable `jar_url` is not set");
    fs::write(sandbox.at(RECORD), "garbage").unwrap();
    let _ = sandbox.run(&["run"]).expect(2).says("the record of user-data's arguments cannot be read");
    let _ = user_data(&sandbox, &["--steps", &manifest(&sandbox, "ours")]).expect(0);
    let _ = sandbox.run(&["run"]).expect(0);
}

#[test]
fn a_hint_has_the_whole_command() {
    let sandbox = Sandbox::new();
    let steps = manifest(&sandbox, "ours");
    let _ = sandbox.run(&["status"]).expect(1).says("hint: glovo-bootstrap run --steps DIRECTORY");
    let cut_off = |hint: &str| {
        let path = sandbox.at("var-lib/glovo-bootstrap/report.json");
        let mut report = sandbox.report();
        report["exit_code"] = Value::Null;
        fs::write(path, report.to_string()).unwrap();
        let status = sandbox.run(&["status"]).expect(1);
        assert!(status.stdout.ends_with(&format!("to continue: {hint}\n")), "{status:?}");
    };
    let _ = sandbox.run(&["run", "ours", "--steps", &steps, "--set", "name=s3cret"]).expect(0);
    cut_off(&format!("glovo-bootstrap run ours --steps {steps} --set name"));
    let _ = user_data(&sandbox, &["--steps", &steps, "--set", "name=x"]).expect(0);
    cut_off("glovo-bootstrap run");
    fs::remove_file(sandbox.at("var-lib/glovo-bootstrap/report.json")).unwrap();
    let status = sandbox.run(&["status"]).expect(1);
    assert!(status.stderr.ends_with("hint: glovo-bootstrap run\n"), "{status:?}");
}

#[test]
fn a_run_that_another_one_holds_off_records_nothing() {
    let sandbox = Sandbox::new();
    let (ours, other) = (manifest(&sandbox, "ours"), manifest(&sandbox, "other"));
    let _ = user_data(&sandbox, &["--steps", &ours]).expect(0);
    let before = fs::read_to_string(sandbox.at(RECORD)).unwrap();
    let lock = fs::File::open(sandbox.at("var-lib/glovo-bootstrap/lock")).unwrap();
    lock.lock().unwrap();
    let _ = user_data(&sandbox, &["--steps", &other]).expect(4).says("another run holds this machine");
    assert_eq!(fs::read_to_string(sandbox.at(RECORD)).unwrap(), before);
}

#[test]
fn a_run_that_names_no_manifest_says_which_one_it_uses() {
    let machine = Machine::new();
    let directory = "/etc/glovo-bootstrap/steps";
    machine.write("etc/glovo-bootstrap/steps/10-a.toml", "name = \"a\"\n");
    for command in ["run", "plan"] {
        let bare = machine.sandbox.run(&[command]).expect(0);
        assert_eq!(bare.stderr.lines().filter(|line| *line == format!("using {directory}")).count(), 1, "{bare:?}");
        let named = machine.sandbox.run(&[command, "--steps", directory]).expect(0);
        assert!(!named.stderr.contains("using"), "{named:?}");
        let mut command = machine.sandbox.command(&[command]);
        let output = command.env("GLOVO_BOOTSTRAP_STEPS", directory).output().unwrap();
        let _ = Finished::from(output)
            .expect(0)
            .says("using /etc/glovo-bootstrap/steps, which GLOVO_BOOTSTRAP_STEPS names");
    }
}

#[test]
fn a_manifest_that_a_unit_would_refuse_is_not_recorded() {
    let sandbox = Sandbox::new();
    let steps = manifest(&sandbox, "ours");
    std::os::unix::fs::chown(&steps, Some(1000), Some(1000)).unwrap();
    let run = |arguments: &str| {
        let mut command = sandbox.shell(&format!("SUDO_UID=1000 exec \"$1\" run {arguments} --steps {steps}"));
        crate::sandbox::Finished::from(command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).output().unwrap())
    };
    // systemd starts the unit without SUDO_UID.
    let _ = run("--record").expect(2).says(&format!("{steps} belongs to uid 1000, not to root"));
    assert!(!fs::exists(sandbox.at(RECORD)).unwrap());
    let _ = run("").expect(0).says("1 change");
}
