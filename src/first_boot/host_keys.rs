//! The keys by which clients recognize this machine's sshd.

use anyhow::{Context, Result};

use crate::{
    host::{Host, command::Program, console},
    visible::Shown,
};

const KEYS: &str = "/etc/ssh/ssh_host_*_key";
const PUBLIC_KEYS: &str = "/etc/ssh/ssh_host_*_key.pub";

/// Replaces all keys by new ones, and prints their fingerprints on the console. There an operator can compare them:
/// `aws ec2 get-console-output`.
pub(super) fn renew(host: &Host, tell: &dyn Fn(&str)) -> Result<()> {
    for pattern in [KEYS, PUBLIC_KEYS] {
        for path in host.root().matching(pattern)? {
            host.root().remove(&path)?;
        }
    }
    make_missing(host)?;
    let mut fingerprints = String::new();
    for path in host.root().matching(PUBLIC_KEYS)? {
        fingerprints += &host.run_checked(&Program::new(["ssh-keygen", "-l", "-f", path.as_str()]))?.stdout;
    }
    if !fingerprints.is_empty() {
        tell("ssh: make new host keys");
        // The lines around them are those of cloud-init: tools look for them.
        let text = format!(
            "-----BEGIN SSH HOST KEY FINGERPRINTS-----\n{fingerprints}-----END SSH HOST KEY FINGERPRINTS-----\n"
        );
        console::print(Shown::lines(&text).as_str());
    }
    Ok(())
}

/// Makes the keys of the usual types that do not exist. An image without OpenSSH gets none.
pub(super) fn make_missing(host: &Host) -> Result<()> {
    if host.has_program("ssh-keygen") && host.has_program("sshd") {
        _ = host.run_checked(&Program::new(["ssh-keygen", "-A"])).context("making the SSH host keys")?;
    }
    Ok(())
}
