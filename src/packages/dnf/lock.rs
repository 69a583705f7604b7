//! The locks of rpm and dnf.
//!
//! rpm locks a file by fcntl(2). dnf writes its pid to a file. dnf's own wait for it has no end, and rpm has no wait.

use anyhow::Result;

use crate::{
    host::{
        file_lock::{self, Held},
        root::Root,
    },
    system::System,
    value::AbsPath,
};

/// The lock of rpm, in both places of its database.
const LOCKS: [&str; 2] = ["/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"];
/// The files with dnf's pid.
const PID_FILES: [&str; 5] = [
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/var/log/log_lock.pid",
    "/var/run/yum.pid",
];
/// The words of which the command of a process that uses dnf has one.
const USERS: [&str; 4] = ["dnf", "yum", "python", "packagekit"];
/// Limits the size of a pid file.
const MAX_BYTES: u64 = 64;

/// Waits until all locks of rpm and dnf are free, and removes those that no process holds.
///
/// # Errors
/// At a deadline: a temporary failure that names the holder.
pub(crate) fn wait(system: &System) -> Result<()> {
    file_lock::wait(&system.host, "rpm's and dnf's locks", find)?;
    for path in PID_FILES {
        remove_stale(system.root(), &path.into())?;
    }
    Ok(())
}

/// Returns the first lock that is held.
fn find(root: &Root) -> Result<Option<Held>> {
    for path in LOCKS.map(AbsPath::from) {
        if let Some(held) = file_lock::find(root, &path)? {
            return Ok(Some(held));
        }
    }
    for path in PID_FILES.map(AbsPath::from) {
        if let Some(holder) = holder(root, &path)? {
            return Ok(Some(Held { path, holder }));
        }
    }
    Ok(None)
}

/// Returns the process whose pid is in a file, in words; `None` if it has ended.
///
/// A file may outlive a reboot. Then its pid may be that of a process that has nothing to do with dnf.
fn holder(root: &Root, path: &AbsPath) -> Result<Option<String>> {
    let Some(text) = root.read(path, MAX_BYTES)? else { return Ok(None) };
    let pid = String::from_utf8_lossy(&text).trim().parse().ok().filter(|pid| *pid > 0);
    let process = pid.and_then(file_lock::process);
    Ok(process.filter(|process| USERS.iter().any(|word| process.to_ascii_lowercase().contains(word))))
}

/// Removes a pid file whose process is not dnf. dnf itself would wait for the end of that process.
fn remove_stale(root: &Root, path: &AbsPath) -> Result<()> {
    if root.status(path)?.is_some() && holder(root, path)?.is_none() {
        tracing::info!(%path, "removed a lock that no process holds");
        root.remove(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        file_lock::tests::Lock,
        scratch::{IdleProcess, Scratch},
    };

    fn tree() -> Scratch {
        let tree = Scratch::new();
        for path in LOCKS.iter().chain(&PID_FILES) {
            tree.make_directory(AbsPath::from(*path).directory().unwrap());
        }
        tree
    }

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let tree = tree();
        let root = tree.root();
        for path in LOCKS {
            tree.write(path, "");
            assert_eq!(find(&root).unwrap(), None);
            let _lock = Lock::take(&tree.at(path));
            assert_eq!(find(&root).unwrap().unwrap().path, path.into());
        }
    }

    #[test]
    fn a_pid_file_counts_while_its_process_uses_dnf() {
        let tree = tree();
        let root = tree.root();
        let (dnf, other) = (IdleProcess::named("dnf"), IdleProcess::named("other"));
        for path in PID_FILES {
            tree.write(path, dnf.id().to_string());
            let held = find(&root).unwrap().unwrap();
            assert_eq!(held.path, path.into());
            assert!(
                held.holder.starts_with(&format!("pid {} (sh -c echo; read line dnf", dnf.id())),
                "{}",
                held.holder
            );
            remove_stale(&root, &path.into()).unwrap();
            assert!(tree.has(path));
            // The pid of a process that has ended, of one without dnf, and none.
            for stale in ["4194305".to_owned(), other.id().to_string(), String::new(), "-1".into()] {
                tree.write(path, stale);
                assert_eq!(find(&root).unwrap(), None);
                remove_stale(&root, &path.into()).unwrap();
                assert!(!tree.has(path));
            }
        }
    }
}
