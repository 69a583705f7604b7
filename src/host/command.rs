//! External programs: started without a shell, with a clean environment, bounded output and bounded time.

mod streams;

use std::{
    borrow::Cow,
    fs::File,
    io::{Seek, Write},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use self::streams::OutputReader;
use super::{
    Host, calls,
    launch::{self, Launch, NotStarted},
    root::{FileStatus, FileType, identity::UserIdentity},
    unswapped,
};
use crate::{
    error::Fault,
    redaction,
    stop::TICK,
    value::{AbsPath, quoted},
};

/// The directories that are searched for programs. The caller's `PATH` is ignored.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Limits the characters of a line in the error message.
const MAX_TAIL_COLUMNS: usize = 400;
/// The time that a program has between SIGTERM and SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(8);

/// A program to run on the machine, or with `chroot` in an image's tree.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) argv: Vec<String>,
    env: Vec<(Cow<'static, str>, String)>,
    /// Its standard input; empty by default.
    stdin: Option<String>,
    launch: Option<Launch>,
    pub(super) is_private: bool,
    /// Says which lines of its output are shown as progress; none by default.
    reports: Option<fn(&str) -> bool>,
    /// The user whose rights it has; `None` for those of this process.
    pub(super) user: Option<UserIdentity>,
    /// Whether it has the environment and the directory of this process.
    is_of_operator: bool,
}

/// The result of a program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// The first 4 MiB of its standard output.
    pub stdout: String,
    /// The last lines of its standard output, then those of its standard error.
    pub tail: String,
    /// Whether processes of its group still run.
    pub has_left_processes: bool,
}

impl Finished {
    /// Returns the exit code; 128 plus the number of a signal, as in a shell.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Fails, with the last lines of its output, unless it exited with 0.
    pub fn check(&self, command: &Program) -> Result<()> {
        if self.status.success() {
            return Ok(());
        }
        let what = format!("`{}` failed with {}", command.line(), describe(self.status));
        Err(Fault::new(with_tail(what, command.shown_tail(&self.tail))).into())
    }
}

impl Program {
    /// Makes a program from its name and arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![],
            stdin: None,
            launch: None,
            is_private: false,
            reports: None,
            user: None,
            is_of_operator: false,
        }
    }

    /// Returns its name or path.
    pub fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    fn shown(&self) -> &[String] {
        if self.is_private { &self.argv[..1] } else { &self.argv }
    }

    /// Returns its command line for messages, quoted for a shell.
    pub(super) fn line(&self) -> String {
        let words: Vec<String> = self.shown().iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    fn shown_tail<'a>(&self, tail: &'a str) -> &'a str {
        if self.is_private { "" } else { tail }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Hides its arguments and its output, which have a secret.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.is_private = true;
        self
    }

    /// Shows each line of its output as progress while it runs.
    #[must_use]
    pub fn reporting(self) -> Self {
        self.reporting_only(|_| true)
    }

    /// Shows some lines of its output as progress while it runs.
    #[must_use]
    pub fn reporting_only(mut self, is_shown: fn(&str) -> bool) -> Self {
        self.reports = Some(is_shown);
        self
    }

    /// Runs it with a user's rights and without supplementary groups.
    #[must_use]
    pub fn as_user(mut self, user: Option<UserIdentity>) -> Self {
        self.user = user;
        self
    }

    /// Runs it as a person on this machine would: in this process's directory, with its environment and its `PATH`.
    #[must_use]
    pub fn of_operator(mut self) -> Self {
        self.is_of_operator = true;
        self
    }

    /// Adds an environment variable. The caller's environment is not inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets its standard input. No other user can read it.
    #[must_use]
    pub fn stdin(mut self, text: Option<String>) -> Self {
        self.stdin = text;
        self
    }

    /// Starts it as a program of a manifest.
    #[must_use]
    pub fn launched(mut self, launch: Launch) -> Self {
        self.launch = Some(launch);
        self
    }
}

impl Host {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// If it cannot be started ([`NotStarted`] for a launched one), or if a signal or a deadline ended it. An exit code
    /// other than 0 is no error here; see [`Host::run_checked`].
    pub fn run(&self, command: &Program) -> Result<Finished> {
        let mut child = match self.spawn(command) {
            Err(error) if command.launch.is_some() => return Err(error.context(NotStarted)),
            spawned => spawned?,
        };
        let finished = self.follow(command, &mut child);
        // The program may have put another directory into the place of an opened one.
        self.root().forget();
        if finished.is_err() {
            end(&mut child);
        }
        finished
    }

    /// Reads the output of a program to its end.
    fn follow(&self, command: &Program, child: &mut Child) -> Result<Finished> {
        let pid = Pid::from_raw(child.id().cast_signed());
        tracing::debug!(argv = ?command.shown(), %pid, "started");
        let streams = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let mut output = OutputReader::new(streams)?;
        let mut stop: Option<(anyhow::Error, Instant)> = None;
        let status = loop {
            output.pump(TICK, &|line, is_cut| {
                if command.reports.is_some_and(|is_shown| is_shown(line)) {
                    self.progress(&if is_cut { redaction::printed_start(line) } else { redaction::printed(line) });
                }
            });
            if let Some(status) = calls::try_wait(child).context("waiting for a program")? {
                break status;
            }
            match &stop {
                None => {
                    if let Err(reason) = self.stop.check() {
                        stop_group(pid, Signal::SIGTERM);
                        stop = Some((reason, Instant::now() + KILL_TIMEOUT));
                    }
                }
                Some((_, patience)) if Instant::now() >= *patience => stop_group(pid, Signal::SIGKILL),
                Some(_) => {}
            }
        };
        output.pump(Duration::ZERO, &|_, _| {});
        tracing::debug!(%pid, ?status, "ended");
        let has_left_processes = killpg(pid, None).is_ok();
        if has_left_processes && command.launch.as_ref().is_some_and(Launch::is_read_only) {
            // What a guard has started ends with it.
            _ = killpg(pid, Signal::SIGKILL);
        }
        let finished = Finished { status, stdout: output.stdout(), tail: output.tail(), has_left_processes };
        if let Some(launch) = &command.launch
            && status.code() == Some(launch::FAILED_EXIT_CODE)
            && let Some(fault) = launch.failure(&finished.tail)
        {
            return Err(anyhow::Error::from(fault).context(NotStarted));
        }
        match stop {
            None => Ok(finished),
            Some((reason, _)) => {
                // Kill also the processes that it has started.
                _ = killpg(pid, Signal::SIGKILL);
                let tail = command.shown_tail(&finished.tail);
                Err(reason.context(with_tail(format!("{} was stopped", command.argv[0]), tail)))
            }
        }
    }

    /// Runs a program that must exit with 0.
    ///
    /// # Errors
    /// Those of [`Host::run`]. If it fails, the error has the last lines of its output.
    pub fn run_checked(&self, command: &Program) -> Result<Finished> {
        let finished = self.run(command)?;
        finished.check(command)?;
        Ok(finished)
    }

    /// Returns whether a program is installed.
    pub fn has_program(&self, name: &str) -> bool {
        self.find_program(name).is_some()
    }

    /// Returns the path of a program that can be executed; `None` if there is none.
    pub(super) fn find_program(&self, name: &str) -> Option<AbsPath> {
        let is_executable =
            |found: FileStatus| found.file_type == FileType::Regular && found.ownership.mode & 0o111 != 0;
        candidates(name).find(|path| self.status_of_program(path).is_some_and(is_executable))
    }

    fn status_of_program(&self, path: &AbsPath) -> Option<FileStatus> {
        self.root().resolve(path).and_then(|path| self.root().status(&path)).ok().flatten()
    }

    /// Fails if there is something in a program's place that cannot be executed.
    pub fn check_executable(&self, name: &str) -> Result<()> {
        if self.has_program(name) {
            return Ok(());
        }
        let found = candidates(name).find_map(|path| self.status_of_program(&path).map(|found| (path, found)));
        match found {
            None => Ok(()),
            Some((path, FileStatus { file_type: FileType::Regular, ownership, .. })) => {
                Err(not_executable(&path, ownership.mode))
            }
            Some((path, _)) => Err(Fault::new(format!("{path} is not a program: it is no regular file")).into()),
        }
    }

    /// Returns the error of a program that is not there, or that cannot be executed.
    pub fn no_program(&self, name: &str) -> anyhow::Error {
        self.check_executable(name).err().unwrap_or_else(|| not_installed(name))
    }

    fn spawn(&self, command: &Program) -> Result<Child> {
        let name = &command.argv[0];
        if command.is_of_operator {
            let mut process = std::process::Command::new(name);
            _ = process.args(&command.argv[1..]).envs(command.env.iter().map(|(name, value)| (name.as_ref(), value)));
            _ = process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            return process.spawn().with_context(|| format!("starting {name}"));
        }
        // With the full path there is one execve, and a clear error if the program is missing.
        let Some(program) = self.find_program(name) else {
            return Err(self.no_program(name));
        };
        if let Some(launch) = &command.launch {
            let mut process = launch.process(self.root().path(), program.as_str(), &command.argv[1..]);
            prepare(command, &mut process)?;
            return process.spawn().with_context(|| format!("starting {program}"));
        }
        let mut words: Vec<&str> = vec![];
        let ids = command.user.as_ref().map(|user| format!("--userspec=+{}:+{}", user.uid, user.gid));
        if ids.is_some() {
            // In this process's session, a user's program could type on the terminal of root (TIOCSTI).
            words.push("/usr/bin/setsid");
        }
        let root = self.root().path().to_string_lossy();
        if !self.root().is_host() {
            words.push("/usr/sbin/chroot");
            words.extend(ids.iter().flat_map(|ids| [ids, "--groups="]));
            words.push(&root);
        }
        words.push(program.as_str());
        let mut process = std::process::Command::new(words[0]);
        _ = process.args(&words[1..]).args(&command.argv[1..]);
        prepare(command, &mut process)?;
        match &command.user {
            // In its own process group, Ctrl-C reaches only this process, which then stops the whole group.
            None => _ = process.process_group(0),
            // The leader of a group cannot begin a session: setsid(1) would fork. A session has its own group anyway.
            // With the uid, the standard library also drops all supplementary groups.
            Some(user) if self.root().is_host() => _ = process.gid(user.gid).uid(user.uid).env("HOME", "/"),
            Some(_) => {}
        }
        process.spawn().with_context(|| format!("starting {program}"))
    }
}

/// Sets a program's environment, directory and streams.
fn prepare(command: &Program, process: &mut std::process::Command) -> Result<()> {
    let stdin = match &command.stdin {
        None => Stdio::null(),
        Some(text) => Stdio::from(readable(text).context("writing its standard input")?),
    };
    _ = process
        .env_clear()
        .env("PATH", PATH.join(":"))
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .envs(command.env.iter().map(|(name, value)| (name.as_ref(), value)))
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(())
}

/// Returns a file without a name that holds a text. The text may be a secret.
fn readable(text: &str) -> Result<File> {
    let mut file = unswapped::file("stdin")?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Where a program may be.
pub fn candidates(name: &str) -> impl Iterator<Item = AbsPath> {
    let directories: &[&str] = if name.starts_with('/') { &[""] } else { &PATH };
    let separator = if name.starts_with('/') { "" } else { "/" };
    directories.iter().filter_map(move |directory| format!("{directory}{separator}{name}").parse().ok())
}

/// Returns the error of a program that its mode lets no user execute.
pub fn not_executable(path: &AbsPath, mode: u32) -> anyhow::Error {
    let fault = Fault::new(format!("the program {path} is not executable: its mode is {mode:04o}"));
    fault.hint("declare its mode: mode = \"0755\"").into()
}

/// Returns the error of a program that is not there.
fn not_installed(name: &str) -> anyhow::Error {
    let searched = if name.starts_with('/') { String::new() } else { format!(" (searched: {})", PATH.join(":")) };
    let fault = Fault::new(format!("the program `{name}` is not installed{searched}"));
    fault.hint("declare its package or its file in an earlier resource").into()
}

/// Kills a program that is no longer followed, unless it has ended. It would change the machine behind the next run.
fn end(child: &mut Child) {
    if !matches!(calls::try_wait(child), Ok(Some(_))) {
        stop_group(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        _ = child.wait();
    }
}

/// Signals a program and the processes that it has started.
fn stop_group(pid: Pid, signal: Signal) {
    // Before a program begins its session, it has no process group.
    if killpg(pid, signal).is_err() {
        _ = kill(pid, signal);
    }
}

/// Returns an exit status in words: `exit code 100` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

/// Returns a message followed by the last lines of a program's output, each after `| `.
pub fn with_tail(message: String, tail: &str) -> String {
    // Redact before the cuts: half of a secret would not be recognized, nor one that is in two lines of base64.
    let tail = redaction::printed(tail);
    let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(12)..];
    last.iter().fold(message, |text, line| {
        let end = line.char_indices().nth(MAX_TAIL_COLUMNS).map(|(end, _)| end);
        text + "\n| " + &line[..end.unwrap_or(line.len())] + if end.is_some() { "…" } else { "" }
    })
}
