//! How a user logs in: SSH keys, password, expiry and comment, with the real programs of the shadow suite.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use crate::{sandbox::Finished, standin::Machine};

const ADA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleE ada";
const BOB: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBobBobBobBobBobBobBobBobBobBobBobBobBobBobB bob";
const HASH: &str = "$6$saltsalt$abcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdef";

/// A user whose home is in the sandbox.
fn user(machine: &Machine, lines: &str) -> String {
    format!("[[resource]]\nkind = \"user\"\nname = \"app\"\nuid = 4242\nhome = \"{}\"\n{lines}\n", machine.at("home"))
}

fn keys(keys: &[&str], lines: &str) -> String {
    format!("ssh_keys = {keys:?}\n{lines}")
}

fn shadow(machine: &Machine) -> Vec<String> {
    let text = machine.read("etc/shadow");
    let line = text.lines().find(|line| line.starts_with("app:")).unwrap_or_default();
    line.split(':').map(Into::into).collect()
}

fn status(machine: &Machine, path: &str) -> (u32, u32) {
    let status = fs::symlink_metadata(machine.at(path)).unwrap();
    (status.uid(), status.mode() & 0o7777)
}

#[track_caller]
fn is_converged(machine: &Machine, declared: &str) -> Finished {
    let said = machine.run(declared).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), [""; 0]);
    said
}

#[test]
fn a_new_user_has_its_keys_below_its_own_directory() {
    let machine = Machine::new();
    let declared = user(&machine, &keys(&[ADA], ""));
    let said = machine.plan(&declared).expect(0).says("user app: create user").says("user app: add SHA256:");
    let _ = said.says("(ada) to ");
    let _ = machine.run(&declared).expect(0);
    assert_eq!(machine.read("home/.ssh/authorized_keys"), format!("{ADA}\n"));
    assert_eq!(status(&machine, "home/.ssh"), (4242, 0o700));
    assert_eq!(status(&machine, "home/.ssh/authorized_keys"), (4242, 0o600));
    let _ = machine.commands();
    let _ = is_converged(&machine, &declared);
}

#[test]
fn keys_of_others_stay_unless_ours_are_exclusive() {
    let machine = Machine::new();
    let _ = machine.run(&user(&machine, "")).expect(0);
    let file = machine.at("home/.ssh/authorized_keys");
    fs::create_dir(machine.at("home/.ssh")).unwrap();
    fs::write(&file, format!("# by hand\n{BOB}")).unwrap();
    for path in [machine.at("home/.ssh"), file.clone()] {
        chown(&path, Some(4242), Some(4242)).unwrap();
    }
    let _ = machine.commands();
    let declared = user(&machine, &keys(&[ADA], ""));
    let _ =
        machine.run(&declared).expect(0).says(".ssh: set mode 0700 (now 0755)").says("authorized_keys: add SHA256:");
    assert_eq!(machine.read("home/.ssh/authorized_keys"), format!("# by hand\n{BOB}\n{ADA}\n"));
    let _ = is_converged(&machine, &declared);

    let exclusive = user(&machine, &keys(&[ADA], "exclusive_ssh_keys = true"));
    let _ = machine.plan(&exclusive).expect(0).says("authorized_keys: remove SHA256:");
    let _ = machine.run(&exclusive).expect(0);
    assert_eq!(machine.read("home/.ssh/authorized_keys"), format!("# by hand\n{ADA}\n"));
    let _ = is_converged(&machine, &exclusive);

    fs::write(&file, format!("{}\n", ADA.trim_end_matches(" ada"))).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let _ =
        machine.run(&exclusive).expect(0).says("authorized_keys: set mode 0600 (now 0644)").says("converged: 1 change");
    let none = user(&machine, "ssh_keys = []\nexclusive_ssh_keys = true");
    let _ = machine.run(&none).expect(0).says("authorized_keys: remove SHA256:");
    assert_eq!(machine.read("home/.ssh/authorized_keys"), "");
}

#[test]
fn options_of_a_key_are_those_declared() {
    let machine = Machine::new();
    let restricted = format!("restrict,command=\"true\" {ADA}");
    let _ = machine.run(&user(&machine, &keys(&[ADA], ""))).expect(0);
    let declared = user(&machine, &keys(&[&restricted], ""));
    let _ = machine.run(&declared).expect(0).says("authorized_keys: set the options of SHA256:");
    assert_eq!(machine.read("home/.ssh/authorized_keys"), format!("{restricted}\n"));
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

#[test]
fn links_in_place_of_the_keys_are_refused() {
    let machine = Machine::new();
    let declared = user(&machine, &keys(&[ADA], ""));
    let _ = machine.run(&declared).expect(0);
    let file = machine.at("home/.ssh/authorized_keys");
    fs::remove_file(&file).unwrap();
    machine.write("etc/victim", "kept\n");
    std::os::unix::fs::symlink("/etc/victim", &file).unwrap();
    let _ = machine.plan(&declared).expect(1).says("authorized_keys is a symbolic link");
    let _ = machine.run(&declared).expect(1).says("authorized_keys is a symbolic link");
    fs::remove_file(&file).unwrap();
    fs::remove_dir(machine.at("home/.ssh")).unwrap();
    std::os::unix::fs::symlink("/etc", machine.at("home/.ssh")).unwrap();
    let _ = machine.run(&declared).expect(1).says(".ssh");
    assert!(!fs::exists(machine.at("etc/authorized_keys")).unwrap());
    assert_eq!(machine.read("etc/victim"), "kept\n");
}

#[test]
fn keys_need_a_home() {
    let machine = Machine::new();
    let declared = user(&machine, &keys(&[ADA], "system = true"));
    let _ = machine.plan(&declared).expect(1).says("user app has no home directory for its SSH keys");
    let _ = machine.run(&declared).expect(1).says("user app has no home directory for its SSH keys");
    assert!(!machine.read("etc/passwd").contains("app:"));
}

#[test]
fn a_password_is_set_by_its_hash_which_nothing_shows() {
    let machine = Machine::new();
    let declared = user(&machine, &format!("password_hash = \"{HASH}\""));
    let said = machine.run(&declared).expect(0).says("user app: set its password");
    assert_eq!(shadow(&machine)[1], HASH);
    let report = machine.sandbox.report().to_string();
    for text in [said.stdout, said.stderr, report, machine.commands().join("\n")] {
        assert!(!text.contains("saltsalt"), "{text}");
    }
    let _ = is_converged(&machine, &declared);
    let other = HASH.replace("abcdefgh", "hgfedcba");
    machine.write("etc/shadow", machine.read("etc/shadow").replace(HASH, &other));
    let said = machine.run(&declared).expect(0).says("user app: set its password");
    assert!(!(said.stdout + &said.stderr).contains("saltsalt"));
    assert_eq!(shadow(&machine)[1], HASH);
    let _ = machine.run(&user(&machine, "password_hash = \"!\"")).expect(0).says("user app: lock its password");
    assert_eq!(shadow(&machine)[1], "!");
}

#[test]
fn a_password_does_not_go_into_an_image() {
    let machine = Machine::new();
    let manifest = machine.sandbox.manifest(&user(&machine, &format!("password_hash = \"{HASH}\"")));
    let said = machine.sandbox.run(&["bake", "--steps", &manifest]).expect(0);
    let _ = said.says("user app: set password (deferred: a secret does not go into an image)");
    assert_eq!(shadow(&machine)[1], "!");
}

#[test]
fn expiry_and_comment_are_set_and_read_from_the_machine() {
    let machine = Machine::new();
    let declared = user(&machine, "comment = \"Ada Lovelace\"\nexpires = \"2027-01-31\"");
    let _ = machine.run(&declared).expect(0);
    assert_eq!(shadow(&machine)[7], "20849");
    assert!(machine.read("etc/passwd").contains(":Ada Lovelace:"));
    let _ = machine.commands();
    let _ = is_converged(&machine, &declared);
    let changed = declared.replace("2027-01-31", "never").replace("Ada Lovelace", "Ada");
    let said = machine.run(&changed).expect(0).says("set comment `Ada` (now `Ada Lovelace`)");
    let _ = said.says("set expiry never (now 2027-01-31)");
    assert_eq!(shadow(&machine)[7], "");
    let _ = machine.commands();
    let _ = is_converged(&machine, &changed);
}

#[test]
fn wrong_keys_dates_comments_and_hashes_are_refused() {
    let machine = Machine::new();
    for (lines, words) in [
        ("ssh_keys = [\"ssh-ed25519 AAAA\"]", "is not a key of type ssh-ed25519"),
        ("ssh_keys = [\"hello\"]", "not a public SSH key"),
        ("exclusive_ssh_keys = true", "`exclusive_ssh_keys` needs `ssh_keys`"),
        ("expires = \"2027-02-30\"", "is not a date such as 2027-01-31"),
        ("comment = \"a:b\"", "contains `:`"),
        ("comment = \"a\\nroot\"", "control character"),
        ("password_hash = \"correct horse\"", "its `password_hash` is not a hash of yescrypt"),
    ] {
        let said = machine.plan(&user(&machine, lines)).expect(2).says(words);
        assert!(!said.stderr.contains("correct horse"), "{}", said.stderr);
    }
    let twice = machine.plan(&user(&machine, &keys(&[ADA, &ADA.replace("ada", "again")], ""))).expect(2);
    let _ = twice.says("is declared twice");
    let newline = format!("{ADA}\n{BOB}");
    let _ = machine.plan(&user(&machine, &keys(&[&newline], ""))).expect(2).says("control character");
}
