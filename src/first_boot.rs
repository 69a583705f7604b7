//! The first boot of an instance without cloud-init: what `bake --first-boot agent` puts into an image, and what its units do.
//!
//! Each part is made once for an instance id. A new id, as of an instance made from an image of this one, is a first boot.

mod growth;
mod host_keys;
pub mod image;
mod login;
pub mod resolver;

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

use crate::{
    error::Fault,
    host::{
        ec2,
        root::{Ownership, Root},
        state,
    },
    resource::Kind,
    system::System,
};

/// The script that the unit of user-data runs. systemd makes the directory for root alone, and removes it.
const SCRIPT: &str = "/run/glovo-bootstrap-user-data/script";
const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
const USER_DATA: &str = "/latest/user-data";

/// A part of a first boot that is made once for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OncePart {
    HostKeys,
    SshKey,
    Hostname,
    UserData,
}

impl OncePart {
    /// Returns the state file with the id of the instance for which the part was made. Units that run at the same time make
    /// different parts, so each part has its own file.
    fn note(self) -> &'static str {
        match self {
            Self::HostKeys => "first-boot-host-keys.json",
            Self::SshKey => "first-boot-ssh-key.json",
            Self::Hostname => "first-boot-hostname.json",
            Self::UserData => "first-boot-user-data.json",
        }
    }

    /// Returns whether the part was made for an instance. Another one, whose image this is, does not count.
    fn is_made(self, root: &Root, instance: &str) -> bool {
        state::read::<String>(root, self.note()).is_some_and(|made| made == instance)
    }

    /// Makes the part, unless it was made before.
    fn once(self, root: &Root, instance: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_made(root, instance) {
            return Ok(());
        }
        make()?;
        state::write(root, self.note(), &instance)
    }
}

/// What a step of the image declares, so that the set-up leaves it as it is.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct KeptSettings {
    /// Leave the host name as it is, because a step of the image declares it.
    #[arg(long = "keep-hostname")]
    pub hostname: bool,
    /// Leave /etc/resolv.conf as it is, because a step of the image declares it.
    #[arg(long = "keep-resolv-conf")]
    pub resolv_conf: bool,
}

impl KeptSettings {
    /// Returns the arguments that say so.
    fn arguments(self) -> String {
        let arguments = [(self.hostname, " --keep-hostname"), (self.resolv_conf, " --keep-resolv-conf")];
        arguments.map(|(applies, argument)| if applies { argument } else { "" }).concat()
    }
}

/// Sets up what services and logins wait for, and returns what failed: a part that fails does not keep the others from being
/// made. The answer of the metadata service shows that the network is up.
///
/// `tell` gets each change.
pub fn set_up(system: &System, login_user: &str, kept: KeptSettings, tell: &dyn Fn(&str)) -> Vec<anyhow::Error> {
    let root = system.root();
    let mut faults = vec![];
    let mut attempt = |made: Result<()>| faults.extend(made.err());
    match instance_id(system) {
        Ok(id) => {
            attempt(OncePart::SshKey.once(root, &id, || login::authorize(system, login_user, tell)));
            if !kept.hostname {
                attempt(OncePart::Hostname.once(root, &id, || login::name(system, tell)));
            }
        }
        Err(error) => attempt(Err(error)),
    }
    if !kept.resolv_conf {
        attempt(resolver::write(root, tell));
    }
    faults
}

/// Makes the host keys of this instance's sshd, once. Without an answer to whose keys those of the disk are, it makes only
/// those that are missing, so that a login is possible.
///
/// # Errors
/// If the keys cannot be made, or the metadata service gives no answer.
pub fn make_host_keys(system: &System, tell: &dyn Fn(&str)) -> Result<()> {
    // The firmware of Nitro instances has the id, so that their keys do not wait for the network.
    match ec2::instance_id().map_or_else(|| instance_id(system), Ok) {
        Ok(id) => OncePart::HostKeys.once(system.root(), &id, || host_keys::renew(&system.host, tell)),
        Err(error) => Err(match host_keys::make_missing(&system.host) {
            Ok(()) => error,
            Err(also) => also.context(format!("{error:#}")),
        }),
    }
}

/// Grows the root partition and its file system to the size of the volume.
///
/// # Errors
/// If a program of the growth fails.
pub fn grow(system: &System, tell: &dyn Fn(&str)) -> Result<()> {
    growth::grow(&system.host, tell)
}

/// Writes the script of this instance's user-data for its unit: `read` takes it from the user-data. If there is none, or
/// an earlier boot of this instance has begun to run it, the script is empty; `tell` gets the reason.
///
/// # Errors
/// Those of `read`, and if the metadata service gives no answer.
pub fn prepare_user_data(
    system: &System,
    read: impl FnOnce(&str) -> Result<String>,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let root = system.root();
    let owner = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o600 };
    let write = |script: &str| root.write(&SCRIPT.into(), owner, script.as_bytes());
    let id = instance_id(system)?;
    write("")?;
    if OncePart::UserData.is_made(root, &id) {
        tell(&format!(
            "nothing to run: {id} has begun to run its user-data before; the same by hand: glovo-bootstrap run"
        ));
        return Ok(());
    }
    let Some(text) = system.aws.metadata(&system.host, USER_DATA).context("reading this instance's user-data")? else {
        tell(&format!("nothing to run: {id} has no user-data"));
        return Ok(());
    };
    let script = read(&text)?;
    // Noted before it runs, as cloud-init does: user-data that reboots the machine does not run again.
    OncePart::UserData.once(root, &id, || write(&script))
}

fn instance_id(system: &System) -> Result<String> {
    let id = system.aws.metadata(&system.host, INSTANCE_ID).context("reading this instance's id")?;
    Ok(id.ok_or_else(|| Fault::new("the metadata service does not say the id of this instance"))?)
}

/// Makes the changes that a resource needs.
fn ensure<K: Kind>(system: &System, declaration: toml::Table, tell: &dyn Fn(&str)) -> Result<()> {
    let resource: K = declaration.try_into()?;
    for change in resource.plan(system)? {
        if let Some(action) = change.action {
            tell(&format!("{} {}: {}", K::NAME, resource.title(), change.summary));
            let made = action(system);
            system.forget();
            made.with_context(|| format!("{} {}", K::NAME, resource.title()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn a_part_is_made_once_for_an_instance() {
        let tree = Scratch::new();
        let root = Root::open(tree.path()).unwrap();
        let made = |id: &str, part| {
            let mut is_made = false;
            let make = || {
                is_made = true;
                Ok(())
            };
            OncePart::once(part, &root, id, make).unwrap();
            is_made
        };
        assert!(made("i-1", OncePart::HostKeys) && made("i-1", OncePart::Hostname));
        assert!(!made("i-1", OncePart::HostKeys) && !made("i-1", OncePart::Hostname));
        assert!(made("i-2", OncePart::HostKeys), "a machine made from an image of the first one");
        assert!(!made("i-2", OncePart::HostKeys));
    }

    #[test]
    fn a_part_that_failed_is_made_at_the_next_boot() {
        let tree = Scratch::new();
        let root = Root::open(tree.path()).unwrap();
        let failed = OncePart::SshKey.once(&root, "i-1", || anyhow::bail!("no answer"));
        assert!(failed.is_err());
        assert!(!OncePart::SshKey.is_made(&root, "i-1"));
    }
}
