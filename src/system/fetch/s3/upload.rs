//! Uploads: small objects under keys that name their content, so that one that is there need not be sent again.

use std::sync::Arc;

use anyhow::{Context, Result};
use aws_sdk_s3::{
    config::ProvideCredentials,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    super::{Origins, retry::Failure},
    Object, S3, status,
};
use crate::{error::Fault, system::System, value::Sha256};

/// An object that is to be in a bucket.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The bucket's name.
    pub bucket: String,
    /// Its key, which no other content may have.
    pub key: String,
    /// Its content.
    pub body: Vec<u8>,
}

impl System {
    /// Whether there is a bucket of this name. One that may not be asked for (`s3:ListBucket`) is taken to be there.
    pub fn has_bucket(&self, name: &str) -> Result<bool> {
        let worker = self.fetcher.worker()?;
        let task = worker.run(is_there(worker.origins(), name.to_owned()));
        self.await_task(&task, || {}).with_context(|| format!("looking for the bucket {name}"))
    }

    /// Puts an object into its bucket unless one of its key and length is there; returns whether it had to.
    pub fn upload(&self, upload: Upload) -> Result<bool> {
        let worker = self.fetcher.worker()?;
        let to = format!("s3://{}/{}", upload.bucket, upload.key);
        self.await_task(&worker.run(put(worker.origins(), upload)), || self.progress(&format!("uploading {to}")))
            .with_context(|| format!("uploading {to}"))
    }
}

async fn is_there(origins: Arc<Origins>, bucket: String) -> Result<bool, Fault> {
    let s3 = S3::of(&origins).await;
    let attempt = async || {
        let head = |config| s3.client().head_bucket().bucket(&bucket).customize().config_override(config).send();
        match s3.send(&bucket, head).await {
            Ok(_) => Ok(true),
            Err(error) => match status(&error) {
                Some(404) => Ok(false),
                Some(403) => Ok(true),
                _ => {
                    let object = Object { bucket: &bucket, key: "", version: None };
                    Err(s3.explain(&origins, object, error).await)
                }
            },
        }
    };
    origins.attempts().run(&bucket, attempt).await
}

async fn put(origins: Arc<Origins>, upload: Upload) -> Result<bool, Fault> {
    let s3 = S3::of(&origins).await;
    origins.attempts().run(&upload.key, || s3.put(&origins, &upload)).await
}

impl S3 {
    async fn put(&self, origins: &Origins, Upload { bucket, key, body }: &Upload) -> Result<bool, Failure> {
        let head =
            |config| self.client().head_object().bucket(bucket).key(key).customize().config_override(config).send();
        match self.send(bucket, head).await {
            Ok(found) if found.content_length().and_then(|length| usize::try_from(length).ok()) == Some(body.len()) => {
                return Ok(false);
            }
            // Without s3:ListBucket what is not there is forbidden.
            Err(error) if !matches!(status(&error), Some(403 | 404)) => {
                return Err(self.not_uploaded(origins, bucket, key, error).await);
            }
            _ => {}
        }
        let digest = BASE64_STANDARD.encode(Sha256::of(body).0);
        let put = |config| {
            let request = self.client().put_object().bucket(bucket).key(key).checksum_sha256(digest.clone());
            request.body(ByteStream::from(body.clone())).customize().config_override(config).send()
        };
        match self.send(bucket, put).await {
            Ok(_) => Ok(true),
            Err(error) => Err(self.not_uploaded(origins, bucket, key, error).await),
        }
    }

    async fn not_uploaded<E>(&self, origins: &Origins, bucket: &str, key: &str, error: SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if status(&error) == Some(403) && matches!(error.code(), None | Some("AccessDenied")) {
            let who = match self.config.credentials_provider() {
                Some(provider) => provider.provide_credentials().await.map(|held| held.access_key_id().to_owned()),
                None => Ok("no".into()),
            };
            let who = who.unwrap_or_default();
            return Failure::Permanent(
                Fault::new(format!("the access key {who} is not allowed s3:PutObject on arn:aws:s3:::{bucket}/{key}"))
                    .hint("allow it in the policy of who deploys"),
            );
        }
        self.explain(origins, Object { bucket, key, version: None }, error).await
    }
}
