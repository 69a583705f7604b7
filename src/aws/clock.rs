//! The time by AWS's clock. A service refuses a signature that is some minutes off.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use super::refusal::Refusal;
use crate::{error::Fault, net::retry::Failure};

/// AWS's clock, as far as a refusal has told it.
#[derive(Debug, Default)]
pub(super) struct AwsClock {
    /// Seconds by which it is ahead of this machine's.
    seconds_ahead: AtomicI64,
}

impl AwsClock {
    /// Returns the time.
    pub(super) fn now(&self) -> SystemTime {
        let ahead = self.seconds_ahead.load(Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    /// Takes the time from a refusal of a signature for its time. Returns the failure.
    pub(super) fn correct(&self, refusal: &Refusal) -> Failure {
        self.seconds_ahead.store(refusal.seconds_ahead, Relaxed);
        let (skew, side) =
            (refusal.seconds_ahead.unsigned_abs(), if refusal.seconds_ahead > 0 { "behind" } else { "ahead of" });
        let fault = Fault::new(format!("this machine's clock is {skew} s {side} AWS's")).caused_by(refusal.clone());
        Failure::Unsigned(
            fault.hint("set the clock: timedatectl status, chronyc makestep (169.254.169.123 is EC2's time server)"),
        )
    }
}
