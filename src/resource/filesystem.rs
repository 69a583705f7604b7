//! The kind `filesystem`.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Finding, Kind, Resource,
    device::{DeviceName, is_label, to_look_at},
    wait::CheckDeadline,
};
use crate::{
    error::Fault,
    host::{
        command::Program,
        disks::{BlockDevice, content::DeviceContent},
    },
    system::{Fact, Mode, System, making::MakingNote},
    value::{ByteSize, Span, quoted, spoken},
};

/// A file system on a block device. A blank device gets one. One with a file system of this type keeps it. Anything else
/// on it is an error: nothing is ever wiped. Blank means that the first and the last 16 MiB and 64 pieces between them are
/// zeros, that blkid(8) finds nothing, and that no partition, mount, swap or other device uses it. If a run is cut off
/// while it makes the file system, the next run makes it again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskFormat {
    /// The device: a path such as `/dev/disk/by-id/…`; `ebs:vol-0123456789abcdef0`, an EBS volume by its id;
    /// `ebs:/dev/sdf`, an EBS volume by the name of its attachment; `instance-store:0`, a disk of the instance, by its number
    /// in the order of the serial numbers; or `label:NAME`, the device whose file system has this label. On Nitro instances,
    /// `ebs:/dev/sdf` needs the package amazon-ec2-utils or nvme-cli.
    device: DeviceName,
    /// The type of the file system. `xfs` needs the package xfsprogs.
    #[serde(rename = "type")]
    file_system: DiskType,
    /// The label of a new file system: letters, digits, `-`, `.`, `_` and `+`; at most 16 for ext4, 12 for xfs. An existing
    /// file system with another label is an error. Default: no label, and any label is right.
    label: Option<String>,
    /// How long to wait for a device that is not attached yet. At the end of this time, the run exits with 75. Default: 2m.
    #[serde(default = "two_minutes")]
    wait: Span,
}

/// Returns the default time to wait for a device.
pub(super) fn two_minutes() -> Span {
    Span(Duration::from_mins(2))
}

/// A type of file system on a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DiskType {
    Ext4,
    Xfs,
}

impl DiskType {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn max_label_bytes(self) -> usize {
        match self {
            Self::Ext4 => 16,
            Self::Xfs => 12,
        }
    }

    /// Returns the size of the smallest device that its mkfs takes. xfsprogs 5.19 and later refuse less for XFS.
    fn min_bytes(self) -> u64 {
        match self {
            Self::Ext4 => 1 << 20,
            Self::Xfs => 300 << 20,
        }
    }

    /// Returns the package that makes this type.
    fn package(self) -> &'static str {
        match self {
            Self::Ext4 => "e2fsprogs",
            Self::Xfs => "xfsprogs",
        }
    }
}

impl fmt::Display for DiskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind for DiskFormat {
    const NAME: &'static str = "filesystem";
    const EXAMPLE: &'static str = r#"kind = "filesystem"
device = "ebs:/dev/sdf"
type = "ext4"
label = "data"
wait = "5m""#;
}

impl Resource for DiskFormat {
    fn title(&self) -> String {
        self.device.to_string()
    }

    fn formatted_devices(&self) -> Vec<String> {
        let label = self.label.iter().map(|label| format!("label:{label}"));
        label.chain([self.device.to_string()]).collect()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        let label = self.label.iter().map(|label| ("label", format!("the label {label}")));
        label.chain([("device", format!("the file system of {}", self.device))]).collect()
    }

    fn public_fields(&self) -> &'static [&'static str] {
        &["device", "label"]
    }

    fn check(&self) -> Vec<Finding> {
        let max_bytes = self.file_system.max_label_bytes();
        self.label.iter().filter_map(|label| of_label(label, max_bytes)).collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let kind = self.file_system;
        let facts = |device: Option<&BlockDevice>| {
            let node = device.map(|device| device.node.to_string());
            let names = self.formatted_devices().into_iter().chain(node);
            names.map(|name| Fact::FileSystem(name, kind.name())).collect::<Vec<_>>()
        };
        if !system.is_live() {
            let why = system.why_not_live_or("an image has no volumes");
            let summary = format!("make an {kind} file system (deferred: {why})");
            return Ok(vec![Change::deferred(summary).brings(facts(None))]);
        }
        if let Some(found) = self.device.find(system)? {
            let changes = self.plan_device(system, &found.device)?;
            return Ok(changes.into_iter().map(|change| change.brings(facts(Some(&found.device)))).collect());
        }
        self.check_program(system)?;
        let (format, wait) = (self.clone(), CheckDeadline::begin(self.wait.0));
        let limit = spoken(self.wait.0);
        let summary = format!("wait up to {limit} for the device, and make an {kind} file system on it if it is blank");
        let change = Change::new(summary, move |system| {
            let found = format.device.wait(system, wait, format.wait.0)?;
            for change in format.plan_device(system, &found.device)? {
                let action = change.action.context("a device is here or not")?;
                action(system)?;
            }
            Ok(())
        });
        Ok(vec![change.brings(facts(None))])
    }
}

impl DiskFormat {
    /// Returns the changes until a device has the file system.
    fn plan_device(&self, system: &System, device: &BlockDevice) -> Result<Vec<Change>> {
        let (kind, node) = (self.file_system, &device.node);
        let label = self.label.as_ref().map_or(String::new(), |label| format!(" with the label {label}"));
        let summary = match self.what_to_do(system, device)? {
            ToDo::Nothing => return Ok(vec![]),
            ToDo::Make | ToDo::MakeAgain if self.is_planned(system, device)? => return Ok(vec![]),
            ToDo::Note => {
                let device = device.clone();
                let remove = move |system: &System| MakingNote::remove(system, &device);
                return Ok(vec![Change::new("note that the file system is complete", remove)]);
            }
            ToDo::Make => {
                format!("make an {kind} file system{label} on {node} ({}, blank)", ByteSize(device.bytes))
            }
            ToDo::MakeAgain => {
                format!(
                    "make the {kind} file system on {node} again{label}: an earlier run was cut off while it made it"
                )
            }
        };
        self.check_program(system)?;
        self.check_device(system, device)?;
        let (format, device) = (self.clone(), device.clone());
        Ok(vec![Change::new(summary, move |system| format.make(system, &device))])
    }

    /// Reads the device, and returns the work on it.
    ///
    /// # Errors
    /// If it has content that is not the declared file system.
    fn what_to_do(&self, system: &System, device: &BlockDevice) -> Result<ToDo> {
        let note = MakingNote::load(system, device)?;
        match DeviceContent::read(&system.host, device)? {
            DeviceContent::FileSystem(found) if note.as_ref().is_some_and(|note| found.is_unfinished(&note.uuid)) => {
                Ok(ToDo::MakeAgain)
            }
            DeviceContent::FileSystem(found) if found.file_system == self.file_system.name() => {
                self.check_label(device, &found.label)?;
                // Later content is not ours: from now on, nothing may be made again.
                Ok(if note.is_some() { ToDo::Note } else { ToDo::Nothing })
            }
            DeviceContent::FileSystem(found) => {
                let label =
                    if found.label.is_empty() { String::new() } else { format!(" with the label {}", found.label) };
                Err(self.not_blank(device, &format!("it has the file system {}{label}", found.file_system)))
            }
            DeviceContent::Other(what) => Err(self.not_blank(device, &what)),
            DeviceContent::Bytes(_) if note.is_some() => Ok(ToDo::MakeAgain),
            DeviceContent::Bytes(at) => {
                let what = format!("byte {at} is not zero, and blkid does not know what it is");
                Err(self.not_blank(device, &what))
            }
            DeviceContent::Blank => Ok(ToDo::Make),
        }
    }

    fn check_program(&self, system: &System) -> Result<()> {
        let (kind, package) = (self.file_system, self.file_system.package());
        system.check_program(&format!("mkfs.{kind}"), 0).map_err(|error| {
            let hint = format!("declare its package before it: kind = \"package\", names = [\"{package}\"]");
            Fault::new(format!("no {kind} file system can be made")).hint(hint).caused_by(error).into()
        })
    }

    /// Fails if mkfs would refuse a device, or if another device has the label.
    fn check_device(&self, system: &System, device: &BlockDevice) -> Result<()> {
        let (kind, node) = (self.file_system, &device.node);
        if system.host.is_read_only(device)? {
            let fault = Fault::new(format!("no {kind} file system can be made on {node}: the device is read-only"));
            return Err(fault.hint(format!("make it writable: blockdev --setrw {}", quoted(node.as_str()))).into());
        }
        if device.bytes < kind.min_bytes() {
            let (has, needed) = (ByteSize(device.bytes), ByteSize(kind.min_bytes()));
            let fault = Fault::new(format!("{node} has {has}, but an {kind} file system needs at least {needed}"));
            return Err(fault.hint("declare a larger device, or another type").into());
        }
        let other = self.label.clone().map(DeviceName::Label).map(|name| name.find(system)).transpose()?.flatten();
        if let (Some(other), Some(label)) = (other.filter(|other| other.device.number != device.number), &self.label) {
            let message =
                format!("{} has the label {label} already, so that it would name two devices", other.device.node);
            return Err(Fault::new(message).hint("declare another label").into());
        }
        Ok(())
    }

    /// Returns whether an earlier resource, which names the device in another way, will have made the file system.
    ///
    /// # Errors
    /// If it makes another one.
    fn is_planned(&self, system: &System, device: &BlockDevice) -> Result<bool> {
        let is_planned = |name: &str, kind: DiskType| {
            system.mode() == Mode::Plan && system.expects(&Fact::FileSystem(name.to_owned(), kind.name()))
        };
        let mut kinds = [DiskType::Ext4, DiskType::Xfs].into_iter();
        let Some(kind) = kinds.find(|kind| is_planned(device.node.as_str(), *kind)) else { return Ok(false) };
        let has_label = |label: &String| is_planned(&format!("label:{label}"), kind);
        if kind == self.file_system && self.label.as_ref().is_none_or(has_label) {
            return Ok(true);
        }
        let message =
            format!("an earlier resource makes another file system on {}: its type or label differs", device.node);
        Err(Fault::new(message).hint("declare each device once").into())
    }

    fn check_label(&self, device: &BlockDevice, found: &str) -> Result<()> {
        let Some(label) = self.label.as_ref().filter(|label| *label != found) else { return Ok(()) };
        let (node, found) = (&device.node, if found.is_empty() { "no label" } else { found });
        let set = match self.file_system {
            DiskType::Ext4 => format!("e2label {} {}", quoted(node.as_str()), quoted(label)),
            DiskType::Xfs => format!("xfs_admin -L {} {}", quoted(label), quoted(node.as_str())),
        };
        Err(Fault::new(format!("the file system on {node} has {found}, not the label {label}"))
            .hint(format!("declare another device or label; or set the label by hand, while it is not mounted: {set}"))
            .into())
    }

    fn not_blank(&self, device: &BlockDevice, what: &str) -> anyhow::Error {
        let by_name = match &self.device {
            DeviceName::Path(path) if *path == device.node => String::new(),
            name => format!(" ({name})"),
        };
        Fault::new(format!("{}{by_name} is neither blank nor {}: {what}", device.node, self.file_system))
            .hint(format!(
                "declare another device; a device with content is never formatted; to look at it: {}",
                to_look_at(device)
            ))
            .into()
    }

    /// Makes the file system, if the device is still as it was when it was planned.
    fn make(&self, system: &System, device: &BlockDevice) -> Result<()> {
        let kind = self.file_system;
        let is_again = match self.what_to_do(system, device)? {
            ToDo::Nothing | ToDo::Note => return Ok(()),
            ToDo::Make => false,
            ToDo::MakeAgain => true,
        };
        // One that is made again keeps its UUID: between the note and the first byte, the run may be cut off once more.
        let uuid = match MakingNote::load(system, device)? {
            Some(note) => note.uuid,
            None => system.host.new_uuid()?,
        };
        MakingNote::write(system, device, &uuid)?;
        system.host.progress(&format!("{}: making the {kind} file system", self.device));
        // mkfs opens the device for itself alone, and fails if it is in use. Blocks that it does not use are not discarded.
        let program = match kind {
            DiskType::Ext4 => Program::new(["mkfs.ext4", "-q", "-E", "nodiscard", "-U", &uuid]),
            DiskType::Xfs => Program::new(["mkfs.xfs", "-q", "-K", "-m", &format!("uuid={uuid}")]),
        };
        let label = self.label.iter().flat_map(|label| ["-L", label]);
        // Without -f, mkfs.xfs refuses a device that has a part of a file system.
        let force = (kind == DiskType::Xfs && is_again).then_some("-f");
        let made = system.host.run_checked(&program.args(label).args(force).arg(device.node.as_str()));
        // A mkfs that has written nothing leaves a blank device: what others write to it later is not ours.
        let is_blank = || matches!(DeviceContent::read(&system.host, device), Ok(DeviceContent::Blank));
        if made.is_ok() || is_blank() {
            MakingNote::remove(system, device)?;
        }
        made.map(drop)
    }
}

/// What a run has to do to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToDo {
    /// Nothing: the file system is there.
    Nothing,
    /// Remove the note of an earlier run: the file system is complete.
    Note,
    /// Make the file system: the device is blank.
    Make,
    /// Make it again: an earlier run was cut off.
    MakeAgain,
}

/// Returns a finding if a label cannot be that of a file system.
fn of_label(label: &str, max_bytes: usize) -> Option<Finding> {
    if !is_label(label) {
        let message = format!("`{}` is not a label", label.escape_debug());
        return Some(Finding::new("label", message).hint("use letters, digits, `-`, `.`, `_` and `+`"));
    }
    (label.len() > max_bytes)
        .then(|| Finding::new("label", format!("a label of this type has at most {max_bytes} bytes")))
}
