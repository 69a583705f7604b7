//! When to try again, and when to give up.

use std::{
    fmt::Display,
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use super::clock::Clock;
use crate::{
    error::Fault,
    fetch::progress::{Progress, Wait},
    value::spoken,
};

/// How often a log says that the same thing is still waited for.
const REMINDER: Duration = Duration::from_secs(30);
/// A pause that an origin names (`Retry-After`) gets up to this part of itself longer, at random: all machines that it
/// refused at one time would come back at one time.
const JITTER: f64 = 0.5;

/// Why an attempt failed, and so whether another may succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt would fail alike.
    Permanent(Fault),
    /// The cause may pass; the origin may have said when.
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

/// When attempts end that keep failing for a cause that may pass.
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
    /// As long as this is obeyed an origin that asks for patience (`Retry-After`).
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
            obedience: Duration::from_mins(1),
            clock: Clock::default(),
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

    /// The pause that an origin asked for, as far as it is obeyed.
    fn obey(&self, asked: Duration) -> Duration {
        asked.min(self.obedience).mul_f64(1.0 + JITTER * random_fraction())
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

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    pace: &'a Pace,
    budget: &'a Budget,
    progress: Option<&'a Progress>,
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
    pub(crate) fn shown(self, progress: &'a Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Attempts until one succeeds, which pays the process's budget back.
    ///
    /// # Errors
    /// That of the last attempt, if no other may succeed or all that are allowed have failed.
    pub(crate) async fn run<T, E: Into<Setback>, F: Future<Output = Result<T, E>>>(
        mut self,
        what: &impl Display,
        attempt: impl Fn() -> F,
    ) -> Result<T, Fault> {
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
    /// If none is: the fault to report.
    async fn after(&mut self, what: &impl Display, Setback { failure, headway }: Setback) -> Result<(), Fault> {
        if headway {
            self.budget.earn(std::mem::take(&mut self.paid));
            (self.failed, self.unsigned, self.since) = (0, false, self.pace.clock.now());
        }
        self.failed += 1;
        let (fault, asked) = match failure {
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
            Failure::Transient(fault, asked) => (fault, asked),
        };
        let Some(pause) = self.pause(asked, headway) else { return Err(self.give_up(fault)) };
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

    /// The pause before the next attempt; `None` if this was the last one.
    fn pause(&mut self, asked: Option<Duration>, headway: bool) -> Option<Duration> {
        let Pace { limit, longest, .. } = *self.pace;
        let left = match limit {
            Limit::Attempts(most) if self.failed >= most => return None,
            Limit::Attempts(_) => Duration::MAX,
            Limit::Patience(patience) => {
                let left = patience.saturating_sub(self.pace.clock.now().saturating_sub(self.since));
                if left.is_zero() {
                    return None;
                }
                left
            }
        };
        let usual = asked.map_or_else(|| self.pace.pause(self.failed), |asked| self.pace.obey(asked));
        let pause = if headway {
            usual
        } else if self.budget.pay() {
            self.paid += Budget::RETRY;
            usual
        } else if let Limit::Patience(_) = limit {
            usual.max(longest.mul_f64(1.0 - JITTER * random_fraction()))
        } else {
            return None;
        };
        // The last attempt is made when patience ends.
        Some(pause.min(left))
    }

    fn give_up(&self, fault: Fault) -> Fault {
        let attempts = if self.failed == 1 { "attempt" } else { "attempts" };
        let message = match self.pace.limit {
            Limit::Attempts(most) if self.failed < most => "gave up: this process's retry budget is used up".to_owned(),
            Limit::Attempts(_) => format!("gave up after {} {attempts}", self.failed),
            Limit::Patience(_) => {
                let spent = self.pace.clock.now().saturating_sub(self.since);
                format!("gave up after {} {attempts} in {}", self.failed, spoken(spent))
            }
        };
        Fault::new(message).caused_by(fault).transient()
    }
}

/// A fault and its causes, in one line.
fn reason(fault: &Fault) -> String {
    let causes = std::iter::successors(Some(fault as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How long a `Retry-After` header asks to wait: seconds or a date, RFC 9110 section 10.2.3.
pub(crate) fn retry_after(value: &str, now: DateTime) -> Option<Duration> {
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
    use std::{cell::Cell, sync::Arc};

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

    /// Time that only pauses let pass.
    fn simulated() -> Clock {
        Clock::Simulated(Arc::default())
    }

    fn busy() -> Failure {
        Failure::transient(Fault::new("busy"))
    }

    /// Fails so many times in a row, then succeeds.
    fn survive(pace: &Pace, budget: &Budget, failures: u32) -> Result<(), Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let made = Cell::new(0);
        let attempt = async || if made.replace(made.get() + 1) < failures { Err(busy()) } else { Ok(()) };
        runtime.block_on(Attempts::new(pace, budget).run(&"a", attempt))
    }

    #[test]
    fn failures_that_are_survived_cost_nothing() {
        let (pace, budget) = (Pace { clock: simulated(), ..Pace::default() }, Budget::default());
        for _ in 0..1000 {
            survive(&pace, &budget, 4).unwrap();
        }
    }

    #[test]
    fn what_keeps_failing_uses_the_budget_up_and_success_earns_a_little() {
        let pace = Pace { limit: Limit::Attempts(2), clock: simulated(), ..Pace::default() };
        let budget = Budget::default();
        let lost =
            (0..1000).take_while(|_| survive(&pace, &budget, 2).unwrap_err().to_string() == "gave up after 2 attempts");
        assert_eq!(lost.count(), 100);
        let used_up = "gave up: this process's retry budget is used up";
        assert_eq!(survive(&pace, &budget, 2).unwrap_err().to_string(), used_up);
        (0..5).for_each(|_| survive(&pace, &budget, 0).unwrap());
        // The retry that this pays for succeeds, and so pays for another one.
        (0..100).for_each(|_| survive(&pace, &budget, 1).unwrap());
        assert_eq!(survive(&pace, &budget, 2).unwrap_err().to_string(), "gave up after 2 attempts");
        assert_eq!(survive(&pace, &budget, 2).unwrap_err().to_string(), used_up);
    }

    #[test]
    fn patience_outlasts_the_budget_and_ends_when_it_was_said() {
        let patience = Duration::from_mins(5);
        let pace = Pace { limit: Limit::Patience(patience), clock: simulated(), ..Pace::default() };
        let budget = Budget::default();
        let mut pauses = vec![];
        for _ in 0..20 {
            let told = survive(&pace, &budget, 1000).unwrap_err().to_string();
            let attempts =
                told.strip_prefix("gave up after ").and_then(|rest| rest.strip_suffix(" attempts in 5 min 00 s"));
            pauses.push(attempts.unwrap_or_else(|| panic!("{told}")).parse::<u32>().unwrap());
        }
        // Without the budget each pause is half of the longest at least.
        assert!(pauses[19] <= 31 && pauses.iter().all(|pauses| *pauses >= 16), "{pauses:?}");
        // The last attempt is made at the end, and not given up before.
        let ends = (0..1000).find_map(|failures| survive(&pace, &budget, failures).err().map(|_| failures)).unwrap();
        assert!(ends > 14, "{ends}");
    }

    #[test]
    fn a_download_that_gets_on_may_be_cut_off_any_number_of_times() {
        for limit in [Limit::Attempts(2), Limit::Patience(Duration::from_mins(5))] {
            let (pace, budget) = (Pace { limit, clock: simulated(), ..Pace::default() }, Budget::default());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let made = Cell::new(0);
            let attempt = async || {
                let cut = Err(Setback { failure: busy(), headway: true });
                if made.replace(made.get() + 1) < 1000 { cut } else { Ok(()) }
            };
            runtime.block_on(Attempts::new(&pace, &budget).run(&"a", attempt)).unwrap();
        }
    }

    #[test]
    fn a_pause_that_was_asked_for_is_obeyed_and_spread() {
        let pace = Pace::default();
        for (asked, least, most) in [(22, 22, 33), (1_000_000_000, 60, 90)] {
            let pauses: Vec<Duration> = (0..200).map(|_| pace.obey(Duration::from_secs(asked))).collect();
            let (shortest, longest) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
            let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
            assert!(shortest >= least && longest <= most, "{shortest:?} to {longest:?}");
            assert!(longest > shortest + (most / 4), "{shortest:?} to {longest:?}");
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
