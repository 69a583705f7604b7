//! The connections of a [`System`]: to origins of downloads, and to AWS.

use std::{rc::Rc, sync::Arc};

use anyhow::{Context, Result};

use super::{Mode, System};
use crate::{
    aws::{
        Aws,
        account::{Account, AwsSettings},
        answer::Element,
        metadata::InstanceFact,
        query::Call,
        s3::S3,
    },
    fetch::{Fetcher, fetched::Fetched, pull::Download, staging::Staging},
    net::{Network, retry::Patience, settings::NetworkSettings, worker::Worker},
    secrets::{
        ReadSecret,
        path::{ParameterPath, StoredParameter},
    },
    value::{AbsPath, secret_source::SecretSource},
    variables::StoredSecret,
    vault::settings::VaultSettings,
};

/// Returns AWS and a fetcher, which share one background thread and one budget of retries.
pub(super) fn connections(mode: Mode, network: NetworkSettings, aws: AwsSettings) -> (Aws, Fetcher) {
    wire(mode, Account::new(Arc::new(Network::new(network)), aws))
}

/// Returns AWS as this account sees it, and a fetcher beside it.
pub(crate) fn wire(mode: Mode, account: Account) -> (Aws, Fetcher) {
    let (account, worker) = (Arc::new(account), Rc::new(Worker::default()));
    let s3 = Arc::new(S3::new(account.clone()));
    let staging = if mode == Mode::Run { Staging::Resumable } else { Staging::Unnamed };
    let fetcher = Fetcher::new(account.network.clone(), s3.clone(), worker.clone(), staging);
    (Aws::new(account, s3, worker), fetcher)
}

impl System {
    /// Connects with these settings from now on.
    pub fn connect(&mut self, network: NetworkSettings, aws: AwsSettings) {
        (self.aws, self.fetcher) = connections(self.mode, network, aws);
    }

    /// Makes a call of an AWS service; see [`Aws::call`].
    pub fn aws(&self, call: Call) -> Result<Element> {
        self.aws.call(&self.host, call)
    }

    /// Returns a fact about this EC2 instance, such as `id` or `tags.NAME`; see [`InstanceFact`].
    pub fn instance(&self, name: &str) -> Result<String> {
        let fact = InstanceFact::parse(name)?;
        self.leave_to_instances()?;
        self.aws.instance(&self.host, fact).with_context(|| format!("reading instance.{name}"))
    }

    /// Reads a secret, unless this run has read it before; see [`Secrets::read`](crate::secrets::Secrets::read).
    pub fn secret(&self, source: &SecretSource, patience: Patience) -> Result<ReadSecret> {
        self.secrets.read(&self.host, &self.aws, source, patience, self.mode == Mode::Run)
    }

    /// Returns the parameters below a path; see [`Secrets::parameters_below`](crate::secrets::Secrets::parameters_below).
    pub fn parameters_below(&self, path: &ParameterPath, decrypts: bool) -> Result<Vec<StoredParameter>> {
        self.secrets.parameters_below(&self.host, &self.aws, path, decrypts)
    }

    /// Sets how Vault is reached; without settings, by those of the environment.
    pub fn use_vault(&self, settings: Option<VaultSettings>) {
        self.secrets.use_vault(settings);
    }

    /// Returns the files of the secrets with which the manifest logs in to Vault.
    pub fn vault_files(&self) -> Vec<AbsPath> {
        self.secrets.vault_files()
    }

    /// Ends the logins to stores of secrets.
    pub fn close_stores(&self) {
        self.secrets.close(&self.host);
    }

    /// Returns the text of a variable's secret.
    pub fn stored_text(&self, secret: &StoredSecret) -> Result<String> {
        let read = self.secret(&secret.source, Patience::Short)?;
        let value = if secret.is_base64 { read.value.decoded()? } else { read.value };
        value.text().map(str::to_owned).with_context(|| format!("reading {}", secret.source))
    }

    /// Downloads, or waits for a prefetch of the same; see [`Fetcher::fetch`].
    pub fn fetch(&self, download: &Download) -> Result<Fetched> {
        self.fetcher.fetch(&self.host, download)
    }

    /// Downloads at once, into memory: the bytes may be secrets, so they are on no disk.
    pub fn fetch_to_memory(&self, download: &Download) -> Result<Fetched> {
        let (account, worker) = self.aws.connection();
        let s3 = Arc::new(S3::new(account.clone()));
        Fetcher::new(account.network.clone(), s3, worker, Staging::InMemory).fetch(&self.host, download)
    }

    /// Starts downloads in the background; see [`Fetcher::prefetch`].
    pub fn prefetch(&self, downloads: Vec<Download>) {
        self.fetcher.prefetch(&self.host, downloads);
    }
}
