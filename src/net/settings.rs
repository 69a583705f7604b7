//! How long requests wait for the network.

use std::time::Duration;

use super::retry::{Limit, Pace};

/// How long a run waits for an origin that fails: as long as an outage takes that a deploy of the origin causes.
pub(crate) const ORIGIN_PATIENCE: Duration = Duration::from_mins(5);

/// How long requests wait, and how often they are tried.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// How often a request is tried, and how far apart.
    pub(crate) pace: Pace,
    /// For a name to resolve and a connection to stand, TLS included.
    pub(crate) connect_timeout: Duration,
    /// For the next byte.
    pub(crate) stall_timeout: Duration,
    /// For a probe's connection.
    pub(crate) probe_connect_timeout: Duration,
    /// For a probe as a whole.
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
        let pace = Pace { limit: Limit::Patience(ORIGIN_PATIENCE), ..Pace::default() };
        Self { pace, ..Self::default() }
    }
}
