//! The clock of retries: the machine's, or in tests a simulated one that a pause advances at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A monotonic clock and the pauses by it.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The machine's clock, since this instant.
    Machine(Instant),
    /// A simulated clock, in milliseconds.
    #[cfg_attr(not(any(test, fuzzing)), expect(dead_code, reason = "only tests simulate time"))]
    Simulated(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Machine(Instant::now())
    }
}

impl Clock {
    /// Returns the time since the clock was made.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Machine(start) => start.elapsed(),
            Self::Simulated(now) => Duration::from_millis(now.load(Ordering::Relaxed)),
        }
    }

    /// Waits for the length of a pause.
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
