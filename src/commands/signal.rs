//! `run --signal`: the run as a process of its own, and what became of it told to those who wait for it.

use std::{ffi::OsString, path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, Result};

use super::record::{self, Told};
use crate::{
    aws::{query::Call, refusal::Refusal, service::AUTO_SCALING},
    cli,
    error::Fault,
    host::{console, ec2},
    manifest::location::variables_file,
    notify::send::{Acknowledged, signal_resource},
    notify::{
        block::Block,
        verdict::{Hook, SignalTarget, Verdict},
    },
    redaction::Redaction,
    run::{
        report::ErrorReport,
        supervisor::{self, RunMessage, Supervised, WaitEnd},
    },
    stop::Interrupt,
    system::{Mode, System},
    value::spoken,
    variables::Variables,
    view::{complain, complain_of, say},
    visible::Shown,
};

/// How long is tried to have a signal acknowledged: nothing else is left to do.
const PATIENCE: Duration = Duration::from_mins(10);
/// The same when this process is to end itself, before systemd has no more patience with it (90 s).
const HASTE: Duration = Duration::from_mins(1);
/// Options that are the supervisor's alone; each has a value.
const OPTIONS: [&str; 3] = ["--signal", "--signal-within", "--lifecycle-hook"];

/// Who waits.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    /// A stack's resource.
    pub(super) target: SignalTarget,
    /// A hook that holds the instance back.
    pub(super) hook: Option<Hook>,
}

/// Runs and signals; returns the run's exit code.
pub(super) fn execute(audience: &Audience, within: Duration, manifest: &cli::Manifest) -> Result<u8> {
    let mut arguments = std::env::args_os().skip(1).collect();
    drop(take_options(&mut arguments));
    supervise(&arguments, audience, within, manifest).or_else(|error| {
        // Not silent even where there is nothing to supervise.
        let word = RunMessage::of(&error);
        let speaker = Speaker::new(audience, manifest)?;
        speaker.write_block(&word);
        speaker.tell(&speaker.failure(&word, Some("supervisor")), PATIENCE);
        Err(error)
    })
}

/// Tells those who wait for a machine whose command line is wrong.
pub fn refuse(usage: &clap::Error) -> u8 {
    _ = usage.print();
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let named = take_options(&mut arguments).into_iter().find(|(name, _)| *name == OPTIONS[0]);
    if usage.use_stderr()
        && arguments.iter().any(|argument| argument == "run")
        && let Some(Ok(target)) = named.map(|(_, value)| value.to_string_lossy().parse::<SignalTarget>())
    {
        let text = usage.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let error = Fault::new("the command line can't be read").hint("glovo-bootstrap run --help");
        let word = RunMessage::of(&error.caused_by(anyhow::anyhow!(first.to_owned())).into());
        match Speaker::new(&Audience { target, hook: None }, &cli::Manifest::default()) {
            Ok(speaker) => {
                speaker.write_block(&word);
                speaker.tell(&speaker.failure(&word, Some("usage")), PATIENCE);
            }
            Err(error) => complain_of(&error),
        }
    }
    u8::try_from(usage.exit_code()).unwrap_or(2)
}

/// Takes the supervisor's own options out of a command line.
fn take_options(arguments: &mut Vec<OsString>) -> Vec<(&'static str, OsString)> {
    let mut taken = vec![];
    let mut rest = vec![];
    let mut all = std::mem::take(arguments).into_iter();
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        match OPTIONS.into_iter().find(|option| *option == name) {
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

fn supervise(arguments: &[OsString], audience: &Audience, within: Duration, manifest: &cli::Manifest) -> Result<u8> {
    let interrupt = Interrupt::install()?;
    let mut run = Supervised::start(arguments)?;
    let event = run.wait(within, &interrupt)?;
    let speaker = Speaker::new(audience, manifest)?;
    let (status, why) = match event {
        WaitEnd::Ended(status) => (status, Why::of(status)),
        WaitEnd::Late => {
            run.stop();
            let message = format!("the run did not end within {}", spoken(within));
            let hint =
                "see what it waited for; or give it more time: --signal-within, and the stack's own timeout".into();
            (run.end()?, Some(Why { word: "deadline", message, hint }))
        }
        WaitEnd::Stopped(_) => {
            run.stop();
            let error = interrupt.check().err().context("no signal")?;
            let word = error.to_string().rsplit(' ').next().unwrap_or_default().to_owned();
            speaker.tell(&speaker.failure(&run.last_message(), Some(&word)), HASTE);
            let status = run.end()?;
            speaker.write_block(&run.last_message());
            return Ok(supervisor::exit_code(status));
        }
    };
    let mut word = run.last_message();
    let code = supervisor::exit_code(status);
    if code == 0 && word.error.is_none() {
        speaker.tell(&Verdict::Success, PATIENCE);
        return Ok(code);
    }
    let error = word.error.get_or_insert_with(|| ErrorReport { causes: vec![], hint: None });
    if let Some(Why { message, hint, .. }) = &why {
        error.causes.insert(0, message.clone());
        error.hint = Some(hint.clone());
    } else if error.causes.is_empty() {
        error.causes.push(format!("the run ended with exit code {code}"));
    }
    // First the block: after the signal this machine may not be here for long.
    speaker.write_block(&word);
    speaker.tell(&speaker.failure(&word, why.as_ref().map(|why| why.word)), PATIENCE);
    Ok(code)
}

/// How a run ended that could not say so itself.
struct Why {
    word: &'static str,
    message: String,
    hint: String,
}

impl Why {
    fn of(status: ExitStatus) -> Option<Self> {
        if supervisor::is_panic(status) {
            let hint = "a fault of glovo-bootstrap: its message is where this machine's user-data logs";
            return Some(Self { word: "panic", message: "the run panicked".into(), hint: hint.into() });
        }
        let word = supervisor::signal_name(status)?;
        let hint = "if nobody did, memory may have run out: journalctl --dmesg";
        Some(Self { word, message: format!("the run was ended by {word}"), hint: hint.into() })
    }
}

/// Who says it.
struct Speaker {
    system: System,
    audience: Audience,
    redaction: Redaction,
}

impl Speaker {
    /// Signals that have come so far don't stop it, the next one does.
    fn new(audience: &Audience, manifest: &cli::Manifest) -> Result<Self> {
        let system = System::open(Path::new("/"), Mode::Plan, Interrupt::install()?)?;
        let redaction = redaction(&system, manifest);
        Ok(Self { system, audience: audience.clone(), redaction })
    }

    fn failure(&self, word: &RunMessage, how: Option<&str>) -> Verdict {
        let step = word.step.as_deref().map(|step| self.redaction.line(step));
        Verdict::Failure { step, how: how.map(Into::into) }
    }

    /// Tells all who wait. A stack that hears of success goes on at once, so the instance is let into its group before.
    fn tell(&self, verdict: &Verdict, patience: Duration) {
        if *verdict == Verdict::Success {
            self.complete_hook(verdict);
        }
        self.signal(verdict, patience);
        if *verdict != Verdict::Success {
            self.complete_hook(verdict);
        }
    }

    fn signal(&self, verdict: &Verdict, patience: Duration) {
        let (target, status) = (&self.audience.target, verdict.status());
        match signal_resource(&self.system.aws, &self.system.host, target, verdict, patience) {
            Ok(Acknowledged::Taken(id)) => say(format!("signalled {status} to {target} as {id}")),
            Ok(Acknowledged::NotAwaited(words)) => {
                tracing::warn!("no resource waits for the signal {status} to {target}: {words}");
            }
            Err(error) => complain_of(&error),
        }
    }

    fn complete_hook(&self, verdict: &Verdict) {
        let Some(hook) = &self.audience.hook else { return };
        let result = verdict.lifecycle_result();
        let completed = self.instance().and_then(|instance| {
            let call = Call::new(&AUTO_SCALING, "CompleteLifecycleAction")
                .with("AutoScalingGroupName", &hook.group)
                .with("LifecycleHookName", &hook.name)
                .with("LifecycleActionResult", result)
                .with("InstanceId", instance);
            self.system.aws(call)
        });
        match completed {
            Ok(_) => say(format!("completed the lifecycle hook {hook}: {result}")),
            // `No active Lifecycle Action found with instance ID …`: its time is up, or this is a later run.
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.code == "ValidationError") => {
                tracing::warn!("the lifecycle hook {hook} does not wait for {result}: {error:#}");
            }
            Err(error) => {
                let what = format!("completing the lifecycle hook {hook} with {result}");
                complain_of(&error.context(what));
            }
        }
    }

    /// The instance's id, as the firmware or the metadata service has it.
    fn instance(&self) -> Result<String> {
        ec2::instance_id().map_or_else(|| self.system.instance("id"), Ok)
    }

    /// Says why, to standard error and the console.
    fn write_block(&self, word: &RunMessage) {
        let instance = self.instance().ok();
        // As cloudformation/*.yml tag the machines of a build; without a metadata service nobody waits for it twice.
        let build = instance.as_ref().and_then(|_| self.system.instance("tags.build").ok());
        let block = Block::new(instance, build.as_deref(), word, &self.redaction);
        let text = block.to_string();
        complain(Shown::lines(text.trim_end()));
        console::print(&text);
    }
}

/// What must not be shown: values of variables that come from files, where secrets are.
fn redaction(system: &System, manifest: &cli::Manifest) -> Redaction {
    // Also of those that the record names. If it can't be read, the run says so.
    let manifest = record::complete(system, manifest.clone(), Told::Not).unwrap_or_else(|_| manifest.clone());
    let mut variables = Variables::new(|_| None);
    for file in &manifest.variables {
        if let Ok(text) = variables_file(file) {
            // What is wrong with it the run has said.
            drop(variables.give_all(&text));
        }
    }
    variables.redaction()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_has_the_arguments_but_those_of_its_supervisor() {
        let line = "run --signal app/Group --set a=--signal --signal-within=5m --steps x --signal=b/Group";
        let mut arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let taken = take_options(&mut arguments);
        assert_eq!(arguments, ["run", "--set", "a=--signal", "--steps", "x"]);
        assert_eq!(
            taken.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["--signal", "--signal-within", "--signal"]
        );
        assert_eq!((&taken[0].1, &taken[1].1), (&"app/Group".into(), &"5m".into()));
    }
}
