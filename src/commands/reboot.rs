//! A reboot in the middle of a run: the unit that resumes the run, and the order to reboot.

use std::time::Duration;

use anyhow::{Context, Result};
use time::OffsetDateTime;

use super::{
    install,
    record::{self, Record, Told},
    signal::Receivers,
};
use crate::{
    cli,
    error::{self, Class, Fault},
    host::command::Program,
    manifest::Manifest,
    run::{
        reboot::{PendingRun, PendingSignal, RebootNote},
        report::Report,
        selection::Selection,
        supervisor::{self, RunMessage, is_supervised},
        warm_pool::WarmPoolNote,
    },
    system::{Phase, System},
    view::say,
};

/// The unit that runs the steps at each boot.
pub(super) const UNIT: &str = "glovo-bootstrap.service";
/// How long a machine may take to end its services and this process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_mins(10);

/// Fails if a step may reboot the machine, or it enters a warm pool, and the unit could not run the steps after the boot.
pub(super) fn check(
    system: &System,
    manifest: &Manifest,
    selection: &Selection,
    arguments: &cli::ManifestArgs,
) -> Result<()> {
    if !system.is_live() || system.phase() != Phase::Boot {
        return Ok(());
    }
    let mut is_picked = selection.picker();
    let mut picked = manifest.steps.iter().filter(|step| is_picked(&step.name));
    let what = match picked.find(|step| step.reboot && step.not_here.is_none()) {
        Some(step) => format!("step {} may reboot the machine, and {UNIT} could not resume the run", step.name),
        None if system.is_warmed() => {
            format!("this machine enters a warm pool, and {UNIT} could not run the steps when it leaves the pool")
        }
        None => return Ok(()),
    };
    let refused = |why: &str| Fault::new(format!("{what}: {why}")).invalid();
    let of_this_run = record::complete(system, arguments.clone(), Told::Not)?;
    let later = record::complete(system, cli::ManifestArgs::default(), Told::Not);
    let is_same = later.and_then(|later| {
        Ok(Record::of(&of_this_run, system, record::INSTALL)?.has_manifest_of(&Record::of(
            &later,
            system,
            record::INSTALL,
        )?))
    });
    match is_same {
        Ok(true) => {}
        Ok(false) => {
            let hint = "record the manifest and its variables: add --record to this run, or name them with \
                        glovo-bootstrap install";
            return Err(refused("a run without arguments uses another manifest or other variables").hint(hint).into());
        }
        Err(error) => return Err(refused("a run without arguments finds no manifest").caused_by(error).into()),
    }
    if system.host.unit_file(UNIT)?.is_none() {
        install::check_caller("install").map_err(|error| refused("the unit cannot be installed").caused_by(error))?;
    }
    Ok(())
}

/// Returns what a signal owes after the reboot.
pub(super) fn pending_signal(receivers: &Receivers, left: Duration) -> PendingSignal {
    PendingSignal {
        target: receivers.target.to_string(),
        hook: receivers.hook.as_ref().map(ToString::to_string),
        failures: receivers.failures.as_ref().map(ToString::to_string),
        seconds: left.as_secs(),
        ordered: OffsetDateTime::now_utc().unix_timestamp(),
    }
}

/// Returns the receivers of a resumed run's outcome, and the time that the run still has.
pub(super) fn receivers(signal: &PendingSignal) -> Result<(Receivers, Duration)> {
    let hook = signal.hook.as_ref().map(|hook| hook.parse()).transpose()?;
    let failures = signal.failures.as_ref().map(|place| place.parse()).transpose()?;
    // A clock that was set back must not give more time than there was.
    let passed = OffsetDateTime::now_utc().unix_timestamp().saturating_sub(signal.ordered);
    let left = signal.seconds.saturating_sub(u64::try_from(passed).unwrap_or_default());
    Ok((Receivers { target: signal.target.parse()?, hook, failures }, Duration::from_secs(left.max(1))))
}

/// Reboots the machine after a run that needs it. Returns the exit code once this process is told to end.
///
/// # Errors
/// If the unit cannot be enabled, or the machine does not reboot. The report says so then.
pub(super) fn reboot(system: &System, signal: Option<PendingSignal>) -> Result<u8> {
    order(system, signal).inspect_err(|error| {
        let failed = fail(system, error);
        if let Err(error) = failed {
            tracing::warn!("the report of the run still says that the machine reboots: {error:#}");
        }
    })
}

fn order(system: &System, signal: Option<PendingSignal>) -> Result<u8> {
    let mut note = RebootNote::read(system)?;
    let pending = note.pending.as_mut().context("the note on the reboot is lost")?;
    pending.signal = signal;
    let why = pending.why.clone();
    put_unit(system)?;
    pending.has_enabled_unit |= !system.host.unit(UNIT)?.is_enabled();
    note.write(system)?;
    _ = enable_unit(system)?;
    say(format!("rebooting: {why}; {UNIT} resumes the run after the boot"));
    let reboot = Program::new(["systemctl", "reboot"]);
    let ordered = system.host.run_checked(&reboot).and_then(|_| system.host.stop.wait(SHUTDOWN_TIMEOUT));
    match ordered {
        Ok(()) => {
            let fault = Fault::new("the machine was told to reboot, but still runs after 10 minutes");
            Err(fault.hint("find the service that does not end: systemctl list-jobs").into())
        }
        // The shutdown ends this process, maybe before systemctl has returned.
        Err(stopped) if matches!(error::class(&stopped), Class::Interrupted(_)) => Ok(error::exit_code(&stopped)),
        Err(error) => Err(error),
    }
}

/// Puts the unit in place that runs the steps at the next boot.
fn put_unit(system: &System) -> Result<()> {
    if system.host.unit_file(UNIT)?.is_none() {
        _ = install::put(system, &|line| say(line))?;
        system.host.daemon_reload()?;
    }
    Ok(())
}

/// Has the unit run the steps at the next boot. Returns whether it was disabled.
pub(super) fn enable_unit(system: &System) -> Result<bool> {
    put_unit(system)?;
    let is_enabled = system.host.unit(UNIT)?.is_enabled();
    if !is_enabled {
        system.host.set_enabled(UNIT, true)?;
    }
    Ok(!is_enabled)
}

/// Reports a reboot that was not made. The run is over, and nothing resumes it with a signal.
fn fail(system: &System, error: &anyhow::Error) -> Result<()> {
    let mut note = RebootNote::read(system)?;
    if let Some(pending) = &mut note.pending {
        pending.signal = None;
    }
    note.write(system)?;
    let Some(mut report) = Report::read(system)? else { return Ok(()) };
    report.reboot = None;
    report.notes.push(format!("the machine was not rebooted: {error:#}"));
    report.end(Duration::from_millis(report.milliseconds), 1);
    report.write(system)
}

/// Returns the run that this one resumes after a reboot, and takes over which steps it runs.
///
/// Only a run without arguments resumes another one, as the unit starts it.
pub(super) fn resume(
    system: &System,
    selection: &mut cli::SelectionArgs,
    manifest: &cli::ManifestArgs,
) -> Result<Option<PendingRun>> {
    if !is_of_unit(system, selection, manifest) {
        return Ok(None);
    }
    let Some(pending) = RebootNote::resumed(system)? else { return Ok(None) };
    let Selection { only, from, skip } = pending.selection.clone();
    *selection = cli::SelectionArgs { only, from, skip };
    if pending.signal.is_none() || is_supervised() {
        say(format!("resuming the run after the reboot of step {}: {}", pending.step, pending.why));
    }
    Ok(Some(pending))
}

/// Returns whether a run has no arguments and so is the whole run of this machine, as the unit starts it.
pub(super) fn is_of_unit(system: &System, selection: &cli::SelectionArgs, manifest: &cli::ManifestArgs) -> bool {
    let has_arguments = selection.is_partial() || manifest.steps.is_some() || manifest.has_variables();
    !has_arguments && system.root().is_host() && system.phase() == Phase::Boot
}

/// Begins the reboot that the run has noted, or leaves it to the supervisor, which knows of the signal.
pub(super) fn begin(system: &System) -> Result<u8> {
    if is_supervised() {
        supervisor::tell(&RunMessage { reboots: true, ..RunMessage::default() });
        return Ok(0);
    }
    reboot(system, None)
}

/// Ends a resumed run: the unit is enabled only if it was so before, or if the start from a warm pool needs it.
pub(super) fn end(system: &System) -> Result<()> {
    let has_enabled_unit = RebootNote::read(system)?.pending.is_some_and(|pending| pending.has_enabled_unit);
    if has_enabled_unit && WarmPoolNote::of_this_boot(system).is_none() {
        system.host.set_enabled(UNIT, false)?;
    }
    RebootNote::end(system)
}

/// Ends the run that a reboot of an earlier boot has interrupted, if there is one.
pub(super) fn end_resumed(system: &System) -> Result<()> {
    if RebootNote::resumed(system)?.is_some() { end(system) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resumed_run_has_the_receivers_of_the_interrupted_one() {
        let receivers = Receivers {
            target: "app/Group".parse().unwrap(),
            hook: Some("app-group/launching".parse().unwrap()),
            failures: Some("s3://artifacts/app.failures".parse().unwrap()),
        };
        let pending = pending_signal(&receivers, Duration::from_mins(1));
        let kept: PendingSignal = serde_json::from_str(&serde_json::to_string(&pending).unwrap()).unwrap();
        assert_eq!(self::receivers(&kept).unwrap().0, receivers);
        // As an earlier version has kept it.
        let kept = r#"{ "target": "app/Group", "hook": null, "seconds": 60, "ordered": 0 }"#;
        let (read, _) = self::receivers(&serde_json::from_str(kept).unwrap()).unwrap();
        assert_eq!(read, Receivers { hook: None, failures: None, ..receivers });
    }
}
