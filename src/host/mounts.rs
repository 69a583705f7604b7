//! The mounted file systems of the machine.

pub mod options;

use anyhow::Result;

use super::{
    Host,
    mountinfo::{self, MountedFileSystem},
};
use crate::{
    error::Fault,
    value::{AbsPath, quoted},
};

impl Host {
    /// Returns whether a file system is mounted at a path.
    pub fn is_mount_point(&self, path: &AbsPath) -> Result<bool> {
        let (at, points) = self.mount_points(path)?;
        Ok(points.contains(&at))
    }

    /// Fails if a file is a mount point, which rename(2) cannot replace. Containers have such files: `/etc/hosts`.
    pub fn check_not_mounted(&self, path: &AbsPath) -> Result<()> {
        if !self.is_mount_point(path)? {
            return Ok(());
        }
        let fault = Fault::new(format!("{path} is a mount point, and the file there cannot be replaced"));
        let umount = format!("umount {}", quoted(path.as_str()));
        Err(fault.hint(format!("unmount it first: {umount}; in a container, its runtime writes this file")).into())
    }

    /// Returns the first mount point at a path or below it.
    pub fn mount_point_in(&self, path: &AbsPath) -> Result<Option<String>> {
        let (at, points) = self.mount_points(path)?;
        let is_in = |point: &&Vec<u8>| {
            point.strip_prefix(at.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        Ok(points.iter().find(is_in).map(|point| String::from_utf8_lossy(point).into_owned()))
    }

    /// Returns a path as the kernel names it, and all mount points.
    fn mount_points(&self, path: &AbsPath) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let resolved = self.root().resolve(path)?;
        let at = self.root().path().join(resolved.as_str().trim_start_matches('/'));
        let points = self.mounts()?.into_iter().map(|mounted| mounted.path.into_encoded_bytes());
        Ok((at.into_os_string().into_encoded_bytes(), points.collect()))
    }

    /// Returns the mounted file systems, in the order of their mounts.
    pub fn mounts(&self) -> Result<Vec<MountedFileSystem>> {
        mountinfo::mounts()
    }
}
