//! The growth of the root partition and file system to the size of the volume, online, at each boot.

use anyhow::{Context, Result};

use crate::{
    error::Fault,
    host::{
        Host,
        command::{Program, describe, with_tail},
        mountinfo::MountedFileSystem,
        root::Root,
    },
    value::AbsPath,
};

/// The unit of sizes in sysfs.
const SECTOR_BYTES: u64 = 512;
/// The space behind a partition that is not worth a growth: the alignment, and the second table of GPT.
const MIN_GROWTH_BYTES: u64 = 2 << 20;

/// Returns the command that grows the mounted root file system; `None` if there is none for its type.
pub(super) fn command<'a>(file_system: &str, node: &'a str) -> Option<Vec<&'a str>> {
    match file_system {
        "ext2" | "ext3" | "ext4" => Some(vec!["resize2fs", node]),
        "xfs" => Some(vec!["xfs_growfs", "/"]),
        "btrfs" => Some(vec!["btrfs", "filesystem", "resize", "max", "/"]),
        _ => None,
    }
}

/// The program that grows a partition.
pub(super) const GROWPART: &str = "growpart";

/// Grows the partition of the root file system, then the file system.
pub(super) fn grow(host: &Host, tell: &dyn Fn(&str)) -> Result<()> {
    let mounts = host.mounts()?;
    let Some(mounted) = mounts.iter().rfind(|mounted| mounted.path == "/") else { return Ok(()) };
    let Some(name) = device_name(host.root(), mounted)? else { return Ok(()) };
    if let Some((disk, number)) = growable(host.root(), &name)? {
        let finished = host.run(&Program::new([GROWPART, &format!("/dev/{disk}"), &number]))?;
        match finished.code() {
            0 => tell(&format!("grow the partition /dev/{name}")),
            // Nothing to grow.
            1 => {}
            _ => {
                let message = format!("{GROWPART} could not grow /dev/{name}: {}", describe(finished.status));
                let hint = format!("{GROWPART} /dev/{disk} {number}");
                return Err(Fault::new(with_tail(message, &finished.tail)).hint(hint).into());
            }
        }
    }
    let node = format!("/dev/{name}");
    let Some(command) = command(&mounted.file_system, &node) else { return Ok(()) };
    _ = host.run_checked(&Program::new(command)).context("growing the root file system")?;
    Ok(())
}

/// Returns the name of the device of a mount in `/dev`; `None` for an overlay or a network's file system.
fn device_name(root: &Root, mounted: &MountedFileSystem) -> Result<Option<String>> {
    // The number of a btrfs is none of a device. The source of others may be `/dev/root`, which does not exist.
    let uevent = root.read_text(&format!("/sys/dev/block/{}/uevent", mounted.number).parse()?)?;
    let named = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let named = named.or_else(|| mounted.source.strip_prefix("/dev/"));
    Ok(named.filter(|name| !name.contains('/')).map(str::to_owned))
}

/// Returns the disk and the number of a partition with space behind it; `None` if it has none, or is a whole disk.
fn growable(root: &Root, name: &str) -> Result<Option<(String, String)>> {
    let class = AbsPath::from("/sys/class/block");
    let read = |of: &str, file: &str| -> Result<String> {
        Ok(root.read_text(&class.join(of)?.join(file)?)?.trim().to_owned())
    };
    let number = read(name, "partition")?;
    let link = root.read_link(&class.join(name)?)?.unwrap_or_default();
    let link = link.to_string_lossy().into_owned();
    let Some(disk) = link.rsplit('/').nth(1).filter(|_| !number.is_empty()) else { return Ok(None) };
    let sectors = |of: &str, file: &str| -> Result<u64> {
        read(of, file)?.parse().with_context(|| format!("the {file} of {of} in {class}"))
    };
    let end = sectors(name, "start")?.saturating_add(sectors(name, "size")?);
    let behind = sectors(disk, "size")?.saturating_sub(end).saturating_mul(SECTOR_BYTES);
    Ok((behind >= MIN_GROWTH_BYTES).then(|| (disk.to_owned(), number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    /// A tree with a disk of some sectors and its first partition, as in sysfs.
    fn disk(sectors: u64) -> Scratch {
        let tree = Scratch::new();
        let disk = "/sys/devices/pci0/block/nvme0n1";
        tree.write(&format!("{disk}/size"), format!("{sectors}\n"));
        for (file, value) in [("partition", "1"), ("start", "2048"), ("size", "8192")] {
            tree.write(&format!("{disk}/nvme0n1p1/{file}"), format!("{value}\n"));
        }
        tree.make_directory("/sys/class");
        tree.make_directory("/sys/class/block");
        let root = Root::open(tree.path()).unwrap();
        for (name, target) in [("nvme0n1", "block/nvme0n1"), ("nvme0n1p1", "block/nvme0n1/nvme0n1p1")] {
            root.make_link(
                &format!("/sys/class/block/{name}").parse().unwrap(),
                &format!("../../devices/pci0/{target}"),
            )
            .unwrap();
        }
        tree
    }

    #[test]
    fn a_partition_grows_only_into_space_behind_it() {
        let growable_on = |sectors, name| growable(&Root::open(disk(sectors).path()).unwrap(), name).unwrap();
        assert_eq!(growable_on(10_240 + 2048, "nvme0n1p1"), None);
        assert_eq!(growable_on(10_240 + 4096, "nvme0n1p1"), Some(("nvme0n1".into(), "1".into())));
        assert_eq!(growable_on(1 << 20, "nvme0n1"), None, "a whole disk");
    }

    #[test]
    fn each_file_system_has_its_own_program() {
        for known in ["ext4", "xfs", "btrfs"] {
            assert!(command(known, "/dev/nvme0n1p1").is_some(), "{known}");
        }
        assert_eq!(command("overlay", ""), None);
    }
}
