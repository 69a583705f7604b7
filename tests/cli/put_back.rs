//! Restoring the files that a service refuses, and notes on services that have not read a change.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    sandbox::Finished,
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

/// Checks that the files are as in the good manifest, and that the unit runs with them.
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
    // The next run tries it again, and the service refuses it again, although it runs with the restored files.
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
    let planned = note.replace("which has changed: run", "which the run changes: afterwards, run");
    let _ = machine.sandbox.run(&["plan", "--steps", &directory, "files"]).expect(0).says(&planned);
    let _ = machine.sandbox.run(&["run", "--steps", &directory, "files"]).expect(0).says(&note);
    // The note stays until the restart.
    for verb in ["plan", "run", "plan"] {
        let _ = machine.sandbox.run(&[verb, "--steps", &directory, "files"]).expect(0).says(&note);
    }
    let _ = machine.sandbox.run(&["status"]).expect(0).says(&note);
    // The step runs later in this run, so there is no note.
    write(&unit("true", "Nice=6"));
    for steps in [&["start", "files"][..], &["files"]] {
        let run = machine.sandbox.run(&[&["run", "--steps", &directory], steps].concat()).expect(0);
        assert!(!run.stdout.contains("note:"), "{}", run.stdout);
    }
    // A service that does not run awaits no restart.
    write(&unit("true", "Nice=7"));
    machine.systemctl(&["stop", "app.service"]);
    let _ = machine.sandbox.run(&["run", "--steps", &directory, "files"]).expect(0).says(&note);
    let idle = machine.sandbox.run(&["run", "--steps", &directory, "files"]).expect(0);
    assert!(!idle.stdout.contains("note:"), "{}", idle.stdout);
}

/// Two services read `/etc/shared`: `app`, which also must find the same in `/etc/own`, and then `other`.
fn two_readers(shared: &str, own: &str) -> String {
    let lines = |files: &str| format!("running = true\nstable = \"0s\"\nrestart_on = [{files}]");
    file("/etc/shared", shared)
        + &file("/etc/own", own)
        + &service(&lines("\"/etc/shared\", \"/etc/own\""))
        + &service(&lines("\"/etc/shared\"")).replace("\"app\"", "\"other\"")
}

fn machine_of_two_readers() -> Machine {
    let machine = Machine::new();
    machine.write(UNIT, unit("cmp -s /etc/shared /etc/own", ""));
    machine.write("etc/systemd/system/other.service", unit("! grep -q bad /etc/shared", ""));
    machine
}

#[test]
fn a_service_that_took_what_another_refuses_is_restarted_too() {
    let machine = machine_of_two_readers();
    let good = two_readers("good\n", "good\n");
    let _ = machine.run(&good).expect(0);
    let said = machine.run(&two_readers("bad\n", "bad\n")).expect(1).says("other.service refuses");
    let said = said.says("put back: /etc/own, /etc/shared").says("app.service, other.service run again with them");
    assert_eq!((machine.read("etc/shared"), machine.read("etc/own")), ("good\n".into(), "good\n".into()));
    for (name, starts) in [("app.service", 3), ("other.service", 3)] {
        let state = machine.unit(name);
        assert_eq!((&state["active"], &state["starts"]), (&"active".into(), &starts.into()), "{name}");
    }
    // Restored files are no change. Only the restart of the first service is one.
    let _ = said.says("failed after 1 change ");
    let report = machine.sandbox.report();
    let resources = report["steps"][0]["resources"].as_array().unwrap();
    let outcomes: Vec<_> = resources.iter().map(|resource| resource["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["put_back", "put_back", "changed", "failed"]);
    let _ = machine.sandbox.run(&["status"]).expect(1).says("- file /etc/own: write new content (put back)");
    let _ = machine.run(&good).expect(0).says("converged: 0 changes");
}

#[test]
fn a_service_that_is_new_keeps_its_own_files() {
    let machine = machine_of_two_readers();
    let two = two_readers("good\n", "good\n");
    let (files, other) = (two.split("[[resource]]\nkind = \"service\"").next().unwrap(), two.rfind("[[resource]]"));
    let _ = machine.run(&format!("{files}{}", &two[other.unwrap()..])).expect(0);
    fs::remove_file(machine.at(UNIT)).unwrap();
    let declared = file("/etc/systemd/system/app.service", &unit("true", "")) + &two_readers("bad\n", "good\n");
    let said = machine.run(&declared).expect(1).says("put back: /etc/shared;");
    let _ = said.says("app.service, other.service run again with them");
    assert_eq!(machine.read("etc/shared"), "good\n");
    assert_eq!(machine.unit("app.service")["active"], "active");
    assert!(machine.read(UNIT).contains("ExecStart=true"));
}

#[test]
fn all_files_are_put_back_that_can_be_and_the_others_named() {
    let machine = Machine::new();
    let _ = machine.run(&site("good\n", None, "one")).expect(0);
    let blocks = "! grep -q refused /etc/site || { rm /etc/extra; mkdir /etc/extra; false; }";
    let bad = site("refused\n", Some("new\n"), "two").replace("! grep -q refused /etc/site", blocks);
    let said = machine.run(&bad).expect(1).says("put back: /etc/current, /etc/site;");
    let _ = said.says("not put back: /etc/extra");
    assert_eq!(machine.read("etc/site"), "good\n");
}

#[test]
fn the_restart_with_the_old_files_has_the_services_timeout() {
    let machine = Machine::new();
    let _ = machine.run(&app(&unit("true", ""), RUNNING)).expect(0);
    // Longer than a start takes on any machine, and shorter than the time for putting back.
    let manifest = machine.sandbox.manifest(&app(&unit("false", ""), &format!("{RUNNING}\ntimeout = \"100s\"")));
    let said = machine.sandbox.run(&["--verbose", "run", "--steps", &manifest]).expect(1);
    let said = said.says("put back: /etc/systemd/system/app.service").says("app.service runs again with them");
    let restarts = said.stderr.lines().filter(|line| line.contains("restart app.service (deadline: "));
    let deadlines: Vec<_> = restarts.filter_map(|line| line.split_once("(deadline: ")).map(|(_, what)| what).collect();
    assert_eq!(deadlines, ["service app.service, 1 min 40 s)"; 2]);
}

#[test]
fn a_restart_that_fails_with_the_old_files_too_is_told() {
    let machine = Machine::new();
    let _ = machine.run(&app(&unit("true", ""), RUNNING)).expect(0);
    // From now on it fails with either file.
    machine.write("etc/systemd/system/app.service.d/late.conf", "[Service]\nExecStart=false\n");
    let said = machine.run(&app(&unit("false", ""), RUNNING)).expect(1);
    let failed = "app.service could not be started with them: app.service failed (exit-code)";
    let _ = said.says(&format!("put back: /etc/systemd/system/app.service; {failed}"));
}

/// The steps `files`, with this site, and `start`, a service that reads it.
fn two_steps(machine: &Machine, content: &str) -> String {
    machine.write(UNIT, unit("! grep -q bad /etc/site", ""));
    let files = format!("name = \"files\"\n{}secret = true\n", file("/etc/site", content));
    let _ = machine.sandbox.write("steps/10-files.toml", files);
    let service = service("running = true\nstable = \"0s\"\nrestart_on = [\"/etc/site\"]");
    let _ = machine.sandbox.write("steps/20-start.toml", format!("name = \"start\"\n{service}"));
    machine.sandbox.at("steps")
}

/// Runs some of these steps; all of them for an empty list.
fn run_two_steps(machine: &Machine, content: &str, steps: &[&str]) -> Finished {
    let directory = two_steps(machine, content);
    machine.sandbox.run(&[&["run", "--steps", &directory], steps].concat())
}

const KEPT: &str = "var-lib/glovo-bootstrap/previous.json";

#[test]
fn what_an_earlier_run_has_changed_is_put_back_too() {
    let machine = Machine::new();
    let run = |content: &str, steps: &[&str]| run_two_steps(&machine, content, steps);
    let _ = run("good\n", &[]).expect(0);
    assert!(!fs::exists(machine.sandbox.at(KEPT)).unwrap());
    let _ = run("bad\n", &["files"]).expect(0);
    assert_eq!(fs::metadata(machine.sandbox.at(KEPT)).unwrap().permissions().mode() & 0o7777, 0o600);
    // After several changes in a row, the files that the service runs with count.
    let _ = run("bad again\n", &["files"]).expect(0);
    let said = run("bad again\n", &["start"]).expect(1).says("put back: /etc/site; app.service runs again");
    let _ = said.says("app.service failed (exit-code)");
    assert_eq!(
        (machine.read("etc/site"), machine.unit("app.service")["active"].as_str()),
        ("good\n".into(), Some("active"))
    );
    assert_eq!(fs::metadata(machine.at("etc/site")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!fs::exists(machine.sandbox.at(KEPT)).unwrap());
    // After it runs with the new files, the old ones are deleted.
    let _ = run("new\n", &["files"]).expect(0);
    let _ = run("new\n", &["start"]).expect(0);
    assert!(!fs::exists(machine.sandbox.at(KEPT)).unwrap());
}

#[test]
fn what_an_operator_has_changed_since_is_left_and_named() {
    let machine = Machine::new();
    let run = |content: &str, steps: &[&str]| run_two_steps(&machine, content, steps);
    let _ = run("good\n", &[]).expect(0);
    let _ = run("new\n", &["files"]).expect(0);
    machine.write("etc/site", "bad idea\n");
    let said = run("new\n", &["start"]).expect(1).says("app.service refuses its new files; not put back: /etc/site");
    let _ = said.says("this program does not have the earlier content");
    assert_eq!(machine.read("etc/site"), "bad idea\n");
}

#[test]
fn what_a_service_took_meanwhile_is_not_undone_later() {
    let machine = Machine::new();
    let run = |content: &str, steps: &[&str]| run_two_steps(&machine, content, steps);
    machine.write("etc/site", "first\n");
    let _ = run("second\n", &["files"]).expect(0);
    assert!(fs::exists(machine.sandbox.at(KEPT)).unwrap());
    // systemd starts it after the file was written, as at a boot.
    machine.systemctl(&["start", "app.service"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    machine.systemctl(&[
        "test-set",
        "app.service",
        &format!("{{\"wall\": {}, \"since\": 9000000000000000000}}", now + 2),
    ]);
    let _ = run("second\n", &[]).expect(0).says("converged: 0 changes");
    assert!(!fs::exists(machine.sandbox.at(KEPT)).unwrap(), "`first` would be put back over `second`");
}

#[test]
fn what_a_run_on_the_disk_changed_is_not_put_back_at_boot() {
    let machine = Machine::new();
    let run = |content: &str, steps: &[&str]| run_two_steps(&machine, content, steps);
    let _ = run("good\n", &[]).expect(0);
    let _ = run("new\n", &["files"]).expect(0);
    let kept = fs::read(machine.sandbox.at(KEPT)).unwrap();
    // The machine's disk is attached elsewhere, and changed there.
    let files = format!("name = \"files\"\n{}mode = \"0600\"\n", file("/etc/site", "bad idea\n"));
    let (manifest, disk) = (machine.sandbox.write("on-disk.toml", files), machine.at(""));
    let on_disk = "mkdir -p \"$1/var/lib\"; mount --bind /var/lib \"$1/var/lib\"; shift; exec \"$@\"";
    let mut command = machine.sandbox.shell(on_disk);
    let command = command.args([&disk, env!("CARGO_BIN_EXE_glovo-bootstrap")]);
    let command = command.args(["run", "--root", &disk, "--steps", &manifest]);
    let said = Finished::from(command.output().unwrap()).expect(0).says("converged: 1 change");
    assert!(!said.stdout.contains("put back"), "{said:?}");
    assert_eq!((machine.read("etc/site"), fs::read(machine.sandbox.at(KEPT)).unwrap()), ("bad idea\n".into(), kept));
    let said = run("bad idea\n", &[]).expect(1).says("not put back: /etc/site");
    let _ = said.says("this program does not have the earlier content");
    assert_eq!(machine.read("etc/site"), "bad idea\n");
}

#[test]
fn a_run_that_a_signal_stops_keeps_what_it_has_replaced() {
    let machine = Machine::new();
    let _ = machine.sandbox.run(&["run", "--steps", &two_steps(&machine, "good\n")]).expect(0);
    let directory = two_steps(&machine, "bad\n");
    let stop = "name = \"stop\"\n[[resource]]\nkind = \"file\"\npath = \"/etc/stop\"\ncontent = \"\"\n\
        validate = [\"sh\", \"-c\", \"kill -TERM $PPID; sleep 1000\", \"{}\"]\n";
    let _ = machine.sandbox.write("steps/15-stop.toml", stop);
    let _ = machine.sandbox.run(&["run", "--steps", &directory]).expect(143);
    assert!(fs::exists(machine.sandbox.at(KEPT)).unwrap());
    fs::remove_file(machine.sandbox.at("steps/15-stop.toml")).unwrap();
    let said = machine.sandbox.run(&["run", "--steps", &directory]).expect(1).says("put back: /etc/site");
    let _ = said.says("app.service runs again");
    assert_eq!(machine.read("etc/site"), "good\n");
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

/// Runs the agent in a boot with this id, as the timer or as a person.
fn in_boot(machine: &Machine, boot: &str, is_timer: bool, arguments: &[&str]) -> Finished {
    machine.write("boot-id", format!("{boot}\n"));
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id; exec \"$@\"", machine.at("boot-id"));
    let mut command = machine.sandbox.shell(&script);
    let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments);
    if is_timer {
        let _ = command.env("GLOVO_BOOTSTRAP_UNATTENDED", "1");
    }
    Finished::from(command.output().unwrap())
}

#[test]
fn the_timer_leaves_a_refused_version_alone_in_this_boot() {
    let machine = Machine::new();
    let run = |boot: &str, is_timer: bool, text: &str, target: &str| {
        let manifest = machine.sandbox.manifest(&site(text, Some("new\n"), target));
        in_boot(&machine, boot, is_timer, &["run", "--steps", &manifest])
    };
    let starts = || machine.unit("app.service")["starts"].as_u64().unwrap();
    let _ = run("a", false, "good\n", "one").expect(0);
    let _ = run("a", true, "bad\n", "two").expect(1).says("put back: /etc/current, /etc/site");
    assert_eq!(starts(), 3);
    // Neither the file nor the link of the refused version, and no restart.
    let left = run("a", true, "bad\n", "two").expect(0);
    let left = left.says("stays as it is: app.service refused this version at 20").says("`glovo-bootstrap run");
    assert_eq!((left.stdout.matches("stays as it is").count(), starts()), (2, 3), "{}", left.stdout);
    assert_eq!((machine.read("etc/site").as_str(), machine.read("etc/extra").as_str()), ("good\n", "new\n"));
    let _ = machine.sandbox.run(&["status"]).expect(0).says("app.service refused this version");
    // A new version, a reboot, and a person.
    let _ = run("a", true, "bad again\n", "two").expect(1).says("put back: /etc/site");
    assert_eq!(starts(), 5);
    let _ = run("a", true, "bad again\n", "two").expect(0);
    assert_eq!(starts(), 5);
    let _ = run("b", true, "bad again\n", "two").expect(1).says("put back");
    let _ = run("b", true, "bad again\n", "two").expect(0);
    let _ = run("b", false, "bad again\n", "two").expect(1).says("put back");
    assert_eq!(starts(), 9);
    // Not a marker: what a person could start is not refused any longer.
    let _ = run("b", true, "good again\n", "two").expect(0).says("2 changes");
    let record = fs::metadata(machine.at("run/glovo-bootstrap/refused.json")).unwrap();
    assert_eq!(record.permissions().mode() & 0o7777, 0o600);
}
