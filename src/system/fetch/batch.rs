//! Many downloads at once, each to a place of the operator's choice.

use std::{
    collections::VecDeque,
    io::Read,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};

use super::{
    CONCURRENCY, Download, Fetched, Source,
    download::{self, Progress},
    spool::Spool,
    worker::Task,
};
use crate::{
    error::Fault,
    system::{
        System,
        interrupt::TICK,
        root::{FileType, Ownership},
    },
    value::{AbsPath, Sha256},
};

/// How often is told how far everything is.
const EVERY: Duration = Duration::from_millis(100);

/// A file to be downloaded to a place of the operator's choice.
#[derive(Debug, Clone)]
pub struct Order {
    /// What.
    pub download: Download,
    /// Where to; missing directories are made.
    pub destination: AbsPath,
}

/// What arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Length in bytes.
    pub size: u64,
    /// Their digest.
    pub sha256: Sha256,
    /// Bytes that an earlier, cut-off download had brought already.
    pub resumed: u64,
    /// How long it took from its start, not from its order.
    pub took: Duration,
}

/// How far an order is.
#[derive(Debug, Clone, Copy)]
pub struct Underway {
    /// Which order, from 0.
    pub index: usize,
    /// Bytes that have arrived.
    pub done: u64,
    /// Of how many, once the origin has said so.
    pub total: Option<u64>,
}

/// What happens while orders are delivered.
#[derive(Debug)]
pub enum Event<'a> {
    /// All that is under way, about ten times a second.
    Underway(&'a [Underway]),
    /// An order has arrived, or never will.
    Done {
        /// Which, from 0.
        index: usize,
        /// How it ended.
        result: &'a Result<Delivery>,
    },
}

/// An order under way. Dropped, its download is abandoned.
struct Running {
    index: usize,
    began: Instant,
    progress: Arc<Progress>,
    _task: Task<()>,
}

/// What the background hands over.
type Arrival = (usize, Result<Fetched, Fault>);

impl System {
    /// Downloads all, `jobs` at most at once (the engine's own choice without it), and tells what happens
    /// meanwhile. Each file appears whole and verified or not at all, as the invoking user's, with the
    /// permissions that the umask leaves. The results are in the order of the orders.
    ///
    /// # Errors
    /// If a signal or a deadline ends it. What is wrong with one order is that order's result.
    #[expect(clippy::needless_pass_by_value, reason = "they are carried out, not looked at")]
    pub fn deliver(
        &self,
        orders: Vec<Order>,
        jobs: Option<usize>,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Result<Delivery>>> {
        let jobs = jobs.unwrap_or(CONCURRENCY);
        let umask = self.umask()?;
        let mut results: Vec<Option<Result<Delivery>>> = orders.iter().map(|_| None).collect();
        let mut settle = |index: usize, result: Result<Delivery>, observe: &mut dyn FnMut(Event<'_>)| {
            let what = &orders[index].download.source;
            let result = result.with_context(|| format!("downloading {what}"));
            observe(Event::Done { index, result: &result });
            results[index] = Some(result);
        };

        // All directories first: a file and a directory of one name are found out before anything is fetched.
        let make_way = |order: &Order| match order.destination.parent() {
            Some(directory) => self.make_way(&directory, umask),
            None => Ok(()),
        };
        let made: Vec<Result<()>> = orders.iter().map(make_way).collect();
        let mut waiting = VecDeque::new();
        for (index, made) in made.into_iter().enumerate() {
            match made.and_then(|()| self.admit(&orders[index].destination)) {
                Ok(()) => waiting.push_back(index),
                Err(error) => settle(index, Err(error), observe),
            }
        }

        if jobs > CONCURRENCY {
            self.fetcher.worker()?.origins().permits.add_permits(jobs - CONCURRENCY);
        }
        let (sender, arrivals) = channel();
        let mut running: Vec<Running> = vec![];
        let mut told = Instant::now();
        loop {
            while running.len() < jobs
                && let Some(index) = waiting.pop_front()
            {
                let started = match &orders[index].download.source {
                    Source::File(path) => self.carry(path, &orders[index], umask).map(Err),
                    _ => self.start(index, &orders[index], sender.clone()).map(Ok),
                };
                self.check()?;
                match started {
                    Ok(Ok(started)) => running.push(started),
                    Ok(Err(delivery)) => settle(index, Ok(delivery), observe),
                    Err(error) => settle(index, Err(error), observe),
                }
            }
            if running.is_empty() {
                break;
            }
            match arrivals.recv_timeout(TICK) {
                Ok((index, arrival)) => {
                    let position = running.iter().position(|running| running.index == index);
                    let began = position.map_or_else(Instant::now, |position| running.remove(position).began);
                    let fetched = arrival.map_err(Into::into);
                    let delivery = fetched.and_then(|fetched| self.hand_over(fetched, &orders[index], umask, began));
                    settle(index, delivery, observe);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.check()?;
            if told.elapsed() >= EVERY {
                told = Instant::now();
                let underway: Vec<Underway> = running
                    .iter()
                    .map(|running| {
                        let (done, total) = running.progress.now();
                        Underway { index: running.index, done, total }
                    })
                    .collect();
                observe(Event::Underway(&underway));
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn start(&self, index: usize, order: &Order, sender: Sender<Arrival>) -> Result<Running> {
        let worker = self.fetcher.worker()?;
        let progress = Arc::new(Progress::default());
        let download =
            download::run(worker.origins(), order.download.clone(), self.spool_beside(order)?, progress.clone());
        let task = worker.run(async move {
            // Nobody receives what nobody waits for any more.
            _ = sender.send((index, download.await));
            Ok::<(), Fault>(())
        });
        Ok(Running { index, began: Instant::now(), progress, _task: task })
    }

    /// A file of the machine itself, copied so that it can't change once it is verified.
    fn carry(&self, path: &AbsPath, order: &Order, umask: u32) -> Result<Delivery> {
        let began = Instant::now();
        let Some((mut file, _)) = self.root().open_file(path)? else { bail!("{path} does not exist") };
        let mut spool = self.spool_beside(order)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            self.check()?;
            match file.read(&mut buffer).with_context(|| format!("reading {path}"))? {
                0 => break,
                read => spool.write(&buffer[..read], None)?,
            }
        }
        spool.verify(order.download.sha256).with_context(|| format!("verifying {path}"))?;
        self.hand_over(spool.finish(None)?, order, umask, began)
    }

    fn hand_over(&self, mut fetched: Fetched, order: &Order, umask: u32, began: Instant) -> Result<Delivery> {
        let mut staged = self.root().stage(&order.destination, ours(0o666 & !umask))?;
        let size = staged.copy_from(&mut fetched.file)?;
        staged.publish()?;
        Ok(Delivery { size, sha256: fetched.sha256, resumed: 0, took: began.elapsed() })
    }

    /// An anonymous file on the file system of the destination.
    fn spool_beside(&self, order: &Order) -> Result<Spool> {
        let directory = order.destination.parent().unwrap_or_else(|| "/".into());
        let mut staged = self.root().stage(&directory.join("download")?, ours(0o600))?;
        let file = staged.file().try_clone().context("opening a file for a download")?;
        Ok(Spool::new(file, directory))
    }

    /// Makes sure that files can be put into a directory; makes it, and those above it, where they are missing.
    ///
    /// # Errors
    /// If they can't, for want of a right, or because somebody else could put a link in the way.
    pub fn prepare_directory(&self, directory: &AbsPath) -> Result<()> {
        self.make_way(directory, self.umask()?)?;
        // Dropped unpublished, it is gone again.
        let name = format!("fetch-{}", std::process::id());
        self.root().stage(&directory.join(&name)?, ours(0o600)).map(drop)
    }

    fn make_way(&self, directory: &AbsPath, umask: u32) -> Result<()> {
        if self.root().status(directory)?.is_some() {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make_way(&parent, umask)?;
        }
        match self.root().make_directory(directory, ours(0o777 & !umask)) {
            // Somebody else made it in the meantime.
            Err(_) if self.root().status(directory)?.is_some() => Ok(()),
            made => made,
        }
    }

    /// Refuses to replace what is neither a file nor a link.
    fn admit(&self, destination: &AbsPath) -> Result<()> {
        let what = match self.root().status(destination)?.map(|status| status.file_type) {
            None | Some(FileType::Regular | FileType::Link) => return Ok(()),
            Some(FileType::Directory) => "a directory",
            Some(FileType::Special) => "a device, socket or FIFO",
        };
        Err(Fault::new(format!("{destination} is {what}")).hint("move it away, or download to elsewhere").into())
    }

    /// The permission bits that this process's files don't get.
    fn umask(&self) -> Result<u32> {
        let status = self.root().read_text(&"/proc/self/status".into())?;
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
        umask.context("no Umask in /proc/self/status")
    }
}

/// The invoking user's, with these permission bits.
fn ours(mode: u32) -> Ownership {
    Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode }
}
