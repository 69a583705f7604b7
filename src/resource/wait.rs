//! The wait of the kinds `http_check` and `tcp_check`: a question is asked until its answer is the expected one.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::system::System;

/// The first pause between two questions. Each later one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two questions.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// From this pause on, the states of the services are checked as well, because that needs a process.
const MIN_PAUSE_FOR_UNITS: Duration = Duration::from_millis(100);

/// Asks until the answer is right. Returns what is still wrong at the deadline; `None` if the answer is right.
///
/// # Errors
/// If a service that this run has started ends, or if the run is stopped.
pub(super) fn wait_until<W: Display>(
    system: &System,
    title: &str,
    deadline: Duration,
    ask: impl Fn(&System) -> Option<W>,
) -> Result<Option<W>> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    while let Some(wrong) = ask(system) {
        if Instant::now() >= end {
            return Ok(Some(wrong));
        }
        if pause >= MIN_PAUSE_FOR_UNITS {
            system.host.check_started()?;
        }
        system.host.progress(&format!("{title}: {wrong}"));
        system.host.stop.wait(pause)?;
        pause = (pause * 3 / 2).min(MAX_PAUSE);
    }
    Ok(None)
}
