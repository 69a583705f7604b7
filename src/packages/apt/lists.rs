//! apt's package lists: whether they are old, and their update.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    cause::{Cause, Diagnosis},
    judge, persevere,
    sources::{Failure, PARTS, Sources},
    update_command,
};
use crate::{
    host::{command::Program, root::Root, state},
    system::System,
    value::AbsPath,
};

/// Where apt keeps the indexes of its sources.
const LISTS: &str = "/var/lib/apt/lists";
/// What says which sources those are.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", PARTS];
/// Mirrors keep a package for a day at least after a newer one replaced it.
const LISTS_LAST: Duration = Duration::from_hours(24);
/// The state file that says how the last update ended, unless all was well.
const STATE: &str = "apt-update.json";

/// An update after which not all lists are new, though apt has touched them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shortfall {
    /// Whether it failed, or was cut off: nothing may be installed from the lists it has left.
    has_failed: bool,
    /// The third parties' repositories that it had to do without.
    failures: Vec<Failure>,
}

impl Shortfall {
    fn read(root: &Root) -> Self {
        state::read(root, STATE).unwrap_or_default()
    }

    fn keep(&self, root: &Root) -> Result<()> {
        if *self == Self::default() {
            return root.remove(&state::path(STATE)?);
        }
        state::write(root, STATE, self).context("keeping how the update of the package lists ended")
    }
}

/// Updates the lists for an installation. A third party's repository may fail, with a warning, as long as the
/// installation needs nothing of it. `print` is the installation's command with `archives::PRINT`.
///
/// # Errors
/// If another repository fails, or the installation needs one that does.
pub(crate) fn update(system: &System, print: &Program) -> Result<()> {
    let root = system.root();
    Shortfall { has_failed: true, failures: vec![] }.keep(root)?;
    let failures = update_all_but_third_parties(system)?;
    if failures.is_empty() {
        return Shortfall::default().keep(root);
    }
    if let Some(need) = need(system, print, &failures)? {
        let all = || system.host.run(&update_command()).map(judge);
        persevere(system, "updating the package lists", all, |_| Ok(false)).context(need)?;
        return Shortfall::default().keep(root);
    }
    for failure in &failures {
        system.warn(failure.warning());
    }
    Shortfall { has_failed: false, failures }.keep(root)
}

/// Whether the installation needs a repository that the last update had to do without.
pub(crate) fn lack_what_is_needed(system: &System, print: &Program) -> Result<bool> {
    let Shortfall { failures, .. } = Shortfall::read(system.root());
    Ok(!failures.is_empty() && need(system, print, &failures)?.is_some())
}

/// Updates the lists; what third parties' repositories failed, if no other did.
fn update_all_but_third_parties(system: &System) -> Result<Vec<Failure>> {
    let sources = Sources::read(system)?;
    let failures = RefCell::default();
    let attempt = || {
        let attempt = judge(system.host.run(&update_command())?);
        let failed = attempt.as_ref().err().and_then(|finished| sources.failures(finished));
        Ok(match failed {
            Some(failed) => Ok(_ = failures.replace(failed)),
            None => attempt,
        })
    };
    persevere(system, "updating the package lists", attempt, |_| Ok(false))?;
    Ok(failures.into_inner())
}

/// Why the installation needs a repository that has failed, if it does.
fn need(system: &System, print: &Program, failures: &[Failure]) -> Result<Option<String>> {
    let printed = system.host.run(print)?;
    if !printed.status.success() {
        // Another cause than a missing package is for the installation to say.
        let Diagnosis { cause, line, .. } = Diagnosis::of(&printed.tail);
        return Ok((cause == Cause::Unknown).then(|| line.trim_start_matches("E: ").to_owned()));
    }
    let urls = printed.stdout.lines().filter_map(|line| line.strip_prefix('\'')?.split_once("' "));
    let needed = urls.map(|(url, _)| url).find(|url| failures.iter().any(|failure| failure.holds(url)));
    Ok(needed.map(|url| format!("{url} is in a repository that could not be updated")))
}

/// Whether the lists are missing, old, older than what they are of, or left by an update that failed. What tells is when the inode
/// changed: a list's modification time is the mirror's, and a copied sources file may have an old one.
pub(crate) fn needs_update(root: &Root, now: SystemTime) -> Result<bool> {
    let lists = AbsPath::from(LISTS);
    if !root.list(&lists)?.iter().any(|name| name.contains("_Packages")) {
        return Ok(true);
    }
    if Shortfall::read(root).has_failed {
        return Ok(true);
    }
    // apt makes and removes files in `partial` even if no index changed.
    let mut updated = SystemTime::UNIX_EPOCH;
    for path in [lists.join("partial")?, lists] {
        updated = updated.max(root.status(&path)?.map_or(updated, |status| status.changed));
    }
    if now.duration_since(updated).is_ok_and(|age| age > LISTS_LAST) {
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
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lists_are_updated_when_missing_old_or_older_than_their_sources() {
        let tree = std::env::temp_dir().join(format!("glovo-bootstrap-apt-{}", std::process::id()));
        fs::create_dir_all(tree.join("var/lib/apt/lists/partial")).unwrap();
        fs::create_dir_all(tree.join("etc/apt/sources.list.d")).unwrap();
        fs::write(tree.join("etc/apt/sources.list"), "").unwrap();
        let needed = |later| {
            let root = Root::open(&tree).unwrap();
            needs_update(&root, SystemTime::now() + Duration::from_hours(later)).unwrap()
        };
        // A file's time has the grain of the kernel's clock.
        let tick = || std::thread::sleep(Duration::from_millis(20));
        assert!(needed(0), "none");
        tick();
        fs::write(tree.join("var/lib/apt/lists/x_dists_bookworm_main_binary-amd64_Packages.lz4"), "").unwrap();
        assert!(!needed(0) && !needed(23));
        assert!(needed(25), "old");
        tick();
        fs::write(tree.join("etc/apt/sources.list.d/new.sources"), "").unwrap();
        assert!(needed(0), "older than a source");
        tick();
        fs::write(tree.join("var/lib/apt/lists/partial/x_InRelease"), "").unwrap();
        assert!(!needed(0), "an update that found nothing new");
        let root = Root::open(&tree).unwrap();
        Shortfall { has_failed: true, failures: vec![] }.keep(&root).unwrap();
        assert!(needed(0), "an update that failed");
        Shortfall::default().keep(&root).unwrap();
        assert!(!needed(0), "one that did not");
        fs::remove_dir_all(&tree).unwrap();
    }
}
