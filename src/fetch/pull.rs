//! A download as a run declares it.

use super::source::{Source, Sources};
use crate::{net::retry::Limit, value::Sha256};

/// A download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Its sources. Each but the last one is tried at most twice before the next one.
    pub sources: Sources,
    /// The digest that its bytes must have. Other bytes are never handed over.
    pub sha256: Option<Sha256>,
    /// Its length in bytes, if it is known before the origin tells it.
    pub size: Option<u64>,
    /// Whether the caller can do without it. Then an origin that fails is not waited for.
    pub has_fallback: bool,
}

impl Download {
    /// Returns a download of an unknown length that the caller needs.
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
    /// The limit of attempts that fail temporarily.
    pub(super) limit: Limit,
}

impl Pull {
    /// Returns the name of its unfinished file, which is the same in every run.
    pub(super) fn staging_name(&self) -> String {
        let Self { source, sha256, .. } = self;
        let digest = Sha256::of(format!("{} {sha256:?}", source.id()).as_bytes()).to_string();
        digest[..32].to_owned()
    }
}
