//! An image's last step: removing data that belongs to the build machine, so that no instance inherits it.
//!
//! `cloud-init clean --logs` and EC2 Image Builder's clean-up do the same. AWS requires it of shared images:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/building-shared-amis.html>

use anyhow::Result;

use super::credentials::FoundCredential;
use crate::{
    host::{
        Host,
        root::{FileType, Root},
        state,
    },
    packages::FAMILIES,
    resource::file::note,
    value::AbsPath,
};

/// Options for data that is removed only on request.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OnRequest {
    /// With --seal, remove SSH host keys too. cloud-init, or --first-boot agent, makes new ones on each instance;
    /// otherwise sshd has none.
    #[arg(long, requires = "seal")]
    pub host_keys: bool,
    /// With --seal, remove every user's `authorized_keys` too. Only the key pair of an instance's launch can log in
    /// then.
    #[arg(long, requires = "seal")]
    pub authorized_keys: bool,
}

/// When a path is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    HostKeys,
    AuthorizedKeys,
}

/// The pattern of the files with authorized keys.
const AUTHORIZED_KEYS: &str = "~/.ssh/authorized_keys*";

/// The paths to remove: when, a description, and patterns of [`Root::matching`]. Each package manager adds its own.
///
/// Of this program's state, the notes on the sources of files stay: the image holds the files, and with the notes the
/// boot need not download them again. Of cloud-init's state, `seed` and `scripts` stay, because the image's author puts
/// them there.
const REMOVED: &[(When, &str, &[&str])] = &[
    (When::Always, "the start record of a service on this machine", &["/var/lib/glovo-bootstrap/service-*.json"]),
    (
        When::Always,
        "the note on a file system that this machine was making",
        &["/var/lib/glovo-bootstrap/filesystem-*.json"],
    ),
    (When::Always, "the note on what a killed run waited for", &["/var/lib/glovo-bootstrap/waiting.json"]),
    (When::Always, "the note on a run that did not begin", &["/var/lib/glovo-bootstrap/unbegun.json"]),
    (When::Always, "a copy of a secret, encrypted with this machine's key", &["/var/lib/glovo-bootstrap/credential-*"]),
    (When::Always, "the note on used secret ids of Vault", &["/var/lib/glovo-bootstrap/vault-unwrapped.json"]),
    (
        When::Always,
        "a core dump, with the memory of a program",
        &["/var/lib/systemd/coredump/*", "/var/crash/*", "/var/lib/apport/coredump/*"],
    ),
    (When::Always, "the notes on this instance's first boot", &["/var/lib/glovo-bootstrap/first-boot*.json"]),
    (When::Always, "the note on this machine's reboots", &["/var/lib/glovo-bootstrap/reboot.json"]),
    (When::Always, "the note on this machine's warm pool", &["/var/lib/glovo-bootstrap/warm-pool.json"]),
    (When::Always, "the previous content of files that a run changed", &["/var/lib/glovo-bootstrap/previous.json"]),
    (
        When::Always,
        "the run arguments that this machine's user-data recorded",
        &["/var/lib/glovo-bootstrap/manifest.json"],
    ),
    (When::Always, "the machine-id for D-Bus", &["/var/lib/dbus/machine-id"]),
    (
        When::Always,
        "cloud-init's data of this machine, including user-data",
        &[
            "/var/lib/cloud/instance",
            "/var/lib/cloud/instances",
            "/var/lib/cloud/data",
            "/var/lib/cloud/sem",
            "/var/log/cloud-init*.log*",
        ],
    ),
    (
        When::Always,
        "a random seed that must be unique to a machine",
        &["/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/urandom/random-seed"],
    ),
    (
        When::Always,
        "a DHCP lease",
        &[
            "/var/lib/dhcp/*.lease*",
            "/var/lib/dhclient/*.lease*",
            "/var/lib/dhcpcd/*.lease*",
            "/var/lib/NetworkManager/*.lease",
        ],
    ),
    (When::Always, "a shell's history", &["~/.*_history"]),
    (When::HostKeys, "an SSH host key", &["/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub"]),
    (When::AuthorizedKeys, "keys that could log in to every instance", &[AUTHORIZED_KEYS]),
];

/// Removes the data of this machine, and reports each path to `tell`. A second call finds nothing to remove.
pub fn seal(host: &Host, on_request: OnRequest, mut tell: impl FnMut(String)) -> Result<()> {
    let root = &host.root().to_inspect();
    let of_packages = FAMILIES.iter().flat_map(|family| family.traces().of_machine);
    let of_packages = of_packages.map(|(what, patterns)| (When::Always, *what, *patterns));
    for (when, what, patterns) in REMOVED.iter().copied().chain(of_packages) {
        let asked = match when {
            When::Always => true,
            When::HostKeys => on_request.host_keys,
            When::AuthorizedKeys => on_request.authorized_keys,
        };
        for pattern in patterns.iter().filter(|_| asked) {
            for path in root.matching(pattern)? {
                host.stop.check()?;
                if !is_harmless(root, &path)? && root.purge(&path)? {
                    tell(format!("remove {path} ({what})"));
                }
            }
        }
    }
    empty_machine_id(root, tell)?;
    host.forget();
    Ok(())
}

/// Returns the secret files of the manifest that exist. Removes this program's notes on them, which hold their digests.
pub fn declared_secrets(host: &Host, secrets: &[&AbsPath]) -> Result<Vec<FoundCredential>> {
    let mut found = vec![];
    for path in secrets {
        host.root().remove(&state::path(&note(path))?)?;
        if host.root().status(path)?.is_some() {
            let what = "a secret, as the manifest declares it (--allow does not keep it)";
            found.push(FoundCredential { path: (*path).clone(), line: 1, what });
        }
    }
    Ok(found)
}

/// Returns the files with which the manifest logs in to Vault, where they exist. Each instance must get its own.
pub fn logins(host: &Host, files: Vec<AbsPath>) -> Result<Vec<FoundCredential>> {
    let mut found = vec![];
    for path in files {
        if host.root().status(&path)?.is_some() {
            found.push(FoundCredential { path, line: 1, what: "a login to Vault, as the manifest names it" });
        }
    }
    Ok(found)
}

/// Returns the remaining files of authorized keys, each with its number of keys. Every instance will accept these keys.
pub fn authorized_keys(host: &Host) -> Result<Vec<(AbsPath, usize)>> {
    let mut left = vec![];
    let root = host.root().to_inspect();
    for path in root.matching(AUTHORIZED_KEYS)? {
        let text = root.read(&path, 1 << 20).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        if keys > 0 {
            left.push((path, keys));
        }
    }
    Ok(left)
}

/// Returns whether a path is a link to `/dev/null` (a disabled history) or to `etc/machine-id`.
fn is_harmless(root: &Root, path: &AbsPath) -> Result<bool> {
    let target = root.read_link(path)?;
    Ok(target.is_some_and(|target| target == "/dev/null" || target.to_string_lossy().ends_with("etc/machine-id")))
}

/// Empties `/etc/machine-id`.
///
/// The file is not removed, and does not get `uninitialized`. After either, systemd would treat the boot as a first
/// boot (machine-id(5)) and enable units by its presets, including units that the image has disabled.
fn empty_machine_id(root: &Root, mut tell: impl FnMut(String)) -> Result<()> {
    let path = AbsPath::from("/etc/machine-id");
    let Some(status) = root.status(&path)?.filter(|status| status.file_type == FileType::Regular) else {
        return Ok(());
    };
    if matches!(root.read_text(&path)?.trim(), "" | "uninitialized") {
        return Ok(());
    }
    tell(format!("empty {path} (each instance makes its own)"));
    root.write(&path, status.ownership, b"")
}
