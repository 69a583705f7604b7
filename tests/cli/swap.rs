//! The kind `swap` on a small ext4, with a stand-in for swapon.

use std::{fs, process::Command};

use crate::{sandbox::Finished, standin::Machine};

/// A machine with an ext4 of 128 MiB at `disk`.
fn machine() -> Machine {
    let machine = Machine::new();
    let _ = give_disk(&machine);
    machine
}

/// Gives a machine an ext4 of 128 MiB at `disk`; returns the path of its image.
pub fn give_disk(machine: &Machine) -> String {
    fs::create_dir(machine.at("disk")).unwrap();
    let image = machine.at("disk.img");
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal", "-m", "0", &image]).status().unwrap();
    assert!(made.success());
    image
}

fn swap(machine: &Machine, size: &str) -> String {
    format!("[[resource]]\nkind = \"swap\"\npath = \"{}\"\nsize = \"{size}\"\n", machine.at("disk/swap"))
}

#[test]
fn a_swap_file_is_made_turned_on_and_kept() {
    let machine = machine();
    // An editor may leave it without a newline at its end.
    machine.write("etc/fstab", "/dev/sda1 / ext4 defaults 0 1");
    let declared = swap(&machine, "20MiB");
    let path = machine.at("disk/swap");
    let _ = machine.run(&declared).expect(0).says("create swap file of 20 MiB").says("turn on");
    let fstab = format!("/dev/sda1 / ext4 defaults 0 1\n{path} none swap sw 0 0\n");
    assert_eq!(machine.read("etc/fstab"), fstab);
    let commands = machine.commands();
    assert!(commands[0].starts_with("mkswap ") && commands[1] == format!("swapon {path}"), "{commands:?}");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert_eq!((machine.read("etc/fstab"), machine.commands()), (fstab, vec![]));

    // A swap file that was turned off by hand is turned on again, not made anew.
    machine.write("swaps", "Filename\tType\tSize\tUsed\tPriority\n");
    let _ = machine.run(&(declared + "priority = 7\n")).expect(0).says("turn on");
    assert_eq!(machine.commands(), [format!("swapon --priority 7 {path}")]);
}

#[test]
fn a_swap_file_leaves_a_reserve_on_its_disk() {
    let machine = machine();
    machine.write("etc/fstab", "");
    // About 120 MiB are free. The file would fit, but leave less than the reserve of 64 MiB.
    let declared = swap(&machine, "80MiB");
    let _ = machine.plan(&declared).expect(1).says("would fill the disk");
    let _ = machine.run(&declared).expect(1).says("would fill the disk");
    assert_eq!(machine.commands(), [""; 0]);
    let _ = machine.run(&swap(&machine, "40MiB")).expect(0);
}

#[test]
fn a_swap_file_that_can_not_be_turned_on_says_what_to_do() {
    let machine = machine();
    machine.write("etc/fstab", "");
    machine.write("run/standin/swapon-fails", "");
    let path = machine.at("disk/swap");
    let said = machine.run(&swap(&machine, "20MiB")).expect(1).says(&format!("{path} could not be turned on"));
    let _ = said.says("| swapon: skipping - it appears to have holes.");
    assert_eq!(machine.read("etc/fstab"), "");
}

#[test]
fn a_hint_quotes_a_path_for_the_shell() {
    let machine = machine();
    machine.write("etc/fstab", "");
    machine.write("run/standin/swapon-fails", "");
    let path = machine.at("disk/my$swap");
    let declared = swap(&machine, "20MiB").replace("/swap\"", "/my$swap\"");
    let _ = machine.run(&declared).expect(1).says(&format!("makes a new one: rm '{path}'\n"));
    let script = "chown 1000 \"$1/my\\$swap\"; exec \"$2\" run --steps \"$3\"";
    let mut command = machine.sandbox.shell(script);
    let manifest = machine.sandbox.manifest(&declared);
    let command = command.args([&machine.at("disk"), env!("CARGO_BIN_EXE_glovo-bootstrap"), &manifest]);
    let said = Finished::from(command.output().unwrap()).expect(1).says("belongs to uid 1000");
    let _ = said.says(&format!("makes a new one: rm '{path}'\n"));
}

#[test]
fn a_swap_file_that_another_user_has_made_is_not_taken() {
    let machine = machine();
    machine.write("etc/fstab", "");
    let (declared, path) = (swap(&machine, "20MiB"), machine.at("disk/swap"));
    let shell = |script: &str| assert!(machine.sandbox.shell(script).arg(&path).output().unwrap().status.success());
    for (script, words) in [
        ("chown 65534 \"$1\"", "belongs to uid 65534, not to root"),
        ("ln -f \"$1\" \"$1-too\"", "has 2 names (hard links)"),
        ("chmod 666 \"$1\"", "is writable for other users (mode 0666)"),
    ] {
        shell(&format!("rm -f \"$1\"*; truncate -s 20M \"$1\"; mkswap \"$1\"; chmod 600 \"$1\"; {script}"));
        let _ = machine.commands();
        let _ = machine.plan(&declared).expect(1).says(words);
        let _ = machine.run(&declared).expect(1).says(words).says("hint: remove it");
        assert_eq!(machine.commands(), [""; 0]);
    }
}
