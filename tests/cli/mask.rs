//! Masked units: systemd must not start them.

use std::{fs, os::unix::fs::symlink};

use crate::{
    service::{RUNNING, UNIT, app, file, service, unit},
    standin::Machine,
};

const BELOW: &str = "run/systemd/system/app.service";

fn mask(machine: &Machine) -> Option<String> {
    Some(fs::read_link(machine.at(UNIT)).ok()?.to_str()?.to_owned())
}

#[test]
fn a_unit_is_masked_before_it_exists_and_only_once() {
    let machine = Machine::new();
    let declared = service("masked = true");
    let _ = machine.plan(&declared).expect(0).says("service app.service: mask");
    assert_eq!(mask(&machine), None);
    let _ = machine.run(&declared).expect(0).says("service app.service: mask");
    assert_eq!(mask(&machine).as_deref(), Some("/dev/null"));
    assert_eq!(machine.commands(), ["systemctl --quiet mask app.service"]);
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert_eq!(machine.commands(), [""; 0]);
    let _ = machine.run(&service("running = true")).expect(1).says("app.service is masked");

    fs::remove_file(machine.at(UNIT)).unwrap();
    let _ = machine.run(&declared).expect(0).says("app.service: mask");
    assert_eq!(mask(&machine).as_deref(), Some("/dev/null"));
}

#[test]
fn a_running_unit_that_was_masked_by_hand_is_stopped() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", ""));
    machine.systemctl(&["start", "app.service"]);
    fs::remove_file(machine.at(UNIT)).unwrap();
    machine.systemctl(&["mask", "app.service"]);
    assert_eq!(machine.unit("app.service")["active"], "active");
    let _ = machine.run(&service("masked = true")).expect(0).says("service app.service: stop");
    assert_eq!(machine.unit("app.service")["active"], "inactive");
    let _ = machine.run(&service("masked = true")).expect(0).says("converged: 0 changes");
}

#[test]
fn a_mask_replaces_no_unit_file() {
    let machine = Machine::new();
    machine.write(UNIT, unit("true", ""));
    let said = machine.plan(&service("masked = true")).expect(1);
    let _ = said.says("cannot mask app.service: /etc/systemd/system/app.service is in the place of the mask");
    let both = app(&unit("true", ""), "masked = true");
    let absent = "[[resource]]\nkind = \"absent\"\npath = \"/etc/systemd/system/app.service\"\n";
    // Each run would remove the mask and make it again.
    for other in [both, absent.to_owned() + &service("masked = true")] {
        let said = machine.run(&other).expect(2);
        let _ = said.says("two resources manage /etc/systemd/system/app.service");
    }
    assert_eq!(machine.read(UNIT), unit("true", ""));
    fs::rename(machine.at(UNIT), machine.at(&format!("{UNIT}.old"))).unwrap();
    let _ = machine.run(&service("masked = true")).expect(0).says("app.service: mask");
}

#[test]
fn unmasking_removes_a_mask_and_nothing_else() {
    let machine = Machine::new();
    let _ = machine.run(&service("masked = false")).expect(0).says("converged: 0 changes");
    machine.write(UNIT, unit("true", ""));
    let _ = machine.run(&service("masked = false")).expect(0).says("converged: 0 changes");
    fs::remove_file(machine.at(UNIT)).unwrap();

    machine.systemctl(&["mask", "app.service"]);
    let _ =
        machine.plan(&service("masked = false\nrunning = true")).expect(1).says("the unit app.service does not exist");
    let _ = machine.run(&service("masked = false")).expect(0).says("service app.service: unmask");
    assert_eq!(mask(&machine), None);
    let _ = machine.run(&service("masked = false")).expect(0).says("converged: 0 changes");
}

#[test]
fn an_unmasked_unit_is_started_in_the_same_run() {
    let machine = Machine::new();
    machine.write(BELOW, unit("true", ""));
    machine.systemctl(&["mask", "app.service"]);
    let declared = service("masked = false\nenabled = true\nrunning = true\nstable = \"0s\"");
    let said = machine.run(&declared).expect(0).says("app.service: unmask").says("app.service: start");
    let _ = said.says("app.service: enable at boot");
    assert_eq!(machine.unit("app.service")["active"], "active");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

#[test]
fn the_mask_of_a_package_is_not_removed() {
    let machine = Machine::new();
    fs::create_dir_all(machine.at("tree/etc")).unwrap();
    fs::create_dir_all(machine.at("tree/usr/lib/systemd/system")).unwrap();
    symlink("/dev/null", machine.at("tree/usr/lib/systemd/system/app.service")).unwrap();
    let manifest = machine.sandbox.manifest(&service("masked = false\nenabled = true"));
    let said = machine.sandbox.run(&["plan", "--root", &machine.at("tree"), "--steps", &manifest]).expect(1);
    let _ = said.says("cannot unmask app.service: /usr/lib/systemd/system/app.service, which masks it");
}

#[test]
fn without_systemd_a_unit_is_masked_by_its_link() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.at("run/systemd")).unwrap();
    let _ = machine.run(&service("masked = true")).expect(0).says("service app.service: mask");
    assert_eq!(mask(&machine).as_deref(), Some("/dev/null"));
    let _ = machine.run(&service("masked = true")).expect(0).says("converged: 0 changes");
    let _ = machine.plan(&service("enabled = true")).expect(1).says("app.service is masked");
    let _ = machine.run(&service("masked = false")).expect(0).says("service app.service: unmask");
    assert_eq!(mask(&machine), None);
}

#[test]
fn a_masked_unit_has_no_other_state() {
    let machine = Machine::new();
    for field in ["enabled = true", "running = false", RUNNING, "validate = [\"true\"]"] {
        let said = machine.plan(&service(&format!("masked = true\n{field}"))).expect(2);
        let _ = said.says("`masked = true` and `").says("exclude each other");
    }
    let _ =
        machine.plan(&(file("/etc/a", "a\n") + &service("masked = \"yes\""))).expect(2).says("expected true or false");
}

#[test]
fn another_name_of_a_unit_is_not_masked() {
    let machine = Machine::new();
    machine.write("run/systemd/system/real.service", unit("true", ""));
    symlink("real.service", machine.at(BELOW)).unwrap();
    machine.systemctl(&["start", "real.service"]);
    let said = machine.plan(&service("masked = true")).expect(1);
    let _ =
        said.says("cannot mask app.service: it is only another name of real.service").says("name = \"real.service\"");
    let _ = machine.run(&service("masked = true")).expect(1).says("only another name of real.service");
    symlink("/run/systemd/system/real.service", machine.at(UNIT)).unwrap();
    let _ = machine.plan(&service("masked = true")).expect(1).says("only another name of real.service");
}

#[test]
fn all_masks_of_a_unit_are_removed_at_once() {
    let machine = Machine::new();
    symlink("/dev/null", machine.at(BELOW)).unwrap();
    symlink("/dev/null", machine.at(UNIT)).unwrap();
    let needs = service("masked = false\nrunning = true");
    let _ = machine.plan(&needs).expect(1).says("the unit app.service does not exist");
    let _ = machine.run(&service("masked = false")).expect(0).says("converged: 1 change");
    assert!(mask(&machine).is_none() && fs::symlink_metadata(machine.at(BELOW)).is_err());
}

#[test]
fn a_template_is_no_unit_to_mask_or_start() {
    let machine = Machine::new();
    for lines in ["masked = true", RUNNING, "enabled = false"] {
        let manifest = machine.sandbox.manifest(&service(lines).replace("\"app\"", "\"app@\""));
        let said = machine.sandbox.run(&["validate", "--steps", &manifest]).expect(2);
        let _ = said.says("app@.service is a template").says("name an instance of it, such as `app@1.service`");
    }
}
