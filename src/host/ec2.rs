//! Whether this machine is an EC2 instance, and which one, as its firmware says. A metadata service that somebody else
//! on the network puts at EC2's address would be asked by root for credentials, manifest and values: only the firmware
//! tells whether EC2 is behind that address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crate::{
    environment::{self, METADATA_ENDPOINT, TRUST_METADATA},
    error::Fault,
};

/// Where EC2 puts the service.
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
/// The socket of systemd's own metadata service.
const IMDSD: &str = "/run/systemd/io.systemd.InstanceMetadata";
/// Where the kernel shows what the firmware says.
const SYS: &str = "/sys";

/// Whether the firmware says that this is an EC2 instance.
pub fn is_instance() -> bool {
    is_instance_by(Path::new(SYS))
}

/// The instance's id, which Nitro has in its firmware; `None` on Xen and elsewhere.
pub fn instance_id() -> Option<String> {
    Some(dmi(Path::new(SYS), "board_asset_tag")).filter(|tag| is_instance() && tag.starts_with("i-"))
}

/// The system's UUID, which every virtual machine has its own of; empty where it can't be read.
pub fn system_uuid() -> String {
    dmi(Path::new(SYS), "product_uuid")
}

/// Whether the metadata service at this address is not to be asked: EC2's address, on a machine that is no instance.
pub fn is_untrusted(address: IpAddr) -> bool {
    let is_told = environment::is_on(TRUST_METADATA) || environment::is_on(METADATA_ENDPOINT);
    ADDRESSES.contains(&address) && !is_told && !is_instance()
}

/// Whether systemd has a metadata service of its own, which by default lets no other program ask EC2's.
/// <https://www.freedesktop.org/software/systemd/man/devel/systemd-imdsd.html>
pub fn has_imdsd() -> bool {
    std::fs::exists(IMDSD).unwrap_or_default()
}

const UNTRUSTED: &str =
    "the instance metadata service is not asked: by its firmware (DMI) this machine is no EC2 instance";

/// Whether an error is that the metadata service is not asked.
pub fn is_untrusted_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string() == UNTRUSTED)
}

/// That the metadata service is not asked, and how to have it asked all the same.
pub fn untrusted() -> Fault {
    Fault::new(UNTRUSTED).hint(format!(
        "give credentials in the environment or ~/.aws, and values as variables of your own; or, where the network \
             is trusted to have one: {TRUST_METADATA}=1"
    ))
}

/// Nitro names the vendor, Xen has a BIOS version of Amazon's and identifiers that begin with `ec2`.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html>, and cloud-init's ds-identify, which
/// demands of the firmware's UUID, other than of the hypervisor's, that the serial number is one too.
fn is_instance_by(sys: &Path) -> bool {
    let is_amazon = |name| dmi(sys, name) == "amazon ec2";
    is_amazon("sys_vendor")
        || is_amazon("board_vendor")
        || dmi(sys, "bios_version").ends_with(".amazon")
        || is_ec2_uuid(&read(&sys.join("hypervisor/uuid")))
        || ["product_uuid", "product_serial"].into_iter().all(|name| is_ec2_uuid(&dmi(sys, name)))
}

/// Whether a UUID begins with `ec2`, in either byte order: SMBIOS 2.4 turned the first field around.
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
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use super::*;

    fn is_instance_with(said: &[(&str, &str)]) -> bool {
        let sys = nix::unistd::mkdtemp(&std::env::temp_dir().join("dmi-XXXXXX")).unwrap();
        for (name, value) in said {
            let path = if name.contains('/') { sys.join(name) } else { sys.join("class/dmi/id").join(name) };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        }
        let is = is_instance_by(&sys);
        std::fs::remove_dir_all(sys).unwrap();
        is
    }

    #[test]
    fn an_instance_is_known_by_its_firmware() {
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
    fn only_the_address_of_ec2_is_in_question() {
        for address in ["127.0.0.1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"] {
            assert!(!is_untrusted(address.parse().unwrap()), "{address}");
        }
    }
}
