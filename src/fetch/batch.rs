//! Many downloads at once, each to a path of the user's choice.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};

use super::{
    Fetcher,
    fetched::Fetched,
    max_downloads,
    progress::DownloadProgress,
    pull::Pull,
    source::Source,
    spool::{Spool, SpoolFile},
    staging, transfer,
};
use crate::{
    error::Fault,
    host::{
        Host,
        root::{FileType, Ownership, Staged},
    },
    net::{retry::Failure, worker::RunningWork},
    stop::TICK,
    value::{AbsPath, Sha256},
};

/// The most orders that are started at once. The engine's window decides how many of them run.
const MAX_BEGUN: usize = 320;
/// The interval of the progress events.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

/// A file to download to a path of the user's choice.
#[derive(Debug, Clone)]
pub struct Order {
    /// The source of its bytes.
    pub source: Source,
    /// The digest that its bytes must have.
    pub sha256: Option<Sha256>,
    /// Its path. Missing directories are made.
    pub destination: AbsPath,
    /// Its owner and mode. Without them, it belongs to the calling user, with the permissions that the umask leaves.
    pub ownership: Option<Ownership>,
}

/// A delivered file.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// Bytes that an earlier, interrupted download had received.
    pub resumed: u64,
    /// The time since its start, not since its order.
    pub took: Duration,
}

/// The progress of an order.
#[derive(Debug, Clone, Copy)]
pub struct Underway {
    /// The index of the order.
    pub index: usize,
    /// Bytes received so far.
    pub done: u64,
    /// The length of the body, once the origin has told it.
    pub total: Option<u64>,
}

/// An event of a delivery.
#[derive(Debug)]
pub enum DeliveryEvent<'a> {
    /// The progress of all running orders, about ten times a second.
    Underway(&'a [Underway]),
    /// An order has been delivered, or has failed.
    Done {
        /// The index of the order.
        index: usize,
        /// Its result.
        result: &'a Result<Delivery>,
    },
}

/// A running order. When dropped, its download is abandoned.
struct RunningOrder {
    index: usize,
    began: Instant,
    progress: Arc<DownloadProgress>,
    _work: RunningWork,
}

/// The result of the background task.
type FinishedOrder = (usize, Result<Fetched, Fault>);

/// The orders of one delivery, and how far they are.
struct Batch<'a> {
    host: &'a Host,
    orders: &'a [Order],
    waiting: VecDeque<usize>,
    running: Vec<RunningOrder>,
    results: Vec<Option<Result<Delivery>>>,
    observe: &'a mut dyn FnMut(DeliveryEvent<'_>),
}

impl<'a> Batch<'a> {
    fn new(host: &'a Host, orders: &'a [Order], observe: &'a mut dyn FnMut(DeliveryEvent<'_>)) -> Self {
        let results = orders.iter().map(|_| None).collect();
        Self { host, orders, waiting: VecDeque::new(), running: vec![], results, observe }
    }

    fn settle(&mut self, index: usize, result: Result<Delivery>) {
        let result = result.with_context(|| format!("downloading {}", self.orders[index].source));
        (self.observe)(DeliveryEvent::Done { index, result: &result });
        self.results[index] = Some(result);
    }

    /// Ends all orders once a deadline has passed, and those whose pause would end after it.
    fn end_late(&mut self) {
        let deadlines = &self.host.stop.deadlines;
        while let Err(late) = deadlines.check()
            && let Some(index) = self.running.pop().map(|running| running.index).or_else(|| self.waiting.pop_front())
        {
            self.settle(index, Err(late));
        }
        // Without a deadline no pause is too long, and there may be thousands of arrivals.
        let checked = if deadlines.left().is_some() { self.running.len() } else { 0 };
        for position in (0..checked).rev() {
            if let Err(late) = self.running[position].progress.check_pause(deadlines) {
                let index = self.running.swap_remove(position).index;
                self.settle(index, Err(late));
            }
        }
    }

    /// Waits for arrivals, and gives the files that have arrived their names. All of them are flushed together, which takes
    /// about as long as one.
    fn receive(&mut self, arrivals: &Receiver<FinishedOrder>) {
        let first = arrivals.recv_timeout(TICK).ok();
        let mut whole = vec![];
        for (index, arrival) in first.into_iter().chain(arrivals.try_iter()) {
            let position = self.running.iter().position(|running| running.index == index);
            let began = position.map_or_else(Instant::now, |position| self.running.swap_remove(position).began);
            match arrival {
                Ok(fetched) => whole.push((index, fetched, began)),
                Err(fault) => self.settle(index, Err(fault.into())),
            }
        }
        for (index, delivery) in publish(whole) {
            self.settle(index, delivery);
        }
    }

    fn tell(&mut self) {
        let now = |running: &RunningOrder| {
            let (done, total) = running.progress.now();
            Underway { index: running.index, done, total }
        };
        let underway: Vec<Underway> = self.running.iter().map(now).collect();
        (self.observe)(DeliveryEvent::Underway(&underway));
    }
}

impl Fetcher {
    /// Downloads all orders, at most `jobs` at once; without `jobs` the engine decides. Calls `observe` for each event.
    ///
    /// Each file appears whole and verified, or not at all. The results are in the order of the orders.
    ///
    /// # Errors
    /// If a signal ends it. The failure of one order is that order's result, also if a deadline has passed.
    #[expect(clippy::needless_pass_by_value, reason = "they are carried out, not looked at")]
    pub fn deliver(
        &self,
        host: &Host,
        orders: Vec<Order>,
        jobs: Option<usize>,
        observe: &mut dyn FnMut(DeliveryEvent<'_>),
    ) -> Result<Vec<Result<Delivery>>> {
        let umask = umask();
        let usual = ours(0o666 & !umask);
        let mut batch = Batch::new(host, &orders, observe);
        for (index, ready) in make_ready(host, &orders, umask).into_iter().enumerate() {
            match ready {
                Ok(()) => batch.waiting.push_back(index),
                Err(error) => batch.settle(index, Err(error)),
            }
        }
        let jobs = jobs.unwrap_or(MAX_BEGUN).min(max_downloads());
        let (sender, arrivals) = channel();
        let mut told = Instant::now();
        loop {
            batch.end_late();
            while batch.running.len() < jobs
                && let Some(index) = batch.waiting.pop_front()
            {
                self.begin(&mut batch, index, usual, &sender)?;
            }
            if batch.running.is_empty() {
                return Ok(batch.results.into_iter().flatten().collect());
            }
            batch.receive(&arrivals);
            host.stop.interrupt.check()?;
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                batch.tell();
            }
        }
    }

    /// Starts an order. A local file is copied at once.
    ///
    /// # Errors
    /// If a signal ends it.
    fn begin(
        &self,
        batch: &mut Batch<'_>,
        index: usize,
        usual: Ownership,
        sender: &Sender<FinishedOrder>,
    ) -> Result<()> {
        let (host, order) = (batch.host, &batch.orders[index]);
        let started = match &order.source {
            Source::File(path) => self.carry(host, index, path, order, usual).map(Err),
            _ => self.start_order(host, index, order, usual, sender.clone()).map(Ok),
        };
        host.stop.interrupt.check()?;
        match started {
            Ok(Ok(started)) => batch.running.push(started),
            Ok(Err(delivery)) => batch.settle(index, Ok(delivery)),
            Err(error) => batch.settle(index, Err(error)),
        }
        Ok(())
    }

    fn start_order(
        &self,
        host: &Host,
        index: usize,
        order: &Order,
        usual: Ownership,
        sender: Sender<FinishedOrder>,
    ) -> Result<RunningOrder> {
        let progress = Arc::new(DownloadProgress::default());
        let pull = self.pull(order);
        let spool = spool_beside(host, order, &pull, usual)?;
        // Boxed, because the types around a future reserve its size twice.
        let (engine, known) = (self.engine.clone(), progress.clone());
        let spool = Arc::new(Mutex::new(spool));
        let download = Box::pin(async move { transfer::run(engine, &pull, spool, known).await });
        let work = self.worker.spawn(async move {
            // The receiver is gone if no caller waits for the result.
            _ = sender.send((index, download.await.map_err(Failure::into_fault)));
        })?;
        Ok(RunningOrder { index, began: Instant::now(), progress, _work: work })
    }

    fn carry(&self, host: &Host, index: usize, path: &AbsPath, order: &Order, usual: Ownership) -> Result<Delivery> {
        let began = Instant::now();
        let fetched = staging::copy(host, path, spool_beside(host, order, &self.pull(order), usual)?)?;
        publish(vec![(index, fetched, began)])
            .pop()
            .map_or_else(|| bail!("{path} was not copied"), |(_, delivery)| delivery)
    }

    fn pull(&self, Order { source, sha256, .. }: &Order) -> Pull {
        Pull { source: source.clone(), sha256: *sha256, size: None, limit: self.pace().limit }
    }
}

/// Returns the staged file of a destination, which may hold bytes of an earlier process.
fn spool_beside(host: &Host, order: &Order, pull: &Pull, usual: Ownership) -> Result<Spool> {
    let directory = order.destination.parent().unwrap_or_else(|| "/".into());
    let part = host.root().resume(&order.destination, order.ownership.unwrap_or(usual))?;
    Ok(Spool::new(SpoolFile::Part(part), directory, pull)?)
}

/// Makes a directory and its missing parents, and checks that files can be written to it.
///
/// # Errors
/// If this user may not make them, or if another user could put a link into the path.
pub fn prepare_directory(host: &Host, directory: &AbsPath) -> Result<()> {
    make_way(host, directory, umask())?;
    // The staged file is removed when it is dropped unpublished.
    let name = format!("fetch-{}", std::process::id());
    host.root().stage(&directory.join(&name)?, ours(0o600)).map(drop)
}

/// Makes the directories of orders, each once, and checks their paths. The results are in the order of the orders.
///
/// All directories are made first. So a file and a directory of the same name fail before any download.
fn make_ready(host: &Host, orders: &[Order], umask: u32) -> Vec<Result<()>> {
    let mut known = BTreeSet::new();
    let make = |order: &Order| match order.destination.parent() {
        Some(directory) if !known.contains(&directory) => {
            make_way(host, &directory, umask)?;
            _ = known.insert(directory);
            Ok(())
        }
        _ => Ok(()),
    };
    let ready: Vec<Result<()>> = orders.iter().map(make).collect();
    let admit = |(ready, order): (Result<()>, &Order)| ready.and_then(|()| admit(host, &order.destination));
    ready.into_iter().zip(orders).map(admit).collect()
}

fn make_way(host: &Host, directory: &AbsPath, umask: u32) -> Result<()> {
    if host.root().status(directory)?.is_some() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make_way(host, &parent, umask)?;
    }
    match host.root().make_directory(directory, ours(0o777 & !umask)) {
        // Another process made it in the meantime.
        Err(_) if host.root().status(directory)?.is_some() => Ok(()),
        made => made,
    }
}

/// Fails if the path exists and is neither a file nor a link.
fn admit(host: &Host, destination: &AbsPath) -> Result<()> {
    let what = match host.root().status(destination)?.map(|status| status.file_type) {
        None | Some(FileType::Regular | FileType::Link) => return Ok(()),
        Some(FileType::Directory) => "a directory",
        Some(FileType::Special) => "a device, socket or FIFO",
    };
    Err(Fault::new(format!("{destination} is {what}")).hint("move it away, or download to elsewhere").into())
}

/// Returns the umask. It can only be read by setting it: /proc/self/status has it since Linux 4.7, and a chroot may
/// have no /proc. Files that another thread makes meanwhile are private.
fn umask() -> u32 {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_retain(0o077));
    _ = nix::sys::stat::umask(umask);
    umask.bits()
}

/// Gives the files their names.
fn publish(whole: Vec<(usize, Fetched, Instant)>) -> Vec<(usize, Result<Delivery>)> {
    let mut parts = vec![];
    let mut deliveries = vec![];
    for (index, Fetched { size, sha256, resumed, part, .. }, began) in whole {
        // Each delivery has a staged file, because it was ordered with a path.
        if let Some(part) = part {
            parts.push(part);
            deliveries.push((index, Delivery { size, sha256, resumed, took: began.elapsed() }));
        }
    }
    let published = Staged::publish_all(parts).into_iter();
    deliveries
        .into_iter()
        .zip(published)
        .map(|((index, delivery), result)| (index, result.map(|()| delivery)))
        .collect()
}

/// Returns the calling user's ownership with these permission bits.
fn ours(mode: u32) -> Ownership {
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode }
}
