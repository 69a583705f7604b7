//! One request to the origin of a source: an HTTP server or S3.

use aws_sdk_s3::primitives::ByteStream;
use reqwest::Response;

use super::{engine::Engine, http, source::Source};
use crate::{
    aws::s3::{Answer, Promise, S3Object},
    error::Fault,
    net::{range::Range, retry::Failure},
};

/// A body that is being received.
pub(super) enum Bytes {
    /// From an HTTP server.
    Http(Response),
    /// From S3.
    S3(ByteStream),
}

impl Bytes {
    /// Returns the next bytes; `None` at the end.
    pub(super) async fn next(&mut self, engine: &Engine) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        match self {
            Self::Http(response) => response.chunk().await.map_err(|error| engine.network.clients.explain(&error)),
            Self::S3(stream) => stream.next().await.transpose().map_err(|error| engine.s3.interrupted(error)),
        }
    }
}

/// Requests the bytes of a source: all of them, or a part of the promised body.
pub(super) async fn open(
    engine: &Engine,
    source: &Source,
    part: Option<(Range, &Promise)>,
) -> Result<Answer<Bytes>, Failure> {
    match source {
        Source::Http(url) => Ok(Box::pin(http::get(&engine.network, url, part)).await?.map(Bytes::Http)),
        Source::S3 { bucket, key, version } => {
            let object = S3Object { bucket, key, version: version.as_deref() };
            // Boxed, because the SDK's futures are many times as large as an HTTP client's.
            Ok(Box::pin(engine.s3.get(object, part)).await?.map(Bytes::S3))
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
