//! What a test may do to files and processes: those of its own.

use std::{
    fs::{self, Permissions},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Host, root::Root};
use crate::stop::Interrupt;

/// A directory tree that stands for a machine's. It is removed at its end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty tree.
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Makes an empty tree in a directory.
    pub(crate) fn below(directory: &Path) -> Self {
        let tree = Self(nix::unistd::mkdtemp(&directory.join("glovo-bootstrap-XXXXXX")).unwrap());
        // As `/` has it: other users may look.
        tree.set_mode("/", 0o755);
        tree
    }

    /// Makes a tree with these files.
    pub(crate) fn of<P: AsRef<str>, T: AsRef<[u8]>>(files: &[(P, T)]) -> Self {
        let tree = Self::new();
        for (path, bytes) in files {
            tree.write(path.as_ref(), bytes);
        }
        tree
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the place of a path of the machine, such as `/etc/fstab`.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(crate) fn root(&self) -> Root {
        Root::open(&self.0).unwrap()
    }

    pub(crate) fn host(&self) -> Host {
        Host::open(&self.0, Interrupt::default()).unwrap()
    }

    /// Makes a directory and those above it.
    pub(crate) fn make_directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    /// Writes a file that all may read, and makes its directories.
    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.try_write(path, bytes).unwrap();
    }

    /// The same, for a file system that may be full.
    pub(crate) fn try_write(&self, path: &str, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap())?;
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, Permissions::from_mode(0o644))
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at(path)).unwrap()
    }

    /// Returns the names in a directory, in no order.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    /// Renames a file or directory.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&self, target: &str, path: &str) {
        std::os::unix::fs::symlink(target, self.at(path)).unwrap();
    }

    /// Waits until a file that is written next has a later time than those before: one tick of the kernel's clock.
    pub(crate) fn tick() {
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Returns another tree with the files of a directory as they are now, also those whose names `Root` refuses.
    pub(crate) fn copy_of(&self, directory: &str) -> Self {
        let copy = Self::new();
        copy.make_directory(directory);
        for name in self.names(directory) {
            let file = format!("{directory}/{name}");
            _ = fs::copy(self.at(&file), copy.at(&file)).unwrap();
        }
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that does nothing until it is dropped.
#[derive(Debug)]
pub(crate) struct IdleProcess(Child);

impl IdleProcess {
    /// Starts one with this word in its command.
    pub(crate) fn named(name: &str) -> Self {
        // The end of its standard input would end it, too.
        let mut shell = Command::new("sh");
        let _ = shell.args(["-c", "echo; read line", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = shell.spawn().unwrap();
        // For a moment after its start, a process has no command line.
        process.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for IdleProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        _ = self.0.wait().unwrap();
    }
}
