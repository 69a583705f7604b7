//! The progress of a download: bytes, or the pause before the next attempt.

use std::{
    fmt::Display,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Result;

use super::spool::Spool;
use crate::{
    net::retry::{ShowWaits, Wait},
    stop::Deadlines,
    value::ByteSize,
};

/// The progress of a download.
#[derive(Debug, Default)]
pub(super) struct DownloadProgress {
    done: AtomicU64,
    /// The length of the body; 0 while it is unknown.
    total: AtomicU64,
    waits: Mutex<Waits>,
}

/// The pause before the next attempt with its start, and the last pause before it.
#[derive(Debug, Default)]
struct Waits {
    now: Option<(Wait, Instant)>,
    last: Option<Wait>,
}

impl DownloadProgress {
    /// Returns the received bytes, and the length of the body if it is known.
    pub(super) fn now(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed), (total > 0).then_some(total))
    }

    /// Sets the number of received bytes.
    pub(super) fn arrived(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Sets the bytes that a spool holds, and the length of the body.
    pub(super) fn show(&self, spool: &Spool) {
        self.arrived(spool.done());
        self.total.store(spool.promise().total.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns a line with the progress of the download of `what`, or with the reason for its pause.
    pub(super) fn line(&self, what: &impl Display) -> String {
        if let Some((wait, _)) = &self.waits().now {
            return wait.line(what);
        }
        let (done, total) = self.now();
        match total {
            None => format!("{what}: {}", ByteSize(done)),
            Some(total) => format!("{what}: {} of {}", ByteSize(done), ByteSize(total)),
        }
    }

    /// Fails with the last attempt's error if the next attempt is due only after a deadline.
    pub(super) fn check_pause(&self, deadlines: &Deadlines) -> Result<()> {
        let Some((wait, began)) = self.waits().now.clone() else { return Ok(()) };
        let left = wait.pause.saturating_sub(began.elapsed());
        deadlines.allow(left, "the next attempt").map_err(|error| error.context(wait.failure()))
    }

    /// `attempt 4 failed: the server answered 503 Service Unavailable`
    pub(super) fn last_failure(&self) -> Option<String> {
        self.waits().last.as_ref().map(Wait::failure)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShowWaits for DownloadProgress {
    fn pauses(&self, wait: Wait) {
        let mut waits = self.waits();
        waits.last = Some(wait.clone());
        waits.now = Some((wait, Instant::now()));
    }

    fn resumes(&self) {
        self.waits().now = None;
    }
}
