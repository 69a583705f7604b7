//! `run --signal`: the run as a process of its own, and what became of it told to those who wait for it.

use std::{ffi::OsString, path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, Result};

use crate::{
    cli,
    error::{self, Fault},
    manifest::{location::variables_file, variables::Variables},
    report::ErrorReport,
    signal::{Target, Verdict, block::Block, redact},
    system::{
        Mode, System, console, ec2,
        fetch::Acknowledged,
        interrupt::Interrupt,
        supervisor::{self, Event, Supervised, Word},
    },
    value::spoken,
    view::{complain, say},
};

/// How long is tried to have a signal acknowledged: nothing else is left to do.
const PATIENCE: Duration = Duration::from_mins(10);
/// The same when this process is to end itself, before systemd has no more patience with it (90 s).
const HASTE: Duration = Duration::from_mins(1);
/// Options that are the supervisor's alone; each has a value.
const OPTIONS: [&str; 2] = ["--signal", "--signal-within"];

/// Runs and signals; returns the run's exit code.
pub(super) fn execute(target: &Target, within: Duration, manifest: &cli::Manifest) -> Result<u8> {
    let mut arguments = std::env::args_os().skip(1).collect();
    drop(take_options(&mut arguments));
    supervise(&arguments, target, within, manifest).or_else(|error| {
        // Not silent even where there is nothing to supervise.
        let word = Word::of(&error);
        let speaker = Speaker::new(target, manifest)?;
        speaker.write_block(&word);
        speaker.signal(&speaker.failure(&word, Some("supervisor")), PATIENCE);
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
        && let Some(Ok(target)) = named.map(|(_, value)| value.to_string_lossy().parse::<Target>())
    {
        let text = usage.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let error = Fault::new("the command line can't be read").hint("glovo-bootstrap run --help");
        let word = Word::of(&error.caused_by(anyhow::anyhow!(first.to_owned())).into());
        match Speaker::new(&target, &cli::Manifest::default()) {
            Ok(speaker) => {
                speaker.write_block(&word);
                speaker.signal(&speaker.failure(&word, Some("usage")), PATIENCE);
            }
            Err(error) => complain(&error::render(&error)),
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

fn supervise(arguments: &[OsString], target: &Target, within: Duration, manifest: &cli::Manifest) -> Result<u8> {
    let interrupt = Interrupt::install()?;
    let mut run = Supervised::start(arguments)?;
    let event = run.wait(within, &interrupt)?;
    let speaker = Speaker::new(target, manifest)?;
    let (status, why) = match event {
        Event::Ended(status) => (status, Why::of(status)),
        Event::Late => {
            run.stop();
            let message = format!("the run did not end within {}", spoken(within));
            let hint =
                "see what it waited for; or give it more time: --signal-within, and the stack's own timeout".into();
            (run.end()?, Some(Why { word: "deadline", message, hint }))
        }
        Event::Stopped(_) => {
            run.stop();
            let error = interrupt.check().err().context("no signal")?;
            let word = error.to_string().rsplit(' ').next().unwrap_or_default().to_owned();
            speaker.signal(&speaker.failure(&run.last_word(), Some(&word)), HASTE);
            let status = run.end()?;
            speaker.write_block(&run.last_word());
            return Ok(supervisor::exit_code(status));
        }
    };
    let mut word = run.last_word();
    let code = supervisor::exit_code(status);
    if code == 0 && word.error.is_none() {
        speaker.signal(&Verdict::Success, PATIENCE);
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
    speaker.signal(&speaker.failure(&word, why.as_ref().map(|why| why.word)), PATIENCE);
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
    target: Target,
    build: Option<String>,
    secrets: Vec<(String, String)>,
}

impl Speaker {
    /// Signals that have come so far don't stop it, the next one does.
    fn new(target: &Target, manifest: &cli::Manifest) -> Result<Self> {
        let system = System::open(Path::new("/"), Mode::Plan, Interrupt::install()?)?;
        let build = manifest.set.iter().rev().find_map(|set| set.strip_prefix("build=")).map(Into::into);
        Ok(Self { system, target: target.clone(), build, secrets: secrets(manifest) })
    }

    fn failure(&self, word: &Word, how: Option<&str>) -> Verdict {
        let step = word.step.as_deref().map(|step| redact::shown(step, &self.secrets));
        Verdict::Failure { step, how: how.map(Into::into) }
    }

    fn signal(&self, verdict: &Verdict, patience: Duration) {
        let Self { system, target, .. } = self;
        match system.signal_resource(target, verdict, patience) {
            Ok(Acknowledged::Taken(id)) => say(&format!("signalled {} to {target} as {id}", verdict.status())),
            Ok(Acknowledged::NobodyWaits(words)) => {
                tracing::warn!("nobody waits for the signal {} to {target}: {words}", verdict.status());
            }
            Err(error) => complain(&error::render(&error)),
        }
    }

    /// Says why, to standard error and the console.
    fn write_block(&self, word: &Word) {
        let instance = ec2::instance_id().or_else(|| self.system.instance("id").ok());
        let block = Block::new(instance, self.build.as_deref(), word, &self.secrets);
        let text = block.to_string();
        complain(&text);
        console::print(&text);
    }
}

/// The variables that come from files, where secrets are: the values of others are arguments, which all can see.
fn secrets(manifest: &cli::Manifest) -> Vec<(String, String)> {
    let mut variables = Variables::new(|_| None);
    for file in &manifest.variables {
        if let Ok(text) = variables_file(file) {
            // What is wrong with it the run has said.
            drop(variables.give_all(&text));
        }
    }
    variables.given().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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
