//! Many downloads at once, each to a path of the user's choice.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
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
    net::{retry::Failure, worker::Task},
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
    _task: Task<()>,
}

/// The result of the background task.
type FinishedOrder = (usize, Result<Fetched, Fault>);

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
        let jobs = jobs.unwrap_or(MAX_BEGUN).min(max_downloads());
        let umask = umask();
        let usual = ours(0o666 & !umask);
        let mut results: Vec<Option<Result<Delivery>>> = orders.iter().map(|_| None).collect();
        let mut settle = |index: usize, result: Result<Delivery>, observe: &mut dyn FnMut(DeliveryEvent<'_>)| {
            let what = &orders[index].source;
            let result = result.with_context(|| format!("downloading {what}"));
            observe(DeliveryEvent::Done { index, result: &result });
            results[index] = Some(result);
        };

        let mut waiting = VecDeque::new();
        for (index, ready) in make_ready(host, &orders, umask).into_iter().enumerate() {
            match ready {
                Ok(()) => waiting.push_back(index),
                Err(error) => settle(index, Err(error), observe),
            }
        }

        let (sender, arrivals) = channel();
        let mut running: Vec<RunningOrder> = vec![];
        let mut told = Instant::now();
        loop {
            while let Err(late) = host.stop.deadlines.check()
                && let Some(index) = running.pop().map(|running| running.index).or_else(|| waiting.pop_front())
            {
                settle(index, Err(late), observe);
            }
            // Without a deadline no pause is too long, and there may be thousands of arrivals.
            let checked = if host.stop.deadlines.left().is_some() { running.len() } else { 0 };
            for position in (0..checked).rev() {
                if let Err(late) = running[position].progress.check_pause(&host.stop.deadlines) {
                    settle(running.swap_remove(position).index, Err(late), observe);
                }
            }
            while running.len() < jobs
                && let Some(index) = waiting.pop_front()
            {
                let started = match &orders[index].source {
                    Source::File(path) => self.carry(host, index, path, &orders[index], usual).map(Err),
                    _ => self.start_order(host, index, &orders[index], usual, sender.clone()).map(Ok),
                };
                host.stop.interrupt.check()?;
                match started {
                    Ok(Ok(started)) => running.push(started),
                    Ok(Err(delivery)) => settle(index, Ok(delivery), observe),
                    Err(error) => settle(index, Err(error), observe),
                }
            }
            if running.is_empty() {
                break;
            }
            // All files that have arrived are flushed together, which takes about as long as one.
            let first = arrivals.recv_timeout(TICK).ok();
            let mut whole = vec![];
            for (index, arrival) in first.into_iter().chain(arrivals.try_iter()) {
                let position = running.iter().position(|running| running.index == index);
                let began = position.map_or_else(Instant::now, |position| running.swap_remove(position).began);
                match arrival {
                    Ok(fetched) => whole.push((index, fetched, began)),
                    Err(fault) => settle(index, Err(fault.into()), observe),
                }
            }
            for (index, delivery) in publish(whole) {
                settle(index, delivery, observe);
            }
            host.stop.interrupt.check()?;
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                let underway: Vec<Underway> = running
                    .iter()
                    .map(|running| {
                        let (done, total) = running.progress.now();
                        Underway { index: running.index, done, total }
                    })
                    .collect();
                observe(DeliveryEvent::Underway(&underway));
            }
        }
        Ok(results.into_iter().flatten().collect())
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
        let spool = self.spool_beside(host, order, usual)?;
        // Boxed, because the types around a future reserve its size twice.
        let (engine, pull, known) = (self.engine.clone(), self.pull(order), progress.clone());
        let spool = Arc::new(Mutex::new(spool));
        let download = Box::pin(async move { transfer::run(engine, &pull, spool, known).await });
        let task = self.worker.start(async move {
            // The receiver is gone if no caller waits for the result.
            _ = sender.send((index, download.await.map_err(Failure::into_fault)));
            Ok::<(), Fault>(())
        })?;
        Ok(RunningOrder { index, began: Instant::now(), progress, _task: task })
    }

    fn carry(&self, host: &Host, index: usize, path: &AbsPath, order: &Order, usual: Ownership) -> Result<Delivery> {
        let began = Instant::now();
        let fetched = staging::copy(host, path, self.spool_beside(host, order, usual)?)?;
        publish(vec![(index, fetched, began)])
            .pop()
            .map_or_else(|| bail!("{path} was not copied"), |(_, delivery)| delivery)
    }

    /// Returns the staged file of a destination, which may hold bytes of an earlier process.
    fn spool_beside(&self, host: &Host, order: &Order, usual: Ownership) -> Result<Spool> {
        let directory = order.destination.parent().unwrap_or_else(|| "/".into());
        let part = host.root().resume(&order.destination, order.ownership.unwrap_or(usual))?;
        Ok(Spool::new(SpoolFile::Part(part), directory, &self.pull(order))?)
    }

    fn pull(&self, Order { source, sha256, .. }: &Order) -> Pull {
        Pull { source: source.clone(), sha256: *sha256, size: None, limit: self.pace().limit }
    }
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
