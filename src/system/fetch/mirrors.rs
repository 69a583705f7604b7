//! Several sources of the same bytes: after a failure of one, the next one is tried.

use std::{sync::Arc, time::Instant};

use super::{
    Delivered, Download, Origins, Pull, Source,
    download::{self, Progress},
    retry::Pace,
    spool::Spool,
};
use crate::error::{self, Class, Fault};

/// How often a source is tried that has another one behind it: that one is a better bet than patience.
const ATTEMPTS: u32 = 2;

/// What is asked of each source, in turn.
pub(super) fn pulls(download: &Download, pace: &Pace) -> Vec<Pull> {
    let sources = download.sources.all();
    let pull = |(index, source): (usize, &Source)| Pull {
        source: source.clone(),
        sha256: download.sha256,
        attempts: if index + 1 == sources.len() { pace.attempts } else { pace.attempts.min(ATTEMPTS) },
    };
    sources.iter().enumerate().map(pull).collect()
}

/// Downloads from the first source that delivers. Each has a file of its own for what arrives from it.
///
/// # Errors
/// That of the only source, or those of all of several: transient if one of them is.
pub(super) async fn run(
    origins: Arc<Origins>,
    pulls: Vec<(Pull, Spool)>,
    progress: Arc<Progress>,
) -> Result<Delivered, Fault> {
    let is_only = pulls.len() == 1;
    let mut failures: Vec<(String, anyhow::Error)> = vec![];
    for (pull, spool) in pulls {
        let source = pull.source.to_string();
        if let Some((before, error)) = failures.last() {
            tracing::warn!("{before}: {error:#}; trying {source}");
        }
        match download::run(origins.clone(), pull, spool, progress.clone()).await {
            Ok(fetched) => return Ok(Delivered { fetched, source, at: Instant::now() }),
            Err(fault) if is_only => return Err(fault),
            Err(fault) => failures.push((source, fault.into())),
        }
    }
    let reasons: String = failures.iter().map(|(source, error)| format!("\n| {source}: {error:#}")).collect();
    let fault = Fault::new(format!("none of the {} sources delivers it{reasons}", failures.len()));
    let is_transient = failures.iter().any(|(_, error)| error::class(error) == Class::Transient);
    let fault = if is_transient { fault.transient() } else { fault };
    Err(match failures.iter().find_map(|(_, error)| error::hint(error)) {
        Some(hint) => fault.hint(hint),
        None => fault,
    })
}
