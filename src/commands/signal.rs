//! `run --signal`: the run as a process of its own, and its outcome sent to the stack and the lifecycle hook that wait.

use std::{
    ffi::OsString,
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    last_run, open, reboot,
    record::{self, Told},
    warm_pool,
};
use crate::{
    aws::{instance_object::InstanceObjects, query::Call, refusal::Refusal, service::AUTO_SCALING},
    cli,
    error::{self, Fault},
    host::{console, ec2},
    manifest::location::{is_url, machine_variables, secret_value, variables_file},
    notify::send::{Acknowledged, signal_resource},
    notify::{
        block::Block,
        verdict::{Hook, SignalTarget, Verdict},
    },
    redaction::Redaction,
    run::{
        lock::MachineLock,
        reboot::PendingSignal,
        report::{ErrorReport, last_run::LastRun},
        supervisor::{self, RunMessage, Supervised, WaitEnd},
        warm_pool::WarmPoolNote,
    },
    stop::Interrupt,
    system::{Mode, System},
    value::spoken,
    variables::Variables,
    view::{complain, complain_of, say},
    visible::Shown,
};

/// How long to retry a signal after the end of the run.
const SIGNAL_TIMEOUT: Duration = Duration::from_mins(10);
/// How long to retry a signal while this process is asked to end. systemd kills it after 90 s.
const SHUTDOWN_SIGNAL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the hook of a machine in a warm pool may not wait yet: its run can be shorter than what Auto Scaling needs.
/// <https://github.com/aws-samples/amazon-ec2-auto-scaling-group-examples/issues/5>
const HOOK_TIMEOUT: Duration = Duration::from_mins(2);
/// The pause before the next try.
const HOOK_PAUSE: Duration = Duration::from_secs(2);
/// The supervisor's own options; each has a value.
const SUPERVISOR_OPTIONS: [&str; 3] = ["--signal", "--signal-within", "--lifecycle-hook"];
/// The option of the supervisor and of the run, which records it.
const FAILURES: &str = "--failures";

/// The receivers of a run's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receivers {
    /// A stack's resource.
    pub(super) target: SignalTarget,
    /// A hook that keeps the instance out of its group.
    pub(super) hook: Option<Hook>,
    /// The bucket for the block of a failure.
    pub(super) failures: Option<InstanceObjects>,
}

/// Runs and signals; returns the run's exit code.
pub(super) fn execute(receivers: &Receivers, within: Duration, manifest: &cli::ManifestArgs) -> Result<u8> {
    let mut arguments = std::env::args_os().skip(1).collect();
    drop(take_options(&mut arguments, &SUPERVISOR_OPTIONS));
    let begun = warm_pool::begin(receivers, within);
    let ended = begun.and_then(|()| supervise(&arguments, receivers, within, manifest)).or_else(|error| {
        // The stack gets a signal even if the run could not start.
        let word = RunMessage::of(&error);
        let notifier = Notifier::new(receivers, manifest)?;
        notifier.write_block(&word, error::exit_code(&error));
        notifier.tell(&notifier.failure(&word, Some("supervisor")), SIGNAL_TIMEOUT);
        Err(error)
    });
    // The signal was sent, or tried: a later boot owes none.
    let end = |system: &System| reboot::end_resumed(system).and_then(|()| warm_pool::end(system));
    if let Err(error) = open(Path::new("/"), Mode::Run, None).and_then(|system| end(&system)) {
        complain_of(&error);
    }
    ended
}

/// Runs and signals after a reboot or the start from a warm pool, in the time that the run has.
pub(super) fn resume(system: &System, signal: &PendingSignal, manifest: &cli::ManifestArgs) -> Result<u8> {
    // A run by hand that was faster goes on instead, and signals.
    drop(MachineLock::take(system.root())?);
    let (receivers, within) = reboot::receivers(signal)?;
    execute(&receivers, within, manifest)
}

/// Prints a usage error and signals it, if the command line names a receiver.
pub fn refuse(usage: &clap::Error) -> u8 {
    _ = usage.print();
    let exit_code = u8::try_from(usage.exit_code()).unwrap_or(2);
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let taken = take_options(&mut arguments, &[&SUPERVISOR_OPTIONS[..], &[FAILURES]].concat());
    let named = |option: &str| {
        let mut values = taken.iter().filter(|(name, _)| *name == option);
        values.next().map(|(_, value)| value.to_string_lossy())
    };
    if usage.use_stderr()
        && arguments.iter().any(|argument| argument == "run")
        && let Some(Ok(target)) = named("--signal").map(|value| value.parse::<SignalTarget>())
    {
        let text = usage.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let error = Fault::new("the command line is invalid").hint("glovo-bootstrap run --help");
        let word = RunMessage::of(&error.caused_by(anyhow::anyhow!(first.to_owned())).into());
        let failures = named(FAILURES).and_then(|value| value.parse().ok());
        let hook = named("--lifecycle-hook").and_then(|value| value.parse().ok());
        match Notifier::new(&Receivers { target, hook, failures }, &cli::ManifestArgs::default()) {
            Ok(notifier) => {
                notifier.write_block(&word, exit_code);
                notifier.tell(&notifier.failure(&word, Some("usage")), SIGNAL_TIMEOUT);
            }
            Err(error) => complain_of(&error),
        }
    }
    exit_code
}

/// Takes options with a value out of a command line.
fn take_options(arguments: &mut Vec<OsString>, options: &[&'static str]) -> Vec<(&'static str, OsString)> {
    let mut taken = vec![];
    let mut rest = vec![];
    let mut all = std::mem::take(arguments).into_iter();
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        match options.iter().copied().find(|option| *option == name) {
            None => rest.push(argument),
            Some(option) => {
                let value = value.map(Into::into).or_else(|| all.next());
                taken.extend(value.map(|value| (option, value)));
            }
        }
    }
    *arguments = rest;
    taken
}

fn supervise(
    arguments: &[OsString],
    receivers: &Receivers,
    within: Duration,
    manifest: &cli::ManifestArgs,
) -> Result<u8> {
    let interrupt = Interrupt::install()?;
    let began = Instant::now();
    let mut run = Supervised::start(arguments)?;
    let event = run.wait(within, &interrupt)?;
    let notifier = Notifier::new(receivers, manifest)?;
    let (status, why) = match event {
        WaitEnd::Ended(status) => (status, AbnormalEnd::of(status)),
        WaitEnd::Late => {
            run.stop();
            let message = format!("the run did not end within {}", spoken(within));
            let hint =
                "find the step that it waited for, or allow more time: --signal-within TIME, and the stack's own timeout".into();
            (run.end()?, Some(AbnormalEnd { word: "deadline", message, hint }))
        }
        WaitEnd::Stopped(_) => {
            run.stop();
            let error = interrupt.check().err().context("no signal")?;
            let word = error.to_string().rsplit(' ').next().unwrap_or_default().to_owned();
            notifier.tell(&notifier.failure(&run.last_message(), Some(&word)), SHUTDOWN_SIGNAL_TIMEOUT);
            let code = supervisor::exit_code(run.end()?);
            notifier.write_block(&run.last_message(), code);
            return Ok(code);
        }
    };
    let mut word = run.last_message();
    let code = supervisor::exit_code(status);
    if code == 0 && word.reboots {
        let owed = reboot::pending_signal(receivers, within.saturating_sub(began.elapsed()));
        return reboot::reboot(&*open(Path::new("/"), Mode::Run, None)?, Some(owed));
    }
    if code == 0 && word.error.is_none() {
        return Ok(notifier.converged(word.ended));
    }
    let error = word.error.get_or_insert_with(|| ErrorReport { causes: vec![], hint: None });
    if let Some(AbnormalEnd { message, hint, .. }) = &why {
        error.causes.insert(0, message.clone());
        error.hint = Some(hint.clone());
    } else if error.causes.is_empty() {
        error.causes.push(format!("the run ended with exit code {code}"));
    }
    // The block comes first: after the signal, CloudFormation may terminate this machine, and `deploy` reads the block.
    notifier.write_block(&word, code);
    notifier.tell(&notifier.failure(&word, why.as_ref().map(|why| why.word)), SIGNAL_TIMEOUT);
    Ok(code)
}

/// The end of a run that sent no error itself.
struct AbnormalEnd {
    word: &'static str,
    message: String,
    hint: String,
}

impl AbnormalEnd {
    fn of(status: ExitStatus) -> Option<Self> {
        if supervisor::is_panic(status) {
            let hint = "report this fault of glovo-bootstrap, with its message from the log of user-data";
            return Some(Self { word: "panic", message: "the run panicked".into(), hint: hint.into() });
        }
        let word = supervisor::signal_name(status)?;
        let hint = "find the sender of the signal; if memory ran out, the kernel log says so: journalctl --dmesg";
        Some(Self { word, message: format!("the run was ended by {word}"), hint: hint.into() })
    }
}

/// Sends and prints the outcome.
struct Notifier {
    system: System,
    receivers: Receivers,
    redaction: Redaction,
    /// Whether the machine enters a warm pool. It does not serve then, so no stack may count it.
    is_warmed: bool,
    /// Whether it enters a warm pool or leaves one.
    is_pooled: bool,
}

impl Notifier {
    /// Opens the machine. Earlier signals do not interrupt the sending; a new one does.
    fn new(receivers: &Receivers, manifest: &cli::ManifestArgs) -> Result<Self> {
        let system = System::open(Path::new("/"), Mode::Plan, Interrupt::install()?)?;
        let redaction = redaction(&system, manifest);
        let is_warmed = WarmPoolNote::of_this_boot(&system).is_some();
        let is_pooled = WarmPoolNote::is_there(&system);
        Ok(Self { system, receivers: receivers.clone(), redaction, is_warmed, is_pooled })
    }

    fn failure(&self, word: &RunMessage, how: Option<&str>) -> Verdict {
        let step = word.step.as_deref().map(|step| self.redaction.line(step));
        Verdict::Failure { step, how: how.map(Into::into) }
    }

    /// Tells that the steps have converged; returns the exit code.
    ///
    /// After SUCCESS the stack continues at once, so the instance enters its group first. If it cannot, it has failed.
    fn converged(&self, ended: Option<LastRun>) -> u8 {
        let ready = if self.is_warmed { warm_pool::wait_for_start() } else { Ok(()) };
        let Err(error) = ready.and_then(|()| self.complete_hook(&Verdict::Success)) else {
            self.signal(&Verdict::Success, SIGNAL_TIMEOUT);
            if let (Some(place), Some(last)) = (&self.receivers.failures, ended) {
                last_run::upload(&self.system, place, "", last);
            }
            return 0;
        };
        let word = RunMessage::of(&error.context("the steps have converged, but the machine does not enter its group"));
        self.write_block(&word, 1);
        self.tell(&self.failure(&word, Some("hook")), SIGNAL_TIMEOUT);
        1
    }

    /// Sends a failure to all receivers.
    fn tell(&self, failure: &Verdict, patience: Duration) {
        self.signal(failure, patience);
        if let Err(error) = self.complete_hook(failure) {
            complain_of(&error);
        }
    }

    fn signal(&self, verdict: &Verdict, patience: Duration) {
        if self.is_warmed {
            return;
        }
        let (target, status) = (&self.receivers.target, verdict.status());
        match signal_resource(&self.system.aws, &self.system.host, target, verdict, patience) {
            Ok(Acknowledged::Taken(id)) => say(format!("signalled {status} to {target} as {id}")),
            Ok(Acknowledged::NotAwaited(words)) if words.contains("does not exist") => {
                let fault = Fault::new(format!("the signal {status} to {target} reached no resource: {words}"));
                complain_of(&fault.hint("check the names in --signal STACK/RESOURCE").into());
            }
            Ok(Acknowledged::NotAwaited(words)) => {
                tracing::warn!("no resource waits for the signal {status} to {target}: {words}");
            }
            Err(error) => complain_of(&error),
        }
    }

    fn complete_hook(&self, verdict: &Verdict) -> Result<()> {
        let Some(hook) = &self.receivers.hook else { return Ok(()) };
        let result = verdict.lifecycle_result();
        let (began, mut is_told) = (Instant::now(), false);
        loop {
            let Err(error) = self.complete(hook, result) else {
                say(format!("completed the lifecycle hook {hook}: {result}"));
                return Ok(());
            };
            // `No active Lifecycle Action found with instance ID …`: the hook has timed out, or this is a later run.
            if Refusal::of(&error).is_none_or(|refusal| refusal.code != "ValidationError") {
                return Err(error.context(format!("completing the lifecycle hook {hook} with {result}")));
            }
            if !self.is_pooled || began.elapsed() > HOOK_TIMEOUT {
                tracing::warn!("the lifecycle hook {hook} does not wait for {result}: {error:#}");
                return Ok(());
            }
            if !std::mem::replace(&mut is_told, true) {
                say(format!("the lifecycle hook {hook} does not wait yet, still trying for {}", spoken(HOOK_TIMEOUT)));
            }
            self.system.host.stop.wait(HOOK_PAUSE)?;
        }
    }

    fn complete(&self, hook: &Hook, result: &str) -> Result<()> {
        let call = Call::new(&AUTO_SCALING, "CompleteLifecycleAction")
            .with("AutoScalingGroupName", &hook.group)
            .with("LifecycleHookName", &hook.name)
            .with("LifecycleActionResult", result)
            .with("InstanceId", self.instance()?);
        self.system.aws(call).map(drop)
    }

    /// Returns the instance's id, from the firmware or the metadata service.
    fn instance(&self) -> Result<String> {
        ec2::instance_id().map_or_else(|| self.system.instance("id"), Ok)
    }

    /// Writes the block of a run that ended with this code to standard error, the console and the bucket.
    fn write_block(&self, word: &RunMessage, exit_code: u8) {
        let instance = self.instance().ok();
        // The templates tag a build's machines. Without an instance id, the metadata service is not asked a second
        // time.
        let build = instance.as_ref().and_then(|_| self.system.instance("tags.build").ok());
        let block = Block::new(instance, build.as_deref(), word, &self.redaction);
        let text = block.to_string();
        complain(Shown::lines(text.trim_end()));
        // A login prompt may stand in the console's last line.
        console::print(&format!("\n{text}"));
        if let Some(place) = &self.receivers.failures {
            let step = word.step.as_deref().map(|step| self.redaction.line(step));
            // A run that left something undone has ended well for itself.
            let failed = word.ended.clone().filter(|last| last.exit_code != 0);
            let last = failed.unwrap_or_else(|| LastRun::failed(exit_code, step));
            last_run::upload(&self.system, place, &text, LastRun { build, ..last });
        }
    }
}

/// Returns the redaction of the values of variables from files, which may be secrets. A run removes all its secrets from
/// what it tells its supervisor, also those of stores and URLs.
fn redaction(system: &System, manifest: &cli::ManifestArgs) -> Redaction {
    // The record may name such files too. If it cannot be read, the run reports that.
    let manifest = record::complete(system, manifest.clone(), Told::Not).unwrap_or_else(|_| manifest.clone());
    // A run that records its manifest reads the machine's own as well.
    let own = machine_variables().ok().flatten();
    let mut variables = Variables::new(|_| None);
    for file in own.iter().chain(manifest.variables.iter().filter(|file| !is_url(file))) {
        if let Ok(text) = variables_file(file) {
            // The run has reported the file's faults.
            drop(variables.give_all(&text));
        }
    }
    for (name, file) in manifest.set_secret_file.iter().filter_map(|assignment| assignment.split_once('=')) {
        // The run reads standard input itself.
        if let Some(value) = (file != "-").then(|| secret_value(file).ok()).flatten() {
            _ = variables.give_private(name, &value);
        }
    }
    variables.redaction()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_does_not_get_the_supervisors_options() {
        let line = "run --signal app/Group --set a=--signal --signal-within=5m --steps x --signal=b/Group";
        let mut arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let taken = take_options(&mut arguments, &SUPERVISOR_OPTIONS);
        assert_eq!(arguments, ["run", "--set", "a=--signal", "--steps", "x"]);
        assert_eq!(
            taken.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["--signal", "--signal-within", "--signal"]
        );
        assert_eq!((&taken[0].1, &taken[1].1), (&"app/Group".into(), &"5m".into()));
    }
}
