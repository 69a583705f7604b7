//! A transfer: attempts at a body, by one connection or by several, written to the disk and verified.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Response;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    engine::{Engine, MAX_STREAMS},
    fetched::Fetched,
    origin,
    progress::DownloadProgress,
    pull::Pull,
    source::Source,
    spool::{CHUNK_BYTES, Lane, SHORT_BODY_BYTES, Spool},
};
use crate::{
    aws::s3::{Answer, Promise},
    error::Fault,
    net::{
        range::Range,
        retry::{Failure, Pace, Setback},
        worker::blocking,
    },
};

/// The connections of one body, at first and at most. Adding them one by one would cost round trips, and TCP starts
/// each one slowly. No server objects to eight.
const FIRST_LANES: u64 = 8;
const MAX_LANES: usize = 16;
/// How long more connections are tried before their effect is measured.
const LANE_TRIAL: Duration = Duration::from_millis(if cfg!(fuzzing) { 1 } else { 100 });
/// The bytes from which on a thread of its own digests them.
const MIN_THREAD_BYTES: u64 = 4 << 20;
/// An attempt that received this many bytes does not count as failed.
const HEADWAY_BYTES: u64 = 1 << 20;

/// A body and its part of the whole: from `start` to `end`, if the end is known.
struct Body {
    lane: Lane,
    bytes: Response,
    start: u64,
    end: Option<u64>,
}

/// Downloads a body, with the attempts of its limit. After a failure, the received bytes stay in the spool.
pub(super) async fn run(
    engine: Arc<Engine>,
    pull: &Pull,
    spool: Arc<Mutex<Spool>>,
    progress: Arc<DownloadProgress>,
) -> Result<Fetched, Failure> {
    let _place = engine.window.enter().await;
    let pace = Pace { limit: pull.limit, ..engine.network.settings.pace.clone() };
    let attempts = engine.network.attempts_at(&pace).shown(&*progress);
    let transfer = Arc::new(Transfer {
        engine: engine.clone(),
        source: pull.source.clone(),
        is_pinned: pull.sha256.is_some(),
        spool,
        digesting: Arc::new(Semaphore::new(1)),
        progress: progress.clone(),
        alone: AtomicBool::new(false),
    });
    attempts.try_run(&pull.source, || transfer.attempt()).await?;
    let fetched = transfer.spool().finish().map_err(Failure::Permanent)?;
    // More places for long bodies would mean more connections with full buffers, and none would be faster.
    engine.window.widen(if fetched.size > SHORT_BODY_BYTES { MAX_STREAMS } else { usize::MAX });
    Ok(fetched)
}

/// A running transfer, shared by its connections.
struct Transfer {
    engine: Arc<Engine>,
    source: Source,
    /// Whether its digest is declared.
    is_pinned: bool,
    spool: Arc<Mutex<Spool>>,
    /// The lock of the thread that digests.
    digesting: Arc<Semaphore>,
    progress: Arc<DownloadProgress>,
    /// Whether one connection receives all of it, because several may have caused a failure.
    alone: AtomicBool,
}

impl Transfer {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one attempt at the missing bytes.
    async fn attempt(self: &Arc<Self>) -> Result<(), Setback> {
        let before = self.spool().done();
        let Err(mut failure) = self.bring().await else { return Ok(()) };
        let done = self.spool().done();
        match &mut failure {
            // The next attempt shares nothing with this one, after any cause.
            Failure::Suspect(_) => {
                self.spool().forget().map_err(Failure::Permanent)?;
                self.alone.store(true, Ordering::Relaxed);
            }
            Failure::Transient(_, asked) => {
                self.engine.window.narrow();
                // An origin that answers one connection may have refused the others because they are too many.
                if done > before && asked.take().is_some() {
                    self.alone.store(true, Ordering::Relaxed);
                }
            }
            Failure::Permanent(_) | Failure::Unsigned(_) => {}
        }
        let headway = done >= before + HEADWAY_BYTES;
        Err(Setback { failure, headway })
    }

    /// Receives the missing bytes and verifies the whole.
    async fn bring(self: &Arc<Self>) -> Result<(), Failure> {
        self.spool().release();
        if let Some(lead) = self.lead().await? {
            self.receive(lead).await?;
        }
        self.digest().await?;
        self.spool().verify().map_err(Failure::Suspect)
    }

    /// Returns the first response; `None` if all bytes are present.
    async fn lead(&self) -> Result<Option<Body>, Failure> {
        let resumed = {
            let mut spool = self.spool();
            let promise = spool.promise().clone();
            self.progress.show(&spool);
            if spool.is_resumable() {
                let lane = spool.lane();
                let missing = spool.claim(lane).map(|(start, _)| Range { start, end: spool.gap_end(start) });
                Some((promise, lane, missing))
            } else {
                None
            }
        };
        if let Some((promise, lane, missing)) = resumed {
            let Some(range) = missing else {
                // All bytes are present, and the manifest pins them or the origin still has them.
                if self.is_pinned
                    || Box::pin(origin::validator(&self.engine, &self.source)).await? == promise.validator()
                {
                    return Ok(None);
                }
                self.spool().forget().map_err(Failure::Permanent)?;
                return Box::pin(self.lead()).await;
            };
            match self.open(Some((range, &promise))).await? {
                Answer::Part(bytes) => {
                    return Ok(Some(Body { lane, bytes, start: range.start, end: range.end.or(promise.total) }));
                }
                Answer::Whole(bytes, promise) => return self.begin(bytes, promise).map(Some),
                Answer::Changed(fault) => tracing::info!("{}: {fault}; starting anew", self.source),
            }
            self.spool().forget().map_err(Failure::Permanent)?;
        }
        match self.open(None).await? {
            Answer::Whole(bytes, promise) => self.begin(bytes, promise).map(Some),
            Answer::Part(_) => Err(Failure::Permanent(Fault::new(
                "the server sent only a part of the file (206), but the whole file was requested",
            ))),
            Answer::Changed(fault) => Err(Failure::Permanent(fault)),
        }
    }

    fn begin(&self, bytes: Response, promise: Promise) -> Result<Body, Failure> {
        let end = promise.total;
        let mut spool = self.spool();
        spool.begin(promise)?;
        let lane = spool.lane();
        _ = spool.claim(lane);
        self.progress.show(&spool);
        Ok(Body { lane, bytes, start: 0, end })
    }

    async fn open(&self, part: Option<(Range, &Promise)>) -> Result<Answer, Failure> {
        origin::open(&self.engine, &self.source, part).await
    }

    /// Receives the lead's body, and adds connections as long as more of them are faster.
    async fn receive(self: &Arc<Self>, lead: Body) -> Result<(), Failure> {
        let can_share = {
            let spool = self.spool();
            let Promise { total, etag, .. } = spool.promise();
            !self.alone.load(Ordering::Relaxed)
                && etag.is_some()
                && total.is_some_and(|total| total >= spool.done() + 2 * CHUNK_BYTES)
        };
        if !can_share {
            return Box::pin(self.clone().lane(Some(lead))).await;
        }
        let mut lanes = JoinSet::new();
        let chunks = lead.end.map_or(1, |end| (end - lead.start).div_ceil(CHUNK_BYTES));
        _ = lanes.spawn(self.clone().lane(Some(lead)));
        for _ in 1..FIRST_LANES.min(chunks) {
            _ = lanes.spawn(self.clone().lane(None));
        }
        let received = self.share(&mut lanes).await;
        // An abandoned attempt must not write during the next one.
        lanes.shutdown().await;
        received
    }

    async fn share(self: &Arc<Self>, lanes: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
        let (mut best, mut done, mut grows) = (0, self.spool().done(), true);
        loop {
            let ended = if grows { timeout(LANE_TRIAL, lanes.join_next()).await } else { Ok(lanes.join_next().await) };
            match ended {
                Ok(None) => return Ok(()),
                Ok(Some(lane)) => {
                    lane.map_err(|error| Failure::Permanent(Fault::new("a download broke off").caused_by(error)))??;
                }
                Err(_) => {
                    let now = self.spool().done();
                    let rate = now - std::mem::replace(&mut done, now);
                    grows = rate > best + best / 10 && lanes.len() < MAX_LANES && self.spool().has_more();
                    best = best.max(rate);
                    for _ in 0..if grows { lanes.len() } else { 0 } {
                        _ = lanes.spawn(self.clone().lane(None));
                    }
                }
            }
        }
    }

    /// Receives chunk after chunk on one connection, until no chunk is free. The lead's body continues after its chunk;
    /// each other body is one chunk.
    async fn lane(self: Arc<Self>, lead: Option<Body>) -> Result<(), Failure> {
        let _permit = match &lead {
            // A transfer that holds a permit waits for no second one. Otherwise all could wait for each other.
            None => match self.engine.streams.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return Ok(()),
            },
            Some(Body { start, end: Some(end), .. }) if end - start <= SHORT_BODY_BYTES => None,
            Some(_) => self.engine.streams.acquire().await.ok(),
        };
        let lane = match lead {
            Some(body) => {
                let lane = body.lane;
                self.copy(body).await?;
                lane
            }
            None => self.spool().lane(),
        };
        loop {
            let (promise, claimed) = {
                let mut spool = self.spool();
                (spool.promise().clone(), spool.claim(lane))
            };
            let Some((start, end)) = claimed else { return Ok(()) };
            let range = Range { start, end: Some(end) };
            match self.open(Some((range, &promise))).await? {
                Answer::Part(bytes) => self.copy(Body { lane, bytes, start, end: Some(end) }).await?,
                Answer::Whole(..) => {
                    return Err(Failure::Suspect(Fault::new("the server sent the whole, not the part asked for")));
                }
                Answer::Changed(fault) => return Err(Failure::Suspect(fault)),
            }
        }
    }

    /// Writes a body to the spool. It stops at the end of the body, at another connection's bytes, or when it was too
    /// slow and loses its chunk.
    async fn copy(self: &Arc<Self>, mut body: Body) -> Result<(), Failure> {
        let chunk_end = |start: u64| match body.end {
            Some(end) => end.min((start / CHUNK_BYTES + 1) * CHUNK_BYTES),
            None => u64::MAX,
        };
        let (mut at, mut until) = (body.start, chunk_end(body.start));
        let explain = |error: reqwest::Error| self.engine.network.clients.explain(&error);
        while let Some(bytes) = body.bytes.chunk().await.map_err(explain)? {
            let mut bytes = &bytes[..];
            if body.end.is_some_and(|end| bytes.len() as u64 > end - at) {
                return Err(Failure::transient(Fault::new("the body is longer than was announced")));
            }
            let mut spool = self.spool();
            while !bytes.is_empty() {
                if at == until {
                    let Some(end) = spool.claim_at(body.lane, at) else { return Ok(()) };
                    until = end;
                }
                let fits = usize::try_from(until - at).unwrap_or(usize::MAX).min(bytes.len());
                if !spool.write(body.lane, at, &bytes[..fits])? {
                    return Ok(());
                }
                at += fits as u64;
                bytes = &bytes[fits..];
            }
            self.progress.arrived(spool.done());
            if spool.undigested() >= MIN_THREAD_BYTES {
                drop(spool);
                self.digest_aside();
            }
        }
        match body.end {
            None => self.spool().end(),
            Some(end) if at == end => {}
            Some(end) => {
                let message =
                    format!("the body has {} bytes, not the {} that were announced", at - body.start, end - body.start);
                return Err(Failure::transient(Fault::new(message)));
            }
        }
        Ok(())
    }

    /// Starts to digest the bytes before the first gap on another thread, if none digests.
    fn digest_aside(self: &Arc<Self>) {
        let Ok(turn) = self.digesting.clone().try_acquire_owned() else { return };
        let transfer = self.clone();
        // A failure shows when the rest is digested.
        _ = tokio::spawn(blocking(move || {
            let _turn = turn;
            transfer.digest_now()
        }));
    }

    /// Digests the remaining bytes.
    async fn digest(self: &Arc<Self>) -> Result<(), Failure> {
        let _turn = self.digesting.acquire().await;
        if self.spool().undigested() <= SHORT_BODY_BYTES {
            return self.digest_now().map_err(Failure::Permanent);
        }
        let transfer = self.clone();
        let digested = blocking(move || transfer.digest_now()).await;
        digested.map_err(|error| error.fault()).flatten().map_err(Failure::Permanent)
    }

    fn digest_now(&self) -> Result<(), Fault> {
        let Some(mut lent) = self.spool().lend_digest() else { return Ok(()) };
        let advanced = lent.advance();
        self.spool().return_digest(lent);
        advanced.map_err(|error| Fault::new("reading a download again").caused_by(error))
    }
}

/// Requests the strong validator of the bytes that a source would send now, with the usual attempts.
pub(super) async fn etag(
    engine: Arc<Engine>,
    source: Source,
    progress: Arc<DownloadProgress>,
) -> Result<Option<String>, Fault> {
    let attempts = engine.network.attempts().shown(&*progress);
    attempts.run(&source, || origin::validator(&engine, &source)).await
}
