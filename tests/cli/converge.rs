//! `run --converge`: the units that run the steps at each boot and every hour.

use std::fs;

use crate::{
    install::{machine, manifest_of_a_name, shell},
    sandbox::{Finished, copy_binary},
    standin::Machine,
};

const ENABLED: [&str; 3] = [
    "systemctl --quiet enable glovo-bootstrap.service",
    "systemctl --quiet enable glovo-bootstrap-converge.timer",
    "systemctl start --no-block glovo-bootstrap-converge.timer",
];
const UNIT: &str = "local/lib/systemd/system/glovo-bootstrap.service";
/// A check that fails for the time being: nothing listens there.
const AWAY: &str = "kind = \"tcp_check\"\naddress = \"127.0.0.1:1\"\ndeadline = \"0s\"\n";

/// Runs the steps as user-data does.
fn first_run(machine: &Machine, arguments: &str) -> Finished {
    shell(&machine.sandbox, &format!("glovo-bootstrap run --record --converge {arguments}"))
}

/// Returns the commands that enable or start units, and the reboots.
fn commands(machine: &Machine) -> Vec<String> {
    let mut commands = machine.commands();
    commands.retain(|command| !command.contains("daemon-reload"));
    commands
}

#[test]
fn a_machine_runs_its_recorded_steps_again() {
    let machine = machine();
    let steps = manifest_of_a_name(&machine.sandbox);
    let first = first_run(&machine, &format!("--steps {steps} --set name=one")).expect(0);
    let _ = first.says("enabled glovo-bootstrap.service\n").says("enabled glovo-bootstrap-converge.timer\n");
    assert_eq!(commands(&machine), ENABLED);
    let unit = fs::read_to_string(machine.sandbox.at(UNIT)).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/glovo-bootstrap run\n"), "{unit}");
    // What the unit and the timer start.
    fs::remove_file(machine.sandbox.at("file")).unwrap();
    let _ = shell(&machine.sandbox, "glovo-bootstrap run").expect(0).says("using ").says("1 change");
    assert_eq!(fs::read_to_string(machine.sandbox.at("file")).unwrap(), "one");
    assert!(commands(&machine).is_empty());

    // The timer that runs already is left as it is.
    let _ = first_run(&machine, &format!("--steps {steps} --set name=one")).expect(0).says("converged: 0 changes");
    assert_eq!(commands(&machine), [ENABLED[2]]);
}

#[test]
fn user_data_can_say_it_in_one_word() {
    let machine = machine();
    let steps = manifest_of_a_name(&machine.sandbox);
    let script = shell(&machine.sandbox, &format!("glovo-bootstrap user-data --baked -- --converge --steps {steps}"));
    assert!(script.expect(0).stdout.contains("exec $to run --record --converge --steps "));
    let _ = shell(&machine.sandbox, &format!("glovo-bootstrap run --converge --steps {steps} --set name=x")).expect(0);
    let _ = shell(&machine.sandbox, "glovo-bootstrap run").expect(0).says("as recorded by user-data");
    let _ = shell(&machine.sandbox, "glovo-bootstrap run --converge --root /tmp").expect(2);
}

#[test]
fn a_first_run_that_fails_for_now_is_tried_again_by_the_unit() {
    let machine = machine();
    let steps = machine.sandbox.manifest(&format!("[[resource]]\n{AWAY}"));
    let _ = first_run(&machine, &format!("--steps {steps}")).expect(75).says("glovo-bootstrap.service tries again");
    assert_eq!(commands(&machine), [&ENABLED[..], &["systemctl start --no-block glovo-bootstrap.service"]].concat());

    // What fails for good is not.
    let file = format!("path = \"{}\"\ncontent = \"\"\nvalidate = [\"false\", \"{{}}\"]\n", machine.sandbox.at("file"));
    let steps = machine.sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\n{file}"));
    let _ = first_run(&machine, &format!("--steps {steps}")).expect(1);
    let _ = first_run(&machine, "--steps /none").expect(2);
    assert!(!commands(&machine).iter().any(|command| command.ends_with("start --no-block glovo-bootstrap.service")));
}

#[test]
fn a_program_that_the_units_would_not_start_is_refused() {
    let machine = machine();
    let sandbox = &machine.sandbox;
    let steps = manifest_of_a_name(sandbox);
    let program = sandbox.at("elsewhere");
    copy_binary(&program);
    let said = shell(sandbox, &format!("{program} run --converge --steps {steps} --set name=x")).expect(2);
    let _ = said.says(&format!("this program is at {program}, but its systemd units start /usr/local/bin/"));
    assert!(!fs::exists(sandbox.at("file")).unwrap(), "no step ran");
}

#[test]
fn a_masked_unit_stays_masked() {
    let machine = machine();
    std::os::unix::fs::symlink("/dev/null", machine.at("etc/systemd/system/glovo-bootstrap-converge.timer")).unwrap();
    let steps = manifest_of_a_name(&machine.sandbox);
    let first = first_run(&machine, &format!("--steps {steps} --set name=one")).expect(0);
    let _ =
        first.says("glovo-bootstrap-converge.timer is masked by /etc/systemd/system/glovo-bootstrap-converge.timer");
    assert_eq!(commands(&machine), [ENABLED[0]]);
}
