//! The user of `deploy`: the binary in a sandbox, with the tape in place of AWS.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    sandbox::{Finished, Sandbox},
    tape::{Call, Tape},
    world::World,
};

pub const SECRET: &str = "canary-secret-access-key-0123456789";
pub const TOKEN: &str = "canary-session-token-0123456789";
/// The variables of the script that the command replaces.
pub const VARIABLES: [&str; 13] = [
    "BUILD_NUMBER",
    "PROFILE",
    "SG_VALUE",
    "AMIID",
    "INSTANCETYPE",
    "KP",
    "SUBNETS",
    "MINSIZE",
    "DESIREDCAPACITY",
    "MAXSIZE",
    "AWSCERTIFICATE",
    "DNSRECORD",
    "CLOUD_INIT_PATH",
];

pub struct Operator {
    pub sandbox: Sandbox,
    pub tape: Tape,
}

impl Operator {
    /// Returns an operator without a stack, with two subnets and own user-data in the environment.
    pub fn new() -> Self {
        Self::with(vec![World::default()])
    }

    /// Returns the same operator for two stacks of one slot.
    pub fn of_two_stacks() -> Self {
        Self::with(["glovo-app-blue", "glovo-app-green"].map(World::of_one_slot).into())
    }

    /// Returns the same operator for a stack of one group behind a classic load balancer.
    pub fn compatible() -> Self {
        let operator = Self::with(vec![World::of_one_slot("glovo-app")]);
        operator.world(|world| world.is_classic = true);
        operator
    }

    /// Returns the same operator for a stack of one group whose machines are replaced.
    pub fn refreshing() -> Self {
        Self::with(vec![World::of_one_slot("glovo-app")])
    }

    fn with(worlds: Vec<World>) -> Self {
        let operator = Self { sandbox: Sandbox::new(), tape: Tape::start(worlds) };
        operator.content("1");
        operator
    }

    /// Returns an operator before a copy of the stacks that the first call of this function made in the test's process. A
    /// thousand tests begin with the same deploy.
    pub fn after(stacks: &OnceLock<Vec<World>>, content: &str, make: impl FnOnce() -> Self) -> Self {
        let operator = Self::with(stacks.get_or_init(|| make().tape.copies()).clone());
        operator.content(content);
        operator
    }

    /// Returns the same operator with a stack whose blue slot serves build 1 on two machines.
    pub fn serving() -> Self {
        static MADE: OnceLock<Vec<World>> = OnceLock::new();
        Self::after(&MADE, "1", || {
            let operator = Self::new();
            let _ = operator.deploy(&["create-stack", "--yes"], &[("BUILD_NUMBER", "1")]).expect(0);
            operator
        })
    }

    /// Returns the same operator after a deploy of build 2: green serves, blue keeps one machine.
    pub fn serving_twice() -> Self {
        static MADE: OnceLock<Vec<World>> = OnceLock::new();
        Self::after(&MADE, "2", || {
            let operator = Self::serving();
            operator.content("2");
            let _ = operator.update("2").expect(0);
            operator
        })
    }

    /// Sets the user-data of the next deploy's machines.
    pub fn content(&self, text: &str) {
        let _ = self.sandbox.write("user-data", format!("#!/bin/sh\necho content {text}\n"));
    }

    /// Returns the command `deploy` with these arguments and only these variables.
    pub fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let is_quick = |verb: &&str| {
            ["status", "diagnose", "history", "render", "release"].iter().any(|quick| verb.ends_with(quick))
        };
        let waits = !arguments.iter().any(is_quick);
        let poll: &[&str] = if waits { &["--poll", "10ms"] } else { &[] };
        let all: Vec<&str> = ["deploy"].iter().chain(arguments).chain(poll).copied().collect();
        let mut command = self.sandbox.command(&all);
        let _ = command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let _ = command.env("HOME", &self.sandbox.path).current_dir(&self.sandbox.path);
        let _ = command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", SECRET);
        let _ = command.env("AWS_REGION", "eu-central-1").env("AWS_ENDPOINT_URL", self.tape.url());
        let _ = command.env("AWS_EC2_METADATA_DISABLED", "true");
        let _ = command.env("SUBNETS", "subnet-a,subnet-b").env("CLOUD_INIT_PATH", self.sandbox.at("user-data"));
        let _ = command.envs(variables.iter().copied());
        command
    }

    /// Runs the command to its end.
    pub fn deploy(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        Finished::from(self.command(arguments, variables).output().expect("unshare, as root"))
    }

    /// Deploys a build with this number to the existing stack, and moves its traffic without delay. The previous build keeps
    /// one machine from then on.
    pub fn update(&self, build: &str) -> Finished {
        let at_once = ["update-stack", "--yes", "--pause", "0s", "--keep-for", "0s"];
        self.deploy(&at_once, &[("BUILD_NUMBER", build)])
    }

    /// Adds the arguments for machines that download a program for `x86_64` and run the built-in steps.
    /// `CLOUD_INIT_PATH` must be empty then.
    pub fn with_agent(&self, arguments: &[&str]) -> Vec<String> {
        let mut program = [0; 64];
        program[..4].copy_from_slice(b"\x7fELF");
        program[18] = 0x3e;
        let agent = self.sandbox.write("agent", program);
        let digest = format!("jar_sha256={:064}", 7);
        let set = ["--set", "jar_url=https://jars.example.com/app.jar", "--set", &digest];
        let all = [arguments, &["--bucket", "artifacts", "--agent", &agent], &set].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    /// Starts the command in the background.
    pub fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        Running::start(self.command(arguments, variables))
    }

    /// Returns the calls since the last call of this function, and their effects.
    pub fn calls(&self) -> Vec<Call> {
        self.tape.take()
    }

    pub fn world<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        self.tape.world(with)
    }

    /// Sets the balancer's states of a slot's machines, one row for each request. The last row repeats.
    pub fn health(&self, slot: &'static str, rows: impl IntoIterator<Item = Vec<&'static str>>) {
        self.world(|world| _ = world.health.insert(slot, rows.into_iter().collect()));
    }

    /// Returns a parameter of the stack.
    pub fn parameter(&self, name: &str) -> String {
        self.world(|world| world.parameters.get(name).cloned().unwrap_or_default())
    }
}

/// The running binary, which ends with its test.
pub struct Running(Option<Child>);

impl Running {
    pub fn start(mut command: Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(piped.spawn().expect("unshare, as root")))
    }

    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn finish(mut self) -> Finished {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Returns the defaults of a template's parameters; empty for a parameter without one.
pub fn template_defaults(template: &str) -> BTreeMap<String, String> {
    let mut defaults = BTreeMap::new();
    let mut name = "";
    let section = template.lines().skip_while(|line| *line != "Parameters:").skip(1);
    for line in section.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        if let Some(parameter) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) {
            name = parameter.trim_end_matches(':');
            let _ = defaults.insert(name.to_owned(), String::new());
        }
        if let Some(default) = line.strip_prefix("    Default: ") {
            let _ = defaults.insert(name.to_owned(), default.trim_matches('"').to_owned());
        }
    }
    defaults
}
