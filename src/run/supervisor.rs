//! A run in a process of its own. If a panic or the OOM killer ends the run, its supervisor still reports that.
//!
//! The run sends its supervisor lines of JSON: the step it is in, and its error. The lines go to a file without a name,
//! which the kernel removes with both processes. The run inherits the descriptor; an environment variable names it.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::report::{ErrorReport, Outcome, Report, last_run::LastRun};
use crate::{
    environment,
    error::{self, Class, Fault},
    host::{calls, rerun},
    redaction,
    stop::{Interrupt, TICK},
};

/// The file that the supervisor reads, if this process has a supervisor.
static SUPERVISOR: OnceLock<File> = OnceLock::new();
/// How long a run may take to end after SIGTERM before it gets SIGKILL. Longer than the run gives its own programs.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The exit code of a Rust program after a panic that unwinds.
const PANIC_EXIT_CODE: i32 = 101;

/// A message of a run to its supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMessage {
    /// The step that runs or has failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<String>,
    /// The resource that has failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// The error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorReport>,
    /// Whether the machine must reboot now, before the rest of the run.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub reboots: bool,
    /// How the run ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<LastRun>,
}

impl RunMessage {
    /// Returns the message of a run that could not begin or was cut short by an error.
    pub fn of(error: &anyhow::Error) -> Self {
        Self { error: Some(ErrorReport::new(error)), ..Self::default() }
    }

    /// Returns the message of a run in which a resource failed, without secrets; `None` if all have converged.
    pub fn of_failed(report: &Report) -> Option<Self> {
        let step = report.steps.iter().find(|step| step.outcome == Outcome::Failed)?;
        let resource = step.resources.iter().find(|resource| resource.error.is_some());
        Some(Self {
            step: Some(redaction::shown(&step.name).into_owned()),
            resource: resource.map(|resource| redaction::shown(&resource.resource).into_owned()),
            error: resource.and_then(|resource| resource.error.clone()),
            ..Self::default()
        })
    }

    /// Returns an error message for a successful run that has deferred a change; empty if it deferred none.
    pub fn unproven(report: &Report) -> Self {
        let resources =
            report.steps.iter().flat_map(|step| step.resources.iter().map(move |resource| (step, resource)));
        let mut deferred = resources.flat_map(|(step, resource)| {
            resource.changes.iter().filter(|change| change.deferred).map(move |change| (step, resource, change))
        });
        let Some((step, resource, change)) = deferred.next() else { return Self::default() };
        let fault = Fault::new(format!("not done in this run: {}", change.summary))
            .hint("signal from a run that defers nothing: a deferred change is not proven to work");
        let (step, resource) = (Some(step.name.clone()), Some(resource.resource.clone()));
        Self { step, resource, ..Self::of(&fault.into()) }
    }
}

/// Opens the file of this process's supervisor, if it has one; returns the descriptor's number.
pub fn adopt() -> Option<RawFd> {
    let number: u16 = environment::value(environment::SUPERVISOR)?.parse().ok()?;
    let words = rerun::inherited_messages(number)?;
    let number = words.as_raw_fd();
    SUPERVISOR.set(words).ok().map(|()| number)
}

/// Returns whether this process has a supervisor.
pub fn is_supervised() -> bool {
    SUPERVISOR.get().is_some()
}

/// Sends a message to the supervisor, if this process has one.
pub fn tell(word: &RunMessage) {
    let Some(mut words) = SUPERVISOR.get() else { return };
    let mut tell = || -> Result<()> {
        let line = serde_json::to_string(word)? + "\n";
        Ok(words.write_all(line.as_bytes())?)
    };
    if let Err(error) = tell() {
        tracing::warn!("cannot send a message to the supervisor: {error:#}");
    }
}

/// The event that ends a supervisor's waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// The run has ended.
    Ended(ExitStatus),
    /// The deadline has passed.
    Late,
    /// The supervisor received this signal.
    Stopped(i32),
}

/// A run in a process of its own.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    words: File,
}

impl Supervised {
    /// Starts this program again with these arguments, in the same environment and directory.
    pub fn start(arguments: &[OsString]) -> Result<Self> {
        let (child, words) = rerun::start(arguments, environment::SUPERVISOR)?;
        Ok(Self { child, words })
    }

    /// Waits until the run has ended, the deadline has passed, or a signal arrives.
    pub fn wait(&mut self, within: Duration, interrupt: &Interrupt) -> Result<WaitEnd> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = calls::try_wait(&mut self.child).context("waiting for the run")? {
                return Ok(WaitEnd::Ended(status));
            }
            if let Err(stopped) = interrupt.check()
                && let Class::Interrupted(signal) = error::class(&stopped)
            {
                return Ok(WaitEnd::Stopped(signal));
            }
            if Instant::now() >= end {
                return Ok(WaitEnd::Late);
            }
            std::thread::park_timeout(TICK);
        }
    }

    /// Sends SIGTERM to the run.
    pub fn stop(&self) {
        _ = kill(self.pid(), Signal::SIGTERM);
    }

    /// Waits for the end of a run after [`Self::stop`]. Kills it after [`STOP_TIMEOUT`].
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let WaitEnd::Ended(status) = self.wait(STOP_TIMEOUT, &Interrupt::default())? {
            return Ok(status);
        }
        _ = kill(self.pid(), Signal::SIGKILL);
        self.child.wait().context("waiting for the run")
    }

    /// Returns the run's messages merged into one: later values replace earlier ones. A truncated line is ignored.
    pub fn last_message(&self) -> RunMessage {
        let text = rerun::messages_so_far(&self.words);
        let words = text.lines().filter_map(|line| serde_json::from_str::<RunMessage>(line).ok());
        words.fold(RunMessage::default(), |before, word| RunMessage {
            resource: word.resource.or_else(|| before.resource.filter(|_| word.step.is_none())),
            step: word.step.or(before.step),
            error: word.error.or(before.error),
            reboots: word.reboots || before.reboots,
            ended: word.ended.or(before.ended),
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

/// Returns whether a panic ended the run. With `panic = "abort"`, that is SIGABRT.
pub fn is_panic(status: ExitStatus) -> bool {
    status.code() == Some(PANIC_EXIT_CODE) || status.signal() == Some(Signal::SIGABRT as i32)
}

/// Returns the name of the signal that ended the run, if one did.
pub fn signal_name(status: ExitStatus) -> Option<&'static str> {
    status.signal().and_then(|number| Signal::try_from(number).ok()).map(Signal::as_str)
}

/// Returns the exit code, or 128 + n after signal n.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}
