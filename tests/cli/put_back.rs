//! What a service refuses of this run's changes is put back; and what is said of services that were left alone.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    service::{RUNNING, UNIT, app, file, service, unit},
    standin::Machine,
};

/// A manifest whose service reads `/etc/site`, `/etc/extra` and the link `/etc/current`.
fn site(site: &str, extra: Option<&str>, target: &str) -> String {
    let extra = extra.map_or(String::new(), |text| file("/etc/extra", text));
    file("/etc/site", site)
        + "mode = \"0600\"\nowner = \"nobody\"\n"
        + &extra
        + &format!("[[resource]]\nkind = \"link\"\npath = \"/etc/current\"\ntarget = \"{target}\"\n")
        + &file("/etc/systemd/system/app.service", &unit("grep -q good /etc/site", ""))
        + &service(
            "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/site\", \"/etc/extra\", \"/etc/current\"]\nvalidate = [\"sh\", \"-c\", \"! grep -q refused /etc/site\"]",
        )
}

/// The sites of the sandbox are as the good manifest has them, and the unit runs with them.
#[track_caller]
fn is_as_before(machine: &Machine) {
    assert_eq!(machine.read("etc/site"), "good\n");
    assert_eq!(fs::metadata(machine.at("etc/site")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(!fs::exists(machine.at("etc/extra")).unwrap());
    assert_eq!(fs::read_link(machine.at("etc/current")).unwrap().to_str(), Some("one"));
    assert_eq!(machine.unit("app.service")["active"], "active");
}

#[test]
fn what_a_validator_refuses_is_put_back() {
    let machine = Machine::new();
    let _ = machine.run(&site("good\n", None, "one")).expect(0);
    fs::set_permissions(machine.at("etc/site"), fs::Permissions::from_mode(0o640)).unwrap();
    let bad = site("refused\n", Some("new\n"), "two");
    let said = machine.run(&bad).expect(1).says("app.service was not restarted: its validator failed");
    let _ = said.says("put back: /etc/current, /etc/extra, /etc/site");
    is_as_before(&machine);
    assert_eq!(machine.unit("app.service")["starts"], 1);
    let report = machine.sandbox.report().to_string();
    assert!(report.contains("put back: /etc/current, /etc/extra, /etc/site"), "{report}");
    // It is tried again, and refused again, though what was put back holds for the service.
    let _ = machine.run(&bad.replace("stable", "retries = 1\nstable")).expect(1).says("its validator failed");
    is_as_before(&machine);
}

#[test]
fn what_a_restart_refuses_is_put_back_and_serves_on() {
    let machine = Machine::new();
    let _ = machine.run(&site("good\n", None, "one")).expect(0);
    fs::set_permissions(machine.at("etc/site"), fs::Permissions::from_mode(0o640)).unwrap();
    let bad = site("bad\n", Some("new\n"), "two");
    let said = machine.run(&bad).expect(1).says("app.service failed (exit-code)");
    let _ = said.says("put back: /etc/current, /etc/extra, /etc/site").says("app.service runs again");
    is_as_before(&machine);
    assert_eq!(machine.unit("app.service")["starts"], 3);
    let _ = machine.run(&site("good\n", None, "one")).expect(0);
}

#[test]
fn a_unit_file_that_a_restart_refuses_is_put_back() {
    let machine = Machine::new();
    let declared = |start: &str| app(&unit(start, ""), RUNNING);
    let _ = machine.run(&declared("true")).expect(0);
    let said = machine.run(&declared("false")).expect(1).says("/etc/systemd/system/app.service");
    let _ = said.says("app.service runs again");
    assert!(machine.read(UNIT).contains("ExecStart=true"));
    let state = machine.unit("app.service");
    assert_eq!((&state["active"], &state["fields"]["ExecStart"]), (&"active".into(), &"true".into()));
}

#[test]
fn a_drop_in_and_a_template_that_a_restart_refuses_are_put_back() {
    let machine = Machine::new();
    let declared = |template: &str, drop_in: &str| {
        let directory = "[[resource]]\nkind = \"directory\"\npath = \"/etc/systemd/system/app@.service.d\"\n";
        let path = "/etc/systemd/system/app@.service.d/start.conf";
        let lines = RUNNING.replace("/etc/systemd/system/app.service", path);
        file("/etc/systemd/system/app@.service", &unit("true", template))
            + directory
            + &file(path, &format!("[Service]\nExecStart={drop_in}\n"))
            + &service(&lines).replace("\"app\"", "\"app@1\"")
    };
    let _ = machine.run(&declared("", "true")).expect(0);
    let said = machine.run(&declared("", "false")).expect(1).says("app@1.service runs again");
    let _ = said.says("put back: /etc/systemd/system/app@.service.d/start.conf");
    let said = machine.run(&declared("Nice=5", "false")).expect(1).says("app@1.service runs again");
    let _ = said.says("put back: /etc/systemd/system/app@.service, /etc");
    assert_eq!(machine.unit("app@1.service")["fields"]["ExecStart"], "true");
    assert!(!machine.read("etc/systemd/system/app@.service").contains("Nice"));
}

#[test]
fn what_a_first_start_refuses_stays_for_the_next_run() {
    let machine = Machine::new();
    let _ = machine.run(&site("bad\n", Some("new\n"), "one")).expect(1).says("app.service failed (exit-code)");
    assert_eq!(machine.read("etc/extra"), "new\n");
    assert_eq!(machine.read("etc/site"), "bad\n");
}

#[test]
fn a_changed_file_names_the_service_of_another_step() {
    let machine = Machine::new();
    let directory = machine.sandbox.at("steps");
    let write = |content: &str| {
        let files = format!("name = \"files\"\n{}", file("/etc/systemd/system/app.service", content));
        let _ = machine.sandbox.write("steps/10-files.toml", files);
    };
    let services = service(RUNNING);
    let _ = machine.sandbox.write("steps/20-start.toml", format!("name = \"start\"\n{services}"));
    write(&unit("true", ""));
    let _ = machine.sandbox.run(&["run", "--steps", &directory]).expect(0);
    write(&unit("true", "Nice=5"));
    let note = format!(
        "note: service app.service in step start reads /etc/systemd/system/app.service, which has changed: run `glovo-bootstrap run start --steps {directory}`"
    );
    let _ = machine.sandbox.run(&["plan", "--steps", &directory, "files"]).expect(0).says(&note);
    let _ = machine.sandbox.run(&["run", "--steps", &directory, "files"]).expect(0).says(&note);
    // Nothing was changed, or the step has its turn: nothing is to be told.
    let again = machine.sandbox.run(&["run", "--steps", &directory, "files"]).expect(0);
    assert!(!again.stdout.contains("note:"), "{}", again.stdout);
    write(&unit("true", "Nice=6"));
    let all = machine.sandbox.run(&["run", "--steps", &directory]).expect(0);
    assert!(!all.stdout.contains("note:"), "{}", all.stdout);
}

#[test]
fn a_users_link_has_no_file_of_root_put_back() {
    let machine = Machine::new();
    std::os::unix::fs::chown(machine.at("etc"), Some(0), Some(0)).unwrap();
    fs::create_dir(machine.at("etc/app")).unwrap();
    std::os::unix::fs::chown(machine.at("etc/app"), Some(65534), Some(65534)).unwrap();
    let declared = |site: &str| {
        file("/etc/site", site)
            + &service(
                "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/app/config\"]\nvalidate = [\"sh\", \"-c\", \"! grep -q new /etc/site\"]",
            )
    };
    machine.write("etc/systemd/system/app.service", unit("true", ""));
    fs::write(machine.at("etc/app/config"), "").unwrap();
    let _ = machine.run(&declared("old\n")).expect(0);
    fs::remove_file(machine.at("etc/app/config")).unwrap();
    std::os::unix::fs::symlink("/etc/site", machine.at("etc/app/config")).unwrap();
    std::os::unix::fs::lchown(machine.at("etc/app/config"), Some(65534), Some(65534)).unwrap();
    let said = machine.run(&declared("new\n")).expect(1);
    assert!(!said.stdout.contains("put back: /etc/site"), "{said:?}");
    assert_eq!(machine.read("etc/site"), "new\n");
}
