//! `run --converge`: the units that run the recorded manifest at each boot and every hour.

use anyhow::Result;

use super::{install, reboot::UNIT as BOOT_UNIT};
use crate::{
    error::{self, Class, Fault},
    host::command::Program,
    manifest::vault::CONVERGE_TIMER,
    run::report::Report,
    system::System,
    view::{complain, count, say},
};

/// The exit code of a temporary failure.
const TEMPORARY: u8 = 75;

/// Puts the units in place and enables them. The timer starts at once; its first run is an hour after the boot.
///
/// This comes before the first step, so that a machine whose first run was cut off converges, too.
///
/// # Errors
/// If systemd does not run here, or if the units would start another program.
pub(super) fn enable(system: &System) -> Result<()> {
    if !system.is_live() {
        let message = format!("no unit can run the steps again: {}", system.why_not_live());
        return Err(Fault::new(message).hint("leave out --converge").invalid().into());
    }
    if !install::is_packaged()? {
        install::check_caller("run --converge")?;
        let number = install::put(system, &|line| tracing::debug!("{line}"))?;
        if number > 0 {
            say(format!("installed units, manual pages and completions: {}", count(number, "change")));
        }
        // Also without a change: an earlier run may have ended before this.
        system.host.daemon_reload()?;
    }
    for unit in [BOOT_UNIT, CONVERGE_TIMER] {
        if let Some(mask) = system.host.mask_of(unit)? {
            complain(format!("warning: {unit} is masked by {mask}, and stays so"));
            continue;
        }
        if !system.host.unit(unit)?.is_enabled() {
            system.host.set_enabled(unit, true)?;
            say(format!("enabled {unit}"));
        }
        if unit == CONVERGE_TIMER {
            start(system, unit)?;
        }
    }
    system.forget();
    Ok(())
}

/// Makes the boot's unit try again what failed for the time being. Its runs do not signal.
pub(super) fn try_again(system: &System, ran: &Result<Report>) {
    let is_temporary = match ran {
        Ok(report) => report.exit_code == Some(TEMPORARY),
        Err(error) => error::class(error) == Class::Transient,
    };
    if !is_temporary {
        return;
    }
    match start(system, BOOT_UNIT) {
        Ok(()) => say(format!("{BOOT_UNIT} tries again; to follow it: glovo-bootstrap status --wait")),
        Err(error) => tracing::warn!("{BOOT_UNIT} does not try again before the next boot: {error:#}"),
    }
}

/// Starts a unit. Its job may wait for the end of the boot, which waits for this process.
fn start(system: &System, unit: &str) -> Result<()> {
    system.host.run_checked(&Program::new(["systemctl", "start", "--no-block", unit])).map(drop)
}
