//! The names of block devices in a manifest, and the devices that have them on this machine.

use std::{cell::RefCell, fmt, time::Duration};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fact, Mode, System, wait::CheckDeadline};
use crate::{
    error::Fault,
    host::{
        command::{Finished, Program},
        disks::{BlockDevice, NvmeDisk},
    },
    value::{AbsPath, quoted, spoken},
};

/// The models of EC2's NVMe disks.
const EBS_MODEL: &str = "Amazon Elastic Block Store";
const INSTANCE_STORE_MODEL: &str = "Amazon EC2 NVMe Instance Storage";
/// The bytes of a device's name in the identity of its controller, which ends with spaces or zeros.
const NAME_BYTES: usize = 32;

/// The name of a block device: a path, or what EC2 calls it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum DeviceName {
    /// A path below `/dev`.
    Path(AbsPath),
    /// `label:NAME`: the device whose file system has this label.
    Label(String),
    /// `ebs:/dev/sdf`: the EBS volume that was attached under this name.
    EbsName(AbsPath),
    /// `ebs:vol-0123456789abcdef0`: the EBS volume with this id.
    EbsVolume(String),
    /// `instance-store:0`: the disk of the instance with this number.
    InstanceStore(usize),
}

impl TryFrom<String> for DeviceName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        const FORMS: &str = "a path below /dev, `label:NAME`, `ebs:/dev/sdf`, `ebs:vol-…` or `instance-store:0`";
        let is_node = |path: &AbsPath| path.as_str().starts_with("/dev/") && !path.as_str().contains(is_of_syntax);
        if text.starts_with('/') {
            let path: AbsPath = text.parse()?;
            ensure!(is_node(&path), "`{path}` is not the name of a device: use {FORMS}");
            return Ok(Self::Path(path));
        }
        let hexadecimal =
            |id: &str| id.len() >= 8 && id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        match text.split_once(':') {
            Some(("label", label)) if is_label(label) => Ok(Self::Label(label.into())),
            Some(("ebs", id)) if id.strip_prefix("vol-").is_some_and(hexadecimal) => Ok(Self::EbsVolume(id.into())),
            Some(("ebs", name)) if name.parse().is_ok_and(|name| is_node(&name)) => Ok(Self::EbsName(name.parse()?)),
            Some(("instance-store", number)) if number.len() < 3 && number.parse::<u8>().is_ok() => {
                Ok(Self::InstanceStore(number.parse()?))
            }
            _ => bail!("`{}` is not the name of a device: use {FORMS}", text.escape_debug()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::EbsName(name) => write!(f, "ebs:{name}"),
            Self::EbsVolume(id) => write!(f, "ebs:{id}"),
            Self::InstanceStore(number) => write!(f, "instance-store:{number}"),
        }
    }
}

/// Returns whether a character has a meaning in a unit file, or separates words there.
pub fn is_of_syntax(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'\\%".contains(c)
}

/// Returns whether a label has no character that udev writes in another way.
pub fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() < 128 && label.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
}

/// A device on this machine, found by its name.
#[derive(Debug, Clone)]
pub struct FoundDevice {
    /// The device.
    pub device: BlockDevice,
    /// A path that leads to it also after a reboot.
    pub lasting: AbsPath,
}

impl DeviceName {
    /// Returns the path that leads to the device after each boot, if it is known without the machine.
    pub fn lasting_path(&self) -> Option<AbsPath> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Label(label) => AbsPath::from("/dev/disk/by-label").join(label).ok(),
            Self::EbsName(_) | Self::EbsVolume(_) | Self::InstanceStore(_) => None,
        }
    }

    /// Returns the device with this name; `None` if the machine does not have it now.
    pub fn find(&self, system: &System) -> Result<Option<FoundDevice>> {
        let at = |path: AbsPath| {
            let device = system.host.block_device(&path)?;
            Ok(device.map(|device| FoundDevice { device, lasting: path }))
        };
        match self {
            Self::Path(path) => at(path.clone()),
            Self::Label(_) => self.lasting_path().map_or(Ok(None), at),
            Self::EbsName(name) => find_ebs_name(system, name),
            Self::EbsVolume(id) => {
                let serial = id.replacen('-', "", 1);
                nvme(system, system.host.nvme_disks(EBS_MODEL)?.into_iter().find(|disk| disk.serial == serial))
            }
            Self::InstanceStore(number) => {
                nvme(system, system.host.nvme_disks(INSTANCE_STORE_MODEL)?.into_iter().nth(*number))
            }
        }
    }

    /// Waits until the machine has the device.
    pub fn wait(&self, system: &System, wait: CheckDeadline, limit: Duration) -> Result<FoundDevice> {
        const MISSING: &str = "the device is not attached";
        // A name that cannot be looked up is no reason to wait.
        let failure = RefCell::new(None);
        let ask = |system: &System, _| match self.find(system) {
            Ok(None) => Some(MISSING),
            Ok(Some(_)) => None,
            Err(error) => {
                _ = failure.replace(Some(error));
                None
            }
        };
        let missing = wait.until_right(system, &self.to_string(), MISSING, ask)?;
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        match (missing, self.find(system)?) {
            (None, Some(found)) => Ok(found),
            _ => Err(Fault::new(format!("the device {self} was not attached within {}", spoken(limit)))
                .hint(format!(
                    "attach it, or correct its name; list the devices: {}; then run again: {}",
                    "lsblk --output NAME,SIZE,MODEL,SERIAL,LABEL",
                    system.host.run_command()
                ))
                .transient()
                .into()),
        }
    }
}

fn nvme(system: &System, disk: Option<NvmeDisk>) -> Result<Option<FoundDevice>> {
    let Some(disk) = disk else { return Ok(None) };
    let device = system.host.block_device(&AbsPath::from("/dev").join(&disk.name)?)?;
    device.map(|device| Ok(FoundDevice { device, lasting: disk.link()? })).transpose()
}

/// Returns the volume that EBS attached under a name.
///
/// The udev rules of amazon-ec2-utils make a link with this name. Without it, the name is read from the identity of each
/// EBS volume's controller. Xen's devices have it as their own, with `xvd` for `sd`.
fn find_ebs_name(system: &System, name: &AbsPath) -> Result<Option<FoundDevice>> {
    let disks = system.host.nvme_disks(EBS_MODEL)?;
    let xen = AbsPath::from("/dev").join(&name.leaf().replacen("sd", "xvd", 1))?;
    for path in [name, &xen] {
        let Some(device) = system.host.block_device(path)? else { continue };
        if let Some(disk) = disks.iter().find(|disk| disk.name == device.node.leaf()) {
            return nvme(system, Some(disk.clone()));
        }
        if device.node.leaf().starts_with("xvd") {
            let lasting = device.node.clone();
            return Ok(Some(FoundDevice { device, lasting }));
        }
    }
    if disks.is_empty() {
        return Ok(None);
    }
    let reader = ["ebsnvme-id", "nvme"].into_iter().find(|program| system.host.has_program(program));
    let Some(reader) = reader else {
        if system.mode() == Mode::Plan && system.expects(&Fact::Packages) {
            return Ok(None);
        }
        return Err(Fault::new(format!("no program can read which EBS volume is {name}"))
            .hint(
                "declare one that can before it: kind = \"package\", names = [\"amazon-ec2-utils\"] or [\"nvme-cli\"]; or \
                 name the volume by its id: ebs:vol-…",
            )
            .into());
    };
    for disk in disks {
        let node = format!("/dev/{}", disk.name);
        let arguments: &[&str] = if reader == "nvme" { &["id-ctrl", "--vendor-specific"] } else { &["-u"] };
        let read = system.host.run(&Program::new([reader]).args(arguments.iter().copied()).arg(&node))?;
        let read = attached_as(reader, &read);
        if read.is_some_and(|read| is_same_name(&read, name)) {
            return nvme(system, Some(disk));
        }
    }
    Ok(None)
}

/// Returns the name that a program has read from a controller: `sdf` or `/dev/sdf`.
fn attached_as(reader: &str, finished: &Finished) -> Option<String> {
    if !finished.status.success() {
        return None;
    }
    let name = if reader == "nvme" { vendor_name(&finished.stdout)? } else { finished.stdout.trim().to_owned() };
    (!name.is_empty()).then_some(name)
}

/// Returns the name at the start of the vendor's area, which `nvme` prints in lines of 16 bytes: `0000: 73 64 66 …`.
fn vendor_name(printed: &str) -> Option<String> {
    let line = |offset: &str| -> Option<Vec<u8>> {
        let line = printed.lines().find_map(|line| line.trim_start().strip_prefix(offset))?;
        line.split_whitespace().take(NAME_BYTES / 2).map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
    };
    let bytes: Vec<u8> = [line("0000:")?, line("0010:")?].concat();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Some(String::from_utf8_lossy(&bytes[..end]).trim().to_owned())
}

/// Returns whether two names of an attachment are the same: `sdf`, `/dev/sdf` and `xvdf` are.
fn is_same_name(read: &str, declared: &AbsPath) -> bool {
    let plain =
        |name: &str| name.trim_start_matches("/dev/").trim_start_matches("xv").trim_start_matches('s').to_owned();
    plain(read) == plain(declared.as_str())
}

/// Returns the commands that show the content of a device.
pub fn to_look_at(device: &BlockDevice) -> String {
    let node = quoted(device.node.as_str());
    format!("lsblk --fs {node}; wipefs --no-act {node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_of_five_kinds_of_names() {
        for name in ["/dev/disk/by-id/x", "label:data", "ebs:/dev/sdf", "ebs:vol-0123456789abcdef0", "instance-store:0"]
        {
            assert_eq!(DeviceName::try_from(name.to_owned()).unwrap().to_string(), name);
        }
        for wrong in [
            "",
            "sdf",
            "/dev",
            "/srv/disk",
            "/dev/../srv/x",
            "/dev/a b",
            "/dev/a%b",
            "label:",
            "label:a b",
            "ebs:",
            "ebs:sdf",
            "ebs:vol-",
            "ebs:vol-0123456g",
            "instance-store:",
            "instance-store:-1",
            "instance-store:100",
            "uuid:1234",
        ] {
            assert!(DeviceName::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_of_an_attachment_is_read_from_the_vendors_area() {
        let printed = "NVME Identify Controller:\nvid : 0x1d0f\nvs[]:\n       0  1  2  3\n\
            0000: 2f 64 65 76 2f 73 64 66 20 20 20 20 20 20 20 20 \"/dev/sdf........\"\n\
            0010: 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 \"................\"\n\
            0020: 00 00 \"..\"\n";
        assert_eq!(vendor_name(printed).as_deref(), Some("/dev/sdf"));
        assert_eq!(vendor_name(&printed.replace("20 20", "00 00")).as_deref(), Some("/dev/sdf"));
        assert_eq!(vendor_name("vs[]:\n0000: 73\n"), None);
        let declared = AbsPath::from("/dev/sdf");
        for (read, same) in
            [("sdf", true), ("/dev/sdf", true), ("xvdf", true), ("sdg", false), ("f", false), ("", false)]
        {
            assert_eq!(is_same_name(read, &declared), same, "{read}");
        }
    }
}
