//! The age of dnf's package lists (its metadata).

use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::{error::Fault, host::root::Root, value::AbsPath};

/// The lists: in the cache of each repository, dnf gives this file the time of the last check.
const LISTS: &str = "/var/cache/dnf/*/repodata/*primary*";
/// The files of the repositories.
const SOURCES: &str = "/etc/yum.repos.d";
/// Lists older than this are updated.
const MAX_LIST_AGE: Duration = Duration::from_hours(24);

/// Returns whether there are lists of some repository.
pub(crate) fn exist(root: &Root) -> Result<bool> {
    Ok(!root.matching(LISTS)?.is_empty())
}

/// Returns whether the lists are missing, old, or older than the repositories' files.
pub(crate) fn are_old(root: &Root, now: SystemTime) -> Result<bool> {
    let mut updated = None;
    for path in root.matching(LISTS)? {
        updated = updated.max(root.status(&path)?.map(|status| status.changed));
    }
    let Some(updated) = updated else { return Ok(true) };
    if now.duration_since(updated).is_ok_and(|age| age > MAX_LIST_AGE) {
        return Ok(true);
    }
    let sources = AbsPath::from(SOURCES);
    for name in root.list(&sources)?.iter().filter(|name| name.ends_with(".repo")) {
        if root.status(&sources.join(name)?)?.is_some_and(|status| status.changed > updated) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the error for a repository without lists.
pub(crate) fn missing() -> Fault {
    Fault::new("the package lists of a repository are missing").hint("download them: dnf makecache")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn lists_are_old_when_missing_or_older_than_their_sources() {
        let tree = Scratch::of(&[("/etc/yum.repos.d/app.repo", "")]);
        tree.make_directory("/var/cache/dnf/app-0123456789abcdef/repodata");
        let are_old = |hours| are_old(&tree.root(), SystemTime::now() + Duration::from_hours(hours)).unwrap();
        assert!(are_old(0), "none");
        Scratch::tick();
        tree.write("/var/cache/dnf/app-0123456789abcdef/repodata/264d-primary.xml.gz", "");
        assert!(!are_old(0) && !are_old(23));
        assert!(are_old(25), "old");
        Scratch::tick();
        tree.write("/etc/yum.repos.d/new.repo", "");
        assert!(are_old(0), "older than a source");
    }
}
