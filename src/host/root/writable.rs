//! The check that a path is writable, before any change, and the reasons for a failed write.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::{errno::Errno, fcntl::AtFlags, unistd::AccessFlags};

use super::{FileType, Root, WalkPurpose, explain_write};
use crate::{
    error::Fault,
    host::calls::{faccessat, fstatvfs},
    value::{AbsPath, quoted},
};

impl Root {
    /// Fails if a path is on a read-only file system, or if it or its directory is immutable (chattr(1)).
    ///
    /// access(2) reports both also to root.
    pub fn check_writable(&self, path: &AbsPath) -> Result<()> {
        let parents = std::iter::successors(path.parent(), AbsPath::parent);
        for parent in parents {
            let Some(directory) = self.directory(&parent, WalkPurpose::Read)? else { continue };
            ask(&directory.fd, ".", &parent)?;
            let status = if path.parent().as_ref() == Some(&parent) { self.status(path)? } else { None };
            return match status.map(|status| status.file_type) {
                Some(FileType::Regular | FileType::Directory) => ask(&directory.fd, path.leaf(), path),
                _ => Ok(()),
            };
        }
        Ok(())
    }

    /// Fails if this process cannot put another file in the place of one.
    pub fn check_replaceable(&self, path: &AbsPath) -> Result<()> {
        self.check_writable(path)?;
        let Some(parent) = path.parent() else { return Ok(()) };
        let Some(directory) = self.directory(&parent, WalkPurpose::Read)? else { return Ok(()) };
        let allowed = faccessat(&directory.fd, ".", AccessFlags::W_OK, AtFlags::AT_EACCESS);
        allowed.with_context(|| format!("{parent} is not writable"))
    }
}

fn ask(directory: &OwnedFd, name: &str, path: &AbsPath) -> Result<()> {
    match faccessat(directory, name, AccessFlags::W_OK, AtFlags::empty()) {
        Err(Errno::EROFS) => {
            let fault = Fault::new(format!("the file system of {path} is mounted read-only"));
            Err(fault.hint("declare a path on another file system, or make this one writable").into())
        }
        Err(Errno::EPERM) => {
            let (fault, path) = (Fault::new(format!("{path} is immutable")), quoted(path.as_str()));
            Err(fault.hint(format!("allow changes: chattr -i {path}; to see its attributes: lsattr -d {path}")).into())
        }
        Err(errno @ (Errno::EIO | Errno::ELOOP)) => Err(errno).with_context(|| format!("asking for access to {path}")),
        // The write itself shows whether this user may write.
        _ => Ok(()),
    }
}

/// Returns the error of a failed creation of a file. A full file system may lack bytes or inodes.
pub(crate) fn explain_new(parent: &OwnedFd, errno: Errno, path: &AbsPath) -> anyhow::Error {
    let is_without_inodes = || fstatvfs(parent).is_ok_and(|stat| stat.files() > 0 && stat.files_available() == 0);
    if errno != Errno::ENOSPC || !is_without_inodes() {
        return explain_write(errno, path);
    }
    let directory = path.parent().unwrap_or_else(|| AbsPath::from("/"));
    let directory = quoted(directory.as_str());
    let fault = Fault::new(format!("writing {path}")).caused_by(errno);
    fault.hint(format!("remove files: the file system has no free inode; to see: df -i {directory}")).into()
}
