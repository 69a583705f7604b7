//! Retries by a simulated clock.

use std::{cell::Cell, sync::Arc};

use super::*;

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (value, seconds) in [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("1000000000", Some(1_000_000_000)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 07:00:00 GMT", Some(0)),
        ("soon", None),
        ("-1", None),
    ] {
        assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
    }
}

/// A clock that only pauses advance.
fn simulated() -> Clock {
    Clock::Simulated(Arc::default())
}

fn busy() -> Failure {
    Failure::transient(Fault::new("busy"))
}

/// Fails a number of times in a row, then succeeds.
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
    // Without a budget, each pause is at least half of the longest one.
    assert!(pauses[19] <= 31 && pauses.iter().all(|pauses| *pauses >= 16), "{pauses:?}");
    // The last attempt is made at the end of the patience, not given up before.
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

/// Waits for an origin that always asks for this pause. Returns the error and the time that passed.
fn obey(limit: Limit, asked: u64) -> (String, Duration) {
    let (pace, budget) = (Pace { limit, clock: simulated(), ..Pace::default() }, Budget::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let busy = || Failure::Transient(Fault::new("busy"), Some(Duration::from_secs(asked)));
    let told = runtime.block_on(Attempts::new(&pace, &budget).run(&"a", async || Err::<(), _>(busy()))).unwrap_err();
    assert_eq!(crate::error::exit_code(&told.into()), 75);
    let told = runtime.block_on(Attempts::new(&pace, &budget).run(&"a", async || Err::<(), _>(busy()))).unwrap_err();
    (told.to_string(), pace.clock.now() / 2)
}

#[test]
fn a_pause_that_was_asked_for_is_obeyed_and_spread() {
    for (limit, asked, pauses, most) in [
        (Limit::Attempts(5), 22, 4, 33),
        (Limit::Attempts(5), 60, 4, 90),
        (Limit::Attempts(5), 80, 4, 90),
        (Limit::Patience(Duration::from_mins(5)), 200, 1, 300),
    ] {
        let spent: Vec<Duration> = (0..100).map(|_| obey(limit, asked).1).collect();
        let (shortest, longest) = (*spent.iter().min().unwrap(), *spent.iter().max().unwrap());
        let (least, most) = (Duration::from_secs(asked * pauses), Duration::from_secs(most * pauses));
        assert!(shortest >= least && longest <= most, "{asked}: {shortest:?} to {longest:?}");
        assert!(longest > shortest + most.saturating_sub(least) / 5, "{asked}: {shortest:?} to {longest:?}");
    }
}

#[test]
fn an_origin_that_asks_for_longer_than_is_left_is_given_up() {
    for (limit, asked, words) in [
        (
            Limit::Attempts(5),
            3600,
            "gave up after 1 attempt: the server asks to wait 60 min 00 s, longer than 1 min 30 s",
        ),
        (Limit::Attempts(5), u64::MAX, "longer than 1 min 30 s"),
        (Limit::Patience(Duration::from_mins(5)), 301, "the server asks to wait 5 min 01 s, longer than 5 min 00 s"),
    ] {
        let (told, spent) = obey(limit, asked);
        assert!(told.contains(words) && spent.is_zero(), "{told}, {spent:?}");
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
