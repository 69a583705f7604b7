//! The report of a run: kept in `/var/lib/glovo-bootstrap/report.json`, printed by `status` and `plan --json`.

pub mod history;
pub mod last_run;
pub mod replaced;
pub mod summary;
pub mod unbegun;

use std::{fmt, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::{self, Fault},
    host::{
        boot::BootTime,
        root::{FileType, is_full},
        run_command::RunCommand,
        state,
    },
    redaction,
    system::{Mode, System},
    value::{ByteSize, spoken},
    visible,
};

/// The report's file in the state directory.
pub const FILE: &str = "report.json";

/// A run or a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Identifies this run.
    pub run_id: String,
    /// Version of the program.
    pub version: String,
    /// The command line.
    pub command: String,
    /// The command that runs the steps again.
    #[serde(default = "default_run_command")]
    pub again: String,
    /// The machine's identity; see [`System::identity`].
    #[serde(default)]
    pub machine: Option<String>,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// When it began, by the clock of the boot, which is never set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot: Option<BootTime>,
    /// When it ended; absent while it runs, or if it was cut off.
    pub ended: Option<String>,
    /// Wall time in milliseconds.
    pub milliseconds: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Its exit code; absent while it runs.
    pub exit_code: Option<u8>,
    /// Every step of the manifest.
    pub steps: Vec<StepReport>,
    /// The reboot before the rest of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reboot: Option<RebootReport>,
    /// What it waits for, while it runs. Only `status` adds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting: Option<String>,
    /// Notes on what is left open: services that read changed files, but whose steps were not selected, and warnings of
    /// earlier runs that still hold.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
}

/// How a run, a step or a resource ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as declared, and was before.
    Unchanged,
    /// It is as declared, after changes.
    Changed,
    /// It was changed, and the change was reverted because a service refused it.
    PutBack,
    /// In a plan: a run would change it.
    Pending,
    /// It failed.
    Failed,
    /// A signal stopped it.
    Stopped,
    /// It has not begun, or will not begin because something before it failed.
    NotRun,
    /// It was not selected, or it does not apply on this machine.
    Skipped,
    /// The machine reboots, and the run goes on after the boot.
    Rebooting,
    /// It is in progress. In a report that is read after a crash: it was cut off.
    #[default]
    Running,
}

/// A reboot in the middle of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootReport {
    /// The step after which the machine reboots.
    pub after: String,
    /// The reason.
    pub why: String,
}

impl RebootReport {
    /// Returns the state of the run: `rebooting: the package libc6 takes effect after a reboot; …`.
    pub fn in_words(&self) -> String {
        format!("rebooting: {}; the run goes on after the boot", self.why)
    }
}

/// A step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, in milliseconds after the run did.
    #[serde(default)]
    pub began: u64,
    /// Wall time in milliseconds.
    pub milliseconds: u64,
    /// Why it does not apply on this machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_here: Option<String>,
    /// Whether it was not selected, although an earlier run failed in it or before it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_owed: bool,
    /// Every resource that has begun.
    pub resources: Vec<ResourceReport>,
}

impl StepReport {
    /// Returns how many changes were made or are pending; with `deferred`, how many were deferred.
    pub fn changes(&self, deferred: bool) -> usize {
        let changes = self.resources.iter().flat_map(|resource| &resource.changes);
        changes.filter(|change| change.deferred == deferred && !change.failed && !change.put_back).count()
    }

    /// Sets the outcome to [`Outcome::PutBack`] if all of its changes were put back.
    pub fn put_back(&mut self) {
        let has = |outcome| self.resources.iter().any(|resource| resource.outcome == outcome);
        if self.outcome == Outcome::Changed && !has(Outcome::Changed) && has(Outcome::PutBack) {
            self.outcome = Outcome::PutBack;
        }
    }
}

/// A resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResourceReport {
    /// Kind and name.
    pub resource: String,
    /// The place of its declaration: `/etc/glovo-bootstrap/steps/30-web.toml:12`.
    #[serde(default)]
    pub declared_at: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it does not apply on this machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_here: Option<String>,
    /// When it began, in milliseconds after the run did.
    #[serde(default)]
    pub began: u64,
    /// Wall time in milliseconds.
    pub milliseconds: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// The changes that were made or are pending.
    pub changes: Vec<ChangeReport>,
    /// The downloads for it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub downloads: Vec<DownloadReport>,
    /// Warnings: faults that did not make it fail.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Why it failed: the error, its causes, its hint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorReport>,
}

impl ResourceReport {
    /// Marks its changes as put back.
    pub fn put_back(&mut self) {
        self.changes.iter_mut().filter(|change| !change.deferred).for_each(|change| change.put_back = true);
        if self.outcome == Outcome::Changed {
            self.outcome = Outcome::PutBack;
        }
    }
}

/// A change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeReport {
    /// The change in words.
    pub summary: String,
    /// Whether it must wait until the image boots or the run has ended.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub deferred: bool,
    /// Whether it was tried and failed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub failed: bool,
    /// Whether it was made and then put back.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub put_back: bool,
    /// The diff of a text file, in a plan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diff: Option<String>,
}

impl ChangeReport {
    /// Returns the report of a change, without secrets.
    pub fn new(summary: &str, deferred: bool, diff: Option<&str>) -> Self {
        let summary = visible::line(&redaction::shown(summary)).into_owned();
        let diff = diff.map(|diff| visible::lines(&redaction::shown(diff)).into_owned());
        Self { summary, deferred, failed: false, put_back: false, diff }
    }
}

/// A download. Its times are in milliseconds after the run began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadReport {
    /// The source that it came from.
    pub source: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it began.
    pub began: u64,
    /// When its resource needed it. The resource waited from then until `ended`.
    pub wanted: u64,
    /// When it was complete.
    pub ended: u64,
    /// The earlier steps that ran during the download.
    pub behind: Vec<String>,
}

/// `12 MiB in 340 ms, while install_dependencies ran`
impl fmt::Display for DownloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |until: u64| spoken(Duration::from_millis(until.saturating_sub(self.began)));
        write!(f, "{} in {}", ByteSize(self.bytes), time(self.ended))?;
        match self.behind.join(", ") {
            steps if steps.is_empty() => Ok(()),
            steps if self.ended <= self.wanted => write!(f, ", while {steps} ran"),
            steps => write!(f, ", {} of it while {steps} ran", time(self.wanted)),
        }
    }
}

impl DownloadReport {
    /// Returns the downloads of a change in one line: `25 files, 77 MiB in 620 ms`.
    pub fn sum(downloads: &[Self]) -> Option<String> {
        let (first, others) = downloads.split_first()?;
        if others.is_empty() {
            return Some(first.to_string());
        }
        let mut sum = first.clone();
        for other in others {
            sum.bytes += other.bytes;
            sum.began = sum.began.min(other.began);
            // The change waited for all of them from the time it needed the first.
            sum.wanted = sum.wanted.min(other.wanted);
            sum.ended = sum.ended.max(other.ended);
            for step in &other.behind {
                if !sum.behind.contains(step) {
                    sum.behind.push(step.clone());
                }
            }
        }
        Some(format!("{} files, {sum}", downloads.len()))
    }
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The error and its causes, outermost first.
    pub causes: Vec<String>,
    /// The next thing to do.
    pub hint: Option<String>,
}

impl ErrorReport {
    /// Returns the report of an error.
    pub fn new(error: &anyhow::Error) -> Self {
        let shown = |text: &str| visible::lines(&redaction::shown(text)).into_owned();
        let causes = error.chain().map(|cause| shown(&cause.to_string())).collect();
        Self { causes, hint: error::hint(error).map(shown) }
    }
}

impl Report {
    /// Returns an empty report of a run that begins now.
    pub fn begin(machine: Option<String>, steps: impl Iterator<Item = String>) -> Self {
        let step = |name| StepReport {
            name,
            outcome: Outcome::NotRun,
            began: 0,
            milliseconds: 0,
            not_here: None,
            is_owed: false,
            resources: vec![],
        };
        Self {
            run_id: run_id(),
            version: env!("CARGO_PKG_VERSION").into(),
            command: command_line(),
            again: default_run_command(),
            machine,
            started: now(),
            boot: BootTime::now(),
            ended: None,
            milliseconds: 0,
            outcome: Outcome::Running,
            exit_code: None,
            steps: steps.map(step).collect(),
            reboot: None,
            waiting: None,
            notes: vec![],
        }
    }

    /// Completes the report with the run's duration and exit code.
    ///
    /// Before a reboot, it has not ended yet.
    pub fn end(&mut self, duration: Duration, exit_code: u8) {
        self.milliseconds = milliseconds(duration);
        if self.reboot.is_some() && exit_code == 0 {
            self.outcome = Outcome::Rebooting;
            return;
        }
        self.ended = Some(now());
        self.exit_code = Some(exit_code);
        let is_plan = self.steps.iter().any(|step| step.outcome == Outcome::Pending);
        self.outcome = match exit_code {
            0 if is_plan => Outcome::Pending,
            0 if self.changes(false) > 0 => Outcome::Changed,
            0 => Outcome::Unchanged,
            129.. => Outcome::Stopped,
            _ => Outcome::Failed,
        };
    }

    /// Returns how many changes were made or are pending; with `deferred`, how many were deferred.
    pub fn changes(&self, deferred: bool) -> usize {
        self.steps.iter().map(|step| step.changes(deferred)).sum()
    }

    /// Returns the steps before `index` that ran between two times, given in milliseconds after the run began.
    pub fn steps_between(&self, index: usize, from: u64, until: u64) -> Vec<String> {
        let goes_on = |step: &&StepReport| step.began < until && from < step.began + step.milliseconds;
        self.steps[..index].iter().filter(goes_on).map(|step| step.name.clone()).collect()
    }

    /// Reads the last report; `None` if no run has written one, or if a crash left nothing of it.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(system: &System) -> Result<Option<Self>> {
        load(system)
    }

    /// Returns whether the report is of this machine, not of a machine whose disk was copied.
    pub fn is_of(&self, system: &System) -> bool {
        self.machine == system.host.identity()
    }

    /// Removes the last report and the disk space reserved for one.
    pub fn remove(system: &System) -> Result<()> {
        _ = state::release(system.root())?;
        system.root().remove(&state::path(summary::FILE)?)?;
        history::remove(system.root())?;
        system.root().remove(&state::path(FILE)?)
    }

    /// Returns a shorter report for a full disk: without the resources that succeeded.
    fn without_successes(&self) -> Self {
        let mut report = self.clone();
        for step in &mut report.steps {
            step.resources.retain(|resource| !matches!(resource.outcome, Outcome::Changed | Outcome::Unchanged));
        }
        report.notes.push("the disk was full: this report leaves out resources that succeeded".into());
        report
    }

    /// Returns whether a crash may lose this report: the run has changed nothing, and the last one has converged.
    fn is_dispensable(&self, system: &System) -> bool {
        let is_quiet = self.outcome == Outcome::Unchanged && self.notes.is_empty();
        is_quiet && matches!(replaced::outcome(system), Some(Outcome::Unchanged | Outcome::Changed))
    }

    /// Writes the report durably, even if the run has filled the disk. A plan writes nothing.
    ///
    /// The report of a run that has changed nothing is not flushed.
    pub fn write(&self, system: &System) -> Result<()> {
        let root = system.root();
        if system.mode() == Mode::Plan {
            return Ok(());
        }
        summary::Summary::of(self, system).write(system);
        let write = if self.is_dispensable(system) { state::write_unflushed } else { state::write };
        let written = match write(root, FILE, self) {
            Err(error) if is_full(&error) => {
                let again = if state::release(root)? { state::write(root, FILE, self) } else { Err(error) };
                match again {
                    Err(error) if is_full(&error) => state::write(root, FILE, &self.without_successes()),
                    written => written,
                }
            }
            Ok(()) if self.exit_code.is_none() => {
                state::reserve(root);
                Ok(())
            }
            written => written,
        };
        if self.exit_code.is_some() || self.outcome == Outcome::Rebooting {
            history::keep(self, system);
        }
        written
    }
}

/// Reads the last report, or a part of it; `None` if no run has written one, or if a crash left nothing of it.
fn load<T: DeserializeOwned>(system: &System) -> Result<Option<T>> {
    // Only a report that says that nothing was changed is not flushed; see `Report::write`.
    let status = system.root().status(&state::path(FILE)?)?;
    if status.is_some_and(|status| status.file_type == FileType::Regular && status.size == 0) {
        return Ok(None);
    }
    let hint =
        "to see the differences: glovo-bootstrap plan; the next run moves the damaged report and writes a new one";
    state::load(system.root(), FILE)
        .map_err(|error| Fault::new("the report of the last run cannot be read").hint(hint).caused_by(error).into())
}

/// Returns a duration in whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn default_run_command() -> String {
    RunCommand::default().to_string()
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// Returns an id made of the time and the process: unique on a machine, and sorted by time.
pub fn run_id() -> String {
    format!("{:x}-{:x}", OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000, std::process::id())
}

/// Returns the command line of this process, without the values of variables: a value may be a secret.
pub fn command_line() -> String {
    visible::line(&redaction::shown(&redact(std::env::args()))).into_owned()
}

fn redact(arguments: impl Iterator<Item = String>) -> String {
    let mut is_value = false;
    let shown = arguments.map(|argument| {
        let after_set = std::mem::replace(&mut is_value, argument == "--set");
        match argument.split_once('=') {
            Some(("--set", rest)) => format!("--set={}=…", rest.split('=').next().unwrap_or_default()),
            Some((name, _)) if after_set => format!("{name}=…"),
            _ => argument,
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
