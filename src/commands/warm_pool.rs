//! Machines of a warm pool: their launching hook waits at the first boot, and again at the start from the pool.

use std::{path::Path, time::Duration};

use anyhow::Result;
use time::OffsetDateTime;

use super::{
    open,
    reboot::{self, UNIT},
    signal::Receivers,
};
use crate::{
    cli,
    error::Fault,
    run::{
        reboot::{PendingSignal, RebootNote},
        warm_pool::WarmPoolNote,
    },
    system::{Mode, System},
    view::say,
};

/// The start of the target states of machines that enter a pool.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html>
const WARMED: &str = "Warmed:";

/// Asks, before a run that completes a hook, whether the machine enters a warm pool. If so, it notes what the start from the
/// pool owes.
///
/// # Errors
/// If the pool's machines do not boot when they leave it, or the note cannot be written.
pub(super) fn begin(receivers: &Receivers, within: Duration) -> Result<()> {
    if receivers.hook.is_none() {
        return Ok(());
    }
    let system = open(Path::new("/"), Mode::Run, None)?;
    // The metadata are not asked again, since they could still say what they said before the stop.
    let earlier = WarmPoolNote::of_earlier_boot(&system);
    if earlier.as_ref().is_some_and(|note| note.is_prepared) {
        return Ok(());
    }
    let state = system.instance("lifecycle_state").unwrap_or_else(|error| {
        if earlier.is_some() {
            tracing::warn!("this machine entered a warm pool before its reboot, and is treated so: {error:#}");
            return format!("{WARMED}Stopped");
        }
        tracing::warn!(
            "cannot tell whether this machine enters a warm pool, so it is treated as one that serves: {error:#}"
        );
        String::new()
    });
    match state.strip_prefix(WARMED) {
        None if WarmPoolNote::of_this_boot(&system).is_some() => WarmPoolNote::remove(&system),
        None => Ok(()),
        Some(state @ ("Running" | "Hibernated")) => {
            let message = format!(
                "the warm pool keeps machines in the state {state}, in which they do not boot when they leave the pool: \
                 nothing would complete the hook then"
            );
            Err(Fault::new(message).hint("set PoolState: Stopped in the AWS::AutoScaling::WarmPool").invalid().into())
        }
        Some(_) => {
            say("preparing this machine for a warm pool: services and checks wait for its start from the pool");
            // After a reboot, only a part of the time is left. The start from the pool has all of it.
            let signal = earlier.map_or_else(|| reboot::pending_signal(receivers, within), |note| note.signal);
            WarmPoolNote::new(&system, signal).write(&system)
        }
    }
}

/// Makes the boot's unit run the steps and complete the hook when this machine leaves the pool.
pub(super) fn wait_for_start() -> Result<()> {
    let system = open(Path::new("/"), Mode::Run, None)?;
    let Some(mut note) = WarmPoolNote::of_this_boot(&system) else { return Ok(()) };
    let has_rebooted = RebootNote::read(&system)?.pending.is_some_and(|pending| pending.has_enabled_unit);
    note.has_enabled_unit = reboot::enable_unit(&system)? || has_rebooted;
    note.is_prepared = true;
    note.write(&system)?;
    // Auto Scaling may stop the machine as soon as the hook is completed.
    reboot::end_resumed(&system)
}

/// Returns what the unit's run owes after the start from a pool.
pub(super) fn owed(
    system: &System,
    selection: &cli::SelectionArgs,
    manifest: &cli::ManifestArgs,
) -> Option<PendingSignal> {
    let note = reboot::is_of_unit(system, selection, manifest).then(|| WarmPoolNote::of_earlier_boot(system))??;
    // The hook waits anew.
    Some(PendingSignal { ordered: OffsetDateTime::now_utc().unix_timestamp(), ..note.signal })
}

/// Forgets the pool after the run of a machine that has left it, but not while that run waits for a reboot.
pub(super) fn end(system: &System) -> Result<()> {
    let Some(note) = WarmPoolNote::of_earlier_boot(system) else { return Ok(()) };
    if RebootNote::read(system)?.pending.is_some() {
        return Ok(());
    }
    if note.has_enabled_unit {
        system.host.set_enabled(UNIT, false)?;
    }
    WarmPoolNote::remove(system)
}
