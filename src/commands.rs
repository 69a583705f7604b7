//! The subcommands: each function executes one.

mod again;
mod bake;
mod converge;
mod deploy;
mod fetch;
mod first_boot;
mod install;
mod last_run;
mod reboot;
mod record;
mod refusal;
mod signal;
mod status;
mod steps;
mod summary;
mod user_data;
mod variables;
mod warm_pool;

use std::{cell::RefCell, io::IsTerminal, path::Path, rc::Rc};

use anyhow::{Context, Result};

use crate::{
    aws::{
        account::{AwsSettings, CallerKind},
        login::{Person, Prompt},
    },
    cli::{self, Command},
    diagnostic::Faults,
    environment,
    error::{self, Fault},
    host::{process, state},
    image,
    manifest::{self, Manifest, location::Location, places::near_misses, schema, texts::Texts, vault::CONVERGE_TIMER},
    manual,
    net::settings::NetworkSettings,
    redaction,
    run::{
        engine,
        lock::MachineLock,
        one_path,
        reboot::RebootNote,
        report::{Report, last_run::LastRun, replaced, unbegun::UnbegunRun},
        selection::Selection,
        supervisor::{self, RunMessage, is_supervised},
        warm_pool::WarmPoolNote,
    },
    stop::Interrupt,
    system::{Mode, Phase, System},
    value::quoted,
    view::{self, complain, count, say, say_document, say_json},
    visible::Shown,
};

pub use self::signal::refuse;
use self::{
    last_run::Teller,
    refusal::{Refused, RefusedPlan},
    variables::{read_everywhere, unused, variables_of},
};

/// Executes a command line; returns the exit code.
pub fn execute(command: Command) -> Result<u8> {
    match command {
        Command::Run(arguments) => run_steps(arguments),
        Command::Bake { selection, manifest, target, seal } => {
            let system = open(&target.root, Mode::Run, Some(Phase::Bake))?;
            system.host.set_run_command(again::command(&manifest, false));
            bake::execute(&system, &manifest, &selection, &seal)
        }
        Command::Plan(arguments) => plan_steps(arguments),
        Command::Validate { manifest } => {
            let system = open(Path::new("/"), Mode::Plan, None)?;
            let (manifest, location) = load(&system, &manifest, &Reading::Check)?;
            let resources: usize = manifest.steps.iter().map(|step| step.resources.len()).sum();
            for note in near_misses(&manifest) {
                complain(format!("note: {note}"));
            }
            let (steps, resources) = (count(manifest.steps.len(), "step"), count(resources, "resource"));
            say(format!("{location}: valid, {steps} with {resources}"));
            Ok(0)
        }
        Command::Steps(command) => steps::execute(command),
        Command::Status(arguments) => status::execute(&arguments),
        Command::Fetch(arguments) => fetch::execute(arguments),
        Command::UserData(arguments) => user_data::execute(&arguments),
        Command::Deploy(arguments) => deploy::execute(*arguments),
        Command::Install { manifest } => install::install(&manifest),
        Command::Uninstall => install::uninstall(),
        Command::Schema => {
            say_document(&serde_json::to_string_pretty(&schema::json_schema()).context("writing JSON")?);
            Ok(0)
        }
        Command::FirstBoot(verb) => first_boot::execute(verb),
        Command::Completions { shell } => {
            say_document(manual::completions(shell).trim_end());
            Ok(0)
        }
    }
}

fn run_steps(arguments: cli::RunArguments) -> Result<u8> {
    let cli::RunArguments { mut selection, mut manifest, target, purpose, signal, record, converge } = arguments;
    let cli::Signal { signal, signal_within, lifecycle_hook: hook, failures } = signal;
    if let Some(target) = signal {
        return signal::execute(&signal::Receivers { target, hook, failures }, signal_within.0, &manifest);
    }
    let system = open(&target.root, Mode::Run, purpose.phase)?;
    let record = record || converge;
    let resumed = if record { None } else { reboot::resume(&system, &mut selection, &manifest)? };
    let owed = match &resumed {
        Some(run) => run.signal.clone(),
        None if record => None,
        None => warm_pool::owed(&system, &selection, &manifest),
    };
    if let Some(signal) = owed.filter(|_| !is_supervised()) {
        return signal::resume(&system, &signal, &manifest);
    }
    // Only the run that holds the machine's lock may replace its record.
    let lock = if record { Some(MachineLock::take(system.root())?) } else { None };
    let is_recorded = record && record::keep(&system, &mut manifest, record::USER_DATA, failures.as_ref())?;
    system.host.set_run_command(again::command(&manifest, is_recorded));
    if converge {
        converge::enable(&system)?;
    }
    let teller = Teller::of(&system, &selection, &manifest, failures);
    let (_lock, ran) = match run(&system, &manifest, &selection, lock) {
        Ok((lock, _, report)) => (Some(lock), Ok(report)),
        Err(error) => {
            if !selection.is_partial() {
                UnbegunRun::keep(&system, &error);
            }
            (None, Err(error))
        }
    };
    if let Some(teller) = teller {
        teller.tell(&system, &ran);
    }
    if converge {
        converge::try_again(&system, &ran);
    }
    let report = ran?;
    if let Some(needed) = &report.reboot {
        RebootNote::order(&system, needed, Selection::from(&selection))?;
        return reboot::begin(&system);
    }
    if resumed.is_some() && !is_supervised() {
        reboot::end(&system)?;
    }
    supervisor::tell(&RunMessage { ended: LastRun::of(&report, None), ..RunMessage::default() });
    // The start from a warm pool makes the changes that are deferred until then.
    if report.exit_code == Some(0) && report.changes(true) > 0 && !system.is_warmed() {
        supervisor::tell(&RunMessage::unproven(&report));
    }
    Ok(report.exit_code.unwrap_or(1))
}

fn plan_steps(arguments: cli::PlanArguments) -> Result<u8> {
    let cli::PlanArguments { selection, manifest: arguments, target, purpose, detailed_exitcode, json } = arguments;
    let system = open(&target.root, Mode::Plan, purpose.phase)?;
    system.host.set_run_command(again::command(&arguments, false));
    let prepared = prepare(&system, &arguments, &selection);
    let (manifest, selection) = prepared.inspect_err(|error| {
        _ = json.then(|| say_json(&RefusedPlan::of(error)));
    })?;
    // Only `run` can record its manifest, so this is no error of a plan.
    if let Err(error) = reboot::check(&system, &manifest, &selection, &arguments) {
        complain(Shown::lines(&format!("note: `run` will refuse this: {}", error::render(&error).trim_end())));
    }
    // Guards of commands run in an image's tree, as in a run.
    image::mounts::prepare(system.root())?;
    let view = if json { Rc::new(RefCell::new(view::run::Silent)) } else { view::run::choose(Mode::Plan) };
    let report = engine::run(&manifest, &selection, &system, view)?;
    if json {
        say_json(&report)?;
    }
    match report.exit_code.unwrap_or(1) {
        0 if detailed_exitcode && report.changes(false) > 0 => Ok(3),
        code => Ok(code),
    }
}

/// Returns the person who has called a command for an operator's machine, and who can be asked only at a terminal.
fn person(interrupt: Interrupt) -> CallerKind {
    let ask = move |question: &str| {
        view::ask(question);
        interrupt.read_line(&mut std::io::stdin().lock())
    };
    CallerKind::Person(Person::new(std::io::stdin().is_terminal().then(|| Prompt::new(ask))))
}

/// Opens the machine or image. A root that cannot be opened is an invalid argument.
fn open(root: &Path, mode: Mode, phase: Option<Phase>) -> Result<Rc<System>> {
    process::use_usual_umask();
    let system = System::open(root, mode, Interrupt::install()?);
    let mut system = system.map_err(|error| {
        let fault = Fault::new(format!("cannot open --root {}", quoted(&root.to_string_lossy())));
        fault.hint("name the directory where the image is mounted").invalid().caused_by(error)
    })?;
    let phase = match (phase, system.root().is_host()) {
        (Some(Phase::Boot), false) => {
            let fault = Fault::new("an image's tree does not boot: --phase boot is for the machine that runs");
            return Err(fault.hint("leave out --root or --phase").invalid().into());
        }
        (phase, is_host) => phase.unwrap_or(if is_host { Phase::Boot } else { Phase::Bake }),
    };
    system.set_phase(phase);
    if phase == Phase::Boot && WarmPoolNote::of_this_boot(&system).is_some() {
        system.set_warmed();
    }
    if mode == Mode::Run {
        system.connect(NetworkSettings::patient(), AwsSettings::default());
    }
    Ok(Rc::new(system))
}

/// Runs the steps on the machine or image. The lock keeps other runs away; it is taken unless it is given.
fn run(
    system: &Rc<System>,
    manifest: &cli::ManifestArgs,
    selection: &cli::SelectionArgs,
    lock: Option<MachineLock>,
) -> Result<(MachineLock, Manifest, Report)> {
    let arguments = manifest;
    let (manifest, selection) = prepare(system, arguments, selection)?;
    reboot::check(system, &manifest, &selection, arguments)?;
    let lock = lock.map_or_else(|| MachineLock::take(system.root()), Ok)?;
    replaced::keep(system)?;
    if let Err(error) = state::sweep(system.root()) {
        tracing::debug!("temporary files of earlier runs stay: {error:#}");
    }
    image::mounts::prepare(system.root())?;
    let report = engine::run(&manifest, &selection, system, view::run::choose(Mode::Run))?;
    Ok((lock, manifest, report))
}

impl cli::SelectionArgs {
    /// Returns whether they leave out a step.
    pub fn is_partial(&self) -> bool {
        !self.only.is_empty() || self.from.is_some() || !self.skip.is_empty()
    }
}

impl From<&cli::SelectionArgs> for Selection {
    fn from(arguments: &cli::SelectionArgs) -> Self {
        let cli::SelectionArgs { only, from, skip } = arguments;
        Self { only: only.clone(), from: from.clone(), skip: skip.clone() }
    }
}

/// Fails if the tree is that of no system: an image that is not mounted would be made with success.
fn refuse_empty_tree(system: &System) -> Result<()> {
    let root = system.root();
    if root.is_host() || root.status(&"/etc".into())?.is_some() {
        return Ok(());
    }
    let fault = Fault::new("the tree of --root holds no system: it has no /etc");
    Err(fault.hint("mount the image there first").invalid().into())
}

fn prepare(
    system: &Rc<System>,
    manifest: &cli::ManifestArgs,
    selection: &cli::SelectionArgs,
) -> Result<(Manifest, Selection)> {
    refuse_empty_tree(system)?;
    let selection = Selection::from(selection);
    let (manifest, _) = load(system, manifest, &Reading::Use(&selection))?;
    selection.check(&manifest)?;
    one_path::check(&manifest, system)?;
    Ok((manifest, selection))
}

/// Finds and reads the texts of a manifest. Every fault in them is invalid input.
fn find(system: &System, named: Option<&str>) -> Result<(Texts, Location)> {
    let location = Location::choose(named).map_err(invalid)?;
    let texts = location.read(system).map_err(invalid)?;
    Ok((texts, location))
}

/// The purpose of reading a manifest.
enum Reading<'a> {
    /// Validation on any machine: facts are unknown, unless `--set` supposes them.
    Check,
    /// Validation for machines that a deploy starts; `converge` tells whether they run the steps again and again.
    Deploy { converge: bool },
    /// Planning or running these steps. The other steps need no variables.
    Use(&'a Selection),
}

/// Reads a manifest with its variables, or prints all of its faults.
fn load(system: &Rc<System>, given: &cli::ManifestArgs, reading: &Reading<'_>) -> Result<(Manifest, Location)> {
    let arguments = &record::complete(system, given.clone(), record::Told::InALine)?;
    again::keep_places(arguments, system.root().path());
    let (texts, location) = find(system, arguments.steps.as_deref())?;
    if matches!(reading, Reading::Use(_)) && !again::names_steps() {
        match (&given.steps, &arguments.steps, &location) {
            (Some(_), ..) => complain(format!("using {location}, which {} names", environment::STEPS)),
            (None, None, Location::Path(_)) => complain(format!("using {location}")),
            _ => {}
        }
    }
    let asks = matches!(reading, Reading::Use(_));
    let (mut variables, mut faults) = variables_of(system, arguments, &texts, asks)?;
    redaction::install(variables.redaction());
    let is_repeated = || match reading {
        Reading::Deploy { converge } => *converge,
        _ => system.host.is_enabled_offline(CONVERGE_TIMER).unwrap_or_default(),
    };
    match manifest::vault::settings(&texts, is_repeated) {
        Ok(settings) => system.use_vault(settings),
        Err(more) => faults.extend(more),
    }
    let mut picker = match reading {
        Reading::Check | Reading::Deploy { .. } => None,
        Reading::Use(selection) => Some(selection.picker()),
    };
    let mut picks = |step: &str| picker.as_mut().is_none_or(|picks| picks(step));
    let parsed = manifest::parse(&texts.steps, &mut variables, system.phase(), &mut picks);
    let manifest = match parsed {
        Ok(mut manifest) if !asks => {
            faults.extend(read_everywhere(&texts, &mut variables, &mut manifest));
            manifest
        }
        Ok(manifest) => manifest,
        Err(more) => {
            faults.extend(more);
            return Err(wrong(&faults, &location));
        }
    };
    if !faults.is_empty() {
        return Err(wrong(&faults, &location));
    }
    if !texts.ignored.is_empty() {
        let names = texts.ignored.join(", ");
        complain(format!(
            "warning: these files in {location} are no steps, since their names do not end in .toml: {names}"
        ));
    }
    for warning in manifest.warnings.iter().chain(&variables.nested()).chain(&unused(system, &manifest, &variables)) {
        complain(Shown::lines(&format!("{}\n", warning.as_warning())));
    }
    system.set_variables(Rc::new(variables));
    Ok((manifest, location))
}

/// Prints the faults and returns an error with their number.
///
/// The first fault is the error's cause, because a signal or a report carries only the error.
fn wrong(faults: &Faults, location: &Location) -> anyhow::Error {
    for fault in faults.shown() {
        complain(Shown::lines(&format!("{fault}\n")));
    }
    if faults.more() > 0 {
        complain(format!("and {}", count(faults.more(), "more fault")));
    }
    let number = count(faults.count(), "fault");
    let fault = Fault::new(format!("{location}: invalid manifest, {number}; nothing was changed")).invalid();
    fault.caused_by(Refused(faults.shown().to_vec())).causes_were_shown().into()
}

fn invalid(error: anyhow::Error) -> anyhow::Error {
    unreadable("the manifest", error)
}

/// Returns the error of input that cannot be read. A temporary failure is not the input's.
fn unreadable(what: &str, error: anyhow::Error) -> anyhow::Error {
    match crate::error::class(&error) {
        crate::error::Class::Permanent => {
            Fault::new(format!("{what} cannot be read; nothing was changed")).invalid().caused_by(error).into()
        }
        _ => error,
    }
}
