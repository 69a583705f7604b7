//! The first boot of an instance without cloud-init: what `bake --first-boot agent` puts into an image, and what its units do.
//!
//! Each part is made once for an instance id. A new id, as of an instance made from an image of this one, is a first boot.

mod growth;
mod host_keys;
pub mod image;
mod login;
mod resolver;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

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

/// The state file of the parts that were made.
const NOTE: &str = "first-boot.json";
/// The script that the unit of user-data runs. systemd makes the directory for root alone, and removes it.
const SCRIPT: &str = "/run/glovo-bootstrap-user-data/script";
const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
const USER_DATA: &str = "/latest/user-data";

/// A part of a first boot that is made once for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OncePart {
    HostKeys,
    SshKey,
    Hostname,
    UserData,
}

/// The parts that were made for an instance.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PartsMade {
    instance: String,
    parts: BTreeSet<OncePart>,
}

impl PartsMade {
    /// Reads those of an instance. Those of another one, whose image this is, do not count.
    fn of(root: &Root, instance: &str) -> Self {
        let made = state::read(root, NOTE).filter(|made: &Self| made.instance == instance);
        made.unwrap_or_else(|| Self { instance: instance.to_owned(), parts: BTreeSet::new() })
    }

    /// Makes a part, unless it was made before.
    fn once(&mut self, root: &Root, part: OncePart, make: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.parts.contains(&part) {
            return Ok(());
        }
        make()?;
        _ = self.parts.insert(part);
        state::write(root, NOTE, self)
    }
}

/// Sets up this instance, and returns what failed: a part that fails does not keep the others from being made.
///
/// The host keys come first, then the key of the launch: with these, an operator can log in and look. `tell` gets each
/// change. `keep_resolv_conf` leaves the name servers to a step that declares them.
pub fn set_up(system: &System, login_user: &str, keep_resolv_conf: bool, tell: &dyn Fn(&str)) -> Vec<anyhow::Error> {
    let (host, root) = (&system.host, system.root());
    let mut faults = vec![];
    let mut attempt = |made: Result<()>| faults.extend(made.err());
    let host_keys = |id: &str| PartsMade::of(root, id).once(root, OncePart::HostKeys, || host_keys::renew(host, tell));
    // The firmware of Nitro instances has the id, so that their keys do not wait for the network.
    if let Some(id) = ec2::instance_id() {
        attempt(host_keys(&id));
    }
    match instance_id(system) {
        Ok(id) => {
            attempt(host_keys(&id));
            let mut made = PartsMade::of(root, &id);
            attempt(made.once(root, OncePart::SshKey, || login::authorize(system, login_user, tell)));
            attempt(made.once(root, OncePart::Hostname, || login::name(system, tell)));
        }
        Err(error) => {
            attempt(Err(error));
            attempt(host_keys::make_missing(host));
        }
    }
    if !keep_resolv_conf {
        attempt(resolver::write(root, tell));
    }
    attempt(growth::grow(host, tell));
    faults
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
    let mut made = PartsMade::of(root, &id);
    if made.parts.contains(&OncePart::UserData) {
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
    made.once(root, OncePart::UserData, || write(&script))
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
            PartsMade::of(&root, id).once(&root, part, make).unwrap();
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
        let failed = PartsMade::of(&root, "i-1").once(&root, OncePart::SshKey, || anyhow::bail!("no answer"));
        assert!(failed.is_err());
        assert!(PartsMade::of(&root, "i-1").parts.is_empty());
    }
}
