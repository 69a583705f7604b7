//! The user of the key pair of the launch, and the host name.

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::Table;

use super::ensure;
use crate::{
    host::{Host, root::Root},
    resource::{host::HostSettings, user::User},
    system::System,
};

const PUBLIC_KEYS: &str = "/latest/meta-data/public-keys/";
const HOSTNAME: &str = "/latest/meta-data/local-hostname";
const CLOUD_CFG: &str = "/etc/cloud/cloud.cfg";
const CLOUD_CFG_D: &str = "/etc/cloud/cloud.cfg.d/*.cfg";

/// Adds the keys of the launch to those of the user. An instance without a key pair has none.
pub(super) fn authorize(system: &System, user: &str, tell: &dyn Fn(&str)) -> Result<()> {
    let ask = |path: &str| system.aws.metadata(&system.host, path).context("reading the SSH key of the launch");
    let mut keys = vec![];
    // A line has a number and a name: `0=my-key`.
    for line in ask(PUBLIC_KEYS)?.unwrap_or_default().lines() {
        let number = line.split('=').next().unwrap_or_default();
        if number.parse::<u16>().is_ok() {
            keys.extend(ask(&format!("{PUBLIC_KEYS}{number}/openssh-key"))?);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let declaration = Table::from_iter([("name".to_owned(), user.into()), ("ssh_keys".to_owned(), keys.into())]);
    ensure::<User>(system, declaration, tell)
}

/// Returns whether the group wheel is that of administrators. There, cloud-init's user has other groups, and its host names
/// have their domain.
pub(super) fn has_wheel(host: &Host) -> Result<bool> {
    Ok(host.accounts()?.group("wheel").is_some())
}

/// Gives the machine the name of the metadata service as cloud-init does: its first part, or with the group wheel the whole
/// name. That may contain any domain of the DHCP options; if no machine can have it, the first part stands for it.
pub(super) fn name(system: &System, tell: &dyn Fn(&str)) -> Result<()> {
    let names = system.aws.metadata(&system.host, HOSTNAME).context("reading the host name")?.unwrap_or_default();
    // With several domains in the DHCP options there are several names.
    let Some(name) = names.split_whitespace().next() else { return Ok(()) };
    let is_short = !has_wheel(&system.host)?;
    ensure::<HostSettings>(system, host_name(name, is_short), tell)
}

/// Returns the declaration of the host name, or of its first part.
fn host_name(name: &str, is_short: bool) -> Table {
    let declare = |name: &str| Table::from_iter([("hostname".to_owned(), name.into())]);
    let whole = Some(declare(name)).filter(|whole| !is_short && HostSettings::deserialize(whole.clone()).is_ok());
    whole.unwrap_or_else(|| declare(name.split('.').next().unwrap_or(name)))
}

/// Returns the default user of the image's cloud-init; `None` if its configuration names none.
///
/// The last file counts. Only the usual form is read, not all of YAML: a line `default_user:` with `name: NAME` below it.
pub(super) fn default_user(root: &Root) -> Result<Option<String>> {
    let mut name = None;
    let mut files = root.matching(CLOUD_CFG_D)?;
    files.insert(0, CLOUD_CFG.into());
    for file in files {
        name = user_in(&root.read_text(&file)?).or(name);
    }
    Ok(name)
}

fn user_in(configuration: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = configuration.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let outer = indent(lines.find(|line| line.trim() == "default_user:")?);
    let name = lines.take_while(|line| indent(line) > outer).find_map(|line| line.trim().strip_prefix("name:"))?;
    Some(name.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn a_name_that_no_machine_can_have_is_shortened() {
        let named = |name: &str, is_short| host_name(name, is_short)["hostname"].as_str().unwrap().to_owned();
        assert_eq!(named("ip-10-0-0-1.ec2.internal", false), "ip-10-0-0-1.ec2.internal");
        assert_eq!(named("ip-10-0-0-1.ec2.internal", true), "ip-10-0-0-1");
        assert_eq!(named("ip-10-0-0-1.my_domain", false), "ip-10-0-0-1");
        assert_eq!(named(&format!("ip-10-0-0-1.{}", "long.".repeat(20)), false), "ip-10-0-0-1");
    }

    #[test]
    fn the_last_file_of_cloud_init_names_the_default_user() {
        let tree = Scratch::new();
        let root = Root::open(tree.path()).unwrap();
        assert_eq!(default_user(&root).unwrap(), None);
        tree.write(CLOUD_CFG, "users:\n   - default\nsystem_info:\n   # the user\n   default_user:\n     lock_passwd: True\n     name: debian\n   paths:\n     name: other\n");
        assert_eq!(default_user(&root).unwrap().as_deref(), Some("debian"));
        tree.write("/etc/cloud/cloud.cfg.d/01_debian_cloud.cfg", "system_info:\n  default_user:\n    name: 'admin'\n");
        tree.write("/etc/cloud/cloud.cfg.d/05_logging.cfg", "output: {all: '| tee'}\ndefault_user:\nname: no\n");
        assert_eq!(default_user(&root).unwrap().as_deref(), Some("admin"));
    }
}
