//! Holds: the list of dnf's plugin versionlock. dnf upgrades a package in it only to a version in it.

use anyhow::Result;

use super::TOOLS;
use crate::{
    error::Fault,
    host::{
        edited::EditedText,
        root::{Ownership, Root},
    },
    packages::{name::PackageName, rpm::database::RpmDatabase},
    system::{Fact, System},
    value::{AbsPath, quoted},
};

/// The package of the plugin on Amazon Linux 2023, RHEL 9 and Fedora; a part of dnf-plugins-core.
const PACKAGE: &str = "python3-dnf-plugin-versionlock";
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

/// The plugin on a machine.
enum Plugin {
    /// It is not installed.
    Missing,
    /// A configuration turns it off.
    Off(AbsPath, &'static str),
    /// It reads this list.
    On(AbsPath),
}

/// Returns whether a package is in the plugin's list.
pub(crate) fn is_held(root: &Root, name: &str) -> Result<bool> {
    let Plugin::On(list) = plugin(root)? else { return Ok(false) };
    Ok(root.read_text(&list)?.lines().any(|line| holds(line, name)))
}

/// Fails if this machine has no plugin that holds packages, and if neither `coming` nor an earlier change brings it.
///
/// Returns the package that brings it.
pub(crate) fn check(system: &System, coming: &[PackageName]) -> Result<Option<&'static str>> {
    check_version(system)?;
    match plugin(system.root())? {
        Plugin::On(_) => Ok(None),
        Plugin::Off(file, _) if system.expected_digest(&file).is_some() => Ok(None),
        Plugin::Missing
            if coming.iter().any(|package| package.name == PACKAGE)
                || system.expects(&Fact::Package(PACKAGE.into())) =>
        {
            Ok(Some(PACKAGE))
        }
        Plugin::Missing => Err(missing()),
        Plugin::Off(file, option) => Err(off(&file, option)),
    }
}

/// Fails on a machine with dnf 5, which does not read the plugin's list; dnf5-versionlock(8).
fn check_version(system: &System) -> Result<()> {
    if !system.host.has_program("dnf5") {
        return Ok(());
    }
    let fault = Fault::new("holding packages is not supported on a machine with dnf5 yet");
    Err(fault.hint("leave out `hold` here, or limit this resource to other machines with `where`").into())
}

fn missing() -> anyhow::Error {
    let message = format!("dnf holds packages only with its plugin versionlock, which is missing; {PACKAGE} has it");
    let hint = format!("declare it in a `package` resource before: names = [\"{PACKAGE}\"]");
    Fault::new(message).hint(hint).into()
}

fn off(file: &AbsPath, option: &str) -> anyhow::Error {
    let message = format!("dnf holds packages only with its plugin versionlock, which {file} turns off");
    Fault::new(message).hint(format!("set `{option} = 1` in {file}")).into()
}

/// Holds packages at their installed versions, or releases them.
pub(crate) fn hold(system: &System, packages: &[PackageName], is_held: bool) -> Result<()> {
    TOOLS.check_writable(system)?;
    let root = system.root();
    check_version(system)?;
    let list = match plugin(root)? {
        Plugin::On(list) => list,
        Plugin::Off(file, option) => return Err(off(&file, option)),
        Plugin::Missing => return Err(missing()),
    };
    system.host.forget();
    let database = system.host.read_once(RpmDatabase::read)?;
    let text = EditedText::read(root, &list)?;
    let is_other = |line: &&str| !packages.iter().any(|package| holds(line, &package.name));
    let mut lines: Vec<String> = text.as_str().lines().filter(is_other).map(str::to_owned).collect();
    for package in packages.iter().filter(|_| is_held) {
        if let Some(installed) = database.package(&package.name, package.architecture.as_deref()) {
            // As the plugin writes it.
            let (epoch, version, release) = (installed.epoch, &installed.version, &installed.release);
            lines.push(format!("{}-{epoch}:{version}-{release}.*", installed.name));
        }
    }
    let ownership = root.status(&list)?.map_or(Ownership { uid: 0, gid: 0, mode: 0o644 }, |status| status.ownership);
    root.write(&list, ownership, &text.encode(&lines.iter().flat_map(|line| [line, "\n"]).collect::<String>()))
}

/// Returns the command line that releases a held package.
pub(crate) fn release_command(package: &str) -> String {
    format!("dnf versionlock delete {}", quoted(package))
}

/// Returns the state of the plugin.
fn plugin(root: &Root) -> Result<Plugin> {
    let of_plugin = root.read_text(&CONFIGURATION.into())?;
    let of_dnf = root.read_text(&DNF_CONFIGURATION.into())?;
    for (path, text, option) in [(DNF_CONFIGURATION, &of_dnf, "plugins"), (CONFIGURATION, &of_plugin, "enabled")] {
        if value(text, option).is_some_and(|value| FALSE.contains(&&*value.to_lowercase())) {
            return Ok(Plugin::Off(path.into(), option));
        }
    }
    for pattern in PLUGINS {
        if !root.matching(pattern)?.is_empty() {
            let list = value(&of_plugin, "locklist").and_then(|path| path.parse().ok());
            return Ok(Plugin::On(list.unwrap_or_else(|| LIST.into())));
        }
    }
    Ok(Plugin::Missing)
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
