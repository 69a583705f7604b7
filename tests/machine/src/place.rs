//! The directory of a running machine. It is removed when no process holds its lock.

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
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let sweeping = cache::lock("machines.lock")?;
    let machines = cache::dir().join("machines");
    fs::create_dir_all(&machines)?;
    sweep(&machines)?;
    let dir = machines.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&dir)?;
    buckets(&dir.join("s3"))?;
    Ok((dir, sweeping))
}

/// Removes the directories of killed processes.
fn sweep(machines: &Path) -> Result<()> {
    for entry in fs::read_dir(machines)? {
        let dir = entry?.path();
        let Ok(lock) = File::open(&dir) else { continue };
        if lock.try_lock().is_ok() && dir.exists() {
            eprintln!("clearing away {}, whose holder was killed", dir.display());
            in_own_mounts(Command::new("bash").arg(container_script()).arg("sweep").arg(&dir))?;
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
