//! The kind `swap`.

use std::{fmt, os::unix::fs::FileExt};

use anyhow::{Context, Result, bail, ensure};
use nix::{errno::Errno, fcntl::FallocateFlags, sys::statfs};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource, ownership::differences};
use crate::{
    error::Fault,
    host::{
        calls::fallocate,
        command::Program,
        root::{FileStatus, FileType, LabelFor, MAX_TEXT_BYTES, Ownership, Root, way::Owner},
    },
    system::{System, places::Claim},
    value::{AbsPath, ByteSize, quoted},
};

/// The smallest swap file that mkswap(8) accepts: ten pages.
const MIN_BYTES: u64 = 40 << 10;
/// The space that must remain free on the file system.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// An active swap file with one line in /etc/fstab. An existing file is never formatted: one with a swap signature is
/// turned on, any other is an error. An active swap file keeps its size.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// The path of the file. Its file system must support swap files: ext4 and XFS do, btrfs and tmpfs do not.
    path: AbsPath,
    /// Its size: fixed, such as `1GiB`, or from the machine's memory, such as `memory*1, min 512MiB, max 4GiB`.
    size: SizeRule,
    /// Its priority, 0 to 32767. The kernel uses higher priorities first. Default: below every other swap.
    priority: Option<u16>,
}

/// A fixed size, or a size from the machine's memory within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub enum SizeRule {
    /// A fixed size.
    Fixed(ByteSize),
    /// A percentage of the memory, within bounds.
    Memory {
        /// Percent of the memory.
        percent: u64,
        /// The smallest size.
        min: Option<ByteSize>,
        /// The largest size.
        max: Option<ByteSize>,
    },
}

impl TryFrom<String> for SizeRule {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let Some(factor) = first.strip_prefix("memory") else {
            ensure!(parts.next().is_none(), "`min` and `max` need `memory*FACTOR`");
            return Ok(Self::Fixed(text.parse()?));
        };
        let percent = percent(factor.trim())
            .with_context(|| format!("`{first}` is not `memory*FACTOR`, such as memory*1 or memory*0.5"))?;
        let (mut min, mut max) = (None, None);
        for part in parts {
            match part.split_once(' ') {
                Some(("min", size)) if min.is_none() => min = Some(size.trim().parse()?),
                Some(("max", size)) if max.is_none() => max = Some(size.trim().parse()?),
                _ => bail!("`{part}` is not `min SIZE` or `max SIZE`, or is repeated"),
            }
        }
        ensure!(min.zip(max).is_none_or(|(min, max)| min <= max), "`min` is more than `max`");
        Ok(Self::Memory { percent, min, max })
    }
}

/// Parses a factor as a percentage: `*1.5` is 150.
fn percent(factor: &str) -> Option<u64> {
    let factor = if factor.is_empty() { "1" } else { factor.strip_prefix('*')?.trim() };
    let (whole, fraction) = factor.split_once('.').unwrap_or((factor, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    if !digits(whole) || !digits(fraction) || whole.len() > 3 || fraction.len() > 2 {
        return None;
    }
    let hundredths: u64 = format!("{fraction:0<2}").parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 100 + hundredths).filter(|percent| *percent > 0)
}

impl SizeRule {
    /// Returns the size in bytes for a memory in bytes. A size from the memory is in whole MiB.
    fn bytes(self, memory: u64) -> u64 {
        match self {
            Self::Fixed(size) => size.0,
            Self::Memory { percent, min, max } => {
                let size = (memory / 100).saturating_mul(percent);
                let size = size.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX);
                size.max(min.map_or(0, |min| min.0)).min(max.map_or(u64::MAX, |max| max.0))
            }
        }
    }
}

impl fmt::Display for SizeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Memory { percent, .. } => write!(f, "{percent} % of the memory"),
        }
    }
}

impl Kind for Swap {
    const NAME: &'static str = "swap";
    const EXAMPLE: &'static str = r#"kind = "swap"
path = "/swapfile"
size = "memory*1, min 512MiB, max 4GiB""#;
}

impl Resource for Swap {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn owner(&self) -> Option<&str> {
        Some("root")
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.path.as_str().contains([' ', '\\', '#']) {
            findings.push(Finding::new(
                "path",
                "a swap file's path is written to /etc/fstab: it must not have a space, `\\` or `#`",
            ));
        }
        if self.priority.is_some_and(|priority| priority > 32767) {
            findings.push(Finding::new("priority", "a priority is at most 32767"));
        }
        if self.size.bytes(u64::MAX / 2) < MIN_BYTES {
            findings.push(Finding::new("size", format!("a swap file needs at least {}", ByteSize(MIN_BYTES))));
        }
        findings
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        if !system.is_live() {
            return Ok(vec![Change::deferred("create and turn on (deferred: an image has no swap file)")]);
        }
        let root = Owner::Id(0);
        _ = system.check_place(Claim { path: &self.path, owner: Some(&root), gid: None, makes_parents: false })?;
        let mut changes = vec![];
        if is_active(system.root(), &self.path)? {
            let status = system.root().status(&self.path)?;
            changes.extend(status.map(|status| self.fix_attributes(system, &status)).transpose()?.flatten());
        } else {
            changes.extend(self.turn_on(system)?);
        }
        let fstab = system.root().read_text(&"/etc/fstab".into())?;
        if !fstab.lines().any(|line| is_entry(line, &self.path)) {
            let swap = self.clone();
            changes.push(Change::new("add to /etc/fstab", move |system| swap.add_to_fstab(system.root())));
        }
        Ok(changes)
    }
}

impl Swap {
    /// Returns the changes until the swap file is active.
    fn turn_on(&self, system: &System) -> Result<Vec<Change>> {
        let swap = self.clone();
        let on = move |system: &System| swap.swapon(system);
        let Some(status) = system.root().status(&self.path)? else {
            let size = self.size.bytes(system.host.memory()?);
            self.preflight(system.root(), size)?;
            let swap = self.clone();
            let create = move |system: &System| swap.create(system, size);
            return Ok(vec![
                Change::new(format!("create swap file of {}", ByteSize(size)), create),
                Change::new("turn on", on),
            ]);
        };
        self.check_existing(system.root())?;
        let mut changes: Vec<Change> = self.fix_attributes(system, &status)?.into_iter().collect();
        changes.push(Change::new("turn on", on));
        Ok(changes)
    }

    /// Fails if the file is not a swap file, or if another user has made it or can change it.
    ///
    /// With an open descriptor, such a user could read the swapped memory.
    fn check_existing(&self, root: &Root) -> Result<()> {
        let path = &self.path;
        let is_file = root.status(path)?.is_some_and(|status| status.file_type == FileType::Regular);
        let opened = if is_file { root.open_file(path)? } else { None };
        let Some((_, status)) = opened.filter(|(file, _)| has_signature(file)) else {
            return Err(Fault::new(format!("{path} exists and is not a swap file"))
                .hint("move it away, or declare another path; an existing file is never formatted")
                .into());
        };
        let Ownership { uid, mode, .. } = status.ownership;
        let why = match () {
            () if uid != 0 => format!("belongs to uid {uid}, not to root"),
            () if status.links != 1 => format!("has {} names (hard links)", status.links),
            () if mode & 0o022 != 0 => format!("is writable for other users (mode {mode:04o})"),
            () => return Ok(()),
        };
        Err(Fault::new(format!("the swap file {path} {why}"))
            .hint(format!("remove it, so that the next run makes a new one: rm {}", quoted(path.as_str())))
            .into())
    }

    /// Returns the change that makes the file readable only for root, as it has the memory of processes. With SELinux,
    /// its label lets swapon(8) use it.
    fn fix_attributes(&self, system: &System, status: &FileStatus) -> Result<Option<Change>> {
        let wanted = Ownership { uid: 0, gid: 0, mode: 0o600 };
        let path = self.path.clone();
        let (ids, mode) = (Some((wanted.uid, wanted.gid)), Some(wanted.mode));
        let mut differences = differences(system, status.ownership, ids, mode)?;
        differences.extend(system.root().label_difference(&path, LabelFor::Swap)?);
        let summary = format!("set {}", differences.join(", "));
        let fix = move |system: &System| system.root().own_file(&path, wanted, LabelFor::Swap);
        Ok((!differences.is_empty()).then(|| Change::new(summary, fix)))
    }

    /// Fails before anything is written, if the file system cannot have the swap file.
    fn preflight(&self, root: &Root, size: u64) -> Result<()> {
        let file_system = root.file_system(&self.path)?;
        let refused = [
            (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
            (statfs::TMPFS_MAGIC, "tmpfs"),
            (statfs::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
            (statfs::NFS_SUPER_MAGIC, "nfs"),
        ];
        if let Some((_, name)) = refused.iter().find(|(magic, _)| *magic == file_system.magic) {
            return Err(Fault::new(format!("{} cannot be a swap file, because it is on {name}", self.path))
                .hint("declare a path on ext4 or XFS")
                .into());
        }
        if file_system.free < size.saturating_add(MIN_FREE_BYTES) {
            let (size, free) = (ByteSize(size), ByteSize(file_system.free));
            return Err(Fault::new(format!(
                "{} would fill the disk: it needs {size}, but only {free} are free",
                self.path
            ))
            .hint("declare a smaller size, or enlarge the volume")
            .into());
        }
        Ok(())
    }

    /// Makes the whole file under a temporary name, so that the file at the path is always a swap file.
    fn create(&self, system: &System, size: u64) -> Result<()> {
        let ownership = Ownership { uid: 0, gid: 0, mode: 0o600 };
        let mut staged = system.root().stage_labelled(&self.path, ownership, LabelFor::Swap)?;
        let length = i64::try_from(size).context("the size of the swap file")?;
        // Allocated extents without data are no holes: ext4 and XFS (since Linux 4.18) can swap on them.
        match fallocate(staged.file(), FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP) => {
                let zeros = vec![0; 1 << 20];
                for start in (0..size).step_by(zeros.len()) {
                    let piece = usize::try_from(size - start).unwrap_or(usize::MAX).min(zeros.len());
                    staged.write_all(&zeros[..piece])?;
                    system.host.stop.check()?;
                }
            }
            Err(errno) => {
                return Err(errno).with_context(|| format!("allocating {} for {}", ByteSize(size), self.path));
            }
        }
        _ = system.host.run_checked(&Program::new(["mkswap", staged.temporary()?.as_str()]))?;
        staged.publish()
    }

    fn swapon(&self, system: &System) -> Result<()> {
        let mut command = Program::new(["swapon"]);
        if let Some(priority) = self.priority {
            command = command.args(["--priority", &priority.to_string()]);
        }
        match system.host.run_checked(&command.arg(self.path.as_str())) {
            // A process of a killed run may have turned it on since the plan.
            Err(error) if !is_active(system.root(), &self.path)? => {
                Err(Fault::new(format!("{} could not be turned on", self.path))
                    .hint(format!(
                        "if the file has holes, remove it, so that the next run makes a new one: rm {}",
                        quoted(self.path.as_str())
                    ))
                    .caused_by(error)
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn add_to_fstab(&self, root: &Root) -> Result<()> {
        let path = AbsPath::from("/etc/fstab");
        let mut fstab = root.read(&path, MAX_TEXT_BYTES)?.unwrap_or_default();
        if !fstab.is_empty() && !fstab.ends_with(b"\n") {
            fstab.push(b'\n');
        }
        let options = self.priority.map_or("sw".into(), |priority| format!("sw,pri={priority}"));
        fstab.extend(format!("{} none swap {options} 0 0\n", self.path).bytes());
        let ownership =
            root.status(&path)?.map_or(Ownership { uid: 0, gid: 0, mode: 0o644 }, |status| status.ownership);
        root.write(&path, ownership, &fstab)
    }
}

/// Returns whether a line of fstab(5) is the entry of this swap file.
pub fn is_entry(line: &str, path: &AbsPath) -> bool {
    let mut fields = line.split_whitespace();
    fields.next() == Some(path.as_str()) && fields.nth(1) == Some("swap")
}

/// Returns whether the kernel swaps to this file, by `proc_swaps(5)`.
pub fn is_active(root: &Root, path: &AbsPath) -> Result<bool> {
    let path = root.resolve(path)?;
    let swaps = root.read_text(&"/proc/swaps".into())?;
    Ok(swaps.lines().skip(1).any(|line| line.split_whitespace().next() == Some(path.as_str())))
}

/// Returns whether a file has mkswap's signature, at the end of its first page.
fn has_signature(file: &impl FileExt) -> bool {
    let mut signature = [0; 10];
    [4096, 16384, 65536]
        .iter()
        .any(|page| file.read_exact_at(&mut signature, page - 10).is_ok() && &signature == b"SWAPSPACE2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    fn rule(text: &str) -> Result<SizeRule> {
        SizeRule::try_from(text.to_owned())
    }

    #[test]
    fn a_size_follows_the_memory_within_bounds() {
        assert_eq!(rule("memory*2").unwrap().bytes(1 << 30), 2 << 30);
        for most in [u64::MAX, u64::MAX / 2] {
            assert_eq!(rule("memory*999, max 4GiB").unwrap().bytes(most), 4 << 30);
        }
        let by_memory = rule("memory*1, min 512MiB, max 4GiB").unwrap();
        for (memory, swap) in [(1u64 << 28, 512 << 20), (1 << 30, 1 << 30), (64 << 30, 4 << 30)] {
            assert_eq!(by_memory.bytes(memory) >> 20, swap >> 20);
        }
        assert_eq!(rule("memory*0.5").unwrap().bytes(2000 << 20) >> 20, 1000);
        assert_eq!(rule("1GiB").unwrap().bytes(1), 1 << 30);
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for bad in [
            "",
            "memory*",
            "memory*x",
            "memory*0",
            "memory*1, mid 1GiB",
            "1GiB, max 2GiB",
            "memory, min 2GiB, max 1GiB",
            "memory*1.234",
            "memory*+1",
            " 1GiB",
            "+1GiB",
            "memory, min +1GiB",
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bytes_of_a_latin_1_fstab_are_kept() {
        let tree = Scratch::of(&[("/etc/fstab", b"# M\xfcllers disk\n/dev/x /x ext4 defaults 0 0")]);
        let swap: Swap = toml::from_str("path = \"/swapfile\"\nsize = \"1GiB\"").unwrap();
        swap.add_to_fstab(&tree.root()).unwrap();
        let fstab = tree.read("/etc/fstab");
        assert_eq!(fstab, b"# M\xfcllers disk\n/dev/x /x ext4 defaults 0 0\n/swapfile none swap sw 0 0\n");
    }

    #[test]
    fn an_fstab_entry_is_found_whatever_its_options() {
        let path = AbsPath::from("/swapfile");
        assert!(is_entry("/swapfile\tswap swap defaults,pri=5 0 0", &path));
        assert!(!is_entry("#/swapfile none swap sw 0 0", &path) && !is_entry("/swapfile2 none swap sw 0 0", &path));
    }
}
