//! The age and the update of apt's package lists.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    TOOLS, cause, judge,
    sources::{AptSources, PARTS, RepositoryFailure},
    update_command,
};
use crate::{
    host::{command::Program, root::Root, state},
    packages::cause::{Cause, Diagnosis},
    redaction,
    system::System,
    value::AbsPath,
};

/// The directory of the indexes that apt has downloaded.
const LISTS: &str = "/var/lib/apt/lists";
/// The file and the directory that name apt's sources.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", PARTS];
/// Lists older than this are updated. Mirrors keep a replaced package for at least a day.
const MAX_LIST_AGE: Duration = Duration::from_hours(24);
/// The state file about an update that did not fully succeed.
const STATE: &str = "apt-update.json";
/// Its path.
pub(crate) const STATE_FILE: &str = "/var/lib/glovo-bootstrap/apt-update.json";

/// An update that did not renew all lists, though apt has changed their directory.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shortfall {
    /// Whether it failed or was interrupted. Nothing may be installed from its lists.
    has_failed: bool,
    /// The third-party repositories that it could not update.
    failures: Vec<RepositoryFailure>,
}

impl Shortfall {
    fn read(root: &Root) -> Self {
        state::read(root, STATE).unwrap_or_default()
    }

    fn keep(&self, root: &Root) -> Result<()> {
        if *self == Self::default() {
            return root.remove(&state::path(STATE)?);
        }
        state::write(root, STATE, self).context("recording the result of the package list update")
    }
}

/// Updates the lists for an installation.
///
/// A failed third-party repository is only a warning if the installation needs nothing of it. `print` is the
/// installation's command with `archives::PRINT`.
///
/// # Errors
/// If another repository fails, or if the installation needs a failed one.
pub(crate) fn update(system: &System, print: &Program) -> Result<()> {
    let root = system.root();
    Shortfall { has_failed: true, failures: vec![] }.keep(root)?;
    let failures = update_all_but_third_parties(system)?;
    if failures.is_empty() {
        return Shortfall::default().keep(root);
    }
    if let Some(need) = need(system, print, &failures)? {
        let all = || system.host.run(&update_command()).map(judge);
        TOOLS.persevere(system, "updating the package lists", all, |_| Ok(false)).context(need)?;
        return Shortfall::default().keep(root);
    }
    for failure in &failures {
        system.warn(failure.warning());
    }
    Shortfall { has_failed: false, failures }.keep(root)
}

/// Returns whether the installation needs a repository that the last update could not update.
pub(crate) fn lack_what_is_needed(system: &System, print: &Program) -> Result<bool> {
    let Shortfall { failures, .. } = Shortfall::read(system.root());
    Ok(!failures.is_empty() && need(system, print, &failures)?.is_some())
}

/// Updates the lists, and returns the third-party repositories that failed.
///
/// # Errors
/// If another repository fails.
fn update_all_but_third_parties(system: &System) -> Result<Vec<RepositoryFailure>> {
    let sources = AptSources::read(system)?;
    let failures = RefCell::default();
    let attempt = || {
        let attempt = judge(system.host.run(&update_command())?);
        let failed = attempt.as_ref().err().and_then(|finished| sources.failures(finished));
        Ok(match failed {
            Some(failed) => Ok(_ = failures.replace(failed)),
            None => attempt,
        })
    };
    TOOLS.persevere(system, "updating the package lists", attempt, |_| Ok(false))?;
    Ok(failures.into_inner())
}

/// Returns the reason why the installation needs one of the failed repositories; `None` if it does not.
fn need(system: &System, print: &Program, failures: &[RepositoryFailure]) -> Result<Option<String>> {
    let printed = system.host.run(print)?;
    if !printed.status.success() {
        // The installation itself reports any other cause than a missing package.
        let Diagnosis { cause, line, .. } = cause::TABLE.diagnosis(&printed.tail);
        return Ok((cause == Cause::Unknown).then(|| redaction::printed(line.trim_start_matches("E: ")).into_owned()));
    }
    let urls = printed.stdout.lines().filter_map(|line| line.strip_prefix('\'')?.split_once("' "));
    let needed = urls.map(|(url, _)| url).find(|url| failures.iter().any(|failure| failure.holds(url)));
    Ok(needed.map(|url| format!("{url} is in a repository that could not be updated")))
}

/// Returns whether the lists are missing, old, older than the sources files, or left by a failed update.
///
/// The change times of the inodes are compared: a list has the mirror's modification time, and a copied sources file
/// may have an old one.
pub(crate) fn needs_update(root: &Root, now: SystemTime) -> Result<bool> {
    let lists = AbsPath::from(LISTS);
    if !root.list(&lists)?.iter().any(|name| name.contains("_Packages")) {
        return Ok(true);
    }
    if Shortfall::read(root).has_failed {
        return Ok(true);
    }
    // apt creates and removes files in `partial` even if no index has changed.
    let mut updated = SystemTime::UNIX_EPOCH;
    for path in [lists.join("partial")?, lists] {
        updated = updated.max(root.status(&path)?.map_or(updated, |status| status.changed));
    }
    if now.duration_since(updated).is_ok_and(|age| age > MAX_LIST_AGE) {
        return Ok(true);
    }
    let [list, parts] = SOURCES.map(AbsPath::from);
    let mut sources = vec![list];
    for name in root.list(&parts)? {
        sources.push(parts.join(&name)?);
    }
    for path in sources {
        if root.status(&path)?.is_some_and(|status| status.changed > updated) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn lists_are_updated_when_missing_old_or_older_than_their_sources() {
        let tree = Scratch::of(&[("/etc/apt/sources.list", "")]);
        tree.make_directory("/var/lib/apt/lists/partial");
        tree.make_directory("/etc/apt/sources.list.d");
        let needed = |later| needs_update(&tree.root(), SystemTime::now() + Duration::from_hours(later)).unwrap();
        assert!(needed(0), "none");
        Scratch::tick();
        tree.write("/var/lib/apt/lists/x_dists_bookworm_main_binary-amd64_Packages.lz4", "");
        assert!(!needed(0) && !needed(23));
        assert!(needed(25), "old");
        Scratch::tick();
        tree.write("/etc/apt/sources.list.d/new.sources", "");
        assert!(needed(0), "older than a source");
        Scratch::tick();
        tree.write("/var/lib/apt/lists/partial/x_InRelease", "");
        assert!(!needed(0), "an update that found nothing new");
        let root = tree.root();
        Shortfall { has_failed: true, failures: vec![] }.keep(&root).unwrap();
        assert!(needed(0), "an update that failed");
        Shortfall::default().keep(&root).unwrap();
        assert!(!needed(0), "one that did not");
    }
}
