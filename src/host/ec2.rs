//! The identification of EC2 instances by their firmware.
//!
//! Root asks the metadata service for credentials, the manifest and values. Outside EC2, another machine on the network
//! could answer at EC2's address. Only the firmware shows whether EC2 is behind that address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crate::{
    environment::{self, METADATA_ENDPOINT, TRUST_METADATA},
    error::Fault,
};

/// The addresses of EC2's metadata service.
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
/// The socket of systemd's own metadata service.
const IMDSD: &str = "/run/systemd/io.systemd.InstanceMetadata";
/// The directory in which the kernel shows the firmware's values.
const SYS: &str = "/sys";

/// Returns whether the firmware says that this is an EC2 instance.
pub fn is_instance() -> bool {
    is_instance_by(Path::new(SYS))
}

/// Returns the instance id. Only the firmware of Nitro instances has it.
pub fn instance_id() -> Option<String> {
    Some(dmi(Path::new(SYS), "board_asset_tag")).filter(|tag| is_instance() && tag.starts_with("i-"))
}

/// Returns the UUID of the virtual machine; empty if it cannot be read.
pub fn system_uuid() -> String {
    dmi(Path::new(SYS), "product_uuid")
}

/// Returns whether an address is EC2's metadata service, but this machine is not an EC2 instance.
pub fn is_untrusted(address: IpAddr) -> bool {
    let is_told = environment::is_on(TRUST_METADATA) || environment::is_on(METADATA_ENDPOINT);
    ADDRESSES.contains(&address) && !is_told && !is_instance()
}

/// Returns whether systemd has a metadata service of its own. By default it blocks other programs from EC2's.
///
/// <https://www.freedesktop.org/software/systemd/man/devel/systemd-imdsd.html>
pub fn has_imdsd() -> bool {
    std::fs::exists(IMDSD).unwrap_or_default()
}

const UNTRUSTED: &str = "not asking for instance metadata: the firmware (DMI) does not say EC2";

/// Returns whether an error says that the metadata service was not asked.
pub fn is_untrusted_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string() == UNTRUSTED)
}

/// Returns the fault for a metadata service that is not asked.
pub fn untrusted() -> Fault {
    Fault::new(UNTRUSTED).hint(format!(
        "set credentials in the environment or in ~/.aws, and values as your own variables; or, if you trust the \
             network's metadata service: export {TRUST_METADATA}=1"
    ))
}

/// Returns whether the values in `/sys` are those of an EC2 instance.
///
/// Nitro has Amazon as the vendor. Xen has an Amazon BIOS version and identifiers that begin with `ec2`. As in
/// cloud-init's ds-identify, the firmware's UUID counts only if the serial number begins with `ec2` too.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html>
fn is_instance_by(sys: &Path) -> bool {
    let is_amazon = |name| dmi(sys, name) == "amazon ec2";
    is_amazon("sys_vendor")
        || is_amazon("board_vendor")
        || dmi(sys, "bios_version").ends_with(".amazon")
        || is_ec2_uuid(&read(&sys.join("hypervisor/uuid")))
        || ["product_uuid", "product_serial"].into_iter().all(|name| is_ec2_uuid(&dmi(sys, name)))
}

/// Returns whether a UUID begins with `ec2` in either byte order. SMBIOS 2.4 reversed the bytes of the first field.
fn is_ec2_uuid(uuid: &str) -> bool {
    uuid.starts_with("ec2") || (uuid.get(4..5) == Some("2") && uuid.get(6..8) == Some("ec"))
}

fn dmi(sys: &Path, name: &str) -> String {
    read(&sys.join("class/dmi/id").join(name))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    fn is_instance_with(said: &[(&str, &str)]) -> bool {
        let sys = Scratch::new();
        for (name, value) in said {
            let path = if name.contains('/') { (*name).to_owned() } else { format!("class/dmi/id/{name}") };
            sys.write(&path, format!("{value}\n"));
        }
        is_instance_by(sys.path())
    }

    #[test]
    fn an_instance_is_recognized_by_its_firmware() {
        let uuid = "ec2e1916-9099-7caf-fd21-012345abcdef";
        for said in [
            &[("sys_vendor", "Amazon EC2")][..],
            &[("sys_vendor", "Xen"), ("bios_version", "4.11.amazon")],
            &[("hypervisor/uuid", uuid)],
            &[("product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF"), ("product_serial", uuid)],
            &[("product_uuid", "45E12AEC-DCD1-B213-94ED-012345ABCDEF"), ("product_serial", uuid)],
        ] {
            assert!(is_instance_with(said), "{said:?}");
        }
        for said in [
            &[][..],
            &[("sys_vendor", "QEMU"), ("product_uuid", "6b8e5a52-8b3f-4a63-9c3c-1f1f1f1f1f1f")],
            &[("sys_vendor", "Microsoft Corporation"), ("bios_version", "amazon")],
            // One in 4096 machines has such a UUID by chance.
            &[("product_uuid", uuid), ("product_serial", "0000-0008-7601")],
            &[("hypervisor/uuid", "0ec21916-9099-7caf-fd21-012345abcdef")],
        ] {
            assert!(!is_instance_with(said), "{said:?}");
        }
    }

    #[test]
    fn addresses_other_than_ec2s_are_trusted() {
        for address in ["127.0.0.1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"] {
            assert!(!is_untrusted(address.parse().unwrap()), "{address}");
        }
    }
}
