//! An image's last step: what is this machine's own, and would be every instance's, is taken out.
//!
//! As `cloud-init clean --logs` and EC2 Image Builder's own clean-up do, and AWS asks for of images that are shared.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/building-shared-amis.html>

use anyhow::Result;

use super::credentials::Finding;
use crate::{
    host::{
        Host,
        root::{FileType, Root},
        state,
    },
    resource::file::note,
    value::AbsPath,
};

/// What is removed only if it is asked for.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OnRequest {
    /// With --seal, remove SSH host keys too. cloud-init makes new ones on each instance; without it, sshd has none.
    #[arg(long, requires = "seal")]
    pub host_keys: bool,
    /// With --seal, remove every user's `authorized_keys` too, so that only the key an instance is launched with opens it.
    #[arg(long, requires = "seal")]
    pub authorized_keys: bool,
}

/// When something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    HostKeys,
    AuthorizedKeys,
}

/// Where authorized keys are.
const AUTHORIZED_KEYS: &str = "~/.ssh/authorized_keys*";

/// What is removed: patterns of [`Root::matching`] and what they are of.
///
/// Of our own state, the notes on where files came from stay: the files are in the image, and with the notes the boot
/// need not fetch them again. Of cloud-init's, `seed` and `scripts` stay: somebody has put them there.
const REMOVED: &[(When, &str, &[&str])] = &[
    (When::Always, "what a service was started with on this machine", &["/var/lib/glovo-bootstrap/service-*.json"]),
    (When::Always, "what a run of this machine has changed", &["/var/lib/glovo-bootstrap/previous.json"]),
    (When::Always, "what this machine's user-data named", &["/var/lib/glovo-bootstrap/manifest.json"]),
    (When::Always, "what this machine's last apt-get update lacked", &["/var/lib/glovo-bootstrap/apt-update.json"]),
    (When::Always, "D-Bus has the machine-id", &["/var/lib/dbus/machine-id"]),
    (
        When::Always,
        "of cloud-init on this machine, the user-data among it",
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
        "randomness that no two machines may share",
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
    (When::AuthorizedKeys, "opens every instance", &[AUTHORIZED_KEYS]),
];

/// Removes what is this machine's own, and tells each thing before it is done. A second time there is nothing to do.
pub fn seal(host: &Host, on_request: OnRequest, mut tell: impl FnMut(String)) -> Result<()> {
    let root = &host.root().to_inspect();
    for (when, what, patterns) in REMOVED {
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

/// The files that are there though the manifest declares them secrets; our notes on them, which hold their digests, are
/// removed.
pub fn declared_secrets(host: &Host, secrets: &[&AbsPath]) -> Result<Vec<Finding>> {
    let mut found = vec![];
    for path in secrets {
        host.root().remove(&state::path(&note(path))?)?;
        if host.root().status(path)?.is_some() {
            let what = "a secret, as the manifest declares it (--allow does not keep it)";
            found.push(Finding { path: (*path).clone(), line: 1, what });
        }
    }
    Ok(found)
}

/// The files of authorized keys that are left, each with how many it holds: every instance of the image will let these in.
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

/// A history that is kept nowhere, or an identity that is another file's.
fn is_harmless(root: &Root, path: &AbsPath) -> Result<bool> {
    let target = root.read_link(path)?;
    Ok(target.is_some_and(|target| target == "/dev/null" || target.to_string_lossy().ends_with("etc/machine-id")))
}

/// Emptied, not removed and not `uninitialized`: with either, the first boot would be a "first boot" (machine-id(5)), at
/// which systemd enables units by its presets, also those that the image has disabled.
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
