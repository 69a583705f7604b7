//! Downloads against servers that fail in every way known, on this machine's loopback.

mod answers;
mod batch;
mod http;
mod metadata;
mod mirrors;
mod network;
mod parts;
mod patience;
mod s3;
mod server;
mod tls;

use std::{
    io::Read,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Download, Fetched, Fetcher, Settings, Source};
use crate::{
    net::retry::{Limit, Pace},
    stop::Interrupt,
    system::{Mode, System},
};

/// Where nothing listens: a port that only root could open, and nobody has for decades.
const NOBODY: &str = "http://127.0.0.1:1/";

/// A system on an empty tree.
struct Bench {
    system: System,
    tree: PathBuf,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self::again(settings, nix::unistd::mkdtemp(&std::env::temp_dir().join("fetch-XXXXXX")).unwrap())
    }

    /// On the tree that another one has left.
    fn again(settings: Settings, tree: PathBuf) -> Self {
        let mut system = System::open(&tree, Mode::Run, Interrupt::default()).unwrap();
        system.fetcher = Fetcher { settings, ..Fetcher::default() };
        Self { system, tree }
    }

    /// What stands on the disk at this moment, and so if the process were killed now: a tree for another one.
    fn left_if_killed(&self) -> PathBuf {
        let tree = nix::unistd::mkdtemp(&std::env::temp_dir().join("fetch-XXXXXX")).unwrap();
        let staging = "var/lib/glovo-bootstrap/staging";
        std::fs::create_dir_all(tree.join(staging)).unwrap();
        for entry in std::fs::read_dir(self.tree.join(staging)).unwrap() {
            let entry = entry.unwrap();
            _ = std::fs::copy(entry.path(), tree.join(staging).join(entry.file_name())).unwrap();
        }
        tree
    }

    fn fetch(&self, url: &str) -> Result<Fetched> {
        self.system.fetch(&download(url))
    }

    /// The error, as its exit code and as an operator reads it.
    fn refused(&self, url: &str) -> (u8, String) {
        told(self.fetch(url))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.tree);
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

/// Three attempts without noticeable pauses, no metadata service, and no certificates to be read.
fn settings() -> Settings {
    Settings {
        pace: Pace {
            limit: Limit::Attempts(3),
            first: Duration::from_millis(1),
            longest: Duration::from_millis(2),
            obedience: Duration::from_millis(5),
            ..Pace::default()
        },
        metadata_endpoint: Some(NOBODY.into()),
        metadata_patience: Some(Duration::ZERO),
        roots: Some(Arc::new(rustls::RootCertStore::empty())),
        ..Settings::default()
    }
}

/// That, and short of patience. Only for what must time out: a busy machine is slow as well.
fn hasty() -> Settings {
    Settings { stall: Duration::from_millis(400), probe: Duration::from_millis(600), ..settings() }
}

/// That, and ready for what a busy machine takes to be a stall.
fn hasty_and_persistent() -> Settings {
    let mut settings = hasty();
    settings.pace.limit = Limit::Attempts(100);
    settings
}

/// Waits for something that another thread does.
fn eventually(system: &System, met: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_mins(1);
    while !met() && Instant::now() < end {
        system.host.stop.wait(Duration::from_millis(5)).unwrap();
    }
    met()
}
