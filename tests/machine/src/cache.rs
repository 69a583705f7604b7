//! Directories that are made once, named by a hash of their sources. A directory is kept until a newer one replaces it
//! and no machine uses it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The directory of everything that this package keeps: bases, converged trees, and running machines.
pub(crate) fn dir() -> PathBuf {
    std::env::var_os("GLOVO_MACHINE_CACHE").map_or_else(|| "/var/cache/glovo-bootstrap-machine".into(), PathBuf::from)
}

/// A cached directory. It is kept as long as this value exists.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    _in_use: File,
}

impl Entry {
    /// Returns the directory of a `kind` for the hash of `key`. If it does not exist, `make` fills it while other
    /// processes wait.
    pub(crate) fn get(kind: &str, key: Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<Entry> {
        let path = dir().join(format!("{kind}-{}", &key.hex()[..16]));
        let _making = lock(&format!("{kind}.lock"))?;
        if !path.exists() {
            remove_unused(kind)?;
            let unfinished = dir().join(format!("{kind}-unfinished"));
            fs::create_dir(&unfinished)?;
            make(&unfinished)?;
            fs::rename(&unfinished, &path)?;
        }
        let in_use = File::open(&path)?;
        in_use.lock_shared()?;
        Ok(Entry { path, _in_use: in_use })
    }
}

fn remove_unused(kind: &str) -> Result<()> {
    for entry in fs::read_dir(dir())? {
        let entry = entry?;
        let of_kind = entry.file_name().to_string_lossy().starts_with(&format!("{kind}-"));
        if of_kind && File::open(entry.path())?.try_lock().is_ok() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A lock among all users of the cache, held until dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let open = || {
        fs::create_dir_all(dir())?;
        let file = File::create(dir().join(name))?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    open().with_context(|| format!("locking {name} in {} (the machine tests need root)", dir().display()))
}

/// A running hash of files and directories.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds a file, or all files in a directory: names and contents, always in the same order.
    pub(crate) fn add(mut self, path: &Path) -> Result<Key> {
        self.0.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        if path.is_dir() {
            let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            entries.sort();
            entries.iter().try_fold(self, |key, entry| key.add(entry))
        } else {
            self.0.update(fs::read(path).with_context(|| path.display().to_string())?);
            Ok(self)
        }
    }

    fn hex(self) -> String {
        hex(self.0)
    }
}

/// A file's SHA-256, as manifests and `sha256sum` write it.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(hex(Sha256::new().chain_update(bytes)))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
