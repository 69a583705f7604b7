//! A `Retry-After` is seconds, or a date no further away than it says; anything else is none.
//!
//! An input's first line is the header, the second one the time when it arrives, in seconds since 1970.

#![no_main]

use std::time::Duration;

use glovo_bootstrap::system::fetch::fuzz::retry_after;
use libfuzzer_sys::fuzz_target;

/// From 1970 to the year 9999.
const CLOCKS: u64 = 253_402_300_799;

fuzz_target!(|input: &str| {
    let (value, clock) = input.split_once('\n').unwrap_or((input, ""));
    let clock = clock.parse::<u64>().unwrap_or_default() % CLOCKS;
    let now = i64::try_from(clock).unwrap();
    let told = retry_after(value, now);
    match (value.trim().parse::<u64>(), told) {
        (Ok(seconds), told) => assert_eq!(told, Some(Duration::from_secs(seconds))),
        (Err(_), Some(pause)) => {
            // A date: it is the later, the earlier it is asked about, and over once it has come.
            assert!(pause.as_secs() <= CLOCKS);
            let due = clock + pause.as_secs();
            assert_eq!(retry_after(value, i64::try_from(due).unwrap()), Some(Duration::ZERO));
            if !pause.is_zero() {
                assert_eq!(retry_after(value, now - 1), Some(pause + Duration::from_secs(1)));
            }
        }
        (Err(_), None) => assert!(retry_after(value, 0).is_none()),
    }
});
