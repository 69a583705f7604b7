//! When to try again, and when to give up.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use super::{clock::Clock, date::seconds_until};
use crate::{error::Fault, value::spoken};

/// How often a log says that the same thing is still waited for.
const REMINDER: Duration = Duration::from_secs(30);
/// The largest part of itself by which a spread pause gets longer. Machines that failed together would return together.
const JITTER: f64 = 0.5;

/// Returns a pause that is longer by a random part of itself, and at most `most`.
pub(crate) fn spread(pause: Duration, most: Duration) -> Duration {
    pause + pause.mul_f64(JITTER).min(most.saturating_sub(pause)).mul_f64(fastrand::f64())
}

/// Why an attempt failed, and so whether another may succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt would fail alike.
    Permanent(Fault),
    /// The failure is temporary; the origin may have said for how long.
    Transient(Fault, Option<Duration>),
    /// Perhaps an accident on the way, worth one more attempt, from the start, and no third.
    Suspect(Fault),
    /// The credentials or the time of a signature: worth one more request, signed anew. What has arrived stays valid.
    Unsigned(Fault),
}

impl Failure {
    /// A transient failure whose origin named no time.
    pub(crate) fn transient(fault: Fault) -> Self {
        Self::Transient(fault, None)
    }

    /// What is wrong.
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
    /// Whether it got on before it failed: then it doesn't count as failed, and the next one costs nothing.
    pub(crate) headway: bool,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self { failure, headway: false }
    }
}

/// When attempts end that keep failing temporarily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// After so many in a row, or when the process's [`Budget`] is used up.
    Attempts(u32),
    /// After so long without headway. A used-up budget makes the pauses longer.
    Patience(Duration),
}

/// How many attempts, and how far apart.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// When they end.
    pub(crate) limit: Limit,
    /// Upper bound of the first pause; it doubles with each attempt.
    pub(crate) first: Duration,
    /// Upper bound of any pause.
    pub(crate) longest: Duration,
    /// Upper bound of a pause that an origin asks for (`Retry-After`), where attempts are counted.
    pub(crate) obedience: Duration,
    /// What measures them.
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

impl Pace {
    /// Exponential backoff with full jitter: a fleet that failed together must not come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempt: u32) -> Duration {
        let bound = self.first.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(self.longest);
        bound.mul_f64(fastrand::f64())
    }
}

/// What all retries together may cost, so that a thousand downloads don't ask a server that has gone a thousand times:
/// the bucket of tokens of the AWS SDKs. <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>
/// What a success was paid with comes back.
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
    /// Why the last one did.
    pub(crate) reason: String,
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
    /// A pause begins.
    fn pauses(&self, wait: Wait);
    /// The pause is over.
    fn resumes(&self);
}

/// The attempts at one thing.
pub(crate) struct Attempts<'a> {
    pace: &'a Pace,
    budget: &'a Budget,
    progress: Option<&'a dyn ShowWaits>,
    /// When the first attempt, or the last one that got on, began or ended.
    since: Duration,
    failed: u32,
    paid: u32,
    suspected: bool,
    unsigned: bool,
    /// What was logged last, and when.
    logged: Option<(Duration, String)>,
}

impl<'a> Attempts<'a> {
    /// None made so far.
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

    /// Tells there what is waited for.
    pub(crate) fn shown(self, progress: &'a dyn ShowWaits) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Attempts until one succeeds, which pays the process's budget back.
    ///
    /// # Errors
    /// That of the last attempt, if no other may succeed or all that are allowed have failed.
    pub(crate) async fn run<T, E: Into<Setback>, F: Future<Output = Result<T, E>>>(
        self,
        what: &impl Display,
        attempt: impl Fn() -> F,
    ) -> Result<T, Fault> {
        self.try_run(what, attempt).await.map_err(Failure::into_fault)
    }

    /// The same. The failure has the pause that the origin asked for, if that is why no other attempt is made.
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
    /// If none is: what to report.
    async fn after(&mut self, what: &impl Display, Setback { failure, headway }: Setback) -> Result<(), Failure> {
        if headway {
            self.budget.earn(std::mem::take(&mut self.paid));
            (self.failed, self.unsigned, self.since) = (0, false, self.pace.clock.now());
        }
        self.failed += 1;
        let (fault, asked) = match failure {
            Failure::Suspect(fault) if !self.suspected => {
                self.suspected = true;
                tracing::warn!("{what}: {fault}; trying once more");
                return Ok(());
            }
            Failure::Unsigned(fault) if !self.unsigned => {
                self.unsigned = true;
                tracing::warn!("{what}: {fault}; trying once more");
                return Ok(());
            }
            Failure::Transient(fault, asked) => (fault, asked),
            last => return Err(last),
        };
        let pause = match self.pause(asked, headway) {
            Ok(pause) => pause,
            Err(end) => return Err(self.give_up(fault, end)),
        };
        let wait = Wait { pause, failed: self.failed, reason: reason(&fault) };
        let now = self.pace.clock.now();
        let is_news = |(logged, reason): &(Duration, String)| now >= *logged + REMINDER || *reason != wait.reason;
        if self.logged.as_ref().is_none_or(is_news) {
            self.logged = Some((now, wait.reason.clone()));
            tracing::warn!("{}", wait.line(what));
        }
        if let Some(progress) = self.progress {
            progress.pauses(wait);
        }
        self.pace.clock.sleep(pause).await;
        if let Some(progress) = self.progress {
            progress.resumes();
        }
        Ok(())
    }

    /// The pause before the next attempt.
    ///
    /// # Errors
    /// If this was the last one.
    fn pause(&mut self, asked: Option<Duration>, headway: bool) -> Result<Duration, GiveUpReason> {
        let Pace { limit, longest, obedience, .. } = *self.pace;
        let (left, most) = match limit {
            Limit::Attempts(most) if self.failed >= most => return Err(GiveUpReason::Attempts),
            Limit::Attempts(_) => (Duration::MAX, obedience),
            Limit::Patience(patience) => {
                let left = patience.saturating_sub(self.pace.clock.now().saturating_sub(self.since));
                if left.is_zero() {
                    return Err(GiveUpReason::Attempts);
                }
                (left, left)
            }
        };
        let usual = match asked {
            Some(asked) if asked <= most => spread(asked, most),
            // The origin has refused beforehand what asks earlier.
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
        // The last attempt is made when patience ends.
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

/// Why an attempt was the last one.
#[derive(Debug, Clone, Copy)]
enum GiveUpReason {
    /// All that are allowed have failed.
    Attempts,
    /// The process's retries are used up.
    Budget,
    /// The origin asks for a longer pause than the longest that it gets.
    Asked { asked: Duration, most: Duration },
}

/// A fault and its causes, in one line.
fn reason(fault: &Fault) -> String {
    let causes = std::iter::successors(Some(fault as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns how long a `Retry-After` header asks to wait: seconds or a date, RFC 9110 section 10.2.3.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::from_secs(seconds_until(value, now)?.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
