//! The staging directory: the bytes of a run's downloads, and those that earlier runs left.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};

use super::{
    fetched::Fetched,
    pull::Pull,
    spool::{Spool, SpoolFile},
};
use crate::{
    aws::s3::Promise,
    host::{Host, calls, root::Ownership, state, unswapped},
    net::retry::Failure,
    value::AbsPath,
};

/// The bytes of a local file that are copied at a time.
const COPY_BUFFER_BYTES: usize = 128 << 10;

/// Says whether another process can resume a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// The bytes are in the state directory, under a name that the next run finds.
    Resumable,
    /// The file has no name: a plan leaves the state directory as it is.
    Unnamed,
    /// The file is in memory: the bytes may be secrets.
    InMemory,
}

fn directory() -> Result<AbsPath> {
    AbsPath::from(state::DIRECTORY).join("staging")
}

/// Returns the spool for a download's bytes. A run resumes the download of a killed run.
pub(super) fn spool(host: &Host, staging: Staging, pull: &Pull) -> Result<Spool> {
    let ownership = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 };
    let root = host.root();
    let (directory, file) = match staging {
        Staging::Resumable => {
            let directory = directory()?;
            state::make_directory(root)?;
            root.make_directories(&directory, 0o700)?;
            let part = root.resume(&directory.join(&pull.staging_name())?, ownership)?;
            (directory, SpoolFile::Part(part))
        }
        Staging::Unnamed => {
            let directory: AbsPath = "/var/tmp".into();
            let file = root.unnamed(&directory)?;
            (directory, SpoolFile::Anonymous(Arc::new(file)))
        }
        Staging::InMemory => {
            let file = unswapped::file("download").context("making a file in memory")?;
            ("/dev/shm".into(), SpoolFile::Anonymous(Arc::new(file)))
        }
    };
    Ok(Spool::new(file, directory, pull)?)
}

/// Removes the unfinished downloads of killed runs that this run does not need.
pub(super) fn sweep(host: &Host, wanted: impl Iterator<Item = Pull>) -> Result<()> {
    let directory = directory()?;
    let wanted: Vec<String> = wanted.map(|pull| pull.staging_name()).collect();
    for name in host.root().list(&directory)? {
        if !wanted.iter().any(|wanted| name.contains(wanted)) {
            host.root().remove(&directory.join(&name)?)?;
        }
    }
    Ok(())
}

/// Copies a file of the machine, so that it cannot change after it is verified.
pub(super) fn copy(host: &Host, path: &AbsPath, mut spool: Spool) -> Result<Fetched> {
    let Some((mut file, _)) = host.root().open_file(path)? else {
        let root = host.root();
        let tree = if root.is_host() { String::new() } else { format!(" in the tree {}", root.path().display()) };
        bail!("{path} does not exist{tree}")
    };
    spool.begin(Promise::default()).map_err(Failure::into_fault)?;
    let lane = spool.lane();
    _ = spool.claim(lane);
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        host.stop.check()?;
        match calls::read(&mut file, &mut buffer).with_context(|| format!("reading {path}"))? {
            0 => break,
            read => _ = spool.write(lane, spool.done(), &buffer[..read]).map_err(Failure::into_fault)?,
        }
    }
    spool.end();
    spool.digest().with_context(|| format!("reading {path} again"))?;
    spool.verify().with_context(|| format!("verifying {path}"))?;
    Ok(spool.finish()?)
}
