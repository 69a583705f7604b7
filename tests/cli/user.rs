//! The kinds `user` and `group` with the real useradd on the sandbox's own account files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use crate::{
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

fn user(lines: &str) -> String {
    format!("[[resource]]\nkind = \"user\"\nname = \"app\"\n{lines}\n")
}

/// Returns the line of a name in an account file.
#[track_caller]
fn line(machine: &Machine, file: &str, name: &str) -> String {
    let text = machine.read(&format!("etc/{file}"));
    let found = text.lines().find(|line| line.split(':').next() == Some(name));
    found.unwrap_or_else(|| panic!("no {name} in {file}:\n{text}")).to_owned()
}

#[test]
fn a_system_user_has_no_home_and_no_shell() {
    let machine = Machine::new();
    let declared = user("system = true\nhome = \"/srv/nowhere\"\ngroups = [\"web\"]");
    let _ = machine.plan(&declared).expect(0).says("user app: create system user");
    let _ = machine.run(&declared).expect(0).says("user app: create system user");
    let fields: Vec<String> = line(&machine, "passwd", "app").split(':').map(Into::into).collect();
    assert_eq!(fields[5..], ["/srv/nowhere", "/usr/sbin/nologin"]);
    assert!(fields[2].parse::<u32>().unwrap() < 1000, "{fields:?}");
    assert!(line(&machine, "group", "web").ends_with(":app"));
    let _ = line(&machine, "gshadow", "app");
    assert!(!std::fs::exists("/srv/nowhere").unwrap());
    let commands = machine.commands();
    assert_eq!(commands.len(), 1, "{commands:?}");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), [""; 0]);
}

#[test]
fn a_user_gets_its_id_its_shell_and_its_groups() {
    let machine = Machine::new();
    let home = machine.at("home");
    let declared = |lines: &str| user(&format!("home = \"{home}\"\n{lines}"));
    let _ = machine.run(&declared("uid = 4242\nshell = \"/bin/sh\"")).expect(0);
    assert!(line(&machine, "passwd", "app").starts_with("app:x:4242:"));
    assert!(std::fs::exists(&home).unwrap());
    let said = machine.run(&declared("shell = \"/bin/bash\"\ngroups = [\"web\"]")).expect(0);
    let _ = said.says("set shell /bin/bash (now /bin/sh)").says("add to groups web");
    assert!(line(&machine, "group", "web").ends_with(":app"));

    let _ = machine.plan(&declared("uid = 7")).expect(1).says("user app has uid 4242, not 7");
    let _ = machine
        .plan(&user("home = \"/elsewhere\""))
        .expect(1)
        .says(&format!("user app has home {home}, not /elsewhere"));
    let _ = machine.plan(&user("groups = [\"absent\"]")).expect(1).says("the group absent does not exist");
    let other = "[[resource]]\nkind = \"user\"\nname = \"other\"\nuid = 4242\n";
    let _ = machine.plan(other).expect(1).says("uid 4242 belongs to user app");
}

#[test]
fn a_group_of_its_name_becomes_a_users_primary_one() {
    let machine = Machine::new();
    let group = "[[resource]]\nkind = \"group\"\nname = \"app\"\ngid = 777\n";
    let _ = machine.run(&(group.to_owned() + &user("system = true"))).expect(0).says("converged: 2 changes");
    assert_eq!(line(&machine, "passwd", "app").split(':').nth(3), Some("777"));
    assert!(line(&machine, "group", "app").starts_with("app:x:777:"));
}

fn validate(sandbox: &Sandbox, resources: &str) -> Finished {
    sandbox.run(&["validate", "--steps", &sandbox.manifest(resources)])
}

#[test]
fn an_account_is_declared_once_on_each_machine() {
    let sandbox = Sandbox::new();
    let account =
        |kind: &str, name: &str, more: &str| format!("[[resource]]\nkind = \"{kind}\"\nname = \"{name}\"\n{more}\n");
    let [debian, redhat] = ["debian", "redhat"].map(|family| format!("where = {{ \"host.family\" = \"{family}\" }}"));
    for (first, second, words) in [
        (user("shell = \"/bin/bash\""), user("shell = \"/bin/sh\""), "two resources manage user app"),
        (user("uid = 5001"), user("uid = 5002"), "two resources manage user app"),
        (user(""), user(&debian), "two resources manage user app"),
        (account("group", "g", "gid = 5001"), account("group", "g", "gid = 5002"), "two resources manage group g"),
        (
            account("user", "{{ instance.id }}", ""),
            account("user", "{{ instance.id }}", ""),
            "two resources manage user {{ instance.id }}",
        ),
    ] {
        let lines = first.lines().count();
        let refused = validate(&sandbox, &(first + &second)).expect(2).says(words);
        let second = format!("manifest.toml:{}:8", 1 + lines + 3);
        let _ = refused.says("the first one is at").says("manifest.toml:4:8").says(&second).says("1 fault");
    }
    for (first, second) in [
        (user(""), account("group", "app", "")),
        (user(&debian), user(&redhat)),
        (account("group", "g", &debian), account("group", "g", &redhat)),
        (account("user", "{{ instance.id }}", ""), account("group", "{{ instance.id }}", "")),
    ] {
        let _ = validate(&sandbox, &(first + &second)).expect(0);
    }
}

#[test]
fn a_missing_home_is_made_as_useradd_makes_it() {
    let machine = Machine::new();
    let home = machine.at("home");
    let declared = user(&format!("home = \"{home}\"\nuid = 4242"));
    let _ = machine.run(&declared).expect(0);
    machine.write("etc/login.defs", "# HOME_MODE 0777\nUMASK\t027\nHOME_MODE\t0710\n");
    machine.write("etc/skel/.profile", "umask 027\n");
    machine.write("etc/skel/.config/deep/er", "x");
    fs::set_permissions(machine.at("etc/skel/.config"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink(".profile", machine.at("etc/skel/.bashrc")).unwrap();
    fs::remove_dir_all(&home).unwrap();
    let _ = machine.commands();

    let words = format!("user app: make its home directory {home}, mode 0710");
    let _ = machine.plan(&declared).expect(0).says(&words).says("1 change pending");
    let _ = machine.run(&declared).expect(0).says(&words).says("converged: 1 change");
    let status = |path: &str| {
        let status = fs::symlink_metadata(machine.at(path)).unwrap();
        (status.uid(), status.mode() & 0o7777)
    };
    assert_eq!(machine.read("home/.profile"), "umask 027\n");
    assert_eq!([status("home"), status("home/.profile")], [(4242, 0o710), (4242, 0o644)]);
    assert_eq!([status("home/.config"), status("home/.config/deep/er")], [(4242, 0o750), (4242, 0o644)]);
    assert_eq!(fs::read_link(machine.at("home/.bashrc")).unwrap().to_str(), Some(".profile"));
    assert_eq!(status("home/.bashrc").0, 4242);
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), [""; 0]);

    // With keys, and in a directory that does not exist either.
    fs::remove_dir_all(&home).unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleE";
    let with_keys = declared + &format!("ssh_keys = [\"{key}\"]\n");
    let _ = machine.run(&with_keys).expect(0).says(&words).says("authorized_keys: add").says("converged: 2 changes");
    assert_eq!(machine.read("home/.ssh/authorized_keys"), format!("{key}\n"));
    let _ = machine.run(&with_keys).expect(0).says("converged: 0 changes");
}

#[test]
fn a_user_that_never_had_a_home_gets_none() {
    let machine = Machine::new();
    let missing = machine.at("missing");
    for (uid, home) in [(990, missing.as_str()), (4242, "/nonexistent"), (0, missing.as_str())] {
        machine.write("etc/passwd", format!("root:x:0:0::/root:/bin/sh\napp:x:{uid}:990::{home}:/bin/sh\n"));
        machine.write("etc/shadow", "root:*:1::::::\napp:!:1::::::\n");
        let _ = machine.plan(&user("")).expect(0).says("0 changes pending");
    }
    let _ = machine.plan(&user("system = true")).expect(0).says("0 changes pending");
    // A declared home is made also for an id of the system's range, as useradd would.
    let _ = machine.plan(&user(&format!("home = \"{missing}\""))).expect(0).says("make its home directory");
    // A link that leads to a file system which is not mounted is not missing.
    symlink("/not/mounted", &missing).unwrap();
    let _ = machine.plan(&user(&format!("home = \"{missing}\""))).expect(0).says("0 changes pending");
}

/// Runs a verb after a script in the machine's namespace.
fn behind(machine: &Machine, script: &str, verb: &str, resources: &str) -> Finished {
    let mut command = machine.sandbox.shell(&format!("{script}; exec \"$@\""));
    let manifest = machine.sandbox.manifest(resources);
    let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args([verb, "--steps", &manifest]);
    Finished::from(command.output().unwrap())
}

#[test]
fn a_home_that_cannot_be_made_is_refused_before_the_account() {
    let machine = Machine::new();
    let homes = machine.at("homes");
    fs::create_dir(&homes).unwrap();
    let read_only = format!("mount --bind {homes} {homes}; mount -o remount,bind,ro {homes}");
    let declared = user(&format!("home = \"{homes}/app\""));
    let before = machine.read("etc/passwd");
    for verb in ["plan", "run"] {
        let _ = behind(&machine, &read_only, verb, &declared).expect(1).says("is mounted read-only").says("hint: ");
        assert_eq!((machine.read("etc/passwd"), machine.commands()), (before.clone(), vec![]));
    }
    // The account exists without its home, as useradd leaves it.
    machine.write("etc/passwd", before + &format!("app:x:4242:990::{homes}/app:/bin/sh\n"));
    machine.write("etc/shadow", machine.read("etc/shadow") + "app:!:1::::::\n");
    for verb in ["plan", "run"] {
        let _ = behind(&machine, &read_only, verb, &declared).expect(1).says("is mounted read-only").says("hint: ");
    }
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

#[test]
fn a_large_skeleton_is_copied_and_a_home_from_elsewhere_stays_missing() {
    let machine = Machine::new();
    let home = machine.at("home");
    let declared = user(&format!("home = \"{home}\"\nuid = 4242"));
    let _ = machine.run(&declared).expect(0);
    fs::remove_dir_all(&home).unwrap();
    for file in 0..300 {
        machine.write(&format!("etc/skel/f{file}"), "x");
    }
    // Fewer than the files of the skeleton.
    let limited = behind(&machine, "ulimit -n 256", "run", &declared).expect(0);
    let _ = limited.says("converged: 1 change");
    assert_eq!(machine.read("home/f299"), "x");
    // The manifest does not ask for this home, which is below the directory of another user.
    let others = machine.at("others");
    fs::create_dir(&others).unwrap();
    std::os::unix::fs::chown(&others, Some(5), Some(5)).unwrap();
    let passwd = machine.read("etc/passwd").replace(&format!(":{home}:"), &format!(":{others}/app:"));
    machine.write("etc/passwd", passwd);
    for (verb, words) in [("plan", "0 changes pending"), ("run", "0 changes")] {
        let said = machine.sandbox.run(&[verb, "--steps", &machine.sandbox.manifest(&user("uid = 4242"))]).expect(0);
        let _ = said.says(words).says("is missing and stays so");
    }
}

#[test]
fn a_plan_refuses_accounts_of_a_read_only_etc() {
    let machine = Machine::new();
    let read_only = "mount -o remount,bind,ro /etc";
    let first = format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", machine.at("first"));
    let group = "[[resource]]\nkind = \"group\"\nname = \"app\"\n";
    let existing = "[[resource]]\nkind = \"user\"\nname = \"root\"\n";
    for resource in [
        user("system = true"),
        group.to_owned(),
        format!("{existing}shell = \"/bin/false\"\n"),
        format!("{existing}groups = [\"web\"]\n"),
        format!("{existing}comment = \"other\"\n"),
        format!("{existing}password_hash = \"!\"\n"),
    ] {
        let plan = behind(&machine, read_only, "plan", &(first.clone() + &resource)).expect(1);
        let _ = plan.says("the file system of /etc is mounted read-only").says("hint: make it writable: mount");
    }
    let _ = behind(&machine, read_only, "plan", existing).expect(0).says("0 changes pending");
    let chattr = |flag: &str| Command::new("chattr").args([flag, &machine.at("etc/passwd")]).status().unwrap();
    assert!(chattr("+i").success());
    let plan = machine.plan(group);
    assert!(chattr("-i").success());
    let _ = plan.expect(1).says("/etc/passwd is immutable").says("chattr -i /etc/passwd");
}

#[test]
fn a_plan_names_a_missing_program_of_the_accounts() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    for (path, text) in [
        ("tree/etc/passwd", "root:x:0:0::/root:/bin/sh\nold:x:990:990::/nonexistent:/bin/sh\n"),
        ("tree/etc/group", "root:x:0:\nold:x:990:\n"),
        ("tree/etc/shadow", "root:*:1::::::\n"),
    ] {
        let _ = sandbox.write(path, text);
    }
    let tree = sandbox.at("tree");
    let group = "[[resource]]\nkind = \"group\"\nname = \"app\"\n".to_owned();
    let old = "[[resource]]\nkind = \"user\"\nname = \"old\"\nsystem = true\n";
    let cases = [(user("system = true"), "useradd"), (group, "groupadd"), (old.to_owned(), "pwconv")];
    for (resource, program) in &cases {
        for verb in ["plan", "run"] {
            let said = sandbox.run(&[verb, "--root", &tree, "--steps", &sandbox.manifest(resource)]).expect(1);
            let _ = said.says(&format!("the program `{program}` is not installed")).says("hint: declare its package");
        }
    }
    // An earlier change may bring it.
    let (resource, program) = &cases[0];
    let brings =
        format!("[[resource]]\nkind = \"file\"\npath = \"/usr/sbin/{program}\"\ncontent = \"\"\nmode = \"0755\"\n");
    fs::create_dir_all(sandbox.at("tree/usr/sbin")).unwrap();
    let manifest = sandbox.manifest(&(brings + resource));
    let _ = sandbox.run(&["plan", "--root", &tree, "--steps", &manifest]).expect(0).says("2 changes pending");
}
