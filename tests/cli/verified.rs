//! The verdict of a validator and of systemd on a file before it is published.

use std::fs;

use crate::{
    service::{RUNNING, UNIT, app, file, service, unit},
    standin::Machine,
};

#[test]
fn a_unit_file_that_systemd_would_not_load_is_not_published() {
    let machine = Machine::new();
    let good = app(&unit("true", ""), RUNNING);
    let _ = machine.run(&good).expect(0);
    let before = machine.read(UNIT);
    let bad = app("[Service]\nType=simple\n", RUNNING);
    let said = machine.run(&bad).expect(1).says("app.service was not replaced: systemd would not load it");
    let _ = said.says("| app.service: Service has no ExecStart=");
    assert_eq!(machine.read(UNIT), before);
    assert_eq!(machine.unit("app.service")["starts"], 1);
    assert_eq!(fs::read_dir(machine.at("etc/systemd/system")).unwrap().count(), 1);

    // Warnings of systemd-analyze are left to the author, and so are files that are no units.
    fs::write(machine.at("run/warns"), "").unwrap();
    let _ = machine.run(&app(&unit("true", "Warns=yes"), RUNNING)).expect(0);
    let _ = machine.run(&file("/etc/systemd/system/README", "no unit\n")).expect(0);
    let _ = machine.run(&file("/etc/app.service", "no unit\n")).expect(0);
}

#[test]
fn a_drop_in_is_verified_together_with_its_unit() {
    let machine = Machine::new();
    let drop_in = "/etc/systemd/system/app.service.d/start.conf";
    let declared = |unit: &str, content: &str| {
        file("/etc/systemd/system/app.service", unit)
            + "[[resource]]\nkind = \"directory\"\npath = \"/etc/systemd/system/app.service.d\"\n"
            + &file(drop_in, content)
            + &service(&RUNNING.replace("/etc/systemd/system/app.service", drop_in))
    };
    let good = declared(&unit("true", ""), "[Service]\nExecStart=\nExecStart=true 2\n");
    let _ = machine.run(&good).expect(0);
    let bad = declared(&unit("true", ""), "[Service]\nExecStart=\n");
    let said = machine.run(&bad).expect(1);
    let said = said.says("start.conf was not replaced: systemd would not load app.service with it");
    let _ = said.says("| app.service: Service has no ExecStart=");
    assert!(machine.read(&drop_in[1..]).contains("true 2"));
    assert_eq!(machine.unit("app.service")["starts"], 1);
    assert_eq!(fs::read_dir(machine.at("etc/systemd/system/app.service.d")).unwrap().count(), 1);
    // A unit that does not load without it either is not its fault, and a drop-in may come before its unit.
    machine.write(UNIT, "[Service]\nType=simple\n");
    let only = |path: &str| file(path, "[Service]\nExecStart=\n");
    let _ = machine.run(&only("/etc/systemd/system/app.service.d/a.conf")).expect(0);
    fs::create_dir(machine.at("etc/systemd/system/later.service.d")).unwrap();
    let _ = machine.run(&only("/etc/systemd/system/later.service.d/a.conf")).expect(0);
}

#[test]
fn a_validator_sees_a_file_under_its_own_name() {
    let machine = Machine::new();
    let script = "case {} in */app.conf) ;; *) exit 1 ;; esac; test $(stat -c %a-%U $(dirname {})) = 700-root; cat {} > /run/seen";
    let declared = file("/etc/app.conf", "new\n") + &format!("validate = [\"sh\", \"-euc\", '{script}']\n");
    let _ = machine.run(&declared).expect(0);
    assert_eq!(machine.read("run/seen"), "new\n");
    let refused = declared.replace("cat {}", "exit 3; cat {}").replace("new", "newer");
    let _ = machine.run(&refused).expect(1).says("was not replaced: its validator failed");
    assert_eq!(machine.read("etc/app.conf"), "new\n");
    let names: Vec<_> = fs::read_dir(machine.at("etc")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("glovo-bootstrap")), "{names:?}");
}
