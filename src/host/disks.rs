//! Block devices: their nodes in `/dev`, and what the kernel says about them in `/sys`, sysfs(5).

pub mod content;

use std::fs::File;

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    sys::stat::{Mode, SFlag, major, minor},
};

use super::{
    Host,
    calls::{fstat, fstatat, openat, read_exact_at},
};
use crate::{error::Fault, value::AbsPath};

const CONTROLLERS: &str = "/sys/class/nvme";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The unit of the sizes in `/sys`, with any sectors of the device.
const SECTOR_BYTES: u64 = 512;
/// The bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A disk, a partition or another block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its node, a path without links such as `/dev/nvme1n1`.
    pub node: AbsPath,
    /// Its number, such as `259:3`.
    pub number: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The namespace of an NVMe controller: a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmeDisk {
    /// The name of its device in `/dev`.
    pub name: String,
    /// The controller's model, such as `Amazon Elastic Block Store`.
    pub model: String,
    /// The controller's serial number. That of an EBS volume is its id without the `-`.
    pub serial: String,
}

impl NvmeDisk {
    /// Returns the link that udev makes to it; 60-persistent-storage.rules.
    pub fn link(&self) -> Result<AbsPath> {
        let name = format!("{}_{}", self.model, self.serial).replace(' ', "_");
        AbsPath::from("/dev/disk/by-id").join(&format!("nvme-{name}"))
    }
}

impl Host {
    /// Returns a block device; `None` if it does not exist or is not ready.
    ///
    /// # Errors
    /// If something else is at the path.
    pub fn block_device(&self, path: &AbsPath) -> Result<Option<BlockDevice>> {
        let node = self.root().resolve_trusted(path)?;
        let stat = match fstatat(AT_FDCWD, node.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("reading the status of {node}")),
        };
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFBLK {
            let fault = Fault::new(format!("{path} is not a block device"));
            return Err(fault
                .hint("list the block devices: lsblk --output NAME,SIZE,SERIAL,FSTYPE,MOUNTPOINTS")
                .into());
        }
        let number = format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
        let mut device = BlockDevice { node, number, bytes: 0 };
        let sectors: u64 = self.of_kernel(&device, "size")?.parse().unwrap_or_default();
        device.bytes = sectors.saturating_mul(SECTOR_BYTES);
        Ok((device.bytes > 0).then_some(device))
    }

    /// Returns a value that the kernel has of a device; empty if it has none.
    fn of_kernel(&self, device: &BlockDevice, name: &str) -> Result<String> {
        let path = format!("/sys/dev/block/{}/{name}", device.number).parse()?;
        Ok(self.root().read_text(&path)?.trim().to_owned())
    }

    /// Returns a name of a device that identifies it also after a reboot: its serial number. Without one, the name holds
    /// until the device is removed or the machine reboots. `None` if the kernel has neither, as for a partition.
    pub fn device_identity(&self, device: &BlockDevice) -> Result<Option<String>> {
        for name in ["device/serial", "serial"] {
            let serial = self.of_kernel(device, name)?;
            if !serial.is_empty() {
                return Ok(Some(format!("serial {serial} bytes {}", device.bytes)));
            }
        }
        let sequence = self.of_kernel(device, "diskseq")?;
        let boot = self.root().read_text(&BOOT_ID.into())?;
        let identity = format!("boot {} disk {sequence} device {} bytes {}", boot.trim(), device.number, device.bytes);
        Ok((!sequence.is_empty() && !boot.is_empty()).then_some(identity))
    }

    /// Returns whether the kernel refuses to write to a device.
    pub fn is_read_only(&self, device: &BlockDevice) -> Result<bool> {
        Ok(self.of_kernel(device, "ro")? == "1")
    }

    /// Returns in words what has a device in use: partitions, swap, or another device on top of it.
    pub fn use_of_device(&self, device: &BlockDevice) -> Result<Option<String>> {
        let directory: AbsPath = format!("/sys/dev/block/{}", device.number).parse()?;
        let mut partitions = vec![];
        for name in self.root().list(&directory)? {
            let partition = directory.join(&name)?.join("partition")?;
            if name != "holders" && self.root().status(&partition)?.is_some() {
                partitions.push(name);
            }
        }
        if !partitions.is_empty() {
            return Ok(Some(format!("it has the partitions {}", partitions.join(", "))));
        }
        let holders = self.root().list(&directory.join("holders")?)?;
        if !holders.is_empty() {
            return Ok(Some(format!("it is a part of {}", holders.join(", "))));
        }
        let swaps = self.root().read_text(&"/proc/swaps".into())?;
        for path in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
            let other = path.parse().ok().map(|path: AbsPath| self.root().resolve(&path)).transpose()?;
            if other.is_some_and(|other| other == device.node) {
                return Ok(Some("the kernel swaps to it".into()));
            }
        }
        let mounts = self.mounts()?;
        let mounted = mounts.iter().find(|mounted| mounted.number == device.number);
        Ok(mounted.map(|mounted| format!("it is mounted at {}", mounted.path.display())))
    }

    /// Opens a device for reading, while no other program and no mount uses it.
    pub fn open_unused_device(&self, device: &BlockDevice) -> Result<File> {
        let node = &device.node;
        match open_device(device, OFlag::O_EXCL) {
            Err(Errno::EBUSY) => {
                let hint = format!("find what uses it: lsblk {node}");
                Err(Fault::new(format!("{node} is in use")).hint(hint).caused_by(Errno::EBUSY).into())
            }
            opened => opened.with_context(|| format!("opening {node}")),
        }
    }

    /// Returns the first bytes of a device, which may be in use.
    pub fn device_start(&self, device: &BlockDevice, bytes: usize) -> Result<Vec<u8>> {
        let file = open_device(device, OFlag::empty()).with_context(|| format!("opening {}", device.node))?;
        let mut start = vec![0; bytes];
        read_exact_at(&file, &mut start, 0).with_context(|| format!("reading {}", device.node))?;
        Ok(start)
    }

    /// Returns the offset of the first piece of a device in some ranges that has a byte other than zero.
    pub fn first_byte_in_use(&self, device: &BlockDevice, file: &File, ranges: &[(u64, u64)]) -> Result<Option<u64>> {
        let zeros = vec![0; PIECE_BYTES];
        let mut piece = vec![0; PIECE_BYTES];
        for (start, length) in ranges {
            let end = start.saturating_add(*length);
            let mut at = *start;
            while at < end {
                self.stop.check()?;
                let length = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let piece = &mut piece[..length];
                read_exact_at(file, piece, at).with_context(|| format!("reading {} at byte {at}", device.node))?;
                if piece != &zeros[..length] {
                    let inside = piece.iter().position(|byte| *byte != 0).unwrap_or_default();
                    return Ok(Some(at + inside as u64));
                }
                at += length as u64;
            }
        }
        Ok(None)
    }

    /// Returns the NVMe disks of some models, in the order of their serial numbers.
    pub fn nvme_disks(&self, model: &str) -> Result<Vec<NvmeDisk>> {
        let mut disks = vec![];
        let controllers = AbsPath::from(CONTROLLERS);
        for controller in self.root().list(&controllers)? {
            let directory = controllers.join(&controller)?;
            let read = |name: &str| self.root().read_text(&directory.join(name)?);
            let found = read("model")?.trim().to_owned();
            if found != model {
                continue;
            }
            let serial = read("serial")?.trim().to_owned();
            let names = self.root().list(&directory)?;
            let names = names.iter().filter_map(|name| disk_name(name));
            disks.extend(names.map(|name| NvmeDisk { name, model: found.clone(), serial: serial.clone() }));
        }
        disks.sort_by(|one, other| (&one.serial, &one.name).cmp(&(&other.serial, &other.name)));
        disks.dedup();
        Ok(disks)
    }

    /// Returns a new random UUID.
    pub fn new_uuid(&self) -> Result<String> {
        Ok(self.root().read_text(&"/proc/sys/kernel/random/uuid".into())?.trim().to_owned())
    }
}

/// Opens a device for reading.
fn open_device(device: &BlockDevice, flags: OFlag) -> nix::Result<File> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd = openat(AT_FDCWD, device.node.as_str(), flags, Mode::empty())?;
    let opened = fstat(&fd)?.st_rdev;
    // Another device may have got the name since.
    if format!("{}:{}", major(opened), minor(opened)) == device.number { Ok(fd.into()) } else { Err(Errno::ENODEV) }
}

/// Returns the name of the disk that an entry of a controller is: `nvme1n1`, or `nvme1c0n1` for a path of it.
fn disk_name(entry: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (controller, namespace) = entry.strip_prefix("nvme")?.split_once('n')?;
    let (subsystem, path) = controller.split_once('c').unwrap_or((controller, "0"));
    [subsystem, path, namespace].into_iter().all(digits).then(|| format!("nvme{subsystem}n{namespace}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_a_controller_is_a_disk() {
        for (entry, name) in [
            ("nvme1n1", Some("nvme1n1")),
            ("nvme10c3n2", Some("nvme10n2")),
            ("nvme1n1p1", None),
            ("nvme1", None),
            ("ng1n1", None),
            ("model", None),
        ] {
            assert_eq!(disk_name(entry).as_deref(), name, "{entry}");
        }
    }

    #[test]
    fn a_disk_has_the_link_that_udev_makes() {
        let disk = NvmeDisk {
            name: "nvme1n1".into(),
            model: "Amazon Elastic Block Store".into(),
            serial: "vol0123456789abcdef0".into(),
        };
        let link = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0";
        assert_eq!(disk.link().unwrap().as_str(), link);
    }
}
