//! Facts about the machine, such as `host.architecture`, and its identity.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use super::{Host, ec2, root::Root};
use crate::{
    environment,
    error::Fault,
    value::{Sha256, distribution::family_of},
};

/// The names of the facts.
pub const FACTS: [&str; 8] =
    ["architecture", "debian_architecture", "distribution", "family", "version", "codename", "memory", "hostname"];
/// The facts that differ between the instances of one image.
pub const FACTS_OF_EACH_INSTANCE: [&str; 2] = ["memory", "hostname"];
/// The values of the facts that have the same ones on all machines.
const CLOSED: [(&str, [&str; 2]); 2] =
    [("host.architecture", ["x86_64", "aarch64"]), ("host.debian_architecture", ["amd64", "arm64"])];
/// Returns the hint for a value that a fact has on no machine; `None` if it may have it.
pub fn impossible(fact: &str, value: &str) -> Option<String> {
    if let Some((_, values)) = CLOSED.iter().find(|(name, values)| *name == fact && !values.contains(&value)) {
        return Some(format!("write `{}`", values.join("` or `")));
    }
    let family = family_of(value).filter(|family| fact == "host.family" && *family != value)?;
    Some(format!("write \"host.family\" = \"{family}\", or \"host.distribution\" = \"{value}\""))
}

impl Host {
    /// Returns a fact, such as `codename`. With an image's tree, the facts of os-release(5) are the image's.
    pub fn fact(&self, name: &str) -> Result<String> {
        match name {
            "architecture" => Ok(std::env::consts::ARCH.into()),
            // https://www.debian.org/ports/
            "debian_architecture" => Ok(match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .into()),
            "distribution" => os_release(self.root(), "ID"),
            "family" => self.family(),
            "version" => os_release(self.root(), "VERSION_ID"),
            "codename" => os_release(self.root(), "VERSION_CODENAME"),
            "memory" => Ok(self.memory()?.to_string()),
            "hostname" => {
                let name = nix::unistd::gethostname().context("asking for the host name")?;
                name.into_string().map_err(|_| anyhow::anyhow!("the host name is not UTF-8"))
            }
            _ => bail!("host.{name} does not exist"),
        }
    }

    /// Fails if this process cannot give the kernel a host name.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, sethostname(2), which many containers lack.
    pub fn check_sets_hostname(&self) -> Result<()> {
        match capabilities(None) {
            Ok(sets) if !sets.effective.contains(CapabilitySet::SYS_ADMIN) => {
                Err(hostname_not_set(Errno::EPERM).into())
            }
            _ => Ok(()),
        }
    }

    /// Gives the kernel a host name.
    pub fn set_hostname(&self, name: &str) -> Result<()> {
        nix::unistd::sethostname(name).map_err(|errno| hostname_not_set(errno).into())
    }

    /// Returns the distribution's family. A distribution that derives from none is its own.
    fn family(&self) -> Result<String> {
        let distribution = os_release(self.root(), "ID")?;
        // Debian and Fedora derive from none.
        let ancestors = os_release(self.root(), "ID_LIKE").unwrap_or_default();
        let mut ids = std::iter::once(&*distribution).chain(ancestors.split_whitespace());
        Ok(ids.find_map(family_of).unwrap_or(&distribution).to_owned())
    }

    /// Returns an identifier of this machine. A machine made from an image of its disk has another one.
    ///
    /// It is the id of the EC2 instance, or else a digest of the UUID and the machine-id(5), which are confidential.
    /// Returns `None` if the machine has neither, and `image` for an image's tree.
    pub fn identity(&self) -> Option<String> {
        struct MachineIdentity(Option<String>);
        let identity = self.read_once(|root| {
            if !root.is_host() {
                return Ok(MachineIdentity(Some("image".into())));
            }
            Ok(MachineIdentity(ec2::instance_id().or_else(|| {
                let machine_id = root.read_text(&"/etc/machine-id".into()).unwrap_or_default();
                let ids = [ec2::system_uuid(), machine_id.trim().to_owned()];
                let is_known = ids.iter().any(|id| !matches!(id.as_str(), "" | "uninitialized"));
                is_known.then(|| Sha256::of(ids.join(" ").as_bytes()).to_string()[..32].to_owned())
            })))
        });
        identity.ok()?.0.clone()
    }

    /// Returns the identity from what every user may read: the id of the EC2 instance, else a digest of the machine-id(5).
    pub fn public_identity(&self) -> Option<String> {
        if !self.root().is_host() {
            return Some("image".into());
        }
        ec2::instance_id().or_else(|| {
            let machine_id = self.root().read_text(&"/etc/machine-id".into()).unwrap_or_default();
            let is_known = !matches!(machine_id.trim(), "" | "uninitialized");
            is_known.then(|| Sha256::of(machine_id.trim().as_bytes()).to_string()[..32].to_owned())
        })
    }

    /// Returns the machine's memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let meminfo = self.root().read_text(&"/proc/meminfo".into())?;
        let total =
            meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal in /proc/meminfo")?;
        let kibibytes: u64 = total.trim().trim_end_matches("kB").trim().parse().context("MemTotal in /proc/meminfo")?;
        Ok(kibibytes * 1024)
    }
}

fn hostname_not_set(errno: Errno) -> Fault {
    let fault = Fault::new("the kernel's host name cannot be set").caused_by(errno);
    fault.hint("run as root; for a container, set the name from outside")
}

/// Returns a field of os-release(5).
fn os_release(root: &Root, field: &str) -> Result<String> {
    let path = root.resolve(&"/etc/os-release".into())?;
    let text = root.read_text(&path)?;
    let value = text.lines().find_map(|line| line.split_once('=').filter(|(name, _)| *name == field));
    let (_, value) = value.with_context(|| format!("no {field} in {path}"))?;
    Ok(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// Returns the id of the current boot, `proc_sys_kernel(5)`; empty if the kernel has none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns the name servers of resolv.conf(5), for messages.
pub fn name_servers() -> String {
    let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    // A comment may be in any encoding.
    let text = String::from_utf8_lossy(&text);
    let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    if servers.is_empty() { "none".into() } else { servers.join(", ") }
}

/// Returns whether standard error is connected to the journal (systemd.exec(5), `$JOURNAL_STREAM`).
///
/// The variable alone is no proof: children with redirected output inherit it.
pub fn is_stderr_the_journal() -> bool {
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr()) else { return false };
    environment::value(environment::JOURNAL_STREAM)
        .is_some_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
