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
    let said = machine.plan(&declared).expect(0).says("user app: create user");
    let _ = said.says("/home/.ssh/authorized_keys: add SHA256:").says(" (ada)\n");
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
        ("ssh_keys = [\"ssh-ed25519 AAAA\"]", "is not a whole key of type ssh-ed25519"),
        ("ssh_keys = [\"hello\"]", "not a public SSH key"),
        ("exclusive_ssh_keys = true", "`exclusive_ssh_keys` needs `ssh_keys`"),
        ("password_hash = 1234567", "`password_hash`: expected a string"),
        ("password = \"1234567\"", "unknown field `password` in kind `user`"),
        ("password_hash = \"1234567", "invalid basic string"),
        ("expires = \"2027-02-30\"", "is not a date such as 2027-01-31"),
        ("comment = \"a:b\"", "contains `:`"),
        ("comment = \"a\\nroot\"", "control character"),
        ("password_hash = \"correct horse\"", "its `password_hash` is not a hash of yescrypt"),
    ] {
        let said = machine.plan(&user(&machine, lines)).expect(2).says(words);
        assert!(!said.stderr.contains("correct horse") && !said.stderr.contains("1234567"), "{}", said.stderr);
    }
    let twice = machine.plan(&user(&machine, &keys(&[ADA, &ADA.replace("ada", "again")], ""))).expect(2);
    let _ = twice.says("is declared twice");
    let newline = format!("{ADA}\n{BOB}");
    let _ = machine.plan(&user(&machine, &keys(&[&newline], ""))).expect(2).says("control character");
}

#[test]
fn keys_that_sshd_would_refuse_are_refused() {
    let machine = Machine::new();
    let cut = ADA.trim_end_matches(" ada").get(..60).unwrap();
    for (key, words) in [
        (cut.to_owned(), "is not a whole key of type ssh-ed25519"),
        (format!("restict,no-pty {ADA}"), "`restict` is not an option of sshd, which would refuse the key"),
        (format!("restrict, {ADA}"), "a comma ends the options"),
        (format!("from=10.0.0.1 {ADA}"), "the option `from` needs a value: from=\"VALUE\""),
    ] {
        let manifest = machine.sandbox.manifest(&user(&machine, &format!("ssh_keys = ['{key}']")));
        let _ = machine.sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
}

#[test]
fn another_manager_of_the_keys_is_reported() {
    let machine = Machine::new();
    let declared = user(&machine, &keys(&[ADA], ""));
    for (kind, path) in [("file", "/.ssh/authorized_keys"), ("absent", "/.ssh/authorized_keys"), ("directory", "/.ssh")]
    {
        let content = if kind == "file" { "content = \"\"\n" } else { "" };
        let path = machine.at("home") + path;
        let other = format!("[[resource]]\nkind = \"{kind}\"\npath = \"{path}\"\n{content}");
        let manifest = machine.sandbox.manifest(&(declared.clone() + &other));
        let said = machine.sandbox.run(&["validate", "--steps", &manifest]).expect(2);
        let _ = said.says(&format!("two resources manage {path}"));
    }
}

#[test]
fn a_plan_foresees_a_home_that_is_not_the_users() {
    let machine = Machine::new();
    let declared = user(&machine, &keys(&[ADA], ""));
    fs::create_dir(machine.at("home")).unwrap();
    chown(machine.at("home"), Some(1234), Some(1234)).unwrap();
    for verb in ["plan", "run"] {
        let manifest = machine.sandbox.manifest(&declared);
        let said = machine.sandbox.run(&[verb, "--steps", &manifest]).expect(1);
        let _ = said.says("user app would not own its home directory: ").says("/home belongs to uid 1234");
    }
    assert!(!machine.read("etc/passwd").contains("app:"));
    fs::remove_dir(machine.at("home")).unwrap();
    machine.write("home", "");
    let _ = machine.plan(&declared).expect(1).says("user app has no home directory for its SSH keys");
    fs::remove_file(machine.at("home")).unwrap();
    // The home of an earlier account with this number keeps its keys, unless they are to go.
    machine.write("home/.ssh/authorized_keys", format!("{BOB}\n"));
    for path in ["home", "home/.ssh", "home/.ssh/authorized_keys"] {
        chown(machine.at(path), Some(4242), Some(4242)).unwrap();
    }
    let none = user(&machine, "ssh_keys = []\nexclusive_ssh_keys = true");
    let _ = machine.plan(&none).expect(0).says("authorized_keys: remove SHA256:");
    let _ = machine.run(&none).expect(0).says("converged: 2 changes");
    assert_eq!(machine.read("home/.ssh/authorized_keys"), "");
    let _ = machine.commands();
    let _ = is_converged(&machine, &none);
}

#[test]
fn exclusive_keys_are_not_beside_a_second_file() {
    let machine = Machine::new();
    let _ = machine.run(&user(&machine, &keys(&[ADA], ""))).expect(0);
    let exclusive = user(&machine, &keys(&[ADA], "exclusive_ssh_keys = true"));
    machine.write("home/.ssh/authorized_keys2", format!("{BOB}\n"));
    for said in [machine.plan(&exclusive), machine.run(&exclusive)] {
        let said = said.expect(1).says("the keys are not exclusive: sshd accepts the keys in ");
        let _ = said.says("hint: declare kind = \"absent\" with path = ");
    }
    let second = format!("[[resource]]\nkind = \"absent\"\npath = \"{}\"\n", machine.at("home/.ssh/authorized_keys2"));
    let _ = machine.plan(&(second.clone() + &exclusive)).expect(0);
    let _ = machine.run(&(second + &exclusive)).expect(0).says("converged: 1 change");
}

#[test]
fn keys_with_comments_in_latin_1_stay() {
    let machine = Machine::new();
    let _ = machine.run(&user(&machine, &keys(&[ADA], ""))).expect(0);
    let by_hand = [BOB.as_bytes(), b" M\xfcller\r\n"].concat();
    let file = machine.at("home/.ssh/authorized_keys");
    fs::write(&file, &by_hand).unwrap();
    let declared = user(&machine, &keys(&[ADA], ""));
    let _ = machine.run(&declared).expect(0).says("authorized_keys: add SHA256:");
    assert_eq!(fs::read(&file).unwrap(), [&by_hand, ADA.as_bytes(), b"\n"].concat());
    let _ = machine.commands();
    let _ = is_converged(&machine, &declared);
}

/// A time zone without daylight saving, tzfile(5).
fn zone(hours: i32, name: &str) -> Vec<u8> {
    let counts = [0, 0, 0, 0, 1, u32::try_from(name.len() + 1).unwrap()];
    let counts: Vec<u8> = counts.iter().flat_map(|count: &u32| count.to_be_bytes()).collect();
    let seconds = (hours * 3600).to_be_bytes();
    let part = [b"TZif2", &[0; 15][..], &counts, &seconds, &[0, 0], name.as_bytes(), b"\0"].concat();
    [&part[..], &part, format!("\n<{name}>{}\n", -hours).as_bytes()].concat()
}

#[test]
fn a_date_of_expiry_is_the_same_in_each_time_zone() {
    let machine = Machine::new();
    for (hours, name) in [(14, "+14"), (-12, "-12")] {
        machine.write("etc/localtime", zone(hours, name));
        let declared = user(&machine, "expires = \"2027-01-31\"");
        let _ = machine.run(&declared).expect(0);
        assert_eq!(shadow(&machine)[7], "20849", "{name}");
        let _ = machine.run(&declared.replace("2027-01-31", "2027-08-31")).expect(0).says("set expiry 2027-08-31");
        let _ = machine.run(&declared).expect(0).says("set expiry 2027-01-31 (now 2027-08-31)");
        assert_eq!(shadow(&machine)[7], "20849", "{name}");
    }
}

#[test]
fn a_login_that_is_locked_or_past_is_said() {
    let machine = Machine::new();
    let declared = user(&machine, &format!("password_hash = \"{HASH}\""));
    let _ = machine.run(&declared).expect(0);
    machine.write("etc/shadow", machine.read("etc/shadow").replace(HASH, &format!("!{HASH}")));
    let _ = machine.run(&declared).expect(0).says("user app: set its password (it is locked now)");
    let past = user(&machine, "expires = \"2001-01-31\"");
    let warning = "app cannot log in: the account expired on 2001-01-31";
    let _ = machine.plan(&past).expect(0).says(warning);
    let _ = machine.run(&past).expect(0).says(warning);
}
