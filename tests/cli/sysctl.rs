//! The kind `sysctl`, in a network namespace of its own. No other process uses its parameters.

use std::{fs, os::unix::fs::symlink};

use crate::{
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

const FILE: &str = "etc/sysctl.d/90-glovo-bootstrap.conf";

/// A machine with its own network parameters.
struct Kernel(Machine);

impl Kernel {
    fn new() -> Self {
        let machine = Machine::new();
        fs::create_dir_all(machine.at("etc/sysctl.d")).unwrap();
        Self(machine)
    }

    /// Runs a shell line, then a verb, then prints a parameter; all in one new network namespace.
    fn run(&self, before: &str, verb: &str, values: &str) -> Finished {
        let sandbox = &self.0.sandbox;
        let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"sysctl\"\nvalues = {{ {values} }}\n"));
        let script = format!(
            "unshare --net sh -c '{before}; \"$@\"; code=$?; echo now $(cat /proc/sys/net/core/somaxconn); exit $code' sh \"$@\""
        );
        let mut command = sandbox.shell(&script);
        let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        Finished::from(command.output().unwrap())
    }
}

#[test]
fn a_value_is_the_kernels_and_the_boots() {
    let kernel = Kernel::new();
    let values = "\"net.core.somaxconn\" = 1234";
    let before = "echo 77 > /proc/sys/net/core/somaxconn";
    let plan = kernel.run(before, "plan", values).expect(0);
    let plan = plan.says("set net.core.somaxconn to 1234 (now 77)").says("+net.core.somaxconn = 1234").says("now 77");
    let _ = plan.says("2 changes pending");
    let _ = kernel.run(before, "run", values).expect(0).says("2 changes").says("now 1234");
    assert_eq!(kernel.0.read(FILE), "# Written by glovo-bootstrap.\nnet.core.somaxconn = 1234\n");
    // Each by itself is seen and fixed.
    let _ = kernel.run(before, "run", values).expect(0).says("1 change").says("now 1234");
    let same = "echo 1234 > /proc/sys/net/core/somaxconn";
    let _ = kernel.run(same, "run", values).expect(0).says("0 changes");
    kernel.0.write(FILE, "");
    let plan = kernel.run(same, "plan", values).expect(0);
    let _ = plan.says("write new content").says("1 change pending");
}

#[test]
fn parts_of_a_value_are_compared_without_their_spaces() {
    let kernel = Kernel::new();
    let values = "\"net.ipv4.ip_local_port_range\" = \"20000   40000\"";
    let before = "echo 20000 40000 > /proc/sys/net/ipv4/ip_local_port_range";
    let _ = kernel.run(before, "run", values).expect(0).says("1 change");
}

#[test]
fn what_the_kernel_refuses_is_not_kept_for_the_boot() {
    let kernel = Kernel::new();
    let _ = kernel.run("true", "run", "\"net.core.somaxconn\" = \"many\"").expect(1).says("cannot be set");
    assert!(!fs::exists(kernel.0.at(FILE)).unwrap());
    for verb in ["plan", "run"] {
        let unknown = kernel.run("true", verb, "\"net.core.somaxcon\" = 1").expect(1);
        let _ = unknown.says("the kernel has no parameter net.core.somaxcon").says("ls /proc/sys/net/core");
        let read_only = "mount --bind -o ro /proc/sys /proc/sys";
        let refused = kernel.run(read_only, verb, "\"net.core.somaxconn\" = 1").expect(1);
        let _ = refused.says("cannot be set").says("in a container, /proc/sys is read-only");
    }
}

#[test]
fn a_later_file_that_overrules_is_named() {
    let kernel = Kernel::new();
    kernel.0.write("etc/sysctl.d/99-other.conf", "# net.core.somaxconn = 5\nnet/core/somaxconn=6\n");
    let values = "\"net.core.somaxconn\" = 1234";
    let words = "at boot, /etc/sysctl.d/99-other.conf sets net.core.somaxconn to 6";
    let _ = kernel.run("true", "run", values).expect(0).says(words);
    kernel.0.write("etc/sysctl.d/99-other.conf", "net.core.somaxconn = 1234\n");
    let quiet = kernel.run("true", "run", values).expect(0);
    assert!(!(quiet.stdout + &quiet.stderr).contains("at boot,"));
}

#[test]
fn a_later_file_that_cannot_be_read_sets_nothing() {
    let kernel = Kernel::new();
    kernel.0.write("etc/sysctl.d/99-unknown.conf", "net.core.some* = 5\n");
    // A link to /dev/null masks a file of a package, sysctl.d(5).
    for (name, target) in [("masked", "/dev/null"), ("gone", "/no/such"), ("circle", "99-circle.conf")] {
        symlink(target, kernel.0.at(&format!("etc/sysctl.d/99-{name}.conf"))).unwrap();
    }
    fs::create_dir(kernel.0.at("etc/sysctl.d/99-directory.conf")).unwrap();
    let values = "\"net.core.somaxconn\" = 1234";
    for verb in ["plan", "run"] {
        let said = kernel.run("true", verb, values).expect(0).says("2 changes");
        assert!(!(said.stdout + &said.stderr).contains("at boot,"));
    }
}

#[test]
fn two_resources_cannot_set_the_same_parameter() {
    let sandbox = Sandbox::new();
    let sysctl = |name: &str, values: &str| {
        format!("[[resource]]\nkind = \"sysctl\"\nname = \"{name}\"\nvalues = {{ {values} }}\n")
    };
    let validate = |second: &str| {
        let both = sysctl("90-a", "\"vm.swappiness\" = 1, \"vm.x\" = 1") + &sysctl("90-b", second);
        sandbox.run(&["validate", "--steps", &sandbox.manifest(&both)])
    };
    let refused =
        validate("\"vm/swappiness\" = 2").expect(2).says("two resources manage the kernel parameter vm.swappiness");
    let _ = refused.says("the first one is at ").says("values = { \"vm/swappiness\" = 2 }\n").says("^^^^^");
    let _ = validate("\"vm.overcommit_memory\" = 1").expect(0);
}

#[test]
fn an_image_gets_the_file_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("tree/etc/sysctl.d")).unwrap();
    let manifest =
        sandbox.manifest("[[resource]]\nkind = \"sysctl\"\nvalues = { \"vm.no_such\" = 1 }\nname = \"50-app\"\n");
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0).says("1 change");
    assert!(fs::read_to_string(sandbox.at("tree/etc/sysctl.d/50-app.conf")).unwrap().contains("vm.no_such = 1"));
}

#[test]
fn names_and_values_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("values = {}", "no parameter is declared"),
        ("values = { \"vm\" = 1 }", "`vm` is not the name of a kernel parameter"),
        ("values = { \"vm/../kernel/x\" = 1 }", "is not the name of a kernel parameter"),
        ("values = { \"net.*.x\" = 1 }", "is not the name of a kernel parameter"),
        ("values = { \"vm.x\" = \"\" }", "`` is not a value for vm.x"),
        ("values = { \"vm.x\" = [1] }", "`values`: expected a string or a number, found a list"),
        ("values = { \"vm.x\" = true }", "`values`: expected a string or a number, found true"),
        ("values = { vm.x = 1 }", "`values`: expected a string or a number, found a table"),
        ("values = { vm.x = 1 }", "hint: write the name in quotes: \"vm.x\""),
        ("values = { \"vm.x\" = 1, \"vm/x\" = 2 }", "vm.x is declared twice"),
        ("values = { \"vm.x\" = 1 }\nname = \"../x\"", "is not a file's name"),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"sysctl\"\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
    let two = "[[resource]]\nkind = \"sysctl\"\nvalues = { \"vm.x\" = 1 }\n".repeat(2);
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&two)]).expect(2).says("two resources manage");
}
