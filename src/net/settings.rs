//! How long requests wait for the network.

use std::time::Duration;

use super::retry::{Limit, Pace};

/// How long a run waits for an origin that fails. A deploy of the origin rarely takes it down for longer.
pub(crate) const ORIGIN_PATIENCE: Duration = Duration::from_mins(5);

/// The timeouts of requests and the number of their attempts.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// The number of attempts and the pauses between them.
    pub(crate) pace: Pace,
    /// The limit for resolving a name and connecting, including TLS.
    pub(crate) connect_timeout: Duration,
    /// The limit for the next byte.
    pub(crate) stall_timeout: Duration,
    /// The limit for the connection of a probe.
    pub(crate) probe_connect_timeout: Duration,
    /// The limit for a whole probe.
    pub(crate) probe_timeout: Duration,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            probe_connect_timeout: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(10),
        }
    }
}

impl NetworkSettings {
    /// Returns the settings of a run, which waits five minutes for an origin that fails. A person at a terminal wants to
    /// know sooner.
    pub fn patient() -> Self {
        Self::patient_for(ORIGIN_PATIENCE)
    }

    /// Returns the settings of a caller that waits this long.
    pub fn patient_for(time: Duration) -> Self {
        Self { pace: Pace { limit: Limit::Patience(time), ..Pace::default() }, ..Self::default() }
    }
}
