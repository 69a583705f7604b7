//! Holds: the list of dnf's plugin versionlock. dnf upgrades a package in it only to a version in it.

use anyhow::Result;

use super::TOOLS;
use crate::{
    error::Fault,
    host::root::{Ownership, Root},
    packages::{name::PackageName, rpm::database::RpmDatabase},
    system::System,
    value::{AbsPath, quoted},
};

/// The plugin; the second place is Debian's.
const PLUGINS: [&str; 2] = [
    "/usr/lib/python3*/site-packages/dnf-plugins/versionlock.py",
    "/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py",
];
/// The configuration of the plugin, which may name another list.
const CONFIGURATION: &str = "/etc/dnf/plugins/versionlock.conf";
/// The configuration of dnf, which may turn off all plugins.
const DNF_CONFIGURATION: &str = "/etc/dnf/dnf.conf";
/// The values of an option that is off; dnf.conf(5).
const FALSE: [&str; 4] = ["0", "no", "false", "off"];
/// The list of the plugin by default.
const LIST: &str = "/etc/dnf/plugins/versionlock.list";

/// Returns whether a package is in the plugin's list.
pub(crate) fn is_held(root: &Root, name: &str) -> Result<bool> {
    let Some(list) = list(root)? else { return Ok(false) };
    Ok(root.read_text(&list)?.lines().any(|line| holds(line, name)))
}

/// Holds packages at their installed versions, or releases them.
pub(crate) fn hold(system: &System, packages: &[PackageName], is_held: bool) -> Result<()> {
    TOOLS.check_writable(system)?;
    let root = system.root();
    let Some(list) = list(root)? else {
        let fault = Fault::new("dnf holds packages only with its plugin versionlock, which is missing or disabled");
        return Err(fault.hint("install the plugin before: dnf install 'dnf-command(versionlock)'").into());
    };
    system.host.forget();
    let database = system.host.read_once(RpmDatabase::read)?;
    let text = root.read_text(&list)?;
    let is_other = |line: &&str| !packages.iter().any(|package| holds(line, &package.name));
    let mut lines: Vec<String> = text.lines().filter(is_other).map(str::to_owned).collect();
    for package in packages.iter().filter(|_| is_held) {
        if let Some(installed) = database.package(&package.name, package.architecture.as_deref()) {
            // As the plugin writes it.
            let (epoch, version, release) = (installed.epoch, &installed.version, &installed.release);
            lines.push(format!("{}-{epoch}:{version}-{release}.*", installed.name));
        }
    }
    let ownership = root.status(&list)?.map_or(Ownership { uid: 0, gid: 0, mode: 0o644 }, |status| status.ownership);
    root.write(&list, ownership, lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().as_bytes())
}

/// Returns the command line that releases a held package.
pub(crate) fn release_command(package: &str) -> String {
    format!("dnf versionlock delete {}", quoted(package))
}

/// Returns the path of the plugin's list; `None` if dnf has no such plugin, or it is disabled.
fn list(root: &Root) -> Result<Option<AbsPath>> {
    let mut is_there = false;
    for pattern in PLUGINS {
        is_there |= !root.matching(pattern)?.is_empty();
    }
    let [configuration, of_dnf] = [CONFIGURATION, DNF_CONFIGURATION].map(|path| root.read_text(&path.into()));
    let (configuration, of_dnf) = (configuration?, of_dnf?);
    let is_off =
        |text: &str, name: &str| value(text, name).is_some_and(|value| FALSE.contains(&&*value.to_lowercase()));
    if !is_there || is_off(&configuration, "enabled") || is_off(&of_dnf, "plugins") {
        return Ok(None);
    }
    Ok(Some(value(&configuration, "locklist").and_then(|path| path.parse().ok()).unwrap_or_else(|| LIST.into())))
}

/// Returns the last value of an option in a configuration of dnf.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once('='));
    values.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next_back()
}

/// Returns whether a line of the list holds a package: `nginx-1:1.24.0-1.*`, or a pattern such as `nginx-1.*`. A line with
/// `!` excludes a version, and holds none.
fn holds(line: &str, name: &str) -> bool {
    let line = line.trim();
    line == name
        || line.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit() || c == '*')
                && rest.trim_end_matches('*').matches('-').count() < 2
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_the_package_that_it_names() {
        for line in ["nginx-1:1.24.0-1.amzn2023.*", "nginx-1.24.*", "nginx-*", " nginx "] {
            assert!(holds(line, "nginx"), "{line}");
        }
        for line in ["", "# nginx", "!nginx-1:1.24.0-1.*", "nginx-core-1:1.24.0-1.*", "nginxx", "xnginx-1"] {
            assert!(!holds(line, "nginx"), "{line}");
        }
        assert!(holds("java-21-amazon-corretto-1:21.0-1.*", "java-21-amazon-corretto"));
        assert!(!holds("java-21-amazon-corretto-1:21.0-1.*", "java"));
    }
}
