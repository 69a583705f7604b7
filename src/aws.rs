//! AWS: its metadata service, its query calls, its S3, and the account's credentials.

pub mod account;
pub mod answer;
mod clock;
mod endpoint;
pub(crate) mod identity;
pub mod instance_object;
pub mod login;
pub mod metadata;
pub mod partition;
pub mod query;
pub mod refusal;
pub mod s3;
pub(crate) mod sender;
pub mod service;
mod signature;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};

use self::{
    account::Account,
    answer::Element,
    metadata::InstanceFact,
    query::Call,
    s3::{
        S3,
        listing::{Listed, Prefix},
        upload::Upload,
    },
};
use crate::{
    error::Fault,
    host::Host,
    net::{
        retry::{Failure, Patience},
        worker::Worker,
    },
};

/// Calls of AWS services. A signal or a deadline ends a call early.
pub struct Aws {
    account: Arc<Account>,
    s3: Arc<S3>,
    worker: Rc<Worker>,
    patience: Cell<Patience>,
}

impl Aws {
    /// Returns the AWS of an account, called on this thread.
    pub(crate) fn new(account: Arc<Account>, s3: Arc<S3>, worker: Rc<Worker>) -> Self {
        Self { account, s3, worker, patience: Cell::new(Patience::Full) }
    }

    /// Returns the account and the background thread, for calls of other services with the account's identity.
    pub(crate) fn connection(&self) -> (Arc<Account>, Rc<Worker>) {
        (self.account.clone(), self.worker.clone())
    }

    /// Makes a few attempts for each call from now on: nothing depends on the answers yet.
    pub fn be_brief(&self) {
        self.patience.set(Patience::Short);
    }

    /// Makes attempts for each call from now on as long as the network's settings allow.
    pub fn be_patient(&self) {
        self.patience.set(Patience::Full);
    }

    /// Makes a call of an AWS service, with the usual retries. No call begins after an interruption.
    ///
    /// # Errors
    /// A [`Refusal`](refusal::Refusal) of the service is in the error's chain.
    pub fn call(&self, host: &Host, call: Call) -> Result<Element> {
        self.call_with(host, call, self.patience.get())
    }

    /// Makes a call like [`Aws::call`], with this patience.
    ///
    /// # Errors
    /// Those of [`Aws::call`].
    pub fn call_with(&self, host: &Host, call: Call, patience: Patience) -> Result<Element> {
        host.stop.check()?;
        let what = call.to_string();
        let account = self.account.clone();
        let call = async move { call.run(&account, &account.network.settings.pace.with(patience)).await };
        self.worker.run(&host.stop, call).with_context(|| format!("asking for {what}"))
    }

    /// Returns the region that calls go to.
    pub fn region(&self, host: &Host) -> Result<String> {
        let account = self.account.clone();
        self.worker
            .run(&host.stop, async move { account.region().await.map(str::to_owned).map_err(Failure::into_fault) })
    }

    /// Returns a fact about this EC2 instance from the metadata service.
    pub fn instance(&self, host: &Host, fact: InstanceFact) -> Result<String> {
        let account = self.account.clone();
        self.worker.run(&host.stop, async move { account.metadata.ask(&fact).await })
    }

    /// Returns the text at a path of the metadata service; `None` if the path does not exist. Waits for a network that is
    /// not up yet.
    pub fn metadata(&self, host: &Host, path: &str) -> Result<Option<String>> {
        let (account, path) = (self.account.clone(), path.to_owned());
        self.worker.run(&host.stop, async move { account.metadata.text(&path).await })
    }

    /// Returns the objects below a prefix, in the order of their keys.
    pub fn list(&self, host: &Host, prefix: &Prefix) -> Result<Vec<Listed>> {
        let found = Arc::new(AtomicU64::new(0));
        let list = {
            let (s3, prefix, found) = (self.s3.clone(), prefix.clone(), found.clone());
            async move { s3.list(&prefix, &found).await }
        };
        let show = || {
            host.progress(&format!("listing {prefix}: {} objects so far", found.load(Ordering::Relaxed)));
            Ok(())
        };
        self.worker.start(list)?.wait(&host.stop, show).with_context(|| format!("listing {prefix}"))
    }

    /// Returns whether a bucket exists; true also if the caller may not know (`s3:ListBucket`).
    pub fn has_bucket(&self, host: &Host, bucket: &str) -> Result<bool> {
        let (s3, name) = (self.s3.clone(), bucket.to_owned());
        let head = async move { s3.has_bucket(&name).await };
        self.worker.run(&host.stop, head).with_context(|| format!("looking for the bucket {bucket}"))
    }

    /// Returns whether a bucket belongs to an account; false also if the caller may not know (`s3:ListBucket`).
    pub fn owns_bucket(&self, host: &Host, account: &str, bucket: &str) -> Result<bool> {
        let (s3, account, name) = (self.s3.clone(), account.to_owned(), bucket.to_owned());
        let head = async move { Ok::<_, Fault>(s3.owns_bucket(&account, &name).await) };
        self.worker.run(&host.stop, head).with_context(|| format!("asking for the owner of the bucket {bucket}"))
    }

    /// Returns the ARN of the KMS key that encrypts an object; empty if none does.
    pub fn key_of_object(&self, host: &Host, bucket: &str, key: &str, version: Option<&str>) -> Result<String> {
        let (s3, bucket, key) = (self.s3.clone(), bucket.to_owned(), key.to_owned());
        let (what, version) = (format!("s3://{bucket}/{key}"), version.map(str::to_owned));
        let head = async move { s3.key_of(&bucket, &key, version.as_deref()).await };
        self.worker.run(&host.stop, head).with_context(|| format!("asking for the key of {what}"))
    }

    /// Uploads an object unless its bucket has one with this key and length. Returns whether it was uploaded.
    pub fn upload(&self, host: &Host, upload: Upload) -> Result<bool> {
        let to = format!("s3://{}/{}", upload.bucket, upload.key);
        let s3 = self.s3.clone();
        let put = async move { s3.upload(&upload).await };
        let show = || {
            host.progress(&format!("uploading {to}"));
            Ok(())
        };
        self.worker.start(put)?.wait(&host.stop, show).with_context(|| format!("uploading {to}"))
    }

    /// Runs work of another room that needs the account.
    pub(crate) fn run<T, F>(&self, host: &Host, work: impl FnOnce(Arc<Account>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        self.worker.run(&host.stop, work(self.account.clone()))
    }
}
