//! Several sources of the same bytes: after a failure of one, the next one is tried.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{Delivered, Download, Origins, Pull, Source, download, progress::Progress, spool::Spool};
use crate::{
    error::{self, Class, Fault},
    net::retry::{Failure, Limit, Pace},
};

/// How often a source is tried that has another one behind it: that one is a better bet than patience.
const ATTEMPTS: u32 = 2;

/// How often a source is tried that is not waited for.
const IMPATIENT_ATTEMPTS: u32 = 5;

/// What is asked of each source, in turn.
pub(crate) fn pulls(download: &Download, pace: &Pace) -> Vec<Pull> {
    let sources = download.sources.all();
    let pull = |(index, source): (usize, &Source)| Pull {
        source: source.clone(),
        sha256: download.sha256,
        size: download.size,
        limit: match pace.limit {
            Limit::Patience(_) if download.has_fallback => Limit::Attempts(IMPATIENT_ATTEMPTS),
            // With patience it is asked again after all the others.
            Limit::Patience(_) if sources.len() > 1 => Limit::Attempts(ATTEMPTS),
            Limit::Attempts(attempts) if index + 1 < sources.len() => Limit::Attempts(attempts.min(ATTEMPTS)),
            limit => limit,
        },
    };
    sources.iter().enumerate().map(pull).collect()
}

/// What is asked of a source, and the file for what arrives from it.
pub(crate) type Bid = (Pull, Arc<Mutex<Spool>>);

/// Downloads from the first source that delivers. With patience all are asked again and again.
///
/// # Errors
/// That of the only source, or those of all of several: transient if one of them is.
pub(crate) async fn run(origins: Arc<Origins>, bids: Vec<Bid>, progress: Arc<Progress>) -> Result<Delivered, Fault> {
    if let [(pull, spool)] = &bids[..] {
        let fetched = download::run(origins, pull, spool.clone(), progress).await?;
        return Ok(Delivered { fetched, source: pull.source.to_string(), at: Instant::now() });
    }
    let Limit::Patience(_) = origins.settings.pace.limit else {
        return each(&origins, &bids, &progress).await.map_err(Failure::into_fault);
    };
    let what = bids.iter().map(|(pull, _)| pull.source.to_string()).collect::<Vec<_>>().join(" or ");
    origins.attempts().shown(&progress).run(&what, || each(&origins, &bids, &progress)).await
}

/// Asks each source, in turn.
async fn each(origins: &Arc<Origins>, bids: &[Bid], progress: &Arc<Progress>) -> Result<Delivered, Failure> {
    let mut failures: Vec<(String, anyhow::Error)> = vec![];
    for (pull, spool) in bids {
        let source = pull.source.to_string();
        if let Some((before, error)) = failures.last() {
            tracing::warn!("{before}: {error:#}; trying {source}");
        }
        match download::run(origins.clone(), pull, spool.clone(), progress.clone()).await {
            Ok(fetched) => return Ok(Delivered { fetched, source, at: Instant::now() }),
            Err(fault) => failures.push((source, fault.into())),
        }
    }
    let reasons: String = failures.iter().map(|(source, error)| format!("\n| {source}: {error:#}")).collect();
    let fault = Fault::new(format!("all {} sources failed{reasons}", failures.len()));
    let fault = match failures.iter().find_map(|(_, error)| error::hint(error)) {
        Some(hint) => fault.hint(hint),
        None => fault,
    };
    let is_transient = failures.iter().any(|(_, error)| error::class(error) == Class::Transient);
    Err(if is_transient { Failure::transient(fault.transient()) } else { Failure::Permanent(fault) })
}
