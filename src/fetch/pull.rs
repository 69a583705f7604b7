//! What is to be downloaded.

use super::source::{Source, Sources};
use crate::{net::retry::Limit, value::Sha256};

/// Something to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where from. Of several sources, each but the last is tried at most twice before the next one has its turn.
    pub sources: Sources,
    /// What its bytes must hash to; bytes that don't are never handed over.
    pub sha256: Option<Sha256>,
    /// How many bytes it has, where something but the origin says so.
    pub size: Option<u64>,
    /// Whether there is another way to get it: then an origin that fails is not waited for.
    pub has_fallback: bool,
}

impl Download {
    /// Returns a download of an unknown length, and without another way to get it.
    pub fn new(sources: impl Into<Sources>, sha256: Option<Sha256>) -> Self {
        Self { sources: sources.into(), sha256, size: None, has_fallback: false }
    }
}

/// A download from one source.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) source: Source,
    pub(super) sha256: Option<Sha256>,
    pub(super) size: Option<u64>,
    /// When attempts end, where another one may help.
    pub(super) limit: Limit,
}

impl Pull {
    /// Returns the name of its bytes until they are all there, the same in every run.
    pub(super) fn staging_name(&self) -> String {
        let Self { source, sha256, .. } = self;
        let digest = Sha256::of(format!("{source} {sha256:?}").as_bytes()).to_string();
        digest[..32].to_owned()
    }
}
