//! The kinds `user` and `group` with the real useradd on the sandbox's own account files.

use crate::standin::Machine;

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
