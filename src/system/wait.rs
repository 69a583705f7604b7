//! The wait of the kinds `http_check` and `tcp_check`: a question is asked until its answer is the expected one.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::System;

/// The first pause between two questions. Each later one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two questions.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// From this pause on, the states of the services are checked as well, because that needs a process.
const MIN_PAUSE_FOR_UNITS: Duration = Duration::from_millis(100);

/// The time that a check has. It begins with the first question, which the plan asks.
#[derive(Debug, Clone, Copy)]
pub struct CheckDeadline {
    began: Instant,
    deadline: Duration,
}

impl CheckDeadline {
    /// Begins the wait.
    pub fn begin(deadline: Duration) -> Self {
        Self { began: Instant::now(), deadline }
    }

    /// Returns the most time that the first question may take.
    ///
    /// A deadline of zero means one question, without a limit of its own.
    pub fn first_limit(self) -> Duration {
        if self.deadline.is_zero() { Duration::MAX } else { self.deadline }
    }

    fn left(self) -> Duration {
        self.deadline.saturating_sub(self.began.elapsed())
    }

    /// Asks again until the answer is right. A long wait is told. Returns what is still wrong at the deadline; `None` if the answer is right.
    ///
    /// `wrong` is the result of the first question. `ask` is called with the time that is left. A question that the
    /// deadline has cut short has no result; that of the question before it is returned.
    ///
    /// # Errors
    /// If a service that this run has started ends, or if the run is stopped.
    pub fn until_right<W: Display>(
        self,
        system: &System,
        title: &str,
        mut wrong: W,
        ask: impl Fn(&System, Duration) -> Option<W>,
    ) -> Result<Option<W>> {
        let mut pause = FIRST_PAUSE;
        let mut wait = system.host.begin_wait();
        loop {
            if pause >= MIN_PAUSE_FOR_UNITS {
                system.host.check_started()?;
            }
            wait.show(&format!("waiting for {title}: {wrong}"), Some(self.left()));
            system.host.stop.wait(pause.min(self.left()))?;
            let left = self.left();
            if left.is_zero() {
                return Ok(Some(wrong));
            }
            match ask(system, left) {
                None => return Ok(None),
                Some(_) if self.left().is_zero() => return Ok(Some(wrong)),
                Some(now) => wrong = now,
            }
            pause = (pause * 3 / 2).min(MAX_PAUSE);
        }
    }
}
