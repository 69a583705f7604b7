//! Several sources of the same bytes: after a failure of one, the next one is tried.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    engine::Engine,
    fetched::Fetched,
    progress::DownloadProgress,
    pull::{Download, Pull},
    source::Source,
    spool::Spool,
    transfer,
};
use crate::{
    error::{self, Class, Fault},
    net::retry::{Failure, Limit, Pace},
};

/// The attempts at a source that has another one after it: the next source is more likely to help than a retry.
const ATTEMPTS_BEFORE_NEXT: u32 = 2;

/// Returns the pull of each source, in turn.
pub(super) fn pulls(download: &Download, pace: &Pace) -> Vec<Pull> {
    let sources = download.sources.all();
    let pull = |(index, source): (usize, &Source)| Pull {
        source: source.clone(),
        sha256: download.sha256,
        size: download.size,
        limit: match pace.limit {
            Limit::Patience(_) if download.has_fallback => pace.brief().limit,
            // With patience, it is tried again after all others.
            Limit::Patience(_) if sources.len() > 1 => Limit::Attempts(ATTEMPTS_BEFORE_NEXT),
            Limit::Attempts(attempts) if index + 1 < sources.len() => {
                Limit::Attempts(attempts.min(ATTEMPTS_BEFORE_NEXT))
            }
            limit => limit,
        },
    };
    sources.iter().enumerate().map(pull).collect()
}

/// The result of a download.
pub(super) struct Delivered {
    pub(super) fetched: Fetched,
    /// The source that delivered it, without its query.
    pub(super) source: String,
    /// The time when it was complete.
    pub(super) at: Instant,
}

/// The download and the file for its bytes.
pub(super) type Bid = (Pull, Arc<Mutex<Spool>>);

/// Downloads from the first source that delivers.
///
/// With patience, all sources are tried in turn until the patience ends. A source that asks for a longer pause than
/// there is time for is left out.
///
/// # Errors
/// The only source's, or those of all sources. It is temporary if one of them is.
pub(super) async fn run(
    engine: Arc<Engine>,
    bids: Vec<Bid>,
    progress: Arc<DownloadProgress>,
) -> Result<Delivered, Fault> {
    if let [(pull, spool)] = &bids[..] {
        let fetched = transfer::run(engine, pull, spool.clone(), progress).await.map_err(Failure::into_fault)?;
        return Ok(Delivered { fetched, source: pull.source.to_string(), at: Instant::now() });
    }
    let Limit::Patience(_) = engine.network.settings.pace.limit else {
        return each(&engine, &bids, &Mutex::default(), &progress).await.map_err(Failure::into_fault);
    };
    let closed = Mutex::default();
    let what = bids.iter().map(|(pull, _)| pull.source.to_string()).collect::<Vec<_>>().join(" or ");
    engine.network.attempts().shown(&*progress).run(&what, || each(&engine, &bids, &closed, &progress)).await
}

/// Tries each source, in turn. `closed` has the sources that asked for too long a pause, each with its error.
async fn each(
    engine: &Arc<Engine>,
    bids: &[Bid],
    closed: &Mutex<BTreeMap<usize, String>>,
    progress: &Arc<DownloadProgress>,
) -> Result<Delivered, Failure> {
    let mut failures: Vec<(String, anyhow::Error)> = vec![];
    let mut is_open = false;
    for (index, (pull, spool)) in bids.iter().enumerate() {
        let source = pull.source.to_string();
        let known = lock(closed).get(&index).cloned();
        if let Some(reason) = known {
            failures.push((source, Fault::new(reason).transient().into()));
            continue;
        }
        if let Some((before, error)) = failures.last() {
            tracing::warn!("{before}: {error:#}; trying {source}");
        }
        let failure = match transfer::run(engine.clone(), pull, spool.clone(), progress.clone()).await {
            Ok(fetched) => return Ok(Delivered { fetched, source, at: Instant::now() }),
            Err(failure) => failure,
        };
        let is_closed = matches!(failure, Failure::Transient(_, Some(_)));
        let error = anyhow::Error::from(failure.into_fault());
        if is_closed {
            _ = lock(closed).insert(index, format!("{error:#}"));
        }
        is_open |= !is_closed && error::class(&error) == Class::Transient;
        failures.push((source, error));
    }
    let reasons: String = failures.iter().map(|(source, error)| format!("\n| {source}: {error:#}")).collect();
    let fault = Fault::new(format!("all {} sources failed{reasons}", failures.len()));
    let fault = match failures.iter().find_map(|(_, error)| error::hint(error)) {
        Some(hint) => fault.hint(hint),
        None => fault,
    };
    let is_transient = failures.iter().any(|(_, error)| error::class(error) == Class::Transient);
    let fault = if is_transient { fault.transient() } else { fault };
    Err(if is_open { Failure::transient(fault) } else { Failure::Permanent(fault) })
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
