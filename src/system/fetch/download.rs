//! A download: attempts at a body, streamed to the disk and verified.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_sdk_s3::primitives::ByteStream;
use reqwest::{Method, Response};

use super::{
    Fetched, Order, Origins, Source, http,
    retry::{Attempts, Failure, Pace},
    s3::{self, Object, S3},
    spool::Spool,
};
use crate::{error::Fault, value::ByteSize};

/// How far a download is, read by whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU64,
    /// Zero as long as it isn't known.
    total: AtomicU64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = ByteSize(self.done.load(Ordering::Relaxed));
        match self.total.load(Ordering::Relaxed) {
            0 => write!(f, "{done}"),
            total => write!(f, "{done} of {}", ByteSize(total)),
        }
    }
}

/// A body on its way, and what its origin says of it.
struct Body {
    bytes: Bytes,
    total: Option<u64>,
    etag: Option<String>,
}

enum Bytes {
    Http(Response),
    S3(ByteStream),
}

impl Body {
    /// The next bytes; `None` at the end.
    async fn next(&mut self, origins: &Origins) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        match &mut self.bytes {
            Bytes::Http(response) => response.chunk().await.map_err(|error| origins.clients.explain(&error)),
            Bytes::S3(stream) => stream.next().await.transpose().map_err(|error| s3::interrupted(origins, error)),
        }
    }
}

/// Downloads, with as many attempts as make sense.
pub(super) async fn run(
    origins: Arc<Origins>,
    order: Order,
    mut spool: Spool,
    progress: Arc<Progress>,
) -> Result<Fetched, Fault> {
    let _permit = origins.permits.acquire().await;
    let pace = Pace { attempts: order.attempts, ..origins.settings.pace.clone() };
    let mut attempts = Attempts::new(&pace);
    loop {
        match attempt(&origins, &order, &mut spool, &progress).await {
            Ok(etag) => return spool.finish(etag),
            Err(failure) => attempts.after(&order.source, failure).await?,
        }
    }
}

/// One attempt, from the first byte; the validator of what arrived.
async fn attempt(
    origins: &Origins,
    order: &Order,
    spool: &mut Spool,
    progress: &Progress,
) -> Result<Option<String>, Failure> {
    spool.restart().map_err(Failure::Permanent)?;
    let mut body = open(origins, &order.source).await?;
    progress.total.store(body.total.unwrap_or_default(), Ordering::Relaxed);
    while let Some(bytes) = body.next(origins).await? {
        spool.write(bytes.as_ref(), body.total).map_err(Failure::Permanent)?;
        progress.done.store(spool.size(), Ordering::Relaxed);
    }
    if let Some(total) = body.total.filter(|total| *total != spool.size()) {
        let message = format!("the body has {} bytes, not the {total} that were announced", spool.size());
        return Err(Failure::transient(Fault::new(message)));
    }
    spool.verify(order.sha256).map_err(Failure::Suspect)?;
    Ok(body.etag)
}

async fn open(origins: &Origins, source: &Source) -> Result<Body, Failure> {
    match source {
        Source::Http(url) => {
            let response = http::request(origins, Method::GET, url).await?;
            let etag = http::strong_etag(response.headers());
            Ok(Body { total: response.content_length(), etag, bytes: Bytes::Http(response) })
        }
        Source::S3 { bucket, key, version } => {
            let object = Object { bucket, key, version: version.as_deref() };
            let object = S3::of(origins).await.get(origins, object).await?;
            let etag = s3::validator(object.version_id(), object.e_tag());
            let total = object.content_length().and_then(|length| u64::try_from(length).ok());
            Ok(Body { total, etag, bytes: Bytes::S3(object.body) })
        }
        Source::File(path) => Err(Failure::Permanent(Fault::new(format!("{path} is not on the network")))),
    }
}

/// See [`System::etag`](super::System::etag).
pub(super) async fn etag(origins: Arc<Origins>, source: Source) -> Result<Option<String>, Fault> {
    let mut attempts = Attempts::new(&origins.settings.pace);
    loop {
        let asked = match &source {
            Source::Http(url) => {
                http::request(&origins, Method::HEAD, url).await.map(|response| http::strong_etag(response.headers()))
            }
            Source::S3 { bucket, key, version } => {
                let object = Object { bucket, key, version: version.as_deref() };
                S3::of(&origins).await.etag(&origins, object).await
            }
            Source::File(_) => Ok(None),
        };
        match asked {
            Ok(etag) => return Ok(etag),
            Err(failure) => attempts.after(&source, failure).await?,
        }
    }
}
