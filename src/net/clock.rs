//! The time by which retries are spaced: the machine's, or in a test one that a pause moves on at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A clock that never goes back, and the pauses by it.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The machine's, since this moment.
    Machine(Instant),
    /// Milliseconds that tests have let pass.
    #[cfg_attr(not(any(test, fuzzing)), expect(dead_code, reason = "only tests simulate time"))]
    Simulated(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Machine(Instant::now())
    }
}

impl Clock {
    /// Time since the clock was made.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Machine(start) => start.elapsed(),
            Self::Simulated(now) => Duration::from_millis(now.load(Ordering::Relaxed)),
        }
    }

    /// Waits so long.
    pub(crate) async fn sleep(&self, pause: Duration) {
        match self {
            Self::Machine(_) => tokio::time::sleep(pause).await,
            Self::Simulated(now) => {
                let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                _ = now.fetch_add(pause, Ordering::Relaxed);
            }
        }
    }
}
