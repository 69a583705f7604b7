//! Scripts of packages that failed. rpm and dnf call such a package installed, and keep no trace of the failure. So this
//! program keeps a note until the package is installed again or removed.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    host::{Host, root::Root, state},
    packages::rpm::database::{RpmInstallTimes, RpmPackage},
    system::System,
    value::quoted,
};

/// The state file of the notes.
const FILE: &str = "failed-scripts.json";

/// A script that failed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FailedScript {
    /// The script with its package, as rpm names it: `post(app-1.0-1.x86_64)`.
    script: String,
    /// When the package was installed, in seconds since 1970. Another time is another installation.
    installed: u32,
    /// The warning.
    text: String,
}

/// Warns of a script that failed. If its package is installed, the warning is noted.
pub(crate) fn warn(system: &System, script: &str, said: &str) {
    let said = if said.is_empty() { String::new() } else { format!("; the script said: {said}") };
    let installed = RpmInstallTimes::read(system.root()).map(|times| {
        let (package, installed) = times.find(|package| is_of(script, package))?;
        Some((package.name.clone(), installed))
    });
    let text = match &installed {
        Ok(Some((name, _))) => format!(
            "the script {script} failed; its package counts as installed; after a fix of the cause, run its scripts again: \
             dnf reinstall {}{said}",
            quoted(name)
        ),
        _ => format!("the script {script} failed{said}"),
    };
    let noted = installed.and_then(|installed| {
        let Some((_, installed)) = installed else { return Ok(()) };
        let mut notes = standing(system.root())?;
        notes.push(FailedScript { script: script.to_owned(), installed, text: text.clone() });
        state::write(system.root(), FILE, &notes)
    });
    if let Err(error) = noted {
        tracing::warn!("later runs will not tell of the failed script: {error:#}");
    }
    system.warn(text);
}

/// Returns the warnings of the scripts that failed and whose packages were not installed again since.
pub(crate) fn warnings(host: &Host) -> Result<Vec<String>> {
    Ok(standing(host.root())?.into_iter().map(|note| note.text).collect())
}

fn standing(root: &Root) -> Result<Vec<FailedScript>> {
    let notes: Vec<FailedScript> = state::read(root, FILE).unwrap_or_default();
    if notes.is_empty() {
        return Ok(notes);
    }
    let times = RpmInstallTimes::read(root)?;
    let is_same = |note: &FailedScript| {
        times.find(|package| is_of(&note.script, package)).is_some_and(|(_, installed)| installed == note.installed)
    };
    Ok(notes.into_iter().filter(is_same).collect())
}

/// Returns whether a script is of a package. rpm leaves out an epoch that the package does not have.
fn is_of(script: &str, package: &RpmPackage) -> bool {
    let name = script.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let RpmPackage { name: bare, version, release, architecture, .. } = package;
    name.is_some_and(|name| {
        name == format!("{bare}-{}.{architecture}", package.evr())
            || name == format!("{bare}-{version}-{release}.{architecture}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_of_the_package_that_rpm_names() {
        let package = |name: &str, epoch| RpmPackage {
            name: name.into(),
            epoch,
            version: "1.0".into(),
            release: "1.amzn2023".into(),
            architecture: "x86_64".into(),
        };
        assert!(is_of("post(app-1.0-1.amzn2023.x86_64)", &package("app", 0)));
        assert!(is_of("posttrans(app-2:1.0-1.amzn2023.x86_64)", &package("app", 2)));
        assert!(is_of("post(app-1.0-1.amzn2023.x86_64)", &package("app", 2)));
        for other in ["post(app-core-1.0-1.amzn2023.x86_64)", "post(app-1.1-1.amzn2023.x86_64)", "post", "post()"] {
            assert!(!is_of(other, &package("app", 0)), "{other}");
        }
    }
}
