//! Uploads of small objects. Most keys name their content, so an existing object is not sent again.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;

use super::{
    S3, length,
    object::S3Object,
    request::{EXPECTED_OWNER, S3Request},
    text,
};
use crate::{aws::refusal::NotDone, error::Fault, net::retry::Failure, value::Sha256};

/// An object to upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The bucket's name.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its content.
    pub body: Vec<u8>,
}

impl S3 {
    /// Uploads an object unless its bucket has one with this key and length. Returns whether it was uploaded. No other
    /// content may have this key.
    pub(crate) async fn upload(&self, upload: &Upload) -> Result<bool, Fault> {
        self.account.network.attempts().run(&upload.key, || self.put(upload)).await
    }

    /// Uploads an object in place of any other with its key. It needs `s3:PutObject` alone.
    pub(crate) async fn replace(&self, upload: &Upload) -> Result<(), Fault> {
        self.account.network.attempts().run(&upload.key, || self.send_body(upload)).await
    }

    /// Returns whether a bucket exists; true also if the caller may not know (`s3:ListBucket`).
    pub(crate) async fn has_bucket(&self, bucket: &str) -> Result<bool, Fault> {
        let head = S3Request::new(Method::HEAD, bucket, "").header(EXPECTED_OWNER, self.owner());
        let attempt = async || match self.send(&head).await {
            Ok(_) => Ok(true),
            Err(NotDone::Refused(refusal)) if refusal.status == 404 => Ok(false),
            Err(NotDone::Refused(refusal)) if refusal.is_denial() => Ok(true),
            Err(error) => Err(self.explain(S3Object { bucket, key: "", version: None }, error).await),
        };
        self.account.network.attempts().run(&bucket, attempt).await
    }

    /// Returns whether a bucket belongs to an account; false also if the caller may not know (`s3:ListBucket`). A
    /// failure is not retried, because only a note depends on the answer.
    pub(crate) async fn owns_bucket(&self, account: &str, bucket: &str) -> bool {
        self.send(&S3Request::new(Method::HEAD, bucket, "").header(EXPECTED_OWNER, Some(account))).await.is_ok()
    }

    /// Returns the ARN of the KMS key that encrypts an object; empty if none does.
    pub(crate) async fn key_of(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<String, Fault> {
        let object = S3Object { bucket, key, version };
        let attempt = async || match self.send(&super::about(Method::HEAD, object)).await {
            Ok(found) => {
                let key = text(found.headers(), "x-amz-server-side-encryption-aws-kms-key-id");
                Ok(key.unwrap_or_default().to_owned())
            }
            Err(error) => Err(self.explain(object, error).await),
        };
        self.account.network.attempts().run(&key, attempt).await
    }

    fn owner(&self) -> Option<String> {
        self.account.settings.bucket_owner.clone()
    }

    async fn put(&self, upload: &Upload) -> Result<bool, Failure> {
        let Upload { bucket, key, body } = upload;
        let head = S3Request::new(Method::HEAD, bucket, key).header(EXPECTED_OWNER, self.owner());
        match self.send(&head).await {
            Ok(found) if length(found.headers()) == Some(body.len() as u64) => return Ok(false),
            Ok(_) => {}
            // Without s3:ListBucket, S3 answers 403 for a missing object.
            Err(NotDone::Refused(refusal)) if refusal.is_denial() || refusal.status == 404 => {}
            Err(error) => return Err(self.not_uploaded(bucket, key, error).await),
        }
        self.send_body(upload).await.map(|()| true)
    }

    async fn send_body(&self, Upload { bucket, key, body }: &Upload) -> Result<(), Failure> {
        let put = S3Request::new(Method::PUT, bucket, key)
            .header(EXPECTED_OWNER, self.owner())
            .header("x-amz-checksum-sha256", Some(BASE64_STANDARD.encode(Sha256::of(body).0)))
            .body(body.clone());
        match self.send(&put).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.not_uploaded(bucket, key, error).await),
        }
    }

    async fn not_uploaded(&self, bucket: &str, key: &str, error: NotDone) -> Failure {
        if let NotDone::Refused(refusal) = &error
            && refusal.status == 403
            // An answer to HEAD has no code.
            && matches!(refusal.code.as_str(), "AccessDenied" | "HTTP 403")
        {
            let held = self.credentials(bucket).await;
            let who = held.map(|held| held.access_key_id().to_owned()).unwrap_or_default();
            let allow = "allow s3:PutObject in the caller's IAM policy";
            let hint = match &self.account.settings.bucket_owner {
                None => allow.to_owned(),
                Some(owner) => format!("{allow}; or the bucket does not belong to account {owner} (--bucket-owner)"),
            };
            let arn = format!("arn:{}:s3:::{bucket}/{key}", refusal.partition);
            let words = refusal.words();
            let fault = format!("the access key {who} is not allowed s3:PutObject on {arn} (S3: {words})");
            return Failure::Permanent(Fault::new(fault).hint(hint));
        }
        self.explain(S3Object { bucket, key, version: None }, error).await
    }
}
