//! Directories of running machines, and of what tests make for them. Such a directory is removed when no process holds
//! its lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::base::{PACKAGE, in_own_mounts};
use crate::cache;

/// Makes a directory with the objects of the machine's buckets.
///
/// No process removes it while the returned file is open. The machine must lock its directory before closing that file.
pub(crate) fn new() -> Result<(PathBuf, File)> {
    let (dir, sweeping) = make()?;
    buckets(&dir.join("s3"))?;
    Ok((dir, sweeping))
}

/// An empty directory that is gone when dropped. If its process is killed, the next machine removes it.
pub struct SweptDirectory {
    pub path: PathBuf,
    _lock: File,
}

impl SweptDirectory {
    /// Makes one on the disk of the machines.
    pub fn new() -> Result<SweptDirectory> {
        let (path, _sweeping) = make()?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(SweptDirectory { path, _lock: lock })
    }
}

impl Drop for SweptDirectory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes an empty directory, and returns it with the lock that keeps others from sweeping.
fn make() -> Result<(PathBuf, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let sweeping = cache::lock("machines.lock")?;
    let machines = cache::dir().join("machines");
    fs::create_dir_all(&machines)?;
    sweep(&machines)?;
    let dir = machines.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&dir)?;
    Ok((dir, sweeping))
}

/// Removes the directories of killed processes. One that cannot be removed is named, and keeps no machine from its start.
fn sweep(machines: &Path) -> Result<()> {
    for entry in fs::read_dir(machines)? {
        let dir = entry?.path();
        let Ok(lock) = File::open(&dir) else { continue };
        if lock.try_lock().is_ok() && dir.exists() {
            eprintln!("clearing away {}, whose holder was killed", dir.display());
            let swept = in_own_mounts(Command::new("bash").arg(container_script()).arg("sweep").arg(&dir));
            swept.unwrap_or_else(|error| eprintln!("{} could not be cleared away: {error}", dir.display()));
        }
    }
    Ok(())
}

/// What sets containers up, and clears them away.
pub(crate) fn container_script() -> String {
    format!("{PACKAGE}/src/container.sh")
}

/// The objects the machine's steps fetch, and a bucket that its role may not read.
fn buckets(root: &Path) -> Result<()> {
    let files = Path::new(PACKAGE).join("../../steps/files");
    for (file, object) in [
        ("nginx-default", "glovo-config/nginx/default"),
        ("glovo-app.service", "glovo-config/systemd/glovo-app.service"),
        ("nginx-default", "glovo-private/nginx/default"),
    ] {
        let object = root.join(object);
        fs::create_dir_all(object.parent().expect("an object in a bucket"))?;
        fs::copy(files.join(file), &object).with_context(|| file)?;
    }
    Ok(())
}
