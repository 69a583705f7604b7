//! The kind `service` on a stand-in for systemd: starts, their verdict, and restored files.

use std::fs;

use crate::standin::Machine;

pub const UNIT: &str = "etc/systemd/system/app.service";

/// A unit file that runs `start` and has these other lines.
pub fn unit(start: &str, lines: &str) -> String {
    format!("[Service]\nExecStart={start}\n{lines}\n[Install]\nWantedBy=multi-user.target\n")
}

pub fn file(path: &str, content: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = '''\n{content}'''\n")
}

/// The unit `app` with this file, and these lines of its resource.
pub fn app(content: &str, lines: &str) -> String {
    file("/etc/systemd/system/app.service", content) + &service(lines)
}

pub fn service(lines: &str) -> String {
    format!("[[resource]]\nkind = \"service\"\nname = \"app\"\n{lines}\n")
}

pub const RUNNING: &str = "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/systemd/system/app.service\"]";

#[test]
fn a_service_is_started_enabled_and_then_left_alone() {
    let machine = Machine::new();
    let declared = app(&unit("true", ""), &format!("enabled = true\n{RUNNING}"));
    let _ =
        machine.run(&declared).expect(0).says("service app.service: start").says("service app.service: enable at boot");
    let commands = machine.commands();
    let started: Vec<_> = commands.iter().filter(|line| line.starts_with("systemctl")).collect();
    assert_eq!(started, ["systemctl start --no-block app.service", "systemctl --quiet enable app.service"]);
    let _ = machine.plan(&declared).expect(0).says("plan: 0 changes pending");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), [""; 0]);

    let changed = declared.replace("ExecStart=true", "ExecStart=true again");
    let _ = machine.run(&changed).expect(0).says("app.service: read unit files again (daemon-reload)");
    assert_eq!(machine.unit("app.service")["starts"], 2);
    let _ = machine.run(&service("running = false\nenabled = false")).expect(0).says("app.service: stop");
    assert_eq!(machine.unit("app.service")["active"], "inactive");
    let _ = machine.run(&service("running = false\nenabled = false")).expect(0).says("converged: 0 changes");
}

#[test]
fn a_service_that_declares_nothing_is_refused() {
    let machine = Machine::new();
    let _ =
        machine.plan(&service("stable = \"1s\"")).expect(2).says("declares none of `enabled`, `running` and `masked`");
    let _ = machine
        .plan(&service("enabled = true\nrestart_on = [\"/etc/site\"]"))
        .expect(2)
        .says("`restart_on` needs running = true");
}

#[test]
fn a_unit_that_never_gets_ready_ends_at_the_deadline() {
    let machine = Machine::new();
    let waits = app(&unit("echo waiting for a quorum", "Type=notify"), &format!("{RUNNING}\ntimeout = \"15s\""));
    let said = machine.run(&waits).expect(75).says("app.service is still activating (start)");
    let _ = said.says("| waiting for a quorum").says("service app.service timed out after 15");
}

#[test]
fn a_service_that_simply_leaves_is_an_error() {
    let machine = Machine::new();
    let leaves = app(&unit("echo nothing to do", "Type=oneshot"), RUNNING);
    let _ = machine.run(&leaves).expect(1).says("app.service ended soon after its start").says("| nothing to do");
}

#[test]
fn without_systemd_a_unit_is_enabled_and_its_start_deferred() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.at("run/systemd")).unwrap();
    let declared = app(&unit("true", ""), &format!("enabled = true\n{RUNNING}"));
    let said = machine.run(&declared).expect(0).says("app.service: enable at boot");
    let _ = said.says("app.service: start (deferred: systemd does not run on this machine)");
    assert!(fs::symlink_metadata(machine.at("etc/systemd/system/multi-user.target.wants/app.service")).is_ok());
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes, 1 deferred");
}

#[test]
fn an_absent_unit_is_already_stopped_and_disabled() {
    let machine = Machine::new();
    for declared in ["running = false\nenabled = false", "running = false", "enabled = false"] {
        let _ = machine.plan(&service(declared)).expect(0).says("plan: 0 changes pending");
        let _ = machine.run(&service(declared)).expect(0).says("converged: 0 changes");
    }
    for declared in ["running = true\nenabled = false", "running = false\nenabled = true"] {
        let _ = machine.run(&service(declared)).expect(1).says("the unit app.service does not exist");
    }
}

#[test]
fn a_unit_that_fails_until_its_payload_is_there_converges() {
    let machine = Machine::new();
    let fails_until = unit("echo no payload; test -e /run/payload", "Restart=on-failure\nRestartSec=3");
    machine.write(UNIT, &fails_until);
    machine.systemctl(&["start", "app.service"]);
    assert_eq!(machine.unit("app.service")["sub"], "auto-restart");
    let payload = file("/run/payload", "here\n");
    // The failing unit is not the unit that this run has started.
    for stable in ["0s", "1ms"] {
        let lines = RUNNING.replace("0s", stable).replace("[\"", "[\"/run/payload\", \"");
        let declared = payload.clone() + &service(&lines);
        let said = machine.run(&declared).expect(0);
        let _ = said.says("app.service: restart (it is in a restart loop: exit-code)");
        assert_eq!(machine.unit("app.service")["active"], "active");
        let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
        fs::remove_file(machine.at("run/payload")).unwrap();
        machine.systemctl(&["stop", "app.service"]);
        machine.systemctl(&["start", "app.service"]);
    }
}

#[test]
fn a_unit_that_systemd_restarts_after_our_start_is_an_error() {
    let machine = Machine::new();
    let flaps = unit("echo lost my database", "Restart=always\nRestartSec=1\nX-Lives=2");
    // If the run did not notice the restarts, it would end at this deadline with another exit code.
    let lines = RUNNING.replace("0s", "1h") + "\ntimeout = \"60s\"";
    let _ = machine.run(&app(&flaps, &lines)).expect(1).says("| lost my database");
    // The run looks at a moment when it is active.
    machine.systemctl(&[
        "test-set",
        "app.service",
        r#"{"active": "active", "sub": "running", "restarts": 3, "timer": 3}"#,
    ]);
    let _ = machine
        .run(&app(&flaps, "running = true\nstable = \"1h\"\ntimeout = \"60s\""))
        .expect(1)
        .says("| lost my database");
}

#[test]
fn a_unit_that_its_next_restart_heals_is_no_error() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", "Restart=always\nRestartSec=1"));
    machine.systemctl(&["start", "app.service"]);
    // It runs with the old bytes of a file that is not declared, and dies once more.
    machine.systemctl(&["test-set", "app.service", r#"{"restarts": 3, "timer": 3, "since": 9000000000000000000}"#]);
    let lines = "running = true\nstable = \"300ms\"";
    let _ = machine.run(&service(lines)).expect(0).says("wait until it stays up");
}

#[test]
fn a_corrected_unit_file_heals_a_unit_that_could_not_be_loaded() {
    let machine = Machine::new();
    machine.write(UNIT, "[Service]\nType=simple\n");
    machine.systemctl(&["show", "app.service"]);
    assert_eq!(machine.unit("app.service")["load"], "bad-setting");
    let declared = app(&unit("true", ""), &format!("enabled = true\n{RUNNING}"));
    let _ = machine.plan(&declared).expect(0);
    let _ = machine.run(&declared).expect(0).says("read unit files again (daemon-reload)");
    assert_eq!(machine.unit("app.service")["active"], "active");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

#[test]
fn a_unit_that_systemd_will_start_again_is_not_stopped_yet() {
    let machine = Machine::new();
    machine.write(UNIT, unit("false", "Restart=always\nRestartSec=1000"));
    machine.systemctl(&["start", "app.service"]);
    assert_eq!(machine.unit("app.service")["sub"], "auto-restart");
    let _ = machine.run(&service("running = false")).expect(0).says("app.service: stop");
    assert_eq!(machine.unit("app.service")["active"], "inactive");
    let _ = machine.run(&service("running = false")).expect(0).says("converged: 0 changes");
}

#[test]
fn a_unit_that_fails_as_it_is_stopped_is_stopped() {
    let machine = Machine::new();
    // A JVM ends with 143 at SIGTERM.
    machine.write(UNIT, unit("true", "X-Stop=143"));
    machine.systemctl(&["start", "app.service"]);
    let _ = machine.run(&service("running = false")).expect(0).says("app.service: stop");
    assert_eq!(machine.unit("app.service")["active"], "failed");
}

#[test]
fn an_instance_has_the_file_of_its_template() {
    let machine = Machine::new();
    let template = file("/etc/systemd/system/app@.service", &unit("true", ""));
    let instance = service("enabled = true").replace("\"app\"", "\"app@1\"");
    let _ = machine.plan(&(template.clone() + &instance)).expect(0).says("plan: ");
    fs::remove_dir_all(machine.at("run/systemd")).unwrap();
    let _ = machine.run(&(template + &instance)).expect(0).says("app@1.service: enable at boot");
}

#[test]
fn a_clock_that_was_set_since_its_start_hides_no_restart() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", ""));
    machine.write("etc/site", "new\n");
    machine.systemctl(&["start", "app.service"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let started = |wall: u64, since: &str| {
        machine.systemctl(&["test-set", "app.service", &format!("{{\"wall\": {wall}, \"since\": {since}}}")]);
    };
    let lines = RUNNING.replace("[\"", "[\"/etc/site\", \"");
    let restarts = "app.service: restart: the files of its last start are not known";
    let (just_now, at_boot) = ("9000000000000000000", "1");
    // The files are older than its start, by either clock.
    started(now + 2, just_now);
    let _ = machine.plan(&service(&lines)).expect(0).says("plan: 0 changes");
    // Its clock was behind at its start, and the files are from that time: the clock was set forwards since.
    started(now - 86400, just_now);
    let _ = machine.plan(&service(&lines)).expect(0).says(restarts);
    // Its clock was ahead at its start, and was set backwards since.
    started(now + 86400, at_boot);
    let _ = machine.plan(&service(&lines)).expect(0).says(restarts);
}

#[test]
fn a_file_that_was_missing_at_its_start_restarts_nothing() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", ""));
    machine.systemctl(&["start", "app.service"]);
    let later = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 2;
    machine.systemctl(&["test-set", "app.service", &format!("{{\"wall\": {later}, \"since\": 9000000000000000000}}")]);
    let manifest = service(&RUNNING.replace("[\"", "[\"/etc/app.d/site\", \""));
    let _ = machine.plan(&manifest).expect(0).says("plan: 0 changes");
}

#[test]
fn a_path_that_nothing_brings_is_a_warning_of_its_restart() {
    let machine = Machine::new();
    let declared = |path: &str| {
        file("/etc/app-site.conf", "site\n")
            + &app(&unit("true", ""), &RUNNING.replace("[\"", &format!("[\"{path}\", \"")))
    };
    let typo = declared("/etc/app-stie.conf");
    let warning =
        "warning: `restart_on` names /etc/app-stie.conf, which does not exist and no earlier resource declares";
    let _ = machine.plan(&typo).expect(0).says(warning);
    let _ = machine.run(&typo).expect(0).says(warning);
    let manifest = machine.sandbox.manifest(&typo);
    let near = "note: service app.service: `restart_on` names /etc/app-stie.conf, which no resource declares; did you mean `/etc/app-site.conf`?";
    let _ = machine.sandbox.run(&["validate", "--steps", &manifest]).expect(0).says(near);
    // What is declared, is on the machine, or may come with a package is as it should be.
    for path in ["/etc/app-site.conf", "/etc/passwd"] {
        let declared = declared(path);
        for said in [machine.plan(&declared), machine.run(&declared)] {
            assert!(!said.expect(0).stdout.contains("warning"), "{path}");
        }
        let valid = machine.sandbox.run(&["validate", "--steps", &machine.sandbox.manifest(&declared)]).expect(0);
        assert!(!valid.stderr.contains("note:"), "{valid:?}");
    }
}

#[test]
fn a_file_of_a_failed_or_left_out_resource_is_declared() {
    let machine = Machine::new();
    let file = |path: &str, more: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\n{more}\n");
    let reads = |path: &str| service(&format!("running = true\nrestart_on = [\"{path}\"]"));
    let unit = self::file("/etc/systemd/system/app.service", &unit("true", ""));
    let words = "which does not exist and no earlier resource declares";
    for (resources, code, is_told) in [
        (file("/etc/failed", "source = \"file:///none\"") + &unit + &reads("/etc/failed"), 1, false),
        (
            file("/etc/other", "content = \"\"\nwhere = { \"host.hostname\" = \"none.example.com\" }")
                + &unit
                + &reads("/etc/other"),
            0,
            false,
        ),
        (unit.clone() + &reads("/etc/late") + &file("/etc/late", "content = \"\""), 0, true),
        (unit.clone() + &reads("/etc/none"), 0, true),
    ] {
        let planned = machine.plan(&resources).expect(code);
        assert_eq!(planned.stdout.contains(words), is_told, "{}", planned.stdout);
    }
}
