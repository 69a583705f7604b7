//! The network: HTTP clients, TLS, redirects, proxies, the background thread, and the one retry loop. Knows no AWS and no
//! downloads.

pub mod client;
pub mod clock;
pub mod date;
pub mod probe;
pub mod proof;
pub mod proxy;
pub mod range;
pub mod redirect;
pub mod retry;
pub mod settings;
pub mod tls;
pub mod worker;

use self::{
    client::Clients,
    retry::{Attempts, Budget, Pace},
    settings::NetworkSettings,
};

/// What the requests of a process share: their clients, and the budget that pays for retries.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) settings: NetworkSettings,
    pub(crate) clients: Clients,
    budget: Budget,
}

impl Network {
    /// Returns a network on which nothing was requested so far.
    pub(crate) fn new(settings: NetworkSettings) -> Self {
        Self { clients: Clients::new(&settings), settings, budget: Budget::default() }
    }

    /// Returns a network on which TLS trusts these clients' roots alone.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(settings: NetworkSettings, clients: Clients) -> Self {
        Self { clients, settings, budget: Budget::default() }
    }

    /// Returns the attempts at one request, in the usual number and at the usual pace.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        self.attempts_at(&self.settings.pace)
    }

    /// Returns the attempts at one request, at this pace.
    pub(crate) fn attempts_at<'a>(&'a self, pace: &'a Pace) -> Attempts<'a> {
        Attempts::new(pace, &self.budget)
    }
}
