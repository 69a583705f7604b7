//! When to try again, and when to give up.

use std::{
    fmt::Display,
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::{error::Fault, value::spoken};

/// Why an attempt failed, and so whether another may succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt would fail alike.
    Permanent(Fault),
    /// The cause may pass; the origin may have said when.
    Transient(Fault, Option<Duration>),
    /// Perhaps an accident on the way, worth one more attempt, from the start, and no third.
    Suspect(Fault),
    /// Who asked, or when: worth one more request, signed anew. What has arrived is as good as before.
    Unsigned(Fault),
}

impl Failure {
    /// A transient failure whose origin named no time.
    pub(super) fn transient(fault: Fault) -> Self {
        Self::Transient(fault, None)
    }
}

/// How many attempts, and how far apart.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// The first one included.
    pub(super) attempts: u32,
    /// Upper bound of the first pause; it doubles with each attempt.
    pub(super) first: Duration,
    /// Upper bound of any pause.
    pub(super) longest: Duration,
    /// As long as this is obeyed an origin that asks for patience (`Retry-After`).
    pub(super) obedience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(20),
            obedience: Duration::from_mins(1),
        }
    }
}

impl Pace {
    /// Exponential backoff with full jitter: a fleet that failed together must not come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempt: u32) -> Duration {
        let bound = self.first.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(self.longest);
        bound.mul_f64(random_fraction())
    }
}

/// What all retries together may cost, so that a thousand downloads don't ask a server that has gone a thousand times:
/// the bucket of tokens of the AWS SDKs. <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Budget {
    const FULL: u32 = 500;
    const RETRY: u32 = 5;
    const REWARD: u32 = 1;

    fn pay(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(Self::RETRY)).is_ok()
    }

    fn earn(&self, tokens: u32) {
        let earned = |now: u32| Some((now + tokens).min(Self::FULL));
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(Self::FULL))
    }
}

/// The attempts at one thing.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    pace: &'a Pace,
    budget: &'a Budget,
    failed: u32,
    suspected: bool,
    unsigned: bool,
}

impl<'a> Attempts<'a> {
    /// None made so far.
    pub(super) fn new(pace: &'a Pace, budget: &'a Budget) -> Self {
        Self { pace, budget, failed: 0, suspected: false, unsigned: false }
    }

    /// The last attempt got on before it failed: it doesn't count as failed, and the next one costs nothing.
    pub(super) fn headway(&mut self) {
        self.budget.earn(Budget::RETRY);
        (self.failed, self.unsigned) = (0, false);
    }

    /// The thing is done.
    pub(super) fn succeeded(&self) {
        self.budget.earn(if self.failed > 0 { Budget::RETRY } else { Budget::REWARD });
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// If none is: the fault to report.
    pub(super) async fn after(&mut self, what: &impl Display, failure: Failure) -> Result<(), Fault> {
        self.failed += 1;
        let pause = match failure {
            Failure::Permanent(fault) => return Err(fault),
            Failure::Suspect(fault) if self.suspected => return Err(fault),
            Failure::Unsigned(fault) if self.unsigned => return Err(fault),
            Failure::Suspect(fault) => {
                self.suspected = true;
                tracing::warn!("{what}: {fault}; trying once more");
                return Ok(());
            }
            Failure::Unsigned(fault) => {
                self.unsigned = true;
                tracing::warn!("{what}: {fault}; trying once more");
                return Ok(());
            }
            Failure::Transient(fault, _) if self.failed >= self.pace.attempts => {
                let attempts = if self.failed == 1 { "attempt" } else { "attempts" };
                return Err(Fault::new(format!("gave up after {} {attempts}", self.failed))
                    .caused_by(fault)
                    .transient());
            }
            Failure::Transient(fault, _) if !self.budget.pay() => {
                return Err(Fault::new("gave up: too many other downloads are failing").caused_by(fault).transient());
            }
            Failure::Transient(fault, after) => {
                let pause = after.map_or_else(|| self.pace.pause(self.failed), |after| after.min(self.pace.obedience));
                let of = self.pace.attempts;
                tracing::warn!("{what}: attempt {} of {of}: {fault}; next in {}", self.failed, spoken(pause));
                pause
            }
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// How long a `Retry-After` header asks to wait: seconds or a date, RFC 9110 section 10.2.3.
pub(super) fn retry_after(value: &str, now: DateTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::from_str(value, DateTimeFormat::HttpDate).ok()?;
    Some(Duration::from_secs(u64::try_from(date.secs() - now.secs()).unwrap_or_default()))
}

/// A random number from 0 to 1, out of the seed that the standard library draws for its hash maps.
fn random_fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::from_str("Sun, 06 Nov 1994 08:49:37 GMT", DateTimeFormat::HttpDate).unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("1000000000", Some(1_000_000_000)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 07:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn retries_are_paid_for_until_there_is_nothing_left_and_success_earns_a_little() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pace = Pace { attempts: 2, first: Duration::ZERO, ..Pace::default() };
        let budget = Budget::default();
        let retry = || {
            let mut attempts = Attempts::new(&pace, &budget);
            runtime.block_on(attempts.after(&"a", Failure::transient(Fault::new("busy")))).map(|()| attempts)
        };
        let paid = (0..1000).take_while(|_| retry().is_ok()).count();
        assert_eq!(paid, 100);
        assert!(retry().unwrap_err().to_string().contains("too many other downloads are failing"));
        (0..5).for_each(|_| Attempts::new(&pace, &budget).succeeded());
        let retried = retry().unwrap();
        assert!(retry().is_err());
        retried.succeeded();
        assert!(retry().is_ok());
    }

    #[test]
    fn a_download_that_gets_on_may_be_cut_off_any_number_of_times() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (pace, budget) = (Pace { first: Duration::ZERO, ..Pace::default() }, Budget::default());
        let mut attempts = Attempts::new(&pace, &budget);
        for _ in 0..1000 {
            attempts.headway();
            runtime.block_on(attempts.after(&"a", Failure::transient(Fault::new("cut")))).unwrap();
        }
    }

    #[test]
    fn pauses_are_random_below_a_bound_that_doubles_up_to_the_longest() {
        let pace = Pace::default();
        for (attempt, bound) in [(1, 500), (2, 1000), (4, 4000), (7, 20_000), (40, 20_000)] {
            let pauses: Vec<Duration> = (0..200).map(|_| pace.pause(attempt)).collect();
            let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            let bound = Duration::from_millis(bound);
            assert!(*least < bound / 4 && *most > bound * 3 / 4 && *most <= bound, "{attempt}: {least:?} to {most:?}");
        }
    }
}
