//! Uploads of small objects. Their keys name their content, so an existing object is not sent again.

use aws_sdk_s3::{
    Client,
    config::ProvideCredentials,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{S3, object::S3Object, status};
use crate::{error::Fault, net::retry::Failure, value::Sha256};

/// An object to upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The bucket's name.
    pub bucket: String,
    /// Its key, which no other content may have.
    pub key: String,
    /// Its content.
    pub body: Vec<u8>,
}

impl S3 {
    /// Uploads an object unless its bucket has one with this key and length. Returns whether it was uploaded.
    pub(crate) async fn upload(&self, upload: &Upload) -> Result<bool, Fault> {
        self.account.network.attempts().run(&upload.key, || self.put(upload)).await
    }

    /// Returns whether a bucket exists; true also if the caller may not know (`s3:ListBucket`).
    pub(crate) async fn has_bucket(&self, bucket: &str) -> Result<bool, Fault> {
        let attempt = async || {
            let head = |client: Client, config| {
                let request = client.head_bucket().bucket(bucket).set_expected_bucket_owner(self.owner());
                request.customize().config_override(config).send()
            };
            match self.send(bucket, head).await {
                Ok(_) => Ok(true),
                Err(error) => match status(&error) {
                    Some(404) => Ok(false),
                    Some(403) => Ok(true),
                    _ => Err(self.explain(S3Object { bucket, key: "", version: None }, error).await),
                },
            }
        };
        self.account.network.attempts().run(&bucket, attempt).await
    }

    /// Returns whether a bucket belongs to an account; false also if the caller may not know (`s3:ListBucket`). A
    /// failure is not retried, because only a note depends on the answer.
    pub(crate) async fn owns_bucket(&self, account: &str, bucket: &str) -> bool {
        let head = |client: Client, config| {
            let request = client.head_bucket().bucket(bucket).expected_bucket_owner(account);
            request.customize().config_override(config).send()
        };
        self.send(bucket, head).await.is_ok()
    }

    fn owner(&self) -> Option<String> {
        self.account.settings.bucket_owner.clone()
    }

    async fn put(&self, Upload { bucket, key, body }: &Upload) -> Result<bool, Failure> {
        let head = |client: Client, config| {
            let request = client.head_object().bucket(bucket).key(key).set_expected_bucket_owner(self.owner());
            request.customize().config_override(config).send()
        };
        match self.send(bucket, head).await {
            Ok(found) if found.content_length().and_then(|length| usize::try_from(length).ok()) == Some(body.len()) => {
                return Ok(false);
            }
            // Without s3:ListBucket, S3 answers 403 for a missing object.
            Err(error) if !matches!(status(&error), Some(403 | 404)) => {
                return Err(self.not_uploaded(bucket, key, error).await);
            }
            _ => {}
        }
        let digest = BASE64_STANDARD.encode(Sha256::of(body).0);
        let put = |client: Client, config| {
            let request = client.put_object().bucket(bucket).key(key).set_expected_bucket_owner(self.owner());
            let request = request.checksum_sha256(digest.clone());
            request.body(ByteStream::from(body.clone())).customize().config_override(config).send()
        };
        match self.send(bucket, put).await {
            Ok(_) => Ok(true),
            Err(error) => Err(self.not_uploaded(bucket, key, error).await),
        }
    }

    async fn not_uploaded<E>(&self, bucket: &str, key: &str, error: SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if status(&error) == Some(403) && matches!(error.code(), None | Some("AccessDenied")) {
            let who = match self.account.config().await.credentials_provider() {
                Some(provider) => provider.provide_credentials().await.map(|held| held.access_key_id().to_owned()),
                None => Ok("no".into()),
            };
            let who = who.unwrap_or_default();
            let allow = "allow s3:PutObject in the caller's IAM policy";
            let hint = match &self.account.settings.bucket_owner {
                None => allow.to_owned(),
                Some(owner) => format!("{allow}; or the bucket does not belong to account {owner} (--bucket-owner)"),
            };
            return Failure::Permanent(
                Fault::new(format!("the access key {who} is not allowed s3:PutObject on arn:aws:s3:::{bucket}/{key}"))
                    .hint(hint),
            );
        }
        self.explain(S3Object { bucket, key, version: None }, error).await
    }
}
