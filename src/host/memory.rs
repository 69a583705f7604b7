//! The file system for credentials. It is in memory and never swapped.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        stat::{major, minor},
        statfs::{FsType, TMPFS_MAGIC},
    },
};

use super::{
    Host,
    root::{FileStatus, FileType},
};
use crate::{error::Fault, value::AbsPath};

/// The directory of credentials.
pub const DIRECTORY: &str = "/run/glovo-bootstrap/credentials";
/// The directory of the credentials of commands, each of which has a directory of its own there.
pub const OF_COMMANDS: &str = "/run/glovo-bootstrap/commands";
/// The options of their tmpfs. `noswap` is known to Linux since 6.4, tmpfs(5).
const OPTIONS: &str = "size=16m,noswap";
/// The magic number of a ramfs, statfs(2).
pub const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

impl Host {
    /// Returns whether the directory of credentials is on a file system that is never swapped.
    pub fn has_credential_memory(&self) -> Result<bool> {
        self.has_memory(DIRECTORY)
    }

    /// Mounts a file system at the directory of credentials: a tmpfs without swap, or a ramfs if the kernel has no such
    /// tmpfs. systemd does the same for the credentials of services, systemd.exec(5).
    ///
    /// # Errors
    /// If the place is not a directory that root alone can change, or if this process may not mount, as in some containers.
    pub fn mount_credential_memory(&self) -> Result<()> {
        self.mount_memory(DIRECTORY, 0o700)
    }

    /// Returns the directory of the credentials of commands, which exists then. It is on such a file system, unless this
    /// process may not mount. Other users may pass through it, and see nothing.
    pub fn command_memory(&self) -> Result<AbsPath> {
        let directory = AbsPath::from(OF_COMMANDS);
        if self.root().is_host() && !self.has_memory(OF_COMMANDS)? {
            match self.mount_memory(OF_COMMANDS, 0o711) {
                Err(error) if error.root_cause().downcast_ref() == Some(&Errno::EPERM) => {
                    tracing::debug!("the credentials of commands may be swapped: {error:#}");
                }
                mounted => mounted?,
            }
        }
        self.root().make_directories(&directory, 0o711)?;
        Ok(directory)
    }

    /// Removes the credentials that commands of a killed run have left.
    pub fn clear_command_memory(&self) -> Result<()> {
        let directory = AbsPath::from(OF_COMMANDS);
        if self.root().status(&directory)?.is_none() {
            return Ok(());
        }
        self.root().list(&directory)?.iter().try_for_each(|name| self.root().purge(&directory.join(name)?).map(drop))
    }

    /// Returns whether a directory is on a file system that is never swapped.
    ///
    /// The directory itself is asked, and not only the table of mounts: a later mount may hide what the table names.
    fn has_memory(&self, directory: &str) -> Result<bool> {
        let directory: AbsPath = directory.parse()?;
        let is_directory = |status: FileStatus| status.file_type == FileType::Directory;
        if !self.root().status(&directory)?.is_some_and(is_directory) {
            return Ok(false);
        }
        let found = self.root().file_system(&directory.join("credential")?)?;
        if found.magic == RAMFS_MAGIC {
            return Ok(true);
        }
        // Only the table tells the options.
        let number = format!("{}:{}", major(found.device), minor(found.device));
        let has_option = || -> Result<bool> {
            let mut mounts = self.mounts()?.into_iter().filter(|mounted| mounted.number == number);
            Ok(mounts.any(|mounted| mounted.super_options.iter().any(|option| option == "noswap")))
        };
        Ok(found.magic == TMPFS_MAGIC && has_option()?)
    }

    fn mount_memory(&self, directory: &'static str, mode: u32) -> Result<()> {
        self.root().make_directories(&AbsPath::from("/run/glovo-bootstrap"), 0o711)?;
        let place = AbsPath::from(directory);
        self.root().make_directories(&place, mode)?;
        self.check_place_of_memory(&place)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mode = format!("mode=0{mode:o}");
        let options = format!("{mode},{OPTIONS}");
        let mounted = match mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(&*options)) {
            Err(Errno::EINVAL) => mount(Some("ramfs"), directory, Some("ramfs"), flags, Some(&*mode)),
            mounted => mounted,
        };
        mounted.with_context(|| format!("mounting a file system in memory at {directory}"))
    }

    /// Fails if a mount at a directory could land elsewhere, or if another user could replace the directory.
    fn check_place_of_memory(&self, directory: &AbsPath) -> Result<()> {
        let status = self.root().status(directory)?.map(|status| status.file_type);
        if status != Some(FileType::Directory) || self.root().resolve(directory)? != *directory {
            return Err(Fault::new(format!("{directory} is not a directory, but a link or another file"))
                .hint(format!("move it away: mv {directory} {directory}.old"))
                .into());
        }
        self.root().check_trusted(&directory.join("credential")?, 0)
    }
}
