//! `/etc/glovo-bootstrap/variables.toml`: this machine's values, for units and for runs by hand.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{sandbox::Finished, standin::Machine};

const OWN: &str = "etc/glovo-bootstrap/variables.toml";

/// A machine whose steps write a variable into a file.
fn machine() -> Machine {
    let machine = Machine::new();
    let path = machine.sandbox.at("file");
    let step =
        format!("name = \"one\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ name }}}}\"\n");
    machine.write("etc/glovo-bootstrap/steps/10-one.toml", step);
    machine
}

/// Runs the program; returns how it ended and what is in the file then.
fn run(machine: &Machine, arguments: &[&str]) -> (Finished, String) {
    let finished = machine.sandbox.run(arguments);
    (finished, fs::read_to_string(machine.sandbox.at("file")).unwrap_or_default())
}

#[test]
fn a_machine_has_values_of_its_own() {
    let machine = machine();
    let _ = run(&machine, &["run"]).0.expect(2).says("variable `name` is not set");
    machine.write(OWN, "name = \"own\"\n");
    fs::set_permissions(machine.at(OWN), fs::Permissions::from_mode(0o600)).unwrap();
    let _ = run(&machine, &["plan"]).0.expect(0).says("1 change pending");
    let (finished, content) = run(&machine, &["run"]);
    assert_eq!((finished.expect(0).code, content.as_str()), (Some(0), "own"));
    let _ = run(&machine, &["validate"]).0.expect(0);

    // They override the manifest's own values, and the command line overrides them.
    machine.write("etc/glovo-bootstrap/steps/variables.toml", "name = \"default\"\n");
    let _ = run(&machine, &["run"]).0.expect(0).says("converged: 0 changes");
    assert_eq!(run(&machine, &["run", "--set", "name=typed"]).1, "typed");

    // They are not used for a manifest that is named.
    let steps = machine.at("etc/glovo-bootstrap/steps");
    assert_eq!(run(&machine, &["run", "--steps", &steps]).1, "default");
}

#[test]
fn a_machines_values_are_not_shown() {
    let machine = machine();
    machine.write(OWN, "name = \"canary-7461\"\n");
    for verb in ["plan", "run"] {
        let finished = run(&machine, &[verb]).0.expect(0);
        assert!(!finished.stdout.contains("canary") && !finished.stderr.contains("canary"), "{finished:?}");
    }
    assert!(!machine.sandbox.report().to_string().contains("canary"));
}

#[test]
fn values_that_another_user_could_write_are_refused() {
    let machine = machine();
    machine.write(OWN, "name = \"own\"\n");
    fs::set_permissions(machine.at(OWN), fs::Permissions::from_mode(0o666)).unwrap();
    for verb in ["plan", "run"] {
        let _ = run(&machine, &[verb]).0.expect(2).says("this machine's variables can't be read");
    }
}

#[test]
fn a_machines_values_fill_in_what_the_record_withholds() {
    let machine = machine();
    let steps = machine.at("etc/glovo-bootstrap/steps");
    let secret = "name=https://a/x?sig=canary-7461";
    let (finished, content) = run(&machine, &["run", "--record", "--steps", &steps, "--set", secret]);
    assert_eq!((finished.expect(0).code, content.as_str()), (Some(0), "https://a/x?sig=canary-7461"));
    fs::rename(machine.at("etc/glovo-bootstrap/steps"), machine.at("etc/glovo-bootstrap/old")).unwrap();
    let _ = run(&machine, &["run"]).0.expect(2);
    fs::rename(machine.at("etc/glovo-bootstrap/old"), machine.at("etc/glovo-bootstrap/steps")).unwrap();
    machine.write(OWN, "name = \"own\"\n");
    assert_eq!(run(&machine, &["run"]).1, "own");
}

#[test]
fn a_recorded_run_reads_the_machines_values_too() {
    let machine = machine();
    fs::rename(machine.at("etc/glovo-bootstrap/steps"), machine.at("etc/own-steps")).unwrap();
    machine.write(OWN, "name = \"own\"\n");
    let steps = "/etc/own-steps";
    let (finished, content) = run(&machine, &["run", "--record", "--steps", steps]);
    assert_eq!((finished.expect(0).code, content.as_str()), (Some(0), "own"));
    let _ = run(&machine, &["run"]).0.expect(0).says("converged: 0 changes");
    // What user-data gives counts over them, in its own run and in the later ones.
    let named = machine.sandbox.write("named.toml", "name = \"named\"\n");
    assert_eq!(run(&machine, &["run", "--record", "--steps", steps, "--variables", &named]).1, "named");
    let _ = run(&machine, &["run"]).0.expect(0).says("converged: 0 changes");
    // A manifest that is named without being recorded has nothing to do with them.
    let _ = run(&machine, &["run", "--steps", steps]).0.expect(2).says("variable `name` is not set");
}

#[test]
fn the_packaged_units_start_where_something_is_declared() {
    for unit in ["glovo-bootstrap.service", "glovo-bootstrap-converge.service"] {
        let path = format!("{}/packaging/systemd/{unit}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let conditions: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ConditionPathExists=|")).collect();
        let expected = [
            "/etc/glovo-bootstrap/steps",
            "/etc/glovo-bootstrap/variables.toml",
            "/var/lib/glovo-bootstrap/manifest.json",
        ];
        assert_eq!(conditions, expected, "{unit}");
        assert_eq!(text.matches("Condition").count(), 3, "{unit}");
    }
}
