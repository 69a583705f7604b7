//! Downloads from servers that fail in many ways, on the loopback interface.

mod answers;
mod batch;
mod calls;
mod checksums;
mod etags;
mod http;
mod metadata;
mod mirrors;
mod network;
mod parts;
mod patience;
mod s3;
pub(crate) mod server;
mod tls;

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use aws_config::SdkConfig;
use rustls::RootCertStore;

use super::{fetched::Fetched, pull::Download, source::Source};
use crate::{
    aws::{
        account::{Account, AwsSettings},
        metadata::Metadata,
    },
    host::scratch::Scratch,
    net::{
        Network,
        client::Clients,
        retry::{Limit, Pace},
        settings::NetworkSettings,
    },
    stop::Interrupt,
    system::{Mode, System, remote::wire},
};

/// The directory of downloads that are not finished.
const STAGING: &str = "/var/lib/glovo-bootstrap/staging";
/// A port on which nothing listens: only root could open it.
const UNUSED: &str = "http://127.0.0.1:1/";

/// The timeouts of a bench, and its servers.
#[derive(Clone)]
struct BenchSettings {
    network: NetworkSettings,
    /// The root certificates that TLS trusts, instead of the machine's.
    roots: Option<RootCertStore>,
    /// Instead of the SDK's chain of environment, profile files and metadata service.
    aws: Option<SdkConfig>,
    metadata_endpoint: String,
    metadata_patience: Duration,
}

impl BenchSettings {
    fn clients(&self) -> Clients {
        match &self.roots {
            Some(roots) => Clients::trusting(&self.network, roots.clone()).unwrap(),
            None => Clients::new(&self.network),
        }
    }

    fn account(self) -> Account {
        let network = Network::of(self.network.clone(), self.clients());
        let metadata = Metadata::at(Arc::new(network), &self.metadata_endpoint, self.metadata_patience).unwrap();
        Account::of(metadata, AwsSettings::default(), self.aws)
    }
}

/// A system on an empty tree.
struct Bench {
    system: System,
    settings: BenchSettings,
    tree: Scratch,
}

impl Bench {
    fn new(settings: BenchSettings) -> Self {
        Self::again(settings, Scratch::new())
    }

    /// Returns a bench on the tree of an earlier one.
    fn again(settings: BenchSettings, tree: Scratch) -> Self {
        let mut system = System::open(tree.path(), Mode::Run, Interrupt::default()).unwrap();
        (system.aws, system.fetcher) = wire(Mode::Run, settings.clone().account());
        Self { system, settings, tree }
    }

    /// Connects anew with changed settings.
    fn rewire(&mut self, change: impl FnOnce(&mut BenchSettings)) {
        change(&mut self.settings);
        (self.system.aws, self.system.fetcher) = wire(Mode::Run, self.settings.clone().account());
    }

    fn fetch(&self, url: &str) -> Result<Fetched> {
        self.system.fetch(&download(url))
    }

    /// Returns the exit code and the text of the error of a failed download.
    fn refused(&self, url: &str) -> (u8, String) {
        told(self.fetch(url))
    }
}

fn told<T: std::fmt::Debug>(result: Result<T>) -> (u8, String) {
    let error = result.unwrap_err();
    (crate::error::exit_code(&error), crate::error::render(&error))
}

fn download(url: &str) -> Download {
    Download::new(url.parse::<Source>().unwrap(), None)
}

fn text(mut fetched: Fetched) -> String {
    let mut text = String::new();
    _ = fetched.file.read_to_string(&mut text).unwrap();
    text
}

/// Returns settings with three attempts, short pauses, no metadata service and no certificates.
fn settings() -> BenchSettings {
    let pace = Pace {
        limit: Limit::Attempts(3),
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
        obedience: Duration::from_millis(5),
        ..Pace::default()
    };
    BenchSettings {
        network: NetworkSettings { pace, ..NetworkSettings::default() },
        roots: Some(RootCertStore::empty()),
        aws: None,
        metadata_endpoint: UNUSED.into(),
        metadata_patience: Duration::ZERO,
    }
}

/// Returns these settings with a change.
fn settings_with(change: impl FnOnce(&mut NetworkSettings)) -> BenchSettings {
    let mut settings = settings();
    change(&mut settings.network);
    settings
}

/// Returns settings with short timeouts. Use them only for a test that must time out: a busy machine is slow, too.
fn hasty() -> BenchSettings {
    settings_with(|network| {
        network.stall_timeout = Duration::from_millis(400);
        network.probe_timeout = Duration::from_millis(600);
    })
}

/// Returns settings with short timeouts and many attempts, for a busy machine that looks stalled.
fn hasty_and_persistent() -> BenchSettings {
    let mut settings = hasty();
    settings.network.pace.limit = Limit::Attempts(100);
    settings
}

/// Waits up to a minute until another thread has met a condition. Returns whether it has.
fn eventually(system: &System, met: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_mins(1);
    while !met() && Instant::now() < end {
        system.host.stop.wait(Duration::from_millis(5)).unwrap();
    }
    met()
}
