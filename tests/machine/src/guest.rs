//! Running commands in a booted machine.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The output and the end of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; 128 + n if signal n ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The command that gives another one the environment of a fresh login.
pub(crate) const LOGIN: [&str; 5] = [
    "/usr/bin/env",
    "--ignore-environment",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
];

/// A container has no firmware that says EC2; the agent is told to trust the world's metadata service all the same.
pub(crate) const WITHOUT_FIRMWARE: &str = "GLOVO_BOOTSTRAP_TRUST_METADATA=1";

/// How many files a process may open on a machine with systemd, unless it asks for more: systemd.exec(5), `LimitNOFILE=`.
/// The harness may have a higher limit.
const USUAL_LIMITS: &str = "--nofile=1024:";

/// A command in all namespaces of the process `leader`, with a fresh login's environment.
pub(crate) fn command(leader: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command
        .args([USUAL_LIMITS, "nsenter", "--target", &leader.to_string(), "--all", "--root", "--wd"])
        .args(LOGIN)
        .arg(WITHOUT_FIRMWARE)
        .args(arguments);
    command
}

/// Returns the command that kills a process of this machine.
pub(crate) fn kill(process: u32) -> Command {
    let mut command = Command::new("kill");
    command.args(["-KILL", &process.to_string()]);
    command
}

pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let status = output.status;
    Ok(Output {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Output {
    /// Returns the changes in the printed JSON report, pending or made: `file /etc/motd: create`.
    pub fn changes(&self) -> Result<Vec<String>> {
        let report: Value = serde_json::from_str(&self.stdout).with_context(|| format!("{self:?} is no report"))?;
        let resources = list(&report, "steps").flat_map(|step| list(step, "resources"));
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let changes = resources.flat_map(|resource| {
            let name = text(resource, "resource");
            list(resource, "changes").map(move |change| format!("{name}: {}", text(change, "summary")))
        });
        Ok(changes.collect())
    }

    /// The standard output of a command that must succeed.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}
