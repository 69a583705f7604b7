//! The commands of dnf, and the changes that they would make.

use anyhow::Result;

use super::{TOOLS, name::read, silent};
use crate::{
    error::Fault,
    host::command::{Finished, Program},
    packages::{manager::PackageChange, tools::failed},
    system::System,
};

/// The start of the line after which dnf prints all settings of a repository without keys, also passwords.
const REPOSITORY: &str = "Problem repository: ";

/// The packages that dnf protects, as its own configuration names them; dnf.conf(5), `protected_packages`.
const PROTECTED: &str = "dnf glob:/etc/yum/protected.d/*.conf glob:/etc/dnf/protected.d/*.conf";
/// Limits the lines of a failed script in a warning, and their characters.
const MAX_SAID_LINES: usize = 3;
const MAX_SAID_CHARS: usize = 400;
/// What dnf says with `--cacheonly` of a repository whose lists are missing.
pub(crate) const NO_LISTS: &str = "Cache-only enabled but no cache";
/// Marks the transactions of this program in `dnf history`.
pub(crate) const COMMENT: &str = "--comment=glovo-bootstrap";

/// Returns a command of dnf that asks no questions.
pub(crate) fn dnf(operation: &str) -> Program {
    silent(["dnf", "--assumeyes", operation]).args([
        COMMENT,
        // A repository that cannot be updated is an error, unless its own file says that it may be skipped. Without this,
        // dnf says that it does not know the package.
        "--setopt=skip_if_unavailable=0",
        // Whatever the machine's dnf.conf says: dnf removes only what this program has planned.
        "--setopt=clean_requirements_on_remove=0",
    ])
}

/// Returns the option that keeps a command from removing or replacing the packages that the manifest declares as installed.
///
/// The kernel is left out, because an installation removes its oldest version.
pub(crate) fn protect_declared(system: &System) -> String {
    let declared = system.declared_packages();
    let names = declared.iter().filter_map(|declared| read(declared).ok()).map(|name| name.name);
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("kernel")).collect();
    names.sort_unstable();
    names.dedup();
    format!("--setopt=protected_packages={PROTECTED} {}", names.join(" ")).trim_end().to_owned()
}

/// Runs a command, and returns it as `Err` if it has failed.
pub(crate) fn run(system: &System, command: &Program) -> Result<Result<(), Finished>> {
    let finished = finished(system, &command.clone().reporting_only(is_shown))?;
    if !finished.status.success() {
        return Ok(Err(finished));
    }
    for line in finished.tail.lines() {
        if let Some(names) = line.strip_prefix("Ignoring repositories: ") {
            system.warn(format!("the lists of {names} could not be updated; nothing is installed from there"));
        }
    }
    // rpm calls the package installed all the same.
    for (script, said) in failed_scripts(&finished.stdout) {
        let said = if said.is_empty() { said } else { format!("; the script said: {said}") };
        system.warn(format!("the script {script} failed; its package counts as installed{said}"));
    }
    Ok(Ok(()))
}

/// Runs a command of dnf, without the settings of repositories in its output.
pub(crate) fn finished(system: &System, command: &Program) -> Result<Finished> {
    let mut finished = system.host.run(command)?;
    finished.tail = without_settings(&finished.tail);
    Ok(finished)
}

/// Returns dnf's output without the settings of a repository. Lines of scripts look like settings, too: `useradd: …`.
fn without_settings(output: &str) -> String {
    let mut is_after = false;
    let kept = output.lines().filter(|line| {
        is_after |= line.starts_with(REPOSITORY);
        is_shown(line) || !is_after && !is_password(line)
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Returns whether a line is no setting of a repository, such as `password: secret`.
fn is_shown(line: &str) -> bool {
    let is_setting = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    !line.split_once(':').is_some_and(|(name, _)| is_setting(name) && name != "error" && name != "warning")
}

fn is_password(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| name.ends_with("password"))
}

/// Returns the scripts that failed, each with its last lines.
fn failed_scripts(output: &str) -> Vec<(&str, String)> {
    let (mut failed, mut said) = (vec![], vec![]);
    for line in output.lines() {
        match failed_script(line) {
            Some(script) => {
                let last = &said[said.len().saturating_sub(MAX_SAID_LINES)..];
                failed.push((script, last.join("; ").chars().take(MAX_SAID_CHARS).collect()));
            }
            None if line.starts_with("  Running scriptlet: ") => said.clear(),
            None => said.push(line.trim()),
        }
    }
    failed
}

/// Returns the script that a line of rpm calls failed, such as `%post(app-1.0-1.x86_64)`.
fn failed_script(line: &str) -> Option<&str> {
    let (script, rest) = line.strip_prefix("warning: %")?.split_once(" scriptlet failed")?;
    rest.starts_with([',', ':']).then_some(script)
}

/// What a command of dnf would do.
pub(crate) struct Simulation {
    /// The changes of packages.
    pub(crate) changes: Vec<PackageChange>,
    /// New packages, each with an installed one that it replaces (`Obsoletes`).
    pub(crate) replacements: Vec<(String, String)>,
}

/// Returns what a command would do; `None` if the package lists of a repository are missing. `what` names the command in
/// an error.
///
/// It uses the present package lists, and writes nothing.
///
/// # Errors
/// If dnf would refuse it.
pub(crate) fn simulated(system: &System, what: &str, operation: &str, rest: &[String]) -> Result<Option<Simulation>> {
    if system.host.has_program("dnf5") {
        let fault = Fault::new(format!("{what} is not supported on a machine with dnf5 yet"));
        return Err(fault.hint("leave out this resource here, or limit it to other machines with `where`").into());
    }
    // The debug level with a line for each change; dnf(8). What comes after `--` in the rest is no option.
    let options = ["--cacheonly", "--assumeno", "--debuglevel=6", "--color=never"];
    let command = dnf(operation).args(options).args(rest.iter().cloned());
    let finished = finished(system, &command)?;
    if !finished.status.success() && finished.tail.contains(NO_LISTS) {
        return Ok(None);
    }
    // With `--assumeno`, the exit code is 1 also if dnf has asked.
    if !finished.status.success() && !finished.tail.contains("Operation aborted.") {
        return Err(failed(what, &TOOLS.diagnose(system, &finished), &finished).into());
    }
    let (changes, replacements) = (changes(&finished.stdout), replacements(&finished.stdout));
    Ok(Some(Simulation { changes, replacements }))
}

/// Reads the table of a transaction: a row for each new package, and after it a line for each one that it replaces. A
/// long row continues on lines with more spaces.
fn replacements(output: &str) -> Vec<(String, String)> {
    let (mut new, mut replacements) = ("", vec![]);
    for line in output.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if let Some((old, _)) = line.strip_prefix("     replacing  ").and_then(|old| old.split_once(' ')) {
            replacements.push((new.to_owned(), shown(old)));
        } else if line.strip_prefix(' ').is_some_and(|row| !row.starts_with(' ')) {
            new = word;
        }
    }
    replacements
}

/// What dnf says of a package in the line about its change.
const ENDS: [(&str, bool, bool); 8] = [
    // (text, whether an installed package goes, whether a package comes)
    ("will be installed", false, true),
    ("will be an upgrade", false, true),
    ("will be a downgrade", false, true),
    ("will be obsoleting", false, true),
    ("will be reinstalled", true, true),
    ("will be upgraded", true, false),
    ("will be obsoleted", true, false),
    ("will be erased", true, false),
];

/// Reads lines such as `---> Package nginx.x86_64 1:1.24.0-1 will be an upgrade`.
fn changes(output: &str) -> Vec<PackageChange> {
    let mut changes: Vec<PackageChange> = vec![];
    for line in output.lines().filter_map(|line| line.strip_prefix("---> Package ")) {
        let Some((name, rest)) = line.split_once(' ') else { continue };
        let Some((version, end)) = rest.split_once(' ') else { continue };
        let Some((_, goes, comes)) = ENDS.iter().find(|(text, ..)| *text == end) else { continue };
        let name = shown(name);
        let (from, to) = (goes.then(|| version.to_owned()), comes.then(|| version.to_owned()));
        // An upgrade has two lines. A kernel may come while another version of it goes.
        let pair = changes.iter_mut().find(|change| {
            change.name == name && (change.from.is_none() && from.is_some() || change.to.is_none() && to.is_some())
        });
        match pair {
            Some(change) => {
                change.from = change.from.take().or(from);
                change.to = change.to.take().or(to);
            }
            None => changes.push(PackageChange { name, from, to }),
        }
    }
    changes
}

/// Returns `name.architecture` as messages show it: the architecture only if it is not the machine's.
fn shown(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((name, architecture)) if [std::env::consts::ARCH, "noarch"].contains(&architecture) => name.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_simulation_are_read() {
        let output = "\
--> Starting dependency resolution
---> Package foo.noarch 1.2-1.amzn2023 will be upgraded
---> Package bar.i686 1.0-1 will be installed
---> Package foo.noarch 1:2.0-1.amzn2023 will be an upgrade
---> Package loser.noarch 1.0-1 will be obsoleted
---> Package sh.noarch 1-1 will be erased
---> Package odd.noarch 1-1 will be odd
--> Finished dependency resolution
Dependencies resolved.
";
        let words = |change: PackageChange| {
            let [from, to] = [change.from, change.to].map(Option::unwrap_or_default);
            format!("{} {from}>{to}", change.name)
        };
        let read: Vec<_> = changes(output).into_iter().map(words).collect();
        assert_eq!(read, ["foo 1.2-1.amzn2023>1:2.0-1.amzn2023", "bar.i686 >1.0-1", "loser 1.0-1>", "sh 1-1>"]);
    }

    #[test]
    fn the_replacements_of_a_simulation_are_read() {
        let output = "\
Dependencies resolved.
 Package   Architecture  Version   Repository  Size
Installing:
 heir      noarch        1.0-1     made        5.9 k
     replacing  loser.noarch 1.0-1
     replacing  other.i686 2.0-1
 a-package-with-a-long-name
           noarch        1.0-1     made        5.9 k
     replacing  third.noarch 1.0-1
";
        let pair = |(new, old): (&str, &str)| (new.to_owned(), old.to_owned());
        let pairs = [("heir", "loser"), ("heir", "other.i686"), ("a-package-with-a-long-name", "third")].map(pair);
        assert_eq!(replacements(output), pairs);
    }

    #[test]
    fn the_settings_of_a_repository_are_not_shown() {
        let settings = ["password: secret", "proxy_password: secret", "exclude: ", "sslverify: 1"];
        for line in settings {
            assert!(!is_shown(line), "{line}");
        }
        let output = format!("useradd: no\n{REPOSITORY}[app]\n{}\nError: x", settings.join("\n"));
        assert_eq!(without_settings(&output), "useradd: no\nProblem repository: [app]\nError: x");
        assert_eq!(without_settings("password: secret\ncp: no"), "cp: no");
        for line in [
            "error: x",
            "warning: %post(x) scriptlet failed",
            "Error: x",
            "  - Curl error (7): x",
            "",
            "Problem repository: [x]",
        ] {
            assert!(is_shown(line), "{line}");
        }
    }

    #[test]
    fn a_failed_script_is_named() {
        let line = "warning: %post(badpost-1.0-1.noarch) scriptlet failed, exit status 127";
        assert_eq!(failed_script(line), Some("post(badpost-1.0-1.noarch)"));
        assert_eq!(failed_script("warning: x"), None);
        let output = format!(
            "  Running scriptlet: other-1.0-1.noarch    1/2 \nof other\n  Running scriptlet: badpost-1.0-1.noarch  2/2 \n\
             cp: no\n{line}\n\n  Verifying        : other-1.0-1.noarch    1/2 \n"
        );
        assert_eq!(failed_scripts(&output), [("post(badpost-1.0-1.noarch)", "cp: no".to_owned())]);
    }
}
