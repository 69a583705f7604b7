//! Holds: dpkg's selections of packages that stay at their version; dpkg(1).

use anyhow::Result;

use super::{TOOLS, judge, silent};
use crate::{packages::name::PackageName, system::System, value::quoted};

/// Sets whether packages are held, by dpkg's selections; dpkg(1).
pub(crate) fn hold(system: &System, packages: &[PackageName], is_held: bool) -> Result<()> {
    TOOLS.check_writable(system)?;
    let word = if is_held { "hold" } else { "install" };
    let lines = packages.iter().map(|package| format!("{} {word}\n", package.without_version())).collect();
    let command = silent(["dpkg", "--set-selections"]).stdin(Some(lines));
    TOOLS.persevere(system, "holding packages", || system.host.run(&command).map(judge), |_| Ok(false))
}

/// Returns the command line that releases a held package.
pub(crate) fn release_command(package: &str) -> String {
    format!("apt-mark unhold {}", quoted(package))
}
