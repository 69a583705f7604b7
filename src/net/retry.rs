//! The one retry loop: when to try again, and when to give up.

use std::{
    fmt::Display,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::{clock::Clock, date::seconds_until};
use crate::{error::Fault, value::spoken};

/// The shortest time between two log lines for the same reason to wait.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);
/// The attempts of a caller that can do without the answer.
const BRIEF_ATTEMPTS: u32 = 5;
/// The largest part of itself by which a spread pause gets longer. Machines that failed together would return together.
const JITTER: f64 = 0.5;

/// Returns a pause that is longer by a random part of itself, and at most `most`.
pub(crate) fn spread(pause: Duration, most: Duration) -> Duration {
    pause + pause.mul_f64(JITTER).min(most.saturating_sub(pause)).mul_f64(fastrand::f64())
}

/// The failure of an attempt, by whether another attempt may succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt would fail in the same way.
    Permanent(Fault),
    /// The failure is temporary. The origin may have named a pause.
    Transient(Fault, Option<Duration>),
    /// The data may have been damaged on the way. One more attempt is made, from the start.
    Suspect(Fault),
    /// The credentials or the time of the signature are wrong. One more request is made, signed anew. Received bytes
    /// stay valid.
    Unsigned(Fault),
}

impl Failure {
    /// Returns a temporary failure without a pause named by the origin.
    pub(crate) fn transient(fault: Fault) -> Self {
        Self::Transient(fault, None)
    }

    /// Returns its fault.
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Permanent(fault) | Self::Transient(fault, _) | Self::Suspect(fault) | Self::Unsigned(fault) => fault,
        }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Setback {
    pub(crate) failure: Failure,
    /// Whether it made progress before it failed. Then it does not count as failed, and the next attempt costs nothing.
    pub(crate) headway: bool,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self { failure, headway: false }
    }
}

/// The limit of attempts that keep failing temporarily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The number of attempts in a row. A used-up [`Budget`] of the process ends them earlier.
    Attempts(u32),
    /// The time without headway. A used-up budget makes the pauses longer.
    Patience(Duration),
}

/// The limit of attempts and the pauses between them.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// The limit of the attempts.
    pub(crate) limit: Limit,
    /// Upper bound of the first pause; it doubles with each attempt.
    pub(crate) first: Duration,
    /// Upper bound of any pause.
    pub(crate) longest: Duration,
    /// Upper bound of a pause that an origin asks for (`Retry-After`), where attempts are counted.
    pub(crate) obedience: Duration,
    /// The clock of the pauses.
    pub(crate) clock: Clock,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: Limit::Attempts(5),
            first: Duration::from_millis(500),
            longest: Duration::from_secs(20),
            obedience: Duration::from_secs(90),
            clock: Clock::default(),
        }
    }
}

/// How long a caller waits for an origin that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as for any origin of this process.
    Full,
    /// A few attempts: the caller can do without the answer.
    Short,
}

impl Pace {
    /// Returns the pace for a caller with this patience.
    pub(crate) fn with(&self, patience: Patience) -> Self {
        match patience {
            Patience::Full => self.clone(),
            Patience::Short => self.brief(),
        }
    }

    /// Returns the pace for a caller that can do without the answer: with patience, it waits for a few attempts.
    pub(crate) fn brief(&self) -> Self {
        let limit = match self.limit {
            Limit::Patience(_) => Limit::Attempts(BRIEF_ATTEMPTS),
            limit @ Limit::Attempts(_) => limit,
        };
        Self { limit, ..self.clone() }
    }

    /// Returns the pause after an attempt: exponential backoff with full jitter. A fleet that failed together must not
    /// return together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempt: u32) -> Duration {
        let bound = self.first.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(self.longest);
        bound.mul_f64(fastrand::f64())
    }
}

/// The budget of all retries of a process. It prevents a thousand downloads from each retrying a server that is down.
///
/// It is the token bucket of the AWS SDKs. A success returns the tokens that its retries took.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Budget {
    const FULL: u32 = 500;
    const RETRY: u32 = 5;
    const REWARD: u32 = 1;

    fn pay(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(Self::RETRY)).is_ok()
    }

    fn earn(&self, tokens: u32) {
        let earned = |now: u32| Some(now.saturating_add(tokens).min(Self::FULL));
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(Self::FULL))
    }
}

/// The pause before an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    /// Its length.
    pub(crate) pause: Duration,
    /// Attempts that have failed.
    pub(crate) failed: u32,
    /// The reason of the last failure.
    pub(crate) reason: String,
    /// Whether the origin asks for it. It would refuse an earlier attempt.
    pub(crate) is_asked: bool,
    /// The time until the patience ends; `None` if attempts are counted instead.
    pub(crate) patience: Option<Duration>,
}

impl Wait {
    /// `waiting 12.0 s for http://host/app.jar (attempt 4: the server answered 503 Service Unavailable)`
    pub(crate) fn line(&self, what: &impl Display) -> String {
        format!("waiting {} for {what} (attempt {}: {})", spoken(self.pause), self.failed, self.reason)
    }

    /// `attempt 4 failed: the server answered 503 Service Unavailable`
    pub(crate) fn failure(&self) -> String {
        format!("attempt {} failed: {}", self.failed, self.reason)
    }
}

/// Shows the pauses between attempts while they last.
pub(crate) trait ShowWaits: Sync {
    /// A pause begins. A message of the returned channel ends it early.
    fn pauses(&self, wait: Wait) -> oneshot::Receiver<()>;
    /// The pause is over.
    fn resumes(&self);
}

/// The attempts at one thing.
pub(crate) struct Attempts<'a> {
    pace: &'a Pace,
    budget: &'a Budget,
    progress: Option<&'a dyn ShowWaits>,
    /// The time since which there was no headway.
    since: Duration,
    failed: u32,
    paid: u32,
    suspected: bool,
    unsigned: bool,
    /// The time and the reason of the last log line.
    logged: Option<(Duration, String)>,
}

impl<'a> Attempts<'a> {
    /// Returns attempts of which none was made.
    pub(crate) fn new(pace: &'a Pace, budget: &'a Budget) -> Self {
        Self {
            pace,
            budget,
            progress: None,
            since: pace.clock.now(),
            failed: 0,
            paid: 0,
            suspected: false,
            unsigned: false,
            logged: None,
        }
    }

    /// Sets the observer that shows the pauses.
    pub(crate) fn shown(self, progress: &'a dyn ShowWaits) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Makes attempts until one succeeds. A success returns the tokens of its retries to the budget.
    ///
    /// # Errors
    /// The last attempt's, if no other may succeed or if the limit is reached.
    pub(crate) async fn run<T, E: Into<Setback>, F: Future<Output = Result<T, E>>>(
        self,
        what: &impl Display,
        attempt: impl Fn() -> F,
    ) -> Result<T, Fault> {
        self.try_run(what, attempt).await.map_err(Failure::into_fault)
    }

    /// Makes attempts like [`Attempts::run`]. The failure has the pause that the origin asks for if it is too long to
    /// wait.
    pub(crate) async fn try_run<T, E: Into<Setback>, F: Future<Output = Result<T, E>>>(
        mut self,
        what: &impl Display,
        attempt: impl Fn() -> F,
    ) -> Result<T, Failure> {
        loop {
            match attempt().await {
                Ok(done) => {
                    self.budget.earn(if self.paid > 0 { self.paid } else { Budget::REWARD });
                    return Ok(done);
                }
                Err(setback) => self.after(what, setback.into()).await?,
            }
        }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// If no other attempt is made: the failure to report.
    async fn after(&mut self, what: &impl Display, Setback { failure, headway }: Setback) -> Result<(), Failure> {
        if headway {
            self.budget.earn(std::mem::take(&mut self.paid));
            (self.failed, self.unsigned, self.since) = (0, false, self.pace.clock.now());
        }
        self.failed += 1;
        let (fault, asked) = match failure {
            Failure::Suspect(fault) if !self.suspected => {
                self.suspected = true;
                tracing::warn!("{what}: {}; trying once more", reason(&fault));
                return Ok(());
            }
            Failure::Unsigned(fault) if !self.unsigned => {
                self.unsigned = true;
                tracing::warn!("{what}: {}; trying once more", reason(&fault));
                return Ok(());
            }
            Failure::Transient(fault, asked) => (fault, asked),
            last => return Err(last),
        };
        let pause = match self.pause(asked, headway) {
            Ok(pause) => pause,
            Err(end) => return Err(self.give_up(fault, end)),
        };
        let is_asked = asked.is_some();
        let wait = Wait { pause, failed: self.failed, reason: reason(&fault), is_asked, patience: self.patience() };
        let now = self.pace.clock.now();
        let is_news =
            |(logged, reason): &(Duration, String)| now >= *logged + REMINDER_INTERVAL || *reason != wait.reason;
        if self.logged.as_ref().is_none_or(is_news) {
            self.logged = Some((now, wait.reason.clone()));
            tracing::warn!("{}", wait.line(what));
        }
        let pause = self.pace.clock.sleep(pause);
        match self.progress {
            None => pause.await,
            Some(progress) => {
                unless_ended(pause, progress.pauses(wait)).await;
                progress.resumes();
            }
        }
        Ok(())
    }

    /// Returns the time until the patience ends; `None` if attempts are counted instead.
    fn patience(&self) -> Option<Duration> {
        match self.pace.limit {
            Limit::Attempts(_) => None,
            Limit::Patience(patience) => {
                Some(patience.saturating_sub(self.pace.clock.now().saturating_sub(self.since)))
            }
        }
    }

    /// Returns the pause before the next attempt.
    ///
    /// # Errors
    /// If this attempt was the last one.
    fn pause(&mut self, asked: Option<Duration>, headway: bool) -> Result<Duration, GiveUpReason> {
        let Pace { limit, longest, obedience, .. } = *self.pace;
        let (left, most) = match (limit, self.patience()) {
            (Limit::Attempts(most), _) if self.failed >= most => return Err(GiveUpReason::Attempts),
            (_, Some(Duration::ZERO)) => return Err(GiveUpReason::Attempts),
            (_, Some(left)) => (left, left),
            (_, None) => (Duration::MAX, obedience),
        };
        let usual = match asked {
            Some(asked) if asked <= most => spread(asked, most),
            // The origin would refuse an earlier attempt.
            Some(asked) => return Err(GiveUpReason::Asked { asked, most }),
            None => self.pace.pause(self.failed),
        };
        let pause = if headway {
            usual
        } else if self.budget.pay() {
            self.paid += Budget::RETRY;
            usual
        } else if let Limit::Patience(_) = limit {
            usual.max(longest.mul_f64(1.0 - JITTER * fastrand::f64()))
        } else {
            return Err(GiveUpReason::Budget);
        };
        // The last attempt is made at the end of the patience.
        Ok(pause.min(left))
    }

    fn give_up(&self, fault: Fault, end: GiveUpReason) -> Failure {
        let attempts = if self.failed == 1 { "attempt" } else { "attempts" };
        let gave_up = format!("gave up after {} {attempts}", self.failed);
        let spent = || self.pace.clock.now().saturating_sub(self.since);
        let (message, asked) = match (end, self.pace.limit) {
            (GiveUpReason::Budget, _) => ("gave up: this process's retry budget is used up".to_owned(), None),
            (GiveUpReason::Asked { asked, most }, _) => {
                let why = format!("the server asks to wait {}, longer than {}", spoken(asked), spoken(most));
                (format!("{gave_up}: {why}"), Some(asked))
            }
            (GiveUpReason::Attempts, Limit::Attempts(_)) => (gave_up, None),
            (GiveUpReason::Attempts, Limit::Patience(_)) => (format!("{gave_up} in {}", spoken(spent())), None),
        };
        Failure::Transient(Fault::new(message).caused_by(fault).transient(), asked)
    }
}

/// The reason why an attempt was the last one.
#[derive(Debug, Clone, Copy)]
enum GiveUpReason {
    /// The limit is reached.
    Attempts,
    /// The process's retry budget is used up.
    Budget,
    /// The origin asks for a pause that is longer than the limit.
    Asked { asked: Duration, most: Duration },
}

/// Waits for a pause, or until a message ends it. A channel that closes without a message changes nothing.
async fn unless_ended(pause: impl Future<Output = ()>, end: oneshot::Receiver<()>) {
    let mut pause = pin!(pause);
    let mut end = pin!(async {
        if end.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    std::future::poll_fn(|context| match end.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => pause.as_mut().poll(context),
    })
    .await;
}

/// Returns a fault and its causes in one line.
fn reason(fault: &Fault) -> String {
    let causes = std::iter::successors(Some(fault as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns the pause of a `Retry-After` header, which is a number of seconds or a date: RFC 9110 section 10.2.3.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::from_secs(seconds_until(value, now)?.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
