//! The versions that a service has refused since this boot. They were put back. A run of the timer leaves them alone: it would
//! only restart the service every hour.
//!
//! A run by hand tries them again, and so does each run after a reboot. The record is in memory, and is no proof of anything:
//! without it, a run tries again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    environment,
    host::{
        facts::boot_id,
        root::{MAX_TEXT_BYTES, Ownership},
    },
    manifest::{Declared, Manifest},
    system::{Mode, System},
    value::{AbsPath, Sha256},
};

const FILE: &str = "/run/glovo-bootstrap/refused.json";

/// What a service has refused, by path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RefusedVersions {
    /// The boot: `/run` of a container may outlive it.
    boot: String,
    versions: BTreeMap<AbsPath, RefusedVersion>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RefusedVersion {
    by: String,
    at: String,
    /// A digest of the version, which differs for each boot and path.
    digest: Sha256,
}

impl RefusedVersions {
    /// Returns what this run leaves alone. A run that a person or the boot has started tries everything again, so the
    /// record begins anew.
    pub(super) fn of_run(system: &System) -> Self {
        if environment::is_on(environment::UNATTENDED) {
            return Self::read(system);
        }
        let path = AbsPath::from(FILE);
        let is_run = system.mode() == Mode::Run && system.is_live();
        if is_run && system.root().status(&path).is_ok_and(|status| status.is_some()) {
            // If it stays, a later run leaves something alone that this run has tried.
            if let Err(error) = system.root().remove(&path) {
                tracing::warn!("the record of refused versions stays: {error:#}");
            }
        }
        Self::default()
    }

    fn read(system: &System) -> Self {
        let bytes = system.root().read(&FILE.into(), MAX_TEXT_BYTES).ok().flatten();
        let read = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        read.filter(|read| read.boot == boot_id() && system.is_live()).unwrap_or_default()
    }

    /// Returns why a resource stays as it is; `None` if its version is not known to be refused.
    pub(super) fn why_left(&self, declared: &Declared, system: &System) -> Result<Option<String>> {
        let known = |path: AbsPath| Some((self.versions.get(&path)?, path));
        let Some((refused, path)) = declared.resource.made_paths().into_iter().find_map(known) else { return Ok(None) };
        let version = declared.resource.version_to_come(system)?;
        if version.is_none_or(|version| digest(&path, &version) != refused.digest) {
            return Ok(None);
        }
        let (by, at, again) = (&refused.by, &refused.at, system.host.run_command());
        Ok(Some(format!("stays as it is: {by} refused this version at {at}; a run by hand tries it again: `{again}`")))
    }

    /// Records what a service has refused, by the paths that were put back.
    pub(super) fn remember(manifest: &Manifest, system: &System, unit: &str, paths: &[&AbsPath]) -> Result<()> {
        let mut refused = Self::read(system);
        let at = OffsetDateTime::now_utc().replace_nanosecond(0).context("telling the time")?;
        let at = at.format(&Rfc3339).context("telling the time")?;
        for declared in manifest.steps.iter().flat_map(|step| &step.resources) {
            let made = declared.resource.made_paths();
            let Some(path) = made.iter().find(|path| paths.contains(path)) else { continue };
            let Some(version) = declared.resource.version_to_come(system)? else { continue };
            // For each of them, because a later plan may find another one first.
            for path in made.iter().filter(|other| *other == path || paths.contains(other)) {
                let digest = digest(path, &version);
                let version = RefusedVersion { by: unit.to_owned(), at: at.clone(), digest };
                _ = refused.versions.insert(path.clone(), version);
            }
        }
        refused.boot = boot_id();
        system.root().make_directories(&AbsPath::from("/run/glovo-bootstrap"), 0o711)?;
        let ownership = Ownership { uid: 0, gid: 0, mode: 0o600 };
        system.root().write(&FILE.into(), ownership, &serde_json::to_vec(&refused).context("writing JSON")?)
    }
}

fn digest(path: &AbsPath, version: &str) -> Sha256 {
    Sha256::of(format!("{} {path} {version}", boot_id()).as_bytes())
}
