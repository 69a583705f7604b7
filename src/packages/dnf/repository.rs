//! The proof of a repository before a manifest adds it.

use anyhow::Result;

use super::{
    TOOLS,
    transaction::{dnf, run},
};
use crate::{host::root::Root, system::System, value::AbsPath};

/// The directories of dnf's caches, of dnf 4 and 5. Each repository has one below: `NAME-0123456789abcdef`.
const CACHES: [&str; 2] = ["/var/cache/dnf", "/var/cache/libdnf5"];
/// The number of digits in the name of a cache.
const DIGITS: usize = 16;

/// Downloads the lists of a repository and keeps them. `directory` holds its file.
///
/// dnf checks the signature of the index with the key of the file, unless the file says otherwise. What dnf has kept of
/// an earlier repository of this name is removed first: its key would be trusted, and its lists would not be downloaded.
pub fn verify(system: &System, name: &str, directory: &AbsPath) -> Result<()> {
    TOOLS.check_writable(system)?;
    let command = dnf("makecache").args([format!("--repo={name}"), format!("--setopt=reposdir={directory}")]);
    let attempt = || {
        remove_caches(system.root(), name)?;
        run(system, &command)
    };
    TOOLS.persevere(system, "verifying the repository", attempt, |_| Ok(false))
}

fn remove_caches(root: &Root, name: &str) -> Result<()> {
    for cache in CACHES {
        for path in root.matching(&format!("{cache}/{name}-*"))? {
            if is_of(path.leaf(), name) {
                _ = root.purge(&path)?;
            }
        }
    }
    Ok(())
}

/// Returns whether a directory is the cache of a repository. `app-testing-0123456789abcdef` is not that of `app`.
fn is_of(directory: &str, name: &str) -> bool {
    let digits = directory.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cache_of_a_repository_is_its_own() {
        assert!(is_of("app-0123456789abcdef", "app"));
        for other in
            ["app-testing-0123456789abcdef", "app", "app-0123456789abcdefg", "app-0123456789abcdeg", "app.solv"]
        {
            assert!(!is_of(other, "app"), "{other}");
        }
        assert!(is_of("app-testing-0123456789abcdef", "app-testing"));
    }
}
