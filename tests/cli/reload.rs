//! Reloads: a running service reads changed files without a restart.

use std::fs;

use crate::{
    sandbox::Finished,
    service::{UNIT, app, file, service, unit},
    standin::Machine,
};

/// A manifest whose service restarts for `/etc/modules` and reloads for `/etc/site`.
fn web(modules: &str, site: &str, lines: &str) -> String {
    let reads = unit("grep -q good /etc/site", &format!("ExecReload=cat /etc/site; grep -q good /etc/site\n{lines}"));
    file("/etc/modules", modules)
        + &file("/etc/site", site)
        + &file("/etc/systemd/system/app.service", &reads)
        + &service(
            "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/modules\", \"/etc/systemd/system/app.service\"]\n\
             reload_on = [\"/etc/site\"]\nvalidate = [\"sh\", \"-c\", \"! grep -q refused /etc/site\"]",
        )
}

/// Checks how often the unit was started and reloaded.
#[track_caller]
fn count(machine: &Machine, starts: u64, reloads: u64) {
    let state = machine.unit("app.service");
    assert_eq!((&state["starts"], &state["reloads"]), (&starts.into(), &reloads.into()));
    assert_eq!(state["active"], "active");
}

fn converged(machine: &Machine) -> Finished {
    let _ = machine.run(&web("1\n", "good 1\n", "")).expect(0).says("app.service: start");
    let said = machine.run(&web("1\n", "good 1\n", "")).expect(0).says("converged: 0 changes");
    count(machine, 1, 0);
    said
}

#[test]
fn a_service_is_reloaded_if_only_such_files_have_changed() {
    let machine = Machine::new();
    let _ = converged(&machine);
    let changed = web("1\n", "good 2\n", "");
    let reload = "service app.service: reload: /etc/site has changed since its start";
    let _ = machine.plan(&changed).expect(0).says(reload);
    count(&machine, 1, 0);
    let _ = machine.run(&changed).expect(0).says(reload);
    count(&machine, 1, 1);
    let _ = machine.run(&changed).expect(0).says("converged: 0 changes");
    count(&machine, 1, 1);

    fs::write(machine.at("etc/site"), "good by hand\n").unwrap();
    let _ = machine.run(&changed).expect(0).says("/etc/site: write new content");
    // The service has never read what was written by hand.
    count(&machine, 1, 1);
}

#[test]
fn a_change_of_both_sorts_is_one_restart() {
    let machine = Machine::new();
    let _ = converged(&machine);
    let said =
        machine.run(&web("2\n", "good 2\n", "")).expect(0).says("app.service: restart: /etc/modules has changed");
    assert!(!said.stdout.contains("app.service: reload"), "{}", said.stdout);
    count(&machine, 2, 0);
    let _ = machine.run(&web("2\n", "good 2\n", "")).expect(0).says("converged: 0 changes");
}

#[test]
fn all_changed_files_are_the_reason_of_a_restart() {
    let machine = Machine::new();
    let _ = converged(&machine);
    let changed = web("2\n", "good 2\n", "X-Other=yes");
    let reason = "restart: /etc/modules, /etc/systemd/system/app.service have changed since its start";
    let _ = machine.plan(&changed).expect(0).says(reason);
    let _ = machine.run(&changed).expect(0).says(reason);
    count(&machine, 2, 0);
}

#[test]
fn files_that_a_reload_refuses_are_put_back() {
    let machine = Machine::new();
    let _ = converged(&machine);
    let bad = web("1\n", "bad\n", "");
    let said = machine.run(&bad).expect(1).says("app.service failed to reload (exit-code)").says("| bad");
    let _ = said.says("put back: /etc/site").says("app.service runs again with them");
    assert_eq!(machine.read("etc/site"), "good 1\n");
    // Its process goes on: it has read the restored file by a reload too.
    count(&machine, 1, 2);
    let _ = machine.run(&web("1\n", "good 1\n", "")).expect(0).says("converged: 0 changes");
}

#[test]
fn files_that_its_validator_refuses_reach_no_reload() {
    let machine = Machine::new();
    let _ = converged(&machine);
    let said = machine.run(&web("1\n", "refused\n", "")).expect(1);
    let _ = said.says("app.service was not reloaded: its validator failed").says("put back: /etc/site");
    assert_eq!(machine.read("etc/site"), "good 1\n");
    count(&machine, 1, 0);
}

#[test]
fn a_service_that_dies_of_a_reload_starts_with_the_old_files() {
    let machine = Machine::new();
    let _ = machine.run(&web("1\n", "good\n", "X-Fragile=yes")).expect(0);
    let said = machine.run(&web("1\n", "bad\n", "X-Fragile=yes")).expect(1);
    let _ = said.says("app.service did not survive its reload").says("app.service runs again with them");
    count(&machine, 2, 1);
    assert_eq!(machine.read("etc/site"), "good\n");
}

#[test]
fn a_reload_that_a_killed_run_left_out_is_made_by_the_next() {
    let machine = Machine::new();
    let _ = converged(&machine);
    fs::write(machine.at("etc/site"), "good 2\n").unwrap();
    let _ = machine.run(&web("1\n", "good 2\n", "")).expect(0).says("app.service: reload").says("converged: 1 change");
    count(&machine, 1, 1);
}

#[test]
fn a_unit_that_cannot_reload_is_refused() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", ""));
    let declared = file("/etc/site", "x\n") + &service("running = true\nstable = \"0s\"\nreload_on = [\"/etc/site\"]");
    let said = machine.plan(&declared).expect(1).says("app.service cannot reload: its unit has no ExecReload=");
    let _ = said.says("hint: name the files of `reload_on` in `restart_on`");
    let _ = machine.run(&declared).expect(1).says("app.service cannot reload");
    assert_eq!(machine.unit("app.service")["starts"], 0);
}

#[test]
fn wrong_lists_of_files_to_reload_are_refused() {
    let machine = Machine::new();
    for (lines, words) in [
        ("enabled = true\nreload_on = [\"/etc/a\"]", "`reload_on` needs running = true"),
        (
            "running = true\nreload_on = [\"/etc/a\"]\nrestart_on = [\"/etc/a\"]",
            "`restart_on` and `reload_on` both name /etc/a",
        ),
        ("running = true\nreload_on = [\"/etc/systemd/system/app.service\"]", "which is a file of the unit"),
        ("running = true\nreload_on = [\"/etc/systemd/system/app.service.d/a.conf\"]", "which is a file of the unit"),
    ] {
        let _ = machine.plan(&service(lines)).expect(2).says(words);
    }
    machine.write(UNIT, unit("true", "ExecReload=true"));
    let directory = app(&unit("true", "ExecReload=true"), "running = true\nreload_on = [\"/etc\"]");
    let _ = machine.plan(&directory).expect(1).says("`reload_on` names /etc, which is a directory");
}
