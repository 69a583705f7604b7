//! A run in a process of its own, so that whatever ends it, a panic or the OOM killer too, somebody is left to say so.
//!
//! The run tells its supervisor where it is and why it failed by lines of JSON, in a file that has no name and is gone
//! with both of them. The run inherits its descriptor; the environment says which one it is.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::report::{ErrorReport, Report};
use crate::{
    environment,
    error::{self, Class, Fault},
    host::calls,
    stop::{Interrupt, TICK},
};

/// What the supervisor reads from, if this process has one.
static SUPERVISOR: OnceLock<File> = OnceLock::new();
/// How long a run may take to end after SIGTERM before it gets SIGKILL: longer than the programs that it stops itself.
const GRACE: Duration = Duration::from_secs(15);
/// A panic's exit code where it unwinds, as the standard library has it.
const PANIC: i32 = 101;

/// What a run says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The step that is at work, or has failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<String>,
    /// The resource that has failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorReport>,
}

impl Word {
    /// Why there is no run, or no whole one.
    pub fn of(error: &anyhow::Error) -> Self {
        Self { error: Some(ErrorReport::new(error)), ..Self::default() }
    }

    /// That a run which has not failed has not done all either.
    pub fn unproven(report: &Report) -> Self {
        let resources =
            report.steps.iter().flat_map(|step| step.resources.iter().map(move |resource| (step, resource)));
        let mut deferred = resources.flat_map(|(step, resource)| {
            resource.changes.iter().filter(|change| change.deferred).map(move |change| (step, resource, change))
        });
        let Some((step, resource, change)) = deferred.next() else { return Self::default() };
        let fault = Fault::new(format!("not done in this run: {}", change.summary))
            .hint("what is deferred is not proven to work: signal from a run that defers nothing");
        let (step, resource) = (Some(step.name.clone()), Some(resource.resource.clone()));
        Self { step, resource, ..Self::of(&fault.into()) }
    }
}

/// Takes over the descriptor of this process's supervisor, if it has one; returns its number.
pub fn adopt() -> Option<RawFd> {
    let number: u16 = environment::value(environment::SUPERVISOR)?.parse().ok()?;
    // Opened anew, so that it is ours to close. A FIFO must not be waited for.
    let path = format!("/proc/self/fd/{number}");
    let words = OpenOptions::new().append(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    let metadata = words.metadata().ok()?;
    // Whatever the environment says, nothing is appended to a file that has a name.
    let is_nameless = metadata.is_file() && metadata.nlink() == 0;
    let number = words.as_raw_fd();
    (is_nameless && SUPERVISOR.set(words).is_ok()).then_some(number)
}

/// Tells the supervisor, if this process has one.
pub fn tell(word: &Word) {
    let Some(mut words) = SUPERVISOR.get() else { return };
    let mut tell = || -> Result<()> {
        let line = serde_json::to_string(word)? + "\n";
        Ok(words.write_all(line.as_bytes())?)
    };
    if let Err(error) = tell() {
        tracing::warn!("the supervisor isn't told: {error:#}");
    }
}

/// Why a supervisor no longer just waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The run has ended.
    Ended(ExitStatus),
    /// Its time is up.
    Late,
    /// This signal asks the supervisor to stop.
    Stopped(i32),
}

/// A run in a process of its own.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    words: File,
}

impl Supervised {
    /// Starts this program once more, with these arguments and all else as it is here.
    pub fn start(arguments: &[OsString]) -> Result<Self> {
        // The run alone inherits it: it is the only program that is started before it is closed to others.
        let words = memfd_create("words", MFdFlags::empty()).context("making a file for the run's words")?;
        // The program itself, also if another one has its name by now.
        let mut command = Command::new("/proc/self/exe");
        if let Some(name) = std::env::args_os().next() {
            _ = command.arg0(name);
        }
        _ = command.args(arguments);
        _ = command.env(environment::SUPERVISOR, words.as_raw_fd().to_string());
        let child = command.spawn().context("starting the run in a process of its own")?;
        _ = fcntl(&words, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("closing a file to other programs")?;
        // Where memory runs out, the kernel is to end the run, not the one who can tell of it.
        _ = std::fs::write("/proc/self/oom_score_adj", "-900");
        Ok(Self { child, words: File::from(words) })
    }

    /// Waits until it has ended, its time is up, or a signal comes.
    pub fn wait(&mut self, within: Duration, interrupt: &Interrupt) -> Result<Event> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = calls::try_wait(&mut self.child).context("waiting for the run")? {
                return Ok(Event::Ended(status));
            }
            if let Err(stopped) = interrupt.check()
                && let Class::Interrupted(signal) = error::class(&stopped)
            {
                return Ok(Event::Stopped(signal));
            }
            if Instant::now() >= end {
                return Ok(Event::Late);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Asks it to end.
    pub fn stop(&self) {
        _ = kill(self.pid(), Signal::SIGTERM);
    }

    /// How it ended after it was asked to; it is killed if it takes too long.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Event::Ended(status) = self.wait(GRACE, &Interrupt::default())? {
            return Ok(status);
        }
        _ = kill(self.pid(), Signal::SIGKILL);
        self.child.wait().context("waiting for the run")
    }

    /// What it has said so far, the later over the earlier. What was cut off while it was written is not said.
    pub fn last_word(&self) -> Word {
        let mut text = String::new();
        let path = format!("/proc/self/fd/{}", self.words.as_raw_fd());
        // Opened anew, it is read from its beginning.
        _ = File::open(path).and_then(|mut words| words.read_to_string(&mut text));
        let words = text.lines().filter_map(|line| serde_json::from_str::<Word>(line).ok());
        words.fold(Word::default(), |before, word| Word {
            resource: word.resource.or_else(|| before.resource.filter(|_| word.step.is_none())),
            step: word.step.or(before.step),
            error: word.error.or(before.error),
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

/// Whether it was a panic that ended a run: with `panic = "abort"` by SIGABRT.
pub fn is_panic(status: ExitStatus) -> bool {
    status.code() == Some(PANIC) || status.signal() == Some(Signal::SIGABRT as i32)
}

/// The name of the signal that ended a run, if one did.
pub fn signal_name(status: ExitStatus) -> Option<&'static str> {
    status.signal().and_then(|number| Signal::try_from(number).ok()).map(Signal::as_str)
}

/// The exit code, and 128 + n for signal n.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}
