//! The SELinux labels of files. A machine without SELinux has none, and nothing is done there.
//!
//! A new file gets the label of its directory; selinux(8). In many places the policy wants another one: without it, sshd
//! reads no `~/.ssh/authorized_keys`. So each file that is written gets the policy's label before it has its name. Two labels
//! are the same if their types are: so restorecon(8) judges, too.

mod contexts;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::{
        stat::{major, minor},
        statfs::Statfs,
    },
};

use self::contexts::FileContexts;
use super::{FileType, OpenDirectory, Root};
use crate::{
    host::{
        calls::{fgetxattr, fsetxattr, fstat, fstatfs, lgetxattr, lsetxattr, readlinkat},
        mountinfo::{MountedFileSystem, mounts},
    },
    value::AbsPath,
};

/// The file that a kernel with a loaded policy has.
const LOADED_POLICY: &str = "/sys/fs/selinux/policy";
/// `selinux_config(5)`.
const CONFIGURATION: &str = "/etc/selinux/config";
/// The policy that libselinux takes if the configuration names none.
const DEFAULT_POLICY: &str = "targeted";
/// The attribute that has the label; xattr(7).
const ATTRIBUTE: &str = "security.selinux";
/// The file systems whose files have labels of their own, by statfs(2): ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs. Others
/// have one label for all their files, by their mount.
const LABELLED: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];

/// The type of a swap file, wherever it is. A policy names it for `/swapfile` or `/var/swap` at most. mkswap(8) sets it, but a
/// policy may keep mkswap(8) from opening a file of another type.
const SWAP_TYPE: &str = "swapfile_t";

/// What decides about the label of a file, besides its path.
#[derive(Debug, Clone, Copy)]
pub enum LabelFor {
    /// Its type.
    Type(FileType),
    /// Its use as a swap file.
    Swap,
}

impl From<FileType> for LabelFor {
    fn from(file_type: FileType) -> Self {
        Self::Type(file_type)
    }
}

/// The rules of the machine's policy about labels.
#[derive(Debug)]
pub(super) struct Labels {
    contexts: FileContexts,
    /// The types that an administrator may give to any file. restorecon(8) leaves them, too.
    customizable: BTreeSet<String>,
    /// The devices that were looked at, and whether their files have labels of their own.
    devices: Mutex<BTreeMap<u64, bool>>,
}

impl Labels {
    /// Reads the rules of this machine; `None` if it has no SELinux.
    pub(super) fn read(root: &Root) -> Result<Option<Self>> {
        if !root.is_host() || root.status(&LOADED_POLICY.into())?.is_none() {
            return Ok(None);
        }
        let policy = root.selinux_policy()?;
        let text = |name: &str| root.read_text(&format!("/etc/selinux/{policy}/contexts/{name}").parse()?);
        let contexts =
            [text("files/file_contexts")?, text("files/file_contexts.homedirs")?, text("files/file_contexts.local")?];
        let contexts = FileContexts::parse(contexts.iter().map(String::as_str))
            .with_substitutes(&text("files/file_contexts.subs")?)
            .with_substitutes(&text("files/file_contexts.subs_dist")?);
        let customizable = text("customizable_types")?.split_whitespace().map(str::to_owned).collect();
        Ok(Some(Self { contexts, customizable, devices: Mutex::default() }))
    }

    /// Returns the label that the policy has for a path without links.
    fn wanted(&self, path: &str, file_type: FileType) -> Option<&str> {
        self.contexts.label(path, file_type)
    }

    /// Returns whether the files of a directory have labels of their own.
    fn are_in(&self, directory: &OwnedFd) -> Result<bool> {
        let device = fstat(directory).context("reading the status of a directory")?.st_dev;
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = devices.get(&device) {
            return Ok(*known);
        }
        let are = is_labelled(fstatfs(directory).context("asking for a file system")?)
            && !has_one_label(&mounts()?, &format!("{}:{}", major(device), minor(device)));
        _ = devices.insert(device, are);
        Ok(are)
    }

    /// Returns whether a label is left as it is.
    fn is_right(&self, now: &str, wanted: &str) -> bool {
        let (now, wanted) = (type_of(now), type_of(wanted));
        now == wanted || self.customizable.contains(now)
    }
}

/// The labels of what is below a directory that takes its place later.
#[derive(Debug)]
pub(super) struct LabelsBelow<'a> {
    labels: &'a Labels,
    /// The place, without links.
    place: String,
}

impl LabelsBelow<'_> {
    /// Gives an open file at a path below the place its label.
    pub(super) fn set(&self, file: impl AsFd, path: &str, file_type: FileType) -> Result<()> {
        let whole = if path.is_empty() { self.place.clone() } else { format!("{}/{path}", self.place) };
        set_label(file, self.labels.wanted(&whole, file_type)).with_context(|| whole.clone())
    }

    /// Returns the words for a wrong label of a file below the place; `None` if it is right.
    pub(super) fn difference(
        &self,
        directory: &OwnedFd,
        name: &str,
        path: &str,
        file_type: FileType,
    ) -> Result<Option<String>> {
        let wanted = self.labels.wanted(&format!("{}/{path}", self.place), file_type);
        let Some(wanted) = wanted.filter(|_| matches!(file_type, FileType::Regular | FileType::Directory)) else {
            return Ok(None);
        };
        let now = label_of(directory, name)?;
        Ok(now.as_ref().is_none_or(|now| !self.labels.is_right(now, wanted)).then(|| words(now.as_deref(), wanted)))
    }
}

/// Returns the words for a wrong label.
fn words(now: Option<&str>, wanted: &str) -> String {
    format!("label {} (now {})", type_of(wanted), now.map_or("none", type_of))
}

impl Root {
    /// Returns a setting of SELinux's configuration; `None` if it is absent or empty.
    pub fn selinux_setting(&self, name: &str) -> Result<Option<String>> {
        let text = self.read_text(&CONFIGURATION.into())?;
        let mut settings = text.lines().filter_map(|line| line.trim().split_once('='));
        let value = settings.find(|(other, _)| other.trim() == name).map(|(_, value)| value.trim().to_owned());
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// Returns the name of SELinux's policy, which names its directories.
    pub fn selinux_policy(&self) -> Result<String> {
        Ok(self.selinux_setting("SELINUXTYPE")?.unwrap_or_else(|| DEFAULT_POLICY.into()))
    }

    /// Returns the rules about labels; `None` if this machine has no SELinux.
    fn labels(&self) -> Result<Option<&Labels>> {
        if self.labels.get().is_none() {
            _ = self.labels.set(Labels::read(self)?);
        }
        Ok(self.labels.get().and_then(Option::as_ref))
    }

    /// Returns the labels below a place in a directory; `None` if files get none of their own there.
    pub(super) fn labels_below(&self, directory: &OwnedFd, place: &AbsPath) -> Result<Option<LabelsBelow<'_>>> {
        let Some(labels) = self.labels()? else { return Ok(None) };
        labels
            .are_in(directory)?
            .then(|| Ok(LabelsBelow { labels, place: path_of(directory, place.leaf())? }))
            .transpose()
    }

    /// Returns the label that a new file in a directory gets; `None` if it gets none of its own.
    pub(super) fn label_for(
        &self,
        directory: &OwnedFd,
        leaf: &str,
        what: impl Into<LabelFor>,
    ) -> Result<Option<String>> {
        let Some(labels) = self.labels()? else { return Ok(None) };
        if !labels.are_in(directory)? {
            return Ok(None);
        }
        let path = path_of(directory, leaf)?;
        let what = what.into();
        let file_type = if let LabelFor::Type(file_type) = what { file_type } else { FileType::Regular };
        let Some(wanted) = labels.wanted(&path, file_type) else { return Ok(None) };
        if let LabelFor::Swap = what {
            return Ok(Some(with_type(wanted, SWAP_TYPE)));
        }
        // The present file's label counts if an administrator may have chosen it.
        let now = label_of(directory, leaf)?;
        Ok(Some(now.filter(|now| labels.is_right(now, wanted)).unwrap_or_else(|| wanted.to_owned())))
    }

    /// Gives a symbolic link of root's directory its label.
    ///
    /// A link has no descriptor. In a user's directory, the user could put another file in its place.
    pub(super) fn label_link(&self, parent: &OpenDirectory, path: &AbsPath) -> Result<()> {
        if parent.user.is_some() {
            return Ok(());
        }
        let Some(label) = self.label_for(&parent.fd, path.leaf(), FileType::Link)? else { return Ok(()) };
        let set = lsetxattr(&entry(&parent.fd, path.leaf()), ATTRIBUTE, &terminated(&label));
        set.with_context(|| format!("setting the label {label} of {path}"))
    }

    /// Returns the words for a wrong label of the file at a path; `None` if the label is right.
    pub fn label_difference(&self, path: &AbsPath, what: impl Into<LabelFor>) -> Result<Option<String>> {
        if self.labels()?.is_none() {
            return Ok(None);
        }
        let Some(parent) = self.parent(path, super::WalkPurpose::Inspect)? else { return Ok(None) };
        let leaf = if path.leaf().is_empty() { "." } else { path.leaf() };
        let Some(wanted) = self.label_for(&parent.fd, leaf, what)? else { return Ok(None) };
        let now = label_of(&parent.fd, leaf)?;
        let is_right = now.as_ref().is_some_and(|now| type_of(now) == type_of(&wanted));
        Ok((!is_right).then(|| words(now.as_deref(), &wanted)))
    }
}

/// Gives an open file a label, unless it has one of the same type.
pub(super) fn set_label(file: impl AsFd, label: Option<&str>) -> Result<()> {
    let Some(label) = label else { return Ok(()) };
    let now = fgetxattr(&file, ATTRIBUTE).ok().map(|now| text(&now));
    if now.is_some_and(|now| type_of(&now) == type_of(label)) {
        return Ok(());
    }
    fsetxattr(&file, ATTRIBUTE, &terminated(label)).with_context(|| format!("setting the label {label}"))
}

/// Returns the label of a file in a directory; `None` if it does not exist or has none.
fn label_of(directory: &OwnedFd, leaf: &str) -> Result<Option<String>> {
    match lgetxattr(&entry(directory, leaf), ATTRIBUTE) {
        Ok(label) => Ok(Some(text(&label))),
        Err(Errno::ENOENT | Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("reading the label of {leaf}")),
    }
}

/// Returns whether the files of this type of file system have labels of their own.
fn is_labelled(file_system: Statfs) -> bool {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the type depends on the platform")]
    let magic = file_system.filesystem_type().0 as i64 & 0xffff_ffff;
    LABELLED.contains(&magic)
}

/// Returns whether the mount of a device gives all its files one label: `context=` of mount(8).
fn has_one_label(mounts: &[MountedFileSystem], number: &str) -> bool {
    let of_device = mounts.iter().filter(|mount| mount.number == number);
    of_device.flat_map(|mount| &mount.super_options).any(|option| option.starts_with("context="))
}

/// Returns the path of a name in an open directory, as the kernel sees it.
fn path_of(directory: &OwnedFd, leaf: &str) -> Result<String> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let above = readlinkat(nix::fcntl::AT_FDCWD, link.as_str()).with_context(|| format!("reading the link {link}"))?;
    let above = above.to_string_lossy().into_owned();
    Ok(match leaf {
        "" | "." => above,
        leaf => format!("{}/{leaf}", above.trim_end_matches('/')),
    })
}

/// Returns a path to a name in a directory, for calls that know no directories. The last component is not followed.
fn entry(directory: &OwnedFd, leaf: &str) -> String {
    format!("/proc/self/fd/{}/{leaf}", directory.as_raw_fd())
}

/// Returns the type in a label such as `system_u:object_r:etc_t:s0`.
fn type_of(label: &str) -> &str {
    label.split(':').nth(2).unwrap_or(label)
}

/// Returns a label with another type.
fn with_type(label: &str, of: &str) -> String {
    let parts = label.split(':').enumerate().map(|(at, part)| if at == 2 { of } else { part });
    parts.collect::<Vec<_>>().join(":")
}

/// Returns a label as text. The kernel ends it with a zero.
fn text(label: &[u8]) -> String {
    String::from_utf8_lossy(label.strip_suffix(b"\0").unwrap_or(label)).into_owned()
}

fn terminated(label: &str) -> Vec<u8> {
    [label.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_a_context_has_one_label() {
        let mounts = [
            &br"30 1 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p1 rw,seclabel,discard"[..],
            br#"31 30 259:3 / /srv/a rw - xfs /dev/nvme1n1 rw,context="system_u:object_r:httpd_sys_content_t:s0:c1,c2",noquota"#,
            br"32 30 0:40 / /srv/b rw - tmpfs tmpfs rw,seclabel,rootcontext=system_u:object_r:tmp_t:s0",
        ]
        .map(|line| MountedFileSystem::parse(line).unwrap());
        let have: Vec<bool> = ["259:1", "259:3", "0:40", "0:99"].map(|number| has_one_label(&mounts, number)).into();
        assert_eq!(have, [false, true, false, false]);
    }
}
