//! The validators (`ETag`s) of sources: asked for together when a run begins, and once in a run.

use std::{collections::btree_map::Entry, sync::Arc};

use anyhow::{Context, Result};

use super::{Fetcher, fetched::Fetched, progress::DownloadProgress, pull::Download, source::Source, transfer, wait};
use crate::{
    error::{self, Class},
    host::Host,
    net::worker::Task,
};

/// Limits how many sources are asked at once when a run begins. The others are asked when the run needs them.
const MAX_EARLY_ETAGS: usize = 32;

/// What a run knows about the validator of a source.
pub(super) enum KnownEtag {
    /// The source was asked, and has not been waited for yet.
    Asked(AskedEtag),
    /// What it has answered.
    Told(Option<String>),
    /// What a download of this run came with.
    Came(Option<String>),
}

/// A question under way.
pub(super) struct AskedEtag {
    task: Task<Option<String>>,
    progress: Arc<DownloadProgress>,
}

impl Fetcher {
    /// Asks for the validators of sources in the background. [`Fetcher::etag`] waits for the answers.
    pub fn ask_for_etags(&self, sources: impl IntoIterator<Item = Source>) {
        let mut etags = self.etags.borrow_mut();
        for source in sources {
            if etags.len() == MAX_EARLY_ETAGS {
                return;
            }
            if let Entry::Vacant(place) = etags.entry(source) {
                match self.start_etag(place.key()) {
                    Ok(asked) => _ = place.insert(KnownEtag::Asked(asked)),
                    Err(error) => tracing::debug!(source = %place.key(), "not asked early for its ETag: {error:#}"),
                }
            }
        }
    }

    /// Returns the origin's strong validator (`ETag`, or S3 version and `ETag`): that of this run's download, or what it
    /// would send now. A run asks once, and again after a change that it has made.
    pub fn etag(&self, host: &Host, source: &Source) -> Result<Option<String>> {
        if let Source::File(_) = source {
            return Ok(None);
        }
        let known = self.etags.borrow_mut().remove(source);
        let wait = |asked: &AskedEtag| wait(host, &asked.task, &asked.progress, source);
        let etag = match known {
            Some(KnownEtag::Came(etag)) => {
                _ = self.etags.borrow_mut().insert(source.clone(), KnownEtag::Came(etag.clone()));
                return Ok(etag);
            }
            Some(KnownEtag::Told(etag)) => Ok(etag),
            Some(KnownEtag::Asked(asked)) => {
                let had_ended = asked.task.has_ended();
                // It failed before the run needed it. The patience counts from now on.
                wait(&asked).or_else(|error| match error::class(&error) {
                    Class::Interrupted(_) => Err(error),
                    _ if had_ended => wait(&self.start_etag(source)?),
                    _ => Err(error),
                })
            }
            None => wait(&self.start_etag(source)?),
        };
        let etag = etag.with_context(|| format!("asking for the ETag of {source}"))?;
        _ = self.etags.borrow_mut().insert(source.clone(), KnownEtag::Told(etag.clone()));
        Ok(etag)
    }

    /// Keeps the validator that came with a download, so that the source is not asked again.
    /// `from` is the source that delivered it, without its query.
    pub(super) fn remember_etag(&self, download: &Download, from: &str, fetched: &Fetched) {
        let first = download.sources.first();
        let mut etags = self.etags.borrow_mut();
        if from == first.to_string() {
            _ = etags.insert(first.clone(), KnownEtag::Came(fetched.etag.clone()));
        } else {
            _ = etags.remove(first);
        }
    }

    /// Forgets what sources have answered: a change may have published something there.
    pub fn forget_answers(&self) {
        self.etags.borrow_mut().retain(|_, known| matches!(known, KnownEtag::Came(_)));
    }

    fn start_etag(&self, source: &Source) -> Result<AskedEtag> {
        let progress = Arc::new(DownloadProgress::default());
        let etag = transfer::etag(self.engine.clone(), source.clone(), progress.clone());
        Ok(AskedEtag { task: self.worker.start(etag)?, progress })
    }
}

#[cfg(test)]
impl Fetcher {
    /// Returns whether all questions have been answered or have failed.
    pub(super) fn has_answers(&self) -> bool {
        let has_ended = |known: &KnownEtag| !matches!(known, KnownEtag::Asked(asked) if !asked.task.has_ended());
        self.etags.borrow().values().all(has_ended)
    }
}
