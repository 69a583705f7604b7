//! What a mount shows: a device, a remote file system or a directory.

use anyhow::Result;

use super::{MountPoint, MountType};
use crate::{
    error::Fault,
    host::{command::Program, mountinfo::MountedFileSystem, root::FileType},
    resource::{
        Finding,
        device::{DeviceName, FoundDevice, is_of_syntax},
    },
    system::{Fact, Mode, System},
    value::{AbsPath, quoted},
};

/// The source of a mount on this machine.
#[derive(Debug, Clone)]
pub(super) enum MountSource {
    Device(FoundDevice),
    /// A device that the machine does not have now.
    MissingDevice,
    Remote,
    Directory(AbsPath),
}

impl MountPoint {
    /// Returns the fault of `what`, which depends on the type.
    pub(super) fn fault_of_what(&self) -> Option<Finding> {
        let what = &self.what;
        if what.contains(is_of_syntax) {
            let message = "it is written to a unit file: it must not have a space, a quote, `\\` or `%`";
            return Some(Finding::new("what", message));
        }
        let fault = |message: String, hint: &str| Some(Finding::new("what", message).hint(hint));
        match self.mount_type {
            MountType::Ext4 | MountType::Xfs => {
                let error = DeviceName::try_from(what.clone()).err()?;
                Some(Finding::new("what", error.to_string()))
            }
            MountType::Nfs | MountType::Nfs4
                if !what.contains(":/") || what.contains("://") || what.starts_with([':', '/', '-']) =>
            {
                fault(format!("`{}` is not HOST:/PATH", what.escape_debug()), "such as nfs.internal:/export")
            }
            MountType::Efs if !what.starts_with("fs-") => {
                fault(format!("`{}` is not the id of an EFS", what.escape_debug()), "such as fs-0123456789abcdef0:/")
            }
            MountType::Bind => match what.parse::<AbsPath>() {
                Err(error) => Some(Finding::new("what", error.to_string())),
                Ok(what) if what == self.path => fault("it is the mount point itself".into(), "name another directory"),
                Ok(_) => None,
            },
            _ => None,
        }
    }

    /// Returns what it is on this machine.
    pub(super) fn source(&self, system: &System) -> Result<MountSource> {
        if self.mount_type.is_of_device() {
            let found = self.device()?.find(system)?;
            return Ok(found.map_or(MountSource::MissingDevice, MountSource::Device));
        }
        Ok(if self.mount_type.is_remote() { MountSource::Remote } else { MountSource::Directory(self.what.parse()?) })
    }

    /// Fails if something else is mounted at the path.
    pub(super) fn check_source(
        &self,
        system: &System,
        source: &MountSource,
        mounted: &MountedFileSystem,
    ) -> Result<()> {
        let is_right = match source {
            MountSource::Device(found) => {
                mounted.number == found.device.number
                    && mounted.file_system == self.mount_type.name()
                    && mounted.directory == "/"
            }
            MountSource::MissingDevice => false,
            // The helper of EFS mounts from an address of its own.
            MountSource::Remote => {
                let plain = |text: &str| text.trim_end_matches('/').to_owned();
                mounted.file_system.starts_with("nfs")
                    && (self.mount_type == MountType::Efs || plain(&mounted.source) == plain(&self.what))
            }
            MountSource::Directory(path) => {
                let identity = |path: &AbsPath| Ok::<_, anyhow::Error>(system.root().status(path)?.map(|s| s.identity));
                identity(path)?.is_some_and(|other| identity(&self.path).is_ok_and(|own| own == Some(other)))
            }
        };
        if is_right {
            return Ok(());
        }
        let (path, other) = (&self.path, &mounted.source);
        let part = match &*mounted.directory {
            "/" => String::new(),
            directory => format!("the directory {directory} of "),
        };
        let message = format!("{path} has another file system mounted: {part}{other} ({})", mounted.file_system);
        let hint = format!(
            "stop the services that use it, and unmount it: umount {}; then run again: {}",
            quoted(path.as_str()),
            system.host.run_command()
        );
        Err(Fault::new(message).hint(hint).into())
    }

    /// Returns whether an earlier planned change makes the declared file system on the device with this name.
    pub(super) fn is_coming(&self, system: &System, device: &str) -> bool {
        system.mode() == Mode::Plan && system.expects(&Fact::FileSystem(device.to_owned(), self.mount_type.name()))
    }

    /// Fails if the kernel refuses to write to the device, but the mount is not declared as read-only.
    pub(super) fn check_writable(&self, system: &System, source: &MountSource) -> Result<()> {
        let MountSource::Device(found) = source else { return Ok(()) };
        if self.options().has("ro") || !system.host.is_read_only(&found.device)? {
            return Ok(());
        }
        let node = &found.device.node;
        let hint = format!("declare options = \"ro\", or make it writable: blockdev --setrw {}", quoted(node.as_str()));
        Err(Fault::new(format!("{node} is read-only, but its mount is not declared so")).hint(hint).into())
    }

    /// Fails if the device has not the declared file system, and no earlier resource makes it.
    pub(super) fn check_content(&self, system: &System, source: &MountSource) -> Result<()> {
        let kind = self.mount_type.name();
        match source {
            MountSource::Device(found) => {
                let node = found.device.node.as_str();
                if self.is_coming(system, &self.what) || self.is_coming(system, node) {
                    return Ok(());
                }
                let command = Program::new(["blkid", "-p", "-s", "TYPE", "-o", "value", node]);
                let finished = system.host.run(&command)?;
                let on_it = finished.stdout.trim();
                if on_it == kind {
                    return Ok(());
                }
                let on_it = if on_it.is_empty() { "no file system" } else { on_it };
                let message = format!("{node} has {on_it}, not the declared {kind}");
                let hint = format!(
                    "declare its type; or let a blank device get a file system before: kind = \"filesystem\", device = \
                     \"{}\"",
                    self.what
                );
                Err(Fault::new(message).hint(hint).into())
            }
            MountSource::Directory(path) => {
                let is_coming = system.mode() == Mode::Plan && system.expects(&Fact::Path(path.clone()));
                let status = system.root().status(path)?;
                if is_coming || status.is_some_and(|status| status.file_type == FileType::Directory) {
                    return Ok(());
                }
                let hint = format!("declare it before: kind = \"directory\", path = \"{path}\"");
                Err(Fault::new(format!("{path} is not a directory that can be mounted")).hint(hint).into())
            }
            MountSource::MissingDevice | MountSource::Remote => Ok(()),
        }
    }
}
