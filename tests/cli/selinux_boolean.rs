//! The kind `selinux_boolean`, on a machine whose kernel seems to enforce a policy: `/sys/fs/selinux` is the test's.

use std::fs;

use crate::{sandbox::Finished, standin::Machine};

const RESOURCE: &str = "[[resource]]\nkind = \"selinux_boolean\"\nname = \"httpd_can_network_connect\"\nvalue = true\n";
const BOOLEAN: &str = "sys/selinux/booleans/httpd_can_network_connect";

/// A machine that enforces its policy; a boolean is off.
fn enforcing() -> Machine {
    let machine = Machine::new();
    machine.write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
    machine.write("sys/selinux/enforce", "1");
    machine.write(BOOLEAN, "0 0");
    machine
}

fn execute(machine: &Machine, verb: &str, resource: &str) -> Finished {
    let manifest = machine.sandbox.manifest(resource);
    let script = r#"mount --bind "$0" /sys/fs && exec "$@""#;
    let mut command = machine.sandbox.shell("exec unshare --mount sh -euc \"$@\"");
    let command = command.args([script, &machine.at("sys"), env!("CARGO_BIN_EXE_glovo-bootstrap")]);
    Finished::from(command.args([verb, "--steps", &manifest]).output().unwrap())
}

#[test]
fn a_boolean_is_set_now_and_for_the_boot() {
    let machine = enforcing();
    let _ = execute(&machine, "plan", RESOURCE).expect(0).says("httpd_can_network_connect: set on (now off)");
    let _ = execute(&machine, "run", RESOURCE).expect(0).says("converged: 1 change");
    assert_eq!(machine.commands(), ["setsebool -P httpd_can_network_connect on"]);
    let _ = execute(&machine, "run", RESOURCE).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), Vec::<String>::new());
    // Each by itself is drift.
    machine.write(BOOLEAN, "0 0");
    let _ = execute(&machine, "run", RESOURCE).expect(0).says("set on (now off)");
    fs::remove_file(machine.sandbox.at("var-lib/selinux/targeted/active/booleans.local")).unwrap();
    let _ = execute(&machine, "run", RESOURCE).expect(0).says("set on for the boot, too");
    let off = RESOURCE.replace("true", "false");
    let _ = execute(&machine, "run", &off).expect(0).says("set off (now on)");
    let _ = execute(&machine, "run", &off).expect(0).says("0 changes");
}

#[test]
fn nothing_is_done_unless_selinux_is_enforcing() {
    let machine = Machine::new();
    fs::create_dir_all(machine.at("sys")).unwrap();
    let off = execute(&machine, "run", RESOURCE).expect(0).says("0 changes");
    let _ = off.says("selinux_boolean httpd_can_network_connect: not here: SELinux is off");
    let machine = enforcing();
    machine.write("sys/selinux/enforce", "0");
    let permissive = execute(&machine, "run", RESOURCE).expect(0).says("0 changes");
    let _ = permissive.says("not here: SELinux is permissive, so it refuses nothing");
    assert_eq!(machine.commands(), Vec::<String>::new());
}

#[test]
fn a_boolean_that_the_policy_lacks_is_an_error() {
    let machine = enforcing();
    for verb in ["plan", "run"] {
        let refused = execute(&machine, verb, &RESOURCE.replace("connect", "conect")).expect(1);
        let _ = refused.says("the SELinux policy has no boolean httpd_can_network_conect").says("getsebool -a");
    }
    let wrong = execute(&machine, "validate", &RESOURCE.replace("httpd_can_network_connect", "../enforce")).expect(2);
    let _ = wrong.says("`../enforce` is not the name of an SELinux boolean");
}

#[test]
fn an_image_leaves_a_boolean_to_the_boot() {
    let machine = enforcing();
    let manifest = machine.sandbox.manifest(RESOURCE);
    let tree = machine.sandbox.at("tree");
    for (mode, changes) in [
        ("enforcing", "set on (deferred: an image has no kernel)"),
        ("permissive", "not here: the boot will not enforce"),
    ] {
        let _ = machine.sandbox.write("tree/etc/selinux/config", format!("SELINUX={mode}\n"));
        let baked = machine.sandbox.run(&["run", "--root", &tree, "--steps", &manifest]).expect(0);
        let _ = baked.says(changes);
    }
}
