//! Downloads: `https`, `http`, `s3` and `file` sources, started early and handed over when complete.
//!
//! The rest of the program is synchronous. A background thread ([`worker`](crate::net::worker)) starts at the first use
//! and runs the downloads. The calls below wait for its results, and check for signals and deadlines meanwhile. A run
//! in which nothing differs starts no thread and reads no certificate.

pub mod batch;
mod engine;
mod etags;
pub mod fetched;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub mod fuzz;
mod http;
mod mirrors;
pub mod names;
mod origin;
pub mod pin;
mod progress;
pub mod pull;
pub mod source;
pub mod spool;
pub mod staging;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod window;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{
    engine::Engine,
    etags::KnownEtag,
    fetched::{Arrival, Fetched},
    mirrors::Delivered,
    progress::DownloadProgress,
    pull::{Download, Pull},
    source::Source,
    spool::Spool,
    staging::Staging,
};
use crate::{
    aws::s3::S3,
    error::{self, Class},
    host::{Host, process},
    net::{
        Network, probe,
        probe::{ProbeAnswer, ProbeRequest},
        retry::{Limit, Pace},
        worker::{Task, Worker},
    },
};

/// The descriptors of one download: its file, the note beside it, its connection.
const DESCRIPTORS_PER_DOWNLOAD: usize = 3;
/// The descriptors that are left for other uses: the report, programs and their pipes, name servers.
const OTHER_DESCRIPTORS: usize = 128;

/// Returns the most downloads that may be open at once, running or complete, by this process's limit of descriptors.
fn max_downloads() -> usize {
    (process::descriptors().saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_DOWNLOAD).max(1)
}

/// The downloads of a process: those that were started early, and those that wait to be started.
pub struct Fetcher {
    engine: Arc<Engine>,
    worker: Rc<Worker>,
    staging: Staging,
    started: RefCell<Vec<(Download, StartedDownload)>>,
    /// The downloads to start when others have been handed over.
    queue: RefCell<VecDeque<Download>>,
    arrivals: RefCell<Vec<Arrival>>,
    etags: RefCell<BTreeMap<Source, KnownEtag>>,
}

/// A download under way.
struct StartedDownload {
    task: Task<Delivered>,
    progress: Arc<DownloadProgress>,
    began: Instant,
}

impl Fetcher {
    /// Returns a fetcher without downloads.
    pub(crate) fn new(network: Arc<Network>, s3: Arc<S3>, worker: Rc<Worker>, staging: Staging) -> Self {
        Self {
            engine: Arc::new(Engine::new(network, s3)),
            worker,
            staging,
            started: RefCell::default(),
            queue: RefCell::default(),
            arrivals: RefCell::default(),
            etags: RefCell::default(),
        }
    }

    /// Starts downloads in the background. [`Fetcher::fetch`] of the same download waits for it and returns its
    /// failure.
    pub fn prefetch(&self, host: &Host, downloads: Vec<Download>) {
        if self.staging == Staging::Resumable
            && let Err(error) = self.sweep(host, &downloads)
        {
            tracing::debug!("what earlier runs have left is not removed: {error:#}");
        }
        for download in downloads {
            let (started, mut queue) = (self.started.borrow(), self.queue.borrow_mut());
            let is_known = started.iter().any(|(other, _)| *other == download) || queue.contains(&download);
            if download.sources.local().is_none() && !is_known {
                queue.push_back(download);
            }
        }
        self.start_queued(host);
    }

    /// Starts waiting downloads, as many as there are descriptors for. A complete download holds its file open until it
    /// is handed over.
    fn start_queued(&self, host: &Host) {
        let most = max_downloads();
        while self.started.borrow().len() < most
            && let Some(download) = self.queue.borrow_mut().pop_front()
        {
            match self.start(host, &download) {
                Ok(started) => self.started.borrow_mut().push((download, started)),
                Err(error) => tracing::debug!(source = %download.sources, "not started early: {error:#}"),
            }
        }
    }

    /// Removes unfinished downloads of killed runs that this run does not need.
    fn sweep(&self, host: &Host, downloads: &[Download]) -> Result<()> {
        let (started, queue) = (self.started.borrow(), self.queue.borrow());
        let started = started.iter().map(|(download, _)| download);
        let known = downloads.iter().chain(started).chain(&*queue);
        staging::sweep(host, known.flat_map(|download| self.pulls(download)))
    }

    /// Ends downloads that were started early and are no longer needed.
    pub fn abandon(&self, downloads: &[Download]) {
        self.started.borrow_mut().retain(|(started, _)| !downloads.contains(started));
        self.queue.borrow_mut().retain(|queued| !downloads.contains(queued));
    }

    /// Downloads, or waits for the same download if it was started early.
    pub fn fetch(&self, host: &Host, download: &Download) -> Result<Fetched> {
        if let Some(path) = download.sources.local() {
            return staging::copy(host, path, self.spool(host, &self.pulls(download)[0])?);
        }
        let early = {
            let mut started = self.started.borrow_mut();
            started.iter().position(|(other, _)| other == download).map(|index| started.swap_remove(index).1)
        };
        self.queue.borrow_mut().retain(|queued| queued != download);
        let wanted = Instant::now();
        let started = match early {
            Some(started) => started,
            None => self.start(host, download)?,
        };
        let (began, had_ended) = (started.began, started.task.has_ended());
        let mut delivered = wait(host, &started.task, &started.progress, &download.sources);
        // Its patience ended before the run needed it. The patience counts from now on.
        if had_ended
            && !download.has_fallback
            && matches!(self.pace().limit, Limit::Patience(_))
            && delivered.as_ref().is_err_and(|error| error::class(error) == Class::Transient)
        {
            let StartedDownload { task, progress, .. } = self.start(host, download)?;
            delivered = wait(host, &task, &progress, &download.sources);
        }
        let Delivered { fetched, source, at } =
            delivered.with_context(|| format!("downloading {}", download.sources))?;
        self.remember_etag(download, &source, &fetched);
        self.arrivals.borrow_mut().push(Arrival { source, bytes: fetched.size, began, wanted, ended: at });
        Ok(fetched)
    }

    /// Returns the downloads that were handed over since the last call.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.take()
    }

    /// Sends one request, without redirects, proxies and retries. Reads at most 64 KiB of the body.
    ///
    /// # Errors
    /// If no answer comes within `limit`. An error is as short as `connection refused`.
    pub fn probe(&self, host: &Host, request: ProbeRequest, limit: Duration) -> Result<ProbeAnswer> {
        self.worker.run(&host.stop, probe::probe(self.engine.network.clone(), request, limit))
    }

    /// Makes the client of [`Fetcher::probe`] for plain http in the background.
    pub fn prepare_probe(&self) {
        let network = self.engine.network.clone();
        // The probe itself tells what is wrong.
        self.worker.prepare(move || _ = network.clients.local(false));
    }

    /// Connects once to a server, and sends nothing.
    ///
    /// # Errors
    /// If it accepts no connection within `limit`.
    pub fn connect(&self, host: &Host, name: &str, port: u16, limit: Duration) -> Result<()> {
        self.worker.run(&host.stop, probe::connect(self.engine.network.clone(), name.to_owned(), port, limit))
    }

    fn start(&self, host: &Host, download: &Download) -> Result<StartedDownload> {
        let pulls = self.pulls(download).into_iter();
        let bids = pulls.map(|pull| self.spool(host, &pull).map(|spool| (pull, Arc::new(Mutex::new(spool)))));
        let bids = bids.collect::<Result<_>>()?;
        let progress = Arc::new(DownloadProgress::default());
        let task = self.worker.start(Box::pin(mirrors::run(self.engine.clone(), bids, progress.clone())))?;
        Ok(StartedDownload { task, progress, began: Instant::now() })
    }

    fn spool(&self, host: &Host, pull: &Pull) -> Result<Spool> {
        staging::spool(host, self.staging, pull)
    }

    fn pulls(&self, download: &Download) -> Vec<Pull> {
        mirrors::pulls(download, self.pace())
    }

    fn pace(&self) -> &Pace {
        &self.engine.network.settings.pace
    }
}

/// Waits for a task and shows its progress. It fails early if the next attempt would begin only after a deadline.
///
/// # Errors
/// The task's. A deadline's error says why the last attempt failed, if one did.
fn wait<T>(host: &Host, task: &Task<T>, progress: &DownloadProgress, what: &impl Display) -> Result<T> {
    let mut told = None;
    let watch = || {
        progress.tell_wait(host, &mut told, what);
        host.progress(&progress.line(what));
        progress.check_pause(&host.stop.deadlines)
    };
    task.wait(&host.stop, watch).map_err(|error| match progress.last_failure() {
        Some(failure) if host.stop.deadlines.check().is_err() => error.context(failure),
        _ => error,
    })
}
