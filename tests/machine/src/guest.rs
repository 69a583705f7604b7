//! Running commands in a booted machine.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; 128 + n if signal n ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A command in all namespaces of the process `leader`, with a fresh login's environment.
pub(crate) fn command(leader: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &leader.to_string(), "--all", "--root", "--wd", "env", "--ignore-environment"])
        .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"])
        .args(arguments);
    command
}

/// Ends a process of this machine at once.
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
    /// The standard output of a command that must succeed.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }
}
