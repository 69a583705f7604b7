//! One request to the origin of a source: an HTTP server or S3.

use super::{engine::Engine, http, source::Source};
use crate::{
    aws::s3::{Answer, Promise, S3Object},
    error::Fault,
    net::{range::Range, retry::Failure},
};

/// Requests the bytes of a source: all of them, or a part of the promised body.
pub(super) async fn open(engine: &Engine, source: &Source, part: Option<(Range, &Promise)>) -> Result<Answer, Failure> {
    match source {
        Source::Http(url) => Box::pin(http::get(&engine.network, url, part)).await,
        Source::S3 { bucket, key, version } => {
            let object = S3Object { bucket, key, version: version.as_deref() };
            Box::pin(engine.s3.get(object, part)).await
        }
        Source::File(path) => Err(Failure::Permanent(Fault::new(format!("{path} is not on the network")))),
    }
}

/// Requests the strong validator of the bytes that a source would send now.
pub(super) async fn validator(engine: &Engine, source: &Source) -> Result<Option<String>, Failure> {
    match source {
        Source::Http(url) => http::etag(&engine.network, url).await,
        Source::S3 { bucket, key, version } => {
            engine.s3.etag(S3Object { bucket, key, version: version.as_deref() }).await
        }
        Source::File(_) => Ok(None),
    }
}
