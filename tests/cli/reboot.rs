//! `reboot = "if-required"`: a machine reboots once, and the run goes on after the boot.

use std::fs;

use crate::{
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

const UNIT: &str = "[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n";
const MARK: &str = "run/reboot-required";

/// A machine with a package manager, whose boots have ids of the test's choice.
struct Booted(Machine);

impl Booted {
    fn new() -> Self {
        let machine = Machine::new();
        let _ = machine.sandbox.write("var-lib/dpkg/status", "");
        machine.write("etc/systemd/system/glovo-bootstrap.service", UNIT);
        let booted = Self(machine);
        booted.boot("a");
        booted
    }

    /// Boots the machine, which has the directory `run` for itself.
    fn boot(&self, id: &str) {
        self.0.write("boot-id", format!("{id}\n"));
        for mark in [MARK, "run/reboot-required.pkgs"] {
            let _ = fs::remove_file(self.0.at(mark));
        }
    }

    /// Has a package require a reboot.
    fn require(&self, package: &str) {
        self.0.write(MARK, "");
        self.0.write("run/reboot-required.pkgs", format!("{package}\n"));
    }

    fn agent(&self, arguments: &[&str]) -> Finished {
        let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id; exec \"$@\"", self.0.at("boot-id"));
        let mut command = self.0.sandbox.shell(&script);
        Finished::from(command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments).output().unwrap())
    }

    /// Writes a manifest of two steps. The first one may reboot the machine.
    fn manifest(&self) -> String {
        let file = |path: &str| {
            format!("[[step.resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", self.0.sandbox.at(path))
        };
        let steps = format!(
            "[[step]]\nname = \"upgrade\"\nreboot = \"if-required\"\n{}[[step]]\nname = \"serve\"\n{}",
            file("upgraded"),
            file("served")
        );
        self.0.sandbox.write("steps.toml", steps)
    }

    fn first_run(&self) -> Finished {
        self.agent(&["run", "--record", "--steps", &self.manifest()])
    }

    fn has_served(&self) -> bool {
        fs::exists(self.0.sandbox.at("served")).unwrap()
    }

    /// Returns whether the machine was told to reboot since the last call.
    fn was_rebooted(&self) -> bool {
        self.0.commands().contains(&"systemctl reboot".to_owned())
    }
}

#[test]
fn a_machine_reboots_once_and_its_run_goes_on() {
    let booted = Booted::new();
    booted.require("libc6");
    let why = "the package libc6 takes effect after a reboot";
    let run = booted.first_run().expect(143).says(&format!("reboot: restart the machine: {why}"));
    let run = run.says(&format!("rebooting: {why}; glovo-bootstrap.service resumes the run after the boot"));
    let _ = run.says("not run: serve");
    let commands = booted.0.commands();
    let order = ["systemctl --quiet enable glovo-bootstrap.service", "systemctl reboot"];
    assert_eq!(commands, order);
    assert!(!booted.has_served());
    let _ = booted.agent(&["status"]).expect(4).says(&format!("rebooting: {why}; the run goes on after the boot"));
    let report = booted.0.sandbox.report();
    assert_eq!((&report["outcome"], &report["reboot"]["after"]), (&"rebooting".into(), &"upgrade".into()));

    booted.boot("b");
    let _ = booted.agent(&["status"]).expect(4);
    let resumed = booted.agent(&["run"]).expect(0).says("resuming the run after the reboot of step upgrade");
    let _ = resumed.says("1 change");
    assert!(booted.has_served());
    assert_eq!(booted.0.commands(), ["systemctl --quiet disable glovo-bootstrap.service"]);
    let _ = booted.agent(&["status"]).expect(0).says("converged");
    let again = booted.agent(&["run"]).expect(0).says("0 changes");
    assert!(!again.stdout.contains("resuming") && booted.0.commands().is_empty(), "{again:?}");
}

#[test]
fn a_unit_that_was_enabled_stays_enabled() {
    let booted = Booted::new();
    let _ = booted.agent(&["status"]);
    booted.0.systemctl(&["enable", "glovo-bootstrap.service"]);
    booted.require("libc6");
    let _ = booted.first_run().expect(143);
    booted.boot("b");
    let _ = booted.agent(&["run"]).expect(0);
    assert_eq!(booted.0.commands(), ["systemctl reboot"]);
}

#[test]
fn a_reboot_that_does_not_help_is_an_error_and_no_loop() {
    let booted = Booted::new();
    booted.require("libc6");
    let _ = booted.first_run().expect(143);
    assert!(booted.was_rebooted());
    for boot in ["b", "c", "d"] {
        booted.boot(boot);
        booted.require("libc6");
        let words = "after the reboot, the machine still needs a reboot: the package libc6 takes effect";
        let _ = booted.agent(&["run"]).expect(1).says(words).says("to go on without another one, leave out `reboot`");
        assert!(!booted.was_rebooted() && !booted.has_served(), "boot {boot}");
        let _ = booted.agent(&["plan"]).expect(1).says(words);
    }
    // A run that finds no need for one makes a later need a new one.
    booted.boot("e");
    let _ = booted.agent(&["run"]).expect(0);
    booted.require("libc6");
    let _ = booted.agent(&["run"]).expect(143);
    assert!(booted.was_rebooted());
}

#[test]
fn a_new_reason_at_each_boot_is_no_loop_either() {
    let booted = Booted::new();
    booted.require("first");
    let _ = booted.first_run().expect(143);
    for package in ["second", "third"] {
        booted.boot(package);
        booted.require(package);
        let _ = booted.agent(&["run"]).expect(143).says(&format!("the package {package} takes effect"));
    }
    booted.boot("last");
    booted.require("fourth");
    let _ = booted.agent(&["run"]).expect(1).says("still needs a reboot: the package fourth");
}

#[test]
fn a_reboot_that_was_not_made_is_ordered_again() {
    let booted = Booted::new();
    booted.require("libc6");
    booted.0.write("run/standin/no-reboot", "");
    let failed = booted.first_run().expect(1).says("Failed to start reboot.target: Access denied");
    let _ = failed.says("systemctl reboot");
    let _ = booted.agent(&["status"]).expect(1).says("the machine was not rebooted").says("failed with exit code 1");
    fs::remove_file(booted.0.at("run/standin/no-reboot")).unwrap();
    let _ = booted.0.commands();
    let _ = booted.agent(&["run"]).expect(143);
    assert!(booted.was_rebooted());
    booted.boot("b");
    let _ = booted.agent(&["run"]).expect(0).says("resuming");
    assert_eq!(booted.0.commands(), ["systemctl --quiet disable glovo-bootstrap.service"]);
}

#[test]
fn a_resumed_run_has_the_same_selection() {
    let booted = Booted::new();
    booted.require("libc6");
    let _ = booted.agent(&["run", "upgrade", "--record", "--steps", &booted.manifest()]).expect(143);
    booted.boot("b");
    let _ = booted.agent(&["run"]).expect(0).says("resuming").says("0 changes");
    assert!(!booted.has_served());
    let _ = booted.agent(&["run"]).expect(0).says("1 change");
}

#[test]
fn a_run_that_could_not_be_resumed_is_refused() {
    let booted = Booted::new();
    let steps = booted.manifest();
    let words = "step upgrade may reboot the machine, and glovo-bootstrap.service could not resume the run";
    let refused = booted.agent(&["run", "--steps", &steps]).expect(2).says(words);
    let _ = refused.says("hint: record the manifest and its variables: add --record to this run");
    assert!(!fs::exists(booted.0.sandbox.at("upgraded")).unwrap());
    // A plan cannot record anything: it warns.
    let plan = booted.agent(&["plan", "--steps", &steps]).expect(0).says("note: `run` will refuse this: ");
    let _ = plan.says(words).says("2 changes pending");
    let _ = booted.agent(&["validate", "--steps", &steps]).expect(0);
    // The other steps are not refused.
    let _ = booted.agent(&["run", "serve", "--steps", &steps]).expect(0);
    let _ = booted.agent(&["run", "--record", "--steps", &steps]).expect(0);
    let _ = booted.agent(&["run"]).expect(0);
    let _ = booted.agent(&["run", "--steps", &steps]).expect(0);
    let _ = booted.agent(&["run", "--set", "x=1"]).expect(2);
    fs::remove_file(booted.0.at("etc/systemd/system/glovo-bootstrap.service")).unwrap();
    let _ =
        booted.agent(&["run"]).expect(2).says("the unit cannot be installed").says("/usr/local/bin/glovo-bootstrap");
}

#[test]
fn a_plan_says_that_the_machine_may_reboot() {
    let booted = Booted::new();
    let steps = booted.manifest();
    let plan = booted.agent(&["plan", "--steps", &steps]).expect(0);
    let _ =
        plan.says("- reboot: restart the machine, if these changes require it").says("2 changes pending, 1 deferred");
    booted.require("dbus\nlibc6");
    let plan = booted.agent(&["plan", "--steps", &steps]).expect(0).says("3 changes pending");
    let _ = plan.says("+ reboot: restart the machine: the packages dbus, libc6 take effect after a reboot");
    let _ = fs::remove_file(booted.0.at(MARK));
    let _ = booted.first_run().expect(0);
    let plan = booted.agent(&["plan"]).expect(0).says("0 changes pending");
    assert!(!plan.stdout.contains("restart"));
    assert!(!booted.was_rebooted());
}

#[test]
fn an_image_or_a_container_never_reboots() {
    let booted = Booted::new();
    booted.require("libc6");
    let steps = booted.manifest();
    let _ = booted.agent(&["bake", "--steps", &steps]).expect(0).says("2 changes");
    fs::remove_file(booted.0.sandbox.at("served")).unwrap();
    fs::remove_dir(booted.0.at("run/systemd/system")).unwrap();
    let container = booted.agent(&["run", "--steps", &steps]).expect(0);
    let _ = container.says("the machine is not restarted, because systemd does not run on this machine, but needs it");
    assert!(booted.has_served() && !booted.was_rebooted());
}

#[test]
fn only_a_required_reboot_can_be_declared() {
    let sandbox = Sandbox::new();
    for (value, words) in [("\"always\"", "`always` does not say when to reboot"), ("true", "expected a string")] {
        let manifest = sandbox.write("m.toml", format!("name = \"a\"\nreboot = {value}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("m.toml:2");
    }
}
