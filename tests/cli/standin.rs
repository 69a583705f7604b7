//! A sandbox that looks like a booted machine. `/etc`, `/run` and `/proc/swaps` are the test's own. Stand-ins for
//! systemctl, journalctl, systemd-analyze, swapon and setsebool are first on the search path. The real useradd, groupadd,
//! usermod and mkswap run, and their calls are recorded.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::sandbox::{Finished, Sandbox};

/// The real programs whose calls are recorded.
const RECORDED: [&str; 5] = ["useradd", "usermod", "groupadd", "groupmod", "mkswap"];

/// A sandboxed machine.
pub struct Machine {
    pub sandbox: Sandbox,
}

impl Machine {
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let machine = Self { sandbox };
        for directory in ["etc/systemd/system", "run/systemd/system", "run/standin", "bin"] {
            fs::create_dir_all(machine.sandbox.path.join("machine").join(directory)).unwrap();
        }
        machine.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\n");
        machine.write("etc/group", "root:x:0:\nnogroup:x:65534:\nweb:x:990:\n");
        machine.write("etc/shadow", "root:*:1::::::\nnobody:*:1::::::\n");
        machine.write("etc/gshadow", "root:*::\nnogroup:!::\nweb:!::\n");
        machine.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        machine.write("swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        let standins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/standins");
        let bin = machine.sandbox.path.join("machine/bin");
        for name in ["systemctl", "journalctl", "systemd-analyze", "swapon", "setsebool"] {
            symlink(standins.join(name), bin.join(name)).unwrap();
        }
        for name in RECORDED {
            symlink(standins.join("recorded"), bin.join(name)).unwrap();
        }
        machine
    }

    /// Returns the path of one of its files for the test: `etc/fstab`.
    pub fn at(&self, path: &str) -> String {
        self.sandbox.at(&format!("machine/{path}"))
    }

    /// Writes one of its files.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let _ = self.sandbox.write(&format!("machine/{path}"), bytes);
    }

    /// Reads one of its files.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Runs `run` with a one-step manifest of these resources.
    pub fn run(&self, resources: &str) -> Finished {
        self.sandbox.run_resources(resources)
    }

    /// Runs `plan` with a one-step manifest of these resources.
    pub fn plan(&self, resources: &str) -> Finished {
        let manifest = self.sandbox.manifest(resources);
        self.sandbox.run(&["plan", "--steps", &manifest])
    }

    /// Returns the command lines of the tools since the last call, without those that only read.
    pub fn commands(&self) -> Vec<String> {
        let log = fs::read_to_string(self.at("run/standin/log")).unwrap_or_default();
        let _ = fs::remove_file(self.at("run/standin/log"));
        let asks = |line: &&str| line.starts_with("systemctl show") || line.starts_with("systemctl list-jobs");
        log.lines().filter(|line| !asks(line)).map(Into::into).collect()
    }

    /// Returns the state of a unit in the stand-in for systemd.
    #[track_caller]
    pub fn unit(&self, name: &str) -> serde_json::Value {
        let state: serde_json::Value = serde_json::from_str(&self.read("run/standin/state.json")).unwrap();
        state[name].clone()
    }

    /// Runs a verb of the stand-in for systemctl, as a user would.
    #[track_caller]
    pub fn systemctl(&self, arguments: &[&str]) {
        let mut command = self.sandbox.shell("exec systemctl \"$@\"");
        assert!(command.args(arguments).output().unwrap().status.success());
        let _ = self.commands();
    }
}
