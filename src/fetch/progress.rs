//! The progress of a download: bytes, or the pause before the next attempt.

use std::{
    fmt::Display,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::sync::oneshot;

use super::spool::Spool;
use crate::{
    host::{Host, wait::LongWait},
    net::retry::{ShowWaits, Wait},
    stop::Deadlines,
    value::ByteSize,
};

/// The progress of a download.
#[derive(Debug, Default)]
pub(super) struct DownloadProgress {
    done: AtomicU64,
    /// All bytes that have arrived, also those of an attempt that began anew.
    received: AtomicU64,
    /// The length of the body; 0 while it is unknown.
    total: AtomicU64,
    waits: Mutex<Waits>,
}

/// Limits the time that the last attempt before a deadline gets.
const LAST_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before the next attempt, and the last pause before it.
#[derive(Debug, Default)]
struct Waits {
    now: Option<Pause>,
    last: Option<Wait>,
    /// Whether a pause was ended early for the last attempt before a deadline.
    is_last_attempt: bool,
}

/// A pause.
#[derive(Debug)]
struct Pause {
    wait: Wait,
    began: Instant,
    /// Ends it early; `None` if that was done.
    end: Option<oneshot::Sender<()>>,
    /// The time before the deadline at which it ends early, if it would outlast the deadline.
    reserve: Option<Duration>,
}

/// A wait for an origin that fails.
pub(super) struct OriginWait<'h> {
    wait: LongWait<'h>,
    /// The bytes that had arrived when it began.
    received: u64,
}

impl DownloadProgress {
    /// Returns the received bytes, and the length of the body if it is known.
    pub(super) fn now(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed), (total > 0).then_some(total))
    }

    /// Sets the number of received bytes.
    pub(super) fn arrived(&self, done: u64) {
        let before = self.done.swap(done, Ordering::Relaxed);
        _ = self.received.fetch_add(done.saturating_sub(before), Ordering::Relaxed);
    }

    /// Sets the bytes that a spool holds, and the length of the body.
    pub(super) fn show(&self, spool: &Spool) {
        self.done.store(spool.done(), Ordering::Relaxed);
        self.total.store(spool.promise().total.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns a line with the progress of the download of `what`, or with the reason for its pause.
    pub(super) fn line(&self, what: &impl Display) -> String {
        if let Some(pause) = &self.waits().now {
            return pause.wait.line(what);
        }
        let (done, total) = self.now();
        match total {
            None => format!("{what}: {}", ByteSize(done)),
            Some(total) => format!("{what}: {} of {}", ByteSize(done), ByteSize(total)),
        }
    }

    /// Ends a pause early that would outlast a deadline, so that one last attempt is made before the deadline. It gets
    /// half of the time that was left at the start of the pause.
    ///
    /// # Errors
    /// With the last attempt's error, if that attempt was made, or if the origin asks for the pause.
    pub(super) fn check_pause(&self, deadlines: &Deadlines) -> Result<()> {
        let mut guard = self.waits();
        let waits = &mut *guard;
        let Some(Pause { wait, began, end, reserve }) = &mut waits.now else { return Ok(()) };
        let late = deadlines.allow(wait.pause.saturating_sub(began.elapsed()), "the next attempt");
        let (Err(late), Some(left), true) = (late, deadlines.left(), end.is_some()) else { return Ok(()) };
        if wait.is_asked || waits.is_last_attempt {
            return Err(late.context(wait.failure()));
        }
        if left <= *reserve.get_or_insert((left / 2).min(LAST_ATTEMPT_TIMEOUT)) {
            waits.is_last_attempt = true;
            // The attempts may have ended meanwhile.
            _ = end.take().map(|end| end.send(()));
        }
        Ok(())
    }

    /// Tells a wait for an origin like any other long wait, from its first pause until bytes arrive.
    pub(super) fn tell_wait<'h>(&self, host: &'h Host, told: &mut Option<OriginWait<'h>>, what: &impl Display) {
        let received = self.received.load(Ordering::Relaxed);
        let paused = match &self.waits().now {
            Some(Pause { wait: Wait { reason, patience: Some(left), .. }, .. }) => {
                Some((format!("waiting for {what}: {reason}"), *left))
            }
            _ => None,
        };
        if told.as_ref().is_some_and(|wait| wait.received < received) {
            *told = None;
        }
        if let Some((text, left)) = paused {
            let wait = told.get_or_insert_with(|| OriginWait { wait: host.begin_wait(), received });
            wait.wait.tell(&text, Some(left));
        }
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
    fn pauses(&self, wait: Wait) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        let mut waits = self.waits();
        waits.last = Some(wait.clone());
        waits.now = Some(Pause { wait, began: Instant::now(), end: Some(end), reserve: None });
        ended
    }

    fn resumes(&self) {
        self.waits().now = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{scratch::Scratch, wait};

    #[test]
    fn a_long_wait_for_an_origin_is_told_until_bytes_arrive() {
        let tree = Scratch::new();
        let (host, progress) = (tree.host(), DownloadProgress::default());
        let told_now = || wait::of(host.root(), std::process::id());
        let pause = |patience| Wait {
            pause: Duration::from_secs(9),
            failed: 3,
            reason: "connection refused".into(),
            is_asked: false,
            patience,
        };
        let mut told = None;
        let mut look = || {
            progress.tell_wait(&host, &mut told, &"http://h/jar");
            host.stop.advance(Duration::from_secs(5));
            progress.tell_wait(&host, &mut told, &"http://h/jar");
            told_now()
        };
        _ = progress.pauses(pause(None));
        assert_eq!(look(), None, "attempts are counted, and end soon");
        _ = progress.pauses(pause(Some(Duration::from_mins(4))));
        let text = look().unwrap();
        assert!(
            text.starts_with("waiting for http://h/jar: connection refused, for up to 4 min 00 s, since 20"),
            "{text}"
        );
        progress.resumes();
        assert!(look().is_some(), "the next attempt may fail, too");
        progress.arrived(9);
        assert_eq!(look(), None);
        // An attempt that begins anew receives bytes, too.
        _ = progress.pauses(pause(Some(Duration::from_mins(4))));
        assert!(look().is_some());
        progress.resumes();
        progress.done.store(0, Ordering::Relaxed);
        progress.arrived(1);
        assert_eq!(look(), None);
    }
}
