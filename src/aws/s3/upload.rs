//! Uploads: small objects under keys that name their content, so that one that is there need not be sent again.

use std::sync::Arc;

use anyhow::{Context, Result};
use aws_sdk_s3::{
    config::ProvideCredentials,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Object, S3, status};
use crate::{error::Fault, fetch::Origins, net::retry::Failure, system::System, value::Sha256};

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

    /// Whether a bucket is known to belong to an account; false also where the caller may not ask (`s3:ListBucket`).
    pub fn owns_bucket(&self, account: &str, bucket: &str) -> Result<bool> {
        let worker = self.fetcher.worker()?;
        let task = worker.run(is_owned(worker.origins(), account.to_owned(), bucket.to_owned()));
        self.await_task(&task, || {}).with_context(|| format!("asking for the owner of the bucket {bucket}"))
    }

    /// Has S3 refuse the buckets of any other account, in uploads and where [`System::has_bucket`] looks.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html>
    pub fn expect_bucket_owner(&mut self, account: String) {
        self.fetcher.settings.bucket_owner = Some(account);
    }

    /// Puts an object into its bucket unless one of its key and length is there; returns whether it had to.
    pub fn upload(&self, upload: Upload) -> Result<bool> {
        let worker = self.fetcher.worker()?;
        let to = format!("s3://{}/{}", upload.bucket, upload.key);
        self.await_task(&worker.run(put(worker.origins(), upload)), || self.host.progress(&format!("uploading {to}")))
            .with_context(|| format!("uploading {to}"))
    }
}

async fn is_there(origins: Arc<Origins>, bucket: String) -> Result<bool, Fault> {
    let s3 = S3::of(&origins).await;
    let attempt = async || {
        let owner = || origins.settings.bucket_owner.clone();
        let head = |config| {
            s3.client()
                .head_bucket()
                .bucket(&bucket)
                .set_expected_bucket_owner(owner())
                .customize()
                .config_override(config)
                .send()
        };
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

async fn is_owned(origins: Arc<Origins>, account: String, bucket: String) -> Result<bool, Fault> {
    let s3 = S3::of(&origins).await;
    // Only a note hangs on it: it is not tried again.
    let head = |config| {
        let request = s3.client().head_bucket().bucket(&bucket).expected_bucket_owner(&account);
        request.customize().config_override(config).send()
    };
    Ok(s3.send(&bucket, head).await.is_ok())
}

async fn put(origins: Arc<Origins>, upload: Upload) -> Result<bool, Fault> {
    let s3 = S3::of(&origins).await;
    origins.attempts().run(&upload.key, || s3.put(&origins, &upload)).await
}

impl S3 {
    async fn put(&self, origins: &Origins, Upload { bucket, key, body }: &Upload) -> Result<bool, Failure> {
        let owner = || origins.settings.bucket_owner.clone();
        let head = |config| {
            let request = self.client().head_object().bucket(bucket).key(key).set_expected_bucket_owner(owner());
            request.customize().config_override(config).send()
        };
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
            let request = self.client().put_object().bucket(bucket).key(key).set_expected_bucket_owner(owner());
            let request = request.checksum_sha256(digest.clone());
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
            let allow = "allow s3:PutObject in the caller's IAM policy";
            let hint = match &origins.settings.bucket_owner {
                None => allow.to_owned(),
                Some(owner) => format!("{allow}; or the bucket does not belong to account {owner} (--bucket-owner)"),
            };
            return Failure::Permanent(
                Fault::new(format!("the access key {who} is not allowed s3:PutObject on arn:aws:s3:::{bucket}/{key}"))
                    .hint(hint),
            );
        }
        self.explain(origins, Object { bucket, key, version: None }, error).await
    }
}
