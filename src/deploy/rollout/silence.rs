//! The times in which AWS does not answer while a deploy looks at its machines or its stack.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    deploy::Deploy,
    error::{self, Class, Fault},
    value::spoken,
    view::complain,
};

/// A time without an answer. It is told once when it begins, and once when it ends.
#[derive(Debug, Default)]
pub(in crate::deploy) struct Silence {
    began: Option<Instant>,
}

impl Silence {
    /// Notes a look, with the error of a service that did not answer. Returns how long the silence has lasted.
    pub(super) fn note(&mut self, now: Instant, unanswered: Option<&anyhow::Error>) -> Duration {
        let Some(error) = unanswered else {
            if let Some(began) = self.began.take() {
                complain(format!("AWS answers again, after {}", spoken(now.saturating_duration_since(began))));
            }
            return Duration::ZERO;
        };
        if self.began.is_none() {
            complain(format!("AWS does not answer, still trying: {error:#}"));
        }
        now.saturating_duration_since(*self.began.get_or_insert(now))
    }
}

impl Deploy {
    /// Notes a look at machines and alarms, or at a stack; `what` says in words what it is for.
    ///
    /// # Errors
    /// If the silence has lasted as long as machines may take to become healthy: until then they count as unseen.
    pub(in crate::deploy) fn endure(
        &self,
        silence: &mut Silence,
        unanswered: Option<anyhow::Error>,
        what: &str,
    ) -> Result<()> {
        let lasted = silence.note(self.system.host.stop.now(), unanswered.as_ref());
        match unanswered.filter(|_| lasted >= self.health_timeout()) {
            Some(error) => {
                let message = format!("AWS has not told for {} {what}", spoken(lasted));
                Err(Fault::new(message).transient().caused_by(error).into())
            }
            None => Ok(()),
        }
    }
}

/// What the looks at a share are for.
pub(in crate::deploy) const OF_BUILD: &str = "whether the new build is healthy";

/// Returns an answer; or `None` and the error, after a temporary failure.
pub(in crate::deploy) fn answered<T>(answer: Result<T>) -> Result<(Option<T>, Option<anyhow::Error>)> {
    match answer {
        Ok(answer) => Ok((Some(answer), None)),
        Err(error) if error::class(&error) == Class::Transient => Ok((None, Some(error))),
        Err(error) => Err(error),
    }
}
