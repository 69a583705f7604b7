//! The host name: in the kernel, in `/etc/hostname`, in `/etc/hosts`, and for cloud-init.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::write_text;
use crate::{host::edited::EditedText, resource::Change, system::System, value::AbsPath};

/// Where the name for the boot is, hostname(5).
pub(super) const FILE: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
/// The end of this program's line in `/etc/hosts`.
const MARK: &str = "# glovo-bootstrap: the name of this machine";
/// The directory of cloud-init's drop-in files.
const CLOUD_INIT: &str = "/etc/cloud/cloud.cfg.d";
/// Later in the alphabet than the files of distributions, so that it has the last word.
const DROP_IN: &str = "99-glovo-bootstrap-hostname.cfg";
/// The longest name that the kernel takes, gethostname(2).
const MAX_BYTES: usize = 64;

/// A host name.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hostname(String);

impl TryFrom<String> for Hostname {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() < 64
                && label.chars().all(is_plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        ensure!(
            name.len() <= MAX_BYTES && name.split('.').all(is_label),
            "`{}` is not a host name: use letters, digits and `-`, in parts with dots between; at most {MAX_BYTES} characters",
            name.escape_debug()
        );
        // systemd takes it as if there were no name, hostname(5).
        let is_local = ["localhost", "localhost.localdomain"].iter().any(|local| name.eq_ignore_ascii_case(local));
        ensure!(!is_local, "`{name}` is the name of every machine: declare another one");
        Ok(Self(name))
    }
}

impl Hostname {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the changes. The kernel gets the name at last, when it resolves already.
    pub(super) fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let name = &self.0;
        let mut changes: Vec<Change> =
            self.plan_cloud_init(system)?.into_iter().chain(self.plan_hosts(system)?).collect();
        let file = AbsPath::from(FILE);
        let text = system.root().read_text(&system.root().resolve_trusted(&file)?)?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let now = lines.next().unwrap_or_default();
        if now != name {
            let summary = format!("set {name} in {FILE} (now {})", if now.is_empty() { "no name" } else { now });
            changes.push(write_text(system, &file, summary, format!("{name}\n"))?);
        }
        changes.extend(self.plan_kernel(system)?);
        Ok(changes)
    }

    fn plan_kernel(&self, system: &System) -> Result<Option<Change>> {
        if !system.is_live() {
            return Ok(None);
        }
        let (name, now) = (self.0.clone(), system.host.fact("hostname")?);
        if now == name {
            return Ok(None);
        }
        system.host.check_sets_hostname()?;
        let summary = format!("set {name} in the kernel (now {now})");
        Ok(Some(Change::new(summary, move |system| system.host.set_hostname(&name))))
    }

    /// Returns the change after which cloud-init keeps the name. Otherwise its modules `set_hostname` and
    /// `update_hostname` set the name of the metadata service at each boot. With `manage_etc_hosts`, it also writes
    /// `/etc/hosts` from a template at each boot; the name in it is then this one.
    ///
    /// <https://docs.cloud-init.io/en/latest/reference/modules.html#set-hostname>
    fn plan_cloud_init(&self, system: &System) -> Result<Option<Change>> {
        let directory = AbsPath::from(CLOUD_INIT);
        if system.root().status(&directory)?.is_none() {
            return Ok(None);
        }
        let (name, path) = (&self.0, directory.join(DROP_IN)?);
        let fqdn = if name.contains('.') { format!("fqdn: \"{name}\"\n") } else { String::new() };
        let host = name.split('.').next().unwrap_or(name);
        let text = format!("# Written by glovo-bootstrap.\npreserve_hostname: true\nhostname: \"{host}\"\n{fqdn}");
        if system.root().read_text(&path)? == text {
            return Ok(None);
        }
        write_text(system, &path, format!("write {path}, so that cloud-init keeps the name"), text).map(Some)
    }

    /// Returns the change of `/etc/hosts` after which the name resolves. sudo, Java and others look it up.
    fn plan_hosts(&self, system: &System) -> Result<Option<Change>> {
        let (name, path) = (&self.0, AbsPath::from(HOSTS));
        let text = EditedText::read(system.root(), &system.root().resolve_trusted(&path)?)?;
        let mut lines: Vec<&str> = text.as_str().lines().collect();
        let own = lines.iter().position(|line| line.ends_with(MARK));
        let has_name = |line: &&str| {
            let names = line.split('#').next().unwrap_or_default().split_whitespace().skip(1);
            names.into_iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if lines.iter().any(has_name) || (own.is_none() && resolves_its_name(system)?) {
            return Ok(None);
        }
        if system.is_declared(&path) {
            system.warn(format!("another resource manages {HOSTS}, and {name} is not in it"));
            return Ok(None);
        }
        let aliases = name.split_once('.').map_or_else(|| name.clone(), |(host, _)| format!("{name} {host}"));
        // The address by convention of a machine without a fixed one.
        let line = format!("127.0.1.1 {aliases} {MARK}");
        let summary = if let Some(at) = own {
            lines[at] = &line;
            format!("set {name} in {HOSTS}, so that it resolves")
        } else {
            lines.push(&line);
            format!("add {name} to {HOSTS}, so that it resolves")
        };
        write_text(system, &path, summary, text.encode(&(lines.join("\n") + "\n"))).map(Some)
    }
}

/// Returns whether the machine resolves its own name without a file, nss-myhostname(8).
fn resolves_its_name(system: &System) -> Result<bool> {
    let text = system.root().read_text(&system.root().resolve(&"/etc/nsswitch.conf".into())?)?;
    let mut lines = text.lines().filter_map(|line| line.split('#').next()?.trim().strip_prefix("hosts:"));
    Ok(lines.any(|services| services.split_whitespace().any(|service| service == "myhostname")))
}
