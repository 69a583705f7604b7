//! The content of a block device.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::BlockDevice;
use crate::{
    error::Fault,
    host::{Host, command::Program},
    value::quoted,
};

/// The bytes at the start and at the end of a blank device that are all looked at. Labels and copies of them are there.
const END_BYTES: u64 = 16 << 20;
/// The pieces between them that are looked at.
const PIECES: u64 = 64;
const PIECE_BYTES: u64 = 1 << 20;
/// The bytes at the start of a device that have the superblock of ext4 or XFS.
const SUPERBLOCK_BYTES: usize = 2048;

/// The content of a device.
#[derive(Debug)]
pub enum DeviceContent {
    /// A file system.
    FileSystem(FoundFileSystem),
    /// Something else that is known or in use, in words.
    Other(String),
    /// Unknown bytes: the offset of the first one.
    Bytes(u64),
    /// Nothing.
    Blank,
}

/// A file system on a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FoundFileSystem {
    /// Its type, such as `ext4`.
    pub file_system: String,
    /// Its label; empty if it has none.
    pub label: String,
    uuid: String,
    /// Whether mkfs has written all of it, or whether it was in use since.
    is_complete: bool,
}

impl FoundFileSystem {
    /// Returns whether it is the one with this UUID, and mkfs was cut off.
    pub fn is_unfinished(&self, uuid: &str) -> bool {
        self.uuid == uuid && !self.is_complete
    }
}

impl DeviceContent {
    /// Reads the content of a device. The file system of a mounted one is known without a program.
    pub fn read(host: &Host, device: &BlockDevice) -> Result<Self> {
        let mounts = host.mounts()?;
        let start = host.device_start(device, SUPERBLOCK_BYTES)?;
        if let Some(mounted) = mounts.iter().find(|mounted| mounted.number == device.number) {
            let found = superblock(&start).unwrap_or_default();
            let file_system = mounted.file_system.clone();
            return Ok(Self::FileSystem(FoundFileSystem { file_system, is_complete: true, ..found }));
        }
        match probe(host, device)? {
            Some(known)
                if known.contains_key("TYPE") && known.get("USAGE").is_none_or(|usage| usage == "filesystem") =>
            {
                let read = |name: &str| known.get(name).cloned().unwrap_or_default();
                let found = superblock(&start).filter(|found| found.uuid == read("UUID"));
                let is_complete = found.is_none_or(|found| found.is_complete);
                let (file_system, label, uuid) = (read("TYPE"), read("LABEL"), read("UUID"));
                Ok(Self::FileSystem(FoundFileSystem { file_system, label, uuid, is_complete }))
            }
            Some(known) => {
                let read = |name: &str| known.get(name).filter(|value| !value.is_empty());
                let what = match (read("TYPE"), read("PTTYPE")) {
                    (Some(content), _) => format!("it has {content} on it"),
                    (None, Some(table)) => format!("it has a partition table ({table})"),
                    (None, None) => "blkid finds something on it".into(),
                };
                Ok(Self::Other(what))
            }
            None => Self::of_unknown(host, device),
        }
    }

    /// Reads a device of which blkid knows nothing.
    fn of_unknown(host: &Host, device: &BlockDevice) -> Result<Self> {
        if let Some(used) = host.use_of_device(device)? {
            return Ok(Self::Other(used));
        }
        let file = host.open_unused_device(device)?;
        let at = host.first_byte_in_use(device, &file, &ranges(device.bytes))?;
        Ok(at.map_or(Self::Blank, Self::Bytes))
    }
}

/// Returns what blkid(8) reads from a device; `None` if it knows nothing that is on it.
fn probe(host: &Host, device: &BlockDevice) -> Result<Option<BTreeMap<String, String>>> {
    /// Its exit codes if it finds nothing, and if several things contradict each other.
    const NOTHING: i32 = 2;
    const AMBIVALENT: i32 = 8;
    let node = device.node.as_str();
    let command = Program::new(["blkid", "-p", "-o", "export", node]);
    let finished = host.run(&command)?;
    match finished.code() {
        NOTHING => return Ok(None),
        AMBIVALENT => {
            let hint = format!("look at it: wipefs --no-act {}", quoted(node));
            bail!(Fault::new(format!("{node} has traces of several file systems or partition tables")).hint(hint));
        }
        _ => finished.check(&command)?,
    }
    let values = finished.stdout.lines().filter_map(|line| line.split_once('='));
    let known: BTreeMap<_, _> = values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Limits of the device are printed for each device.
    Ok(known.keys().any(|name| !is_of_every_device(name)).then_some(known))
}

/// Returns whether blkid prints a value also for a device that has nothing on it. Of a partition, it prints the entry in
/// the partition table of its disk.
fn is_of_every_device(name: &str) -> bool {
    let is_limit = name.ends_with("_SIZE") || name.ends_with("_OFFSET");
    name == "DEVNAME" || name == "DISKSEQ" || is_limit || name.starts_with("PART_ENTRY_")
}

/// Returns the ranges that are zeros on a blank device, each with its offset and length.
fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let between = bytes.saturating_sub(2 * END_BYTES);
    if between <= PIECES * PIECE_BYTES {
        return vec![(0, bytes)];
    }
    let last = between - PIECE_BYTES;
    let at = |piece: u64| {
        END_BYTES + u64::try_from(u128::from(last) * u128::from(piece) / u128::from(PIECES - 1)).unwrap_or(last)
    };
    let pieces = (0..PIECES).map(|piece| (at(piece), PIECE_BYTES));
    [(0, END_BYTES), (bytes - END_BYTES, END_BYTES)].into_iter().chain(pieces).collect()
}

/// Reads the superblock of ext4 or XFS; `None` if there is none.
///
/// ext4: <https://docs.kernel.org/filesystems/ext4/super.html>. mkfs.ext4 writes the first superblock last, and marks it as
/// valid. XFS: `struct xfs_dsb` of the kernel; mkfs.xfs sets `sb_inprogress` until it has written everything.
fn superblock(start: &[u8]) -> Option<FoundFileSystem> {
    const VALID: u8 = 1;
    let text = |at: usize, length: usize| {
        let bytes = start.get(at..at + length)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let uuid = |at: usize| {
        let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let bytes = start.get(at..at + 16)?;
        let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
        Some(parts.map(digits).join("-"))
    };
    if start.starts_with(b"XFSB") {
        let is_complete = start.get(126) == Some(&0);
        return Some(FoundFileSystem {
            file_system: "xfs".into(),
            label: text(108, 12)?,
            uuid: uuid(32)?,
            is_complete,
        });
    }
    let ext4 = start.get(1024..)?;
    if ext4.get(56..58)? != [0x53, 0xef] {
        return None;
    }
    let was_mounted = ext4.get(52..54)? != [0, 0];
    let is_complete = was_mounted || ext4.get(58)? & VALID != 0;
    Some(FoundFileSystem { file_system: "ext4".into(), label: text(1144, 16)?, uuid: uuid(1128)?, is_complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_64_pieces_of_a_large_device_are_read() {
        let size = 100u64 << 30;
        let ranges = ranges(size);
        assert_eq!(ranges.len(), 66);
        assert_eq!(ranges[..2], [(0, END_BYTES), (size - END_BYTES, END_BYTES)]);
        let (first, last) = (ranges[2], ranges[65]);
        assert_eq!((first.0, last.0 + last.1), (END_BYTES, size - END_BYTES));
        assert!(ranges[2..].windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    }

    #[test]
    fn a_small_device_is_read_as_a_whole() {
        for bytes in [0, 4096, 32 << 20, 96 << 20] {
            assert_eq!(ranges(bytes), [(0, bytes)]);
        }
        assert_eq!(ranges((96 << 20) + 1).len(), 66);
    }

    #[test]
    fn a_blank_partition_has_only_values_of_its_disk() {
        for name in ["DEVNAME", "DISKSEQ", "MINIMUM_IO_SIZE", "ALIGNMENT_OFFSET", "PART_ENTRY_UUID", "PART_ENTRY_DISK"]
        {
            assert!(is_of_every_device(name), "{name}");
        }
        for name in ["TYPE", "PTTYPE", "LABEL", "UUID", "USAGE", "VERSION", "PART_ENTRYS"] {
            assert!(!is_of_every_device(name), "{name}");
        }
    }

    #[test]
    fn a_superblock_says_whether_mkfs_has_ended() {
        let mut ext4 = vec![0; SUPERBLOCK_BYTES];
        assert_eq!(superblock(&ext4), None);
        ext4[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        ext4[1144..1148].copy_from_slice(b"data");
        ext4[1128..1144].copy_from_slice(&[0x11; 16]);
        let uuid = "11111111-1111-1111-1111-111111111111";
        let found = superblock(&ext4).unwrap();
        assert_eq!((&*found.file_system, &*found.label, found.is_unfinished(uuid)), ("ext4", "data", true));
        assert!(!found.is_unfinished("22222222-2222-2222-2222-222222222222"));
        for (byte, value) in [(1024 + 58, 1), (1024 + 52, 3)] {
            let mut used = ext4.clone();
            used[byte] = value;
            assert!(!superblock(&used).unwrap().is_unfinished(uuid));
        }
        let mut xfs = vec![0; SUPERBLOCK_BYTES];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[126] = 1;
        xfs[32..48].copy_from_slice(&[0x11; 16]);
        assert!(superblock(&xfs).unwrap().is_unfinished(uuid));
        xfs[126] = 0;
        assert!(!superblock(&xfs).unwrap().is_unfinished(uuid));
        for cut in [&xfs[..3], &xfs[..100], &ext4[..1080], &ext4[..1150]] {
            assert_eq!(superblock(cut), None);
        }
    }
}
