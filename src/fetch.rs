//! Downloads: `https`, `http`, `s3` and `file` sources, started early and handed over when complete.
//!
//! The rest of the program is synchronous; here is its one asynchronous edge. A background thread
//! ([`worker`]) starts at the first use and runs what the calls below hand it; they wait for its results
//! and look for signals and deadlines meanwhile. A run in which nothing differs starts no thread and
//! reads no certificate.

pub mod batch;
pub mod checksum;
pub mod download;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
#[allow(clippy::disallowed_methods, reason = "makes its own trees")]
pub mod fuzz;
pub mod http;
pub mod mirrors;
pub mod progress;
pub mod range;
pub mod source;
pub mod spool;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "makes its own trees, servers and networks")]
mod tests;
pub mod window;
pub mod worker;

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    fmt::Display,
    fs::File,
    sync::{Arc, Mutex, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};

pub use self::{
    batch::{Delivery, Event, Order, Underway},
    source::{Source, Sources},
    spool::other_bytes,
};
use self::{
    progress::Progress,
    spool::{Place, Promise, Spool},
    window::Window,
    worker::{Task, Worker},
};
use crate::{
    aws::{metadata::Metadata, query::Account, s3::S3},
    error::{self, Class, Fault},
    host::{
        calls, process,
        root::{Ownership, Staged},
        state,
    },
    net::{
        client::Clients,
        retry::{Attempts, Budget, Failure, Limit, Pace},
    },
    stop::TICK,
    system::{Mode, System},
    value::{AbsPath, Sha256},
};
pub use crate::{
    aws::{
        metadata::check_name as check_instance_fact,
        s3::{Listed, Prefix, Upload},
    },
    notify::send::Acknowledged,
};

/// How long the downloads of a run wait for an origin that fails: as long as an outage that a deploy of it makes.
const PATIENCE: Duration = Duration::from_mins(5);
/// How many bodies of some length arrive at once: each takes a few hundred KiB of memory.
const STREAMS: usize = 22;

/// Descriptors of a download: its file, the note beside it, its connection.
const DESCRIPTORS: usize = 3;
/// Descriptors that are left to all else: the report, programs and their pipes, name servers.
const OTHER_DESCRIPTORS: usize = 128;

/// How many downloads may be under way, or complete and not yet handed over, by this process's limit of descriptors.
fn most_at_once() -> usize {
    (process::descriptors().saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS).max(1)
}

/// Something to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where from. Of several sources, each but the last is tried at most twice before the next one has its turn.
    pub sources: Sources,
    /// What its bytes must hash to; bytes that don't are never handed over.
    pub sha256: Option<Sha256>,
    /// How many bytes it has, where something but the origin says so.
    pub size: Option<u64>,
    /// Whether there is another way to get it: then an origin that fails is not waited for.
    pub has_fallback: bool,
}

impl Download {
    /// Of an unknown length, and the only way to get it.
    pub fn new(sources: impl Into<Sources>, sha256: Option<Sha256>) -> Self {
        Self { sources: sources.into(), sha256, size: None, has_fallback: false }
    }
}

/// A download from one source.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    source: Source,
    sha256: Option<Sha256>,
    size: Option<u64>,
    /// When attempts end, where another one may help.
    limit: Limit,
}

impl Pull {
    /// What its bytes are called until they are all there, the same in every run.
    fn staging_name(&self) -> String {
        let Self { source, sha256, .. } = self;
        let digest = Sha256::of(format!("{source} {sha256:?}").as_bytes()).to_string();
        digest[..32].to_owned()
    }
}

/// A complete, verified download: a file on the disk, gone when dropped.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes, positioned at the start.
    pub file: Arc<File>,
    /// The file itself, where it has a temporary name and so can get another.
    part: Option<Staged>,
    /// Their digest.
    pub sha256: Sha256,
    /// Their number.
    pub size: u64,
    /// How many of them an earlier, cut-off process had brought.
    pub resumed: u64,
    /// The origin's validator for these bytes, if it gave a strong one.
    pub etag: Option<String>,
}

impl Fetched {
    /// Makes its bytes those of a staged file: by a rename, or by a copy to another file system.
    pub fn hand_over(&mut self, staged: &mut Staged) -> Result<()> {
        if let Some(part) = self.part.take() {
            let Some(part) = staged.take(part)? else { return Ok(()) };
            self.part = Some(part);
        }
        _ = staged.copy_from(&mut self.file)?;
        Ok(())
    }
}

/// When a download went on, and from when on somebody waited for it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which source delivered it, as it may be shown.
    pub source: String,
    /// Number of its bytes.
    pub bytes: u64,
    /// When it was begun: with the run, or when it was wanted.
    pub began: Instant,
    /// When it was asked for.
    pub wanted: Instant,
    /// When it was complete and verified.
    pub ended: Instant,
}

/// An answer to a probe.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// How long is waited for what, and where AWS is. Tests put short times and their own servers here.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) pace: Pace,
    /// For a name to resolve and a connection to stand, TLS included.
    pub(crate) connect: Duration,
    /// For the next byte.
    pub(crate) stall: Duration,
    /// For a probe's connection.
    pub(crate) probe_connect: Duration,
    /// For a probe as a whole.
    pub(crate) probe: Duration,
    /// Instead of the SDK's chain of environment, profile files and metadata service.
    pub(crate) aws: Option<aws_config::SdkConfig>,
    /// A profile of `~/.aws` whose credentials and region are used, whatever the environment says.
    pub(crate) profile: Option<String>,
    /// The region of AWS, whatever environment and profile say.
    pub(crate) region: Option<String>,
    /// The account that a bucket must belong to.
    pub(crate) bucket_owner: Option<String>,
    /// Instead of `AWS_EC2_METADATA_SERVICE_ENDPOINT` or 169.254.169.254.
    pub(crate) metadata_endpoint: Option<String>,
    /// For a metadata service that isn't there yet, instead of five minutes on an instance and none elsewhere.
    pub(crate) metadata_patience: Option<Duration>,
    /// Instead of the machine's root certificates.
    pub(crate) roots: Option<Arc<rustls::RootCertStore>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            probe_connect: Duration::from_secs(2),
            probe: Duration::from_secs(10),
            aws: None,
            profile: None,
            region: None,
            bucket_owner: None,
            metadata_endpoint: None,
            metadata_patience: None,
            roots: None,
        }
    }
}

/// The downloads of a [`System`]: a thread once there is need for one, and what it was told to fetch early.
#[derive(Default)]
pub struct Fetcher {
    pub(crate) settings: Settings,
    pub(crate) worker: OnceCell<Worker>,
    pub(crate) started: RefCell<Vec<(Download, Transfer)>>,
    /// What is to be started when others have been handed over.
    pub(crate) queue: RefCell<VecDeque<Download>>,
    pub(crate) arrivals: RefCell<Vec<Arrival>>,
}

/// A download under way.
pub(crate) struct Transfer {
    task: Task<Delivered>,
    progress: Arc<Progress>,
    began: Instant,
}

/// What a transfer ends with.
pub(crate) struct Delivered {
    fetched: Fetched,
    source: String,
    at: Instant,
}

/// What the background's tasks share.
pub(crate) struct Origins {
    pub(crate) settings: Settings,
    pub(crate) clients: Clients,
    pub(crate) metadata: Metadata,
    pub(crate) s3: tokio::sync::OnceCell<S3>,
    pub(crate) account: tokio::sync::OnceCell<Account>,
    /// Who may download.
    pub(crate) window: Window,
    /// What retries are paid from.
    pub(crate) budget: Budget,
    /// Permits to receive a long body.
    pub(crate) streams: tokio::sync::Semaphore,
}

impl Origins {
    /// Attempts at one request, in the usual number and at the usual pace.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.settings.pace, &self.budget)
    }
}

impl Fetcher {
    pub(crate) fn worker(&self) -> Result<&Worker> {
        if let Some(worker) = self.worker.get() {
            return Ok(worker);
        }
        let clients = Clients::new(&self.settings);
        let worker = Worker::start(Origins {
            settings: self.settings.clone(),
            metadata: Metadata::new(clients.clone(), &self.settings),
            clients,
            s3: tokio::sync::OnceCell::new(),
            account: tokio::sync::OnceCell::new(),
            window: Window::new(),
            budget: Budget::default(),
            streams: tokio::sync::Semaphore::new(STREAMS),
        })?;
        Ok(self.worker.get_or_init(|| worker))
    }
}

impl System {
    /// Uses the AWS credentials and the region of this profile in `~/.aws/config` and `~/.aws/credentials`.
    pub fn use_profile(&mut self, name: String) {
        self.fetcher.settings.profile = Some(name);
    }

    /// Waits five minutes for an origin that fails, where a person would rather know soon: for a run.
    pub fn be_patient(&mut self) {
        self.fetcher.settings.pace.limit = Limit::Patience(PATIENCE);
    }

    /// Starts downloads in the background; [`System::fetch`] of the same download waits for them, and is
    /// where a failure shows.
    pub fn prefetch(&self, downloads: Vec<Download>) {
        if self.mode() == Mode::Run
            && let Err(error) = self.sweep(&downloads)
        {
            tracing::debug!("what earlier runs have left is not removed: {error:#}");
        }
        for download in downloads {
            let (started, mut queue) = (self.fetcher.started.borrow(), self.fetcher.queue.borrow_mut());
            let is_known = started.iter().any(|(other, _)| *other == download) || queue.contains(&download);
            if download.sources.local().is_none() && !is_known {
                queue.push_back(download);
            }
        }
        self.start_queued();
    }

    /// Starts what was told to be fetched early, as far as there are descriptors for it: one that is complete holds its
    /// file open until it is handed over.
    fn start_queued(&self) {
        let most = most_at_once();
        while self.fetcher.started.borrow().len() < most
            && let Some(download) = self.fetcher.queue.borrow_mut().pop_front()
        {
            match self.transfer(&download) {
                Ok(transfer) => self.fetcher.started.borrow_mut().push((download, transfer)),
                Err(error) => tracing::debug!(source = %download.sources, "not started early: {error:#}"),
            }
        }
    }

    /// Ends downloads that were started early and are not asked for any more.
    pub fn abandon(&self, downloads: &[Download]) {
        self.fetcher.started.borrow_mut().retain(|(started, _)| !downloads.contains(started));
        self.fetcher.queue.borrow_mut().retain(|queued| !downloads.contains(queued));
    }

    /// Downloads, or waits for a prefetch of the same.
    pub fn fetch(&self, download: &Download) -> Result<Fetched> {
        if let Some(path) = download.sources.local() {
            return self.copy(path, self.spool(&self.pulls(download)[0])?);
        }
        let early = {
            let mut started = self.fetcher.started.borrow_mut();
            started.iter().position(|(other, _)| other == download).map(|index| started.swap_remove(index).1)
        };
        self.fetcher.queue.borrow_mut().retain(|queued| queued != download);
        let wanted = Instant::now();
        let transfer = match early {
            Some(transfer) => transfer,
            None => self.transfer(download)?,
        };
        let (began, had_ended) = (transfer.began, transfer.task.has_ended());
        let mut delivered = self.await_transfer(transfer, download);
        // Its patience was over before its bytes were wanted: only now it counts.
        if had_ended
            && !download.has_fallback
            && self.is_patient()
            && delivered.as_ref().is_err_and(|error| error::class(error) == Class::Transient)
        {
            delivered = self.await_transfer(self.transfer(download)?, download);
        }
        let Delivered { fetched, source, at } =
            delivered.with_context(|| format!("downloading {}", download.sources))?;
        self.fetcher.arrivals.borrow_mut().push(Arrival { source, bytes: fetched.size, began, wanted, ended: at });
        Ok(fetched)
    }

    fn await_transfer(&self, Transfer { task, progress, .. }: Transfer, download: &Download) -> Result<Delivered> {
        self.await_download(&task, &progress, &download.sources)
    }

    /// A deadline's error with why the last attempt failed, if one did.
    fn because(&self, error: anyhow::Error, progress: &Progress) -> anyhow::Error {
        match progress.last_failure() {
            Some(failure) if self.host.stop.deadlines.check().is_err() => error.context(failure),
            _ => error,
        }
    }

    fn is_patient(&self) -> bool {
        matches!(self.fetcher.settings.pace.limit, Limit::Patience(_))
    }

    /// The downloads that were handed over since this was asked last.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.fetcher.arrivals.take()
    }

    /// The origin's strong validator (`ETag`, or S3 version and `ETag`) for what it would send now.
    pub fn etag(&self, source: &Source) -> Result<Option<String>> {
        if let Source::File(_) = source {
            return Ok(None);
        }
        let worker = self.fetcher.worker()?;
        let progress = Arc::new(Progress::default());
        let task = worker.run(download::etag(worker.origins(), source.clone(), progress.clone()));
        self.await_download(&task, &progress, source).with_context(|| format!("asking for the ETag of {source}"))
    }

    /// One GET, without redirects, proxies and retries, and without reading the body beyond 64 KiB. An
    /// error is as short as `connection refused`.
    pub fn probe(&self, url: &str) -> Result<Answer> {
        let worker = self.fetcher.worker()?;
        self.await_task(&worker.run(http::probe(worker.origins(), url.to_owned())), || {})
    }

    /// A fact about this EC2 instance, asked of the metadata service: `id`, `region`,
    /// `availability_zone`, `type`, `account`, `ami`, `tags.NAME`.
    pub fn instance(&self, name: &str) -> Result<String> {
        let query = crate::aws::metadata::Query::parse(name)?;
        self.leave_to_instances()?;
        let worker = self.fetcher.worker()?;
        self.await_task(&worker.run(crate::aws::metadata::ask(worker.origins(), query)), || {})
            .with_context(|| format!("reading instance.{name}"))
    }

    fn transfer(&self, download: &Download) -> Result<Transfer> {
        let pulls = self.pulls(download).into_iter();
        let pulls = pulls.map(|pull| self.spool(&pull).map(|spool| (pull, Arc::new(Mutex::new(spool)))));
        let pulls = pulls.collect::<Result<_>>()?;
        let worker = self.fetcher.worker()?;
        let progress = Arc::new(Progress::default());
        let task = worker.run(Box::pin(mirrors::run(worker.origins(), pulls, progress.clone())));
        Ok(Transfer { task, progress, began: Instant::now() })
    }

    /// A file of the machine itself, copied so that it can't change once it is verified.
    fn copy(&self, path: &AbsPath, mut spool: Spool) -> Result<Fetched> {
        let Some((mut file, _)) = self.root().open_file(path)? else { bail!("{path} does not exist") };
        spool.begin(Promise::default()).map_err(Failure::into_fault)?;
        let lane = spool.lane();
        _ = spool.claim(lane);
        let mut buffer = vec![0; 128 << 10];
        loop {
            self.host.stop.check()?;
            match calls::read(&mut file, &mut buffer).with_context(|| format!("reading {path}"))? {
                0 => break,
                read => _ = spool.write(lane, spool.done(), &buffer[..read]).map_err(Failure::into_fault)?,
            }
        }
        spool.end();
        spool.digest().with_context(|| format!("reading {path} again"))?;
        spool.verify().with_context(|| format!("verifying {path}"))?;
        Ok(spool.finish()?)
    }

    /// Where a download's bytes go. A run takes up what a killed one has left; a plan leaves the state directory as it
    /// is.
    fn spool(&self, pull: &Pull) -> Result<Spool> {
        let ownership = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 };
        let (directory, place) = match self.mode() {
            Mode::Run => {
                let directory = AbsPath::from(state::DIRECTORY).join("staging")?;
                self.root().make_directories(&directory, 0o700)?;
                let part = self.root().resume(&directory.join(&pull.staging_name())?, ownership)?;
                (directory, Place::Part(part))
            }
            Mode::Plan => {
                let directory: AbsPath = "/var/tmp".into();
                let file = self.root().unnamed(&directory)?;
                (directory, Place::Anonymous(Arc::new(file)))
            }
        };
        Ok(Spool::new(place, directory, pull)?)
    }

    fn pulls(&self, download: &Download) -> Vec<Pull> {
        mirrors::pulls(download, &self.fetcher.settings.pace)
    }

    /// Removes what a killed run has left of downloads that this one doesn't need.
    fn sweep(&self, downloads: &[Download]) -> Result<()> {
        let directory = AbsPath::from(state::DIRECTORY).join("staging")?;
        let started = self.fetcher.started.borrow();
        let started = started.iter().map(|(download, _)| download);
        let queue = self.fetcher.queue.borrow();
        let pulls = downloads.iter().chain(started).chain(&*queue).flat_map(|download| self.pulls(download));
        let wanted: Vec<String> = pulls.map(|pull| pull.staging_name()).collect();
        for name in self.root().list(&directory)? {
            if !wanted.iter().any(|wanted| name.contains(wanted)) {
                self.root().remove(&directory.join(&name)?)?;
            }
        }
        Ok(())
    }

    /// Waits for a task and shows how far it is. No pause of it goes on beyond a deadline: nothing would come of it.
    fn await_download<T>(&self, task: &Task<T>, progress: &Progress, what: &impl Display) -> Result<T> {
        let watch = || {
            self.host.progress(&progress.line(what));
            progress.check_pause(&self.host.stop.deadlines)
        };
        self.await_watched(task, watch).map_err(|error| self.because(error, progress))
    }

    /// Waits for a task; a signal or a deadline ends the wait and, with the task dropped, its work.
    pub(crate) fn await_task<T>(&self, task: &Task<T>, show: impl Fn()) -> Result<T> {
        let watch = || {
            show();
            Ok(())
        };
        self.await_watched(task, watch)
    }

    /// The same; what watches it four times a second may end the wait too.
    fn await_watched<T>(&self, task: &Task<T>, watch: impl Fn() -> Result<()>) -> Result<T> {
        for tick in 0u32.. {
            if tick.is_multiple_of(5) {
                watch()?;
            }
            match task.result.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.host.stop.check()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Fault::new("the background thread of the downloads has ended").into())
    }
}
