//! The kind `command` in the tree of an image.

use std::fs;

use crate::{
    command::{MADE, TOUCH, command, exists, script},
    standin::Machine,
};

/// A tree of an image with a shell, without this machine's files.
fn tree(machine: &Machine) -> String {
    let tree = machine.sandbox.at("tree");
    let script = r#"for dir in bin etc proc sys dev tmp var/lib run; do mkdir -p "$1/$dir"; done
        printf 'root:x:0:0::/root:/bin/sh\napp:x:4711:4711::/srv/app:/bin/sh\n' > "$1/etc/passwd"
        printf 'root:x:0:\napp:x:4711:\n' > "$1/etc/group"
        for program in sh touch cat id; do
            path=$(readlink -f "$(PATH=/usr/bin:/bin command -v $program)"); mkdir -p "$1/usr/bin"
            cp "$path" "$1/bin/$program"
            ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
                mkdir -p "$1/$(dirname "$library")"; cp -L "$library" "$1/$library"
            done
        done"#;
    let built = machine.sandbox.shell(script).arg(&tree).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    tree
}

#[test]
fn a_command_of_an_image_runs_in_its_tree() {
    let machine = Machine::new();
    let tree = tree(&machine);
    let declared = script(
        "test -e /proc/self/exe; id -u > /var/lib/made",
        r#"unless = { argv = ["sh", "-c", "test -e /proc/self/exe && test -s /var/lib/made"] }"#,
    );
    let manifest = machine.sandbox.manifest(&declared);
    let agent = |verb: &str, more: &[&str]| {
        machine.sandbox.run(&[&[verb, "--root", &tree, "--steps", &manifest], more].concat())
    };
    let _ = agent("plan", &[]).expect(0).says("1 change pending");
    let _ = agent("bake", &[]).expect(0).says("converged: 1 change");
    assert_eq!(fs::read_to_string(format!("{tree}/var/lib/made")).unwrap(), "0\n");
    assert!(!exists(&machine, "made"), "nothing of the host is touched");
    let _ = agent("plan", &[]).expect(0).says("nothing to change");
    let _ = agent("bake", &["--seal"]).expect(0).says("converged: 0 changes");

    let guard_writes = script("true", r#"unless = { argv = ["touch", "/var/lib/by-guard"] }"#);
    let _ = machine.sandbox.manifest(&guard_writes);
    let _ = agent("plan", &[]).expect(1).says("tried to write");
    let _ = machine.sandbox.manifest(&command(&format!("{TOUCH}\n{MADE}\nphase = \"boot\"")));
    let _ = agent("bake", &[]).expect(0).says("command it: ensure at boot (deferred: phase = \"boot\")");
    let secret = "argv = [\"true\"]\nrun_on = [\"/etc/passwd\"]\ncredentials = { key = \"x\" }";
    let _ = machine.sandbox.manifest(&command(secret));
    let _ = agent("bake", &[]).expect(0).says("command it: run at boot (deferred: a secret does not go into an image)");
}

#[test]
fn the_last_good_run_of_an_image_counts_on_its_machine() {
    let machine = Machine::new();
    let tree = tree(&machine);
    let declared = script("cat /etc/group > /var/lib/made", "run_on = [\"/etc/group\"]\nuser = \"root\"");
    let manifest = machine.sandbox.manifest(&declared);
    let agent = |verb: &str, more: &[&str]| {
        machine.sandbox.run(&[&[verb, "--root", &tree, "--steps", &manifest], more].concat())
    };
    let _ = agent("bake", &["--seal"]).expect(0).says("converged: 1 change").says("sealed");
    let _ = agent("plan", &[]).expect(0).says("nothing to change");
    let _ = machine.sandbox.write("tree/etc/group", "root:x:0:\n");
    let _ = agent("plan", &[]).expect(0).says("because /etc/group has changed since its last good run");
}
