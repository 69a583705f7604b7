//! The commands of dnf, and the changes that they would make.

use anyhow::Result;

use super::{TOOLS, name::read, scripts, silent, sources};
use crate::{
    error::Fault,
    host::command::{Finished, Program},
    packages::{manager::PackageChange, tools::failed},
    redaction,
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
        // dnf says that it does not know the package. Those of third parties are in `with_repositories`.
        "--setopt=skip_if_unavailable=0",
        // Whatever the machine's dnf.conf says: dnf removes only what this program has planned.
        "--setopt=clean_requirements_on_remove=0",
    ])
}

/// Returns a command of dnf that uses the repositories, and may go on without those of third parties.
pub(crate) fn with_repositories(system: &System, operation: &str) -> Result<Program> {
    Ok(dnf(operation).args(sources::may_fail(system)?))
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
    sources::warn_of_ignored(system, &finished.tail)?;
    // rpm calls the package installed all the same.
    for (script, said) in failed_scripts(&finished.stdout) {
        scripts::warn(system, script, &said);
    }
    Ok(Ok(()))
}

/// What dnf says of packages that it does not find.
const MISSING: [&str; 4] = ["No match for argument", "Unable to find a match", "nothing provides", "No package "];

/// Returns whether dnf lacks a package after it has ignored repositories. One of them may have it.
pub(super) fn lacks_ignored(output: &str) -> bool {
    !sources::ignored(output).is_empty() && MISSING.iter().any(|missing| output.contains(missing))
}

/// Runs a command of dnf, without the settings of repositories in its output. A package that it refuses is told with its
/// repository.
pub(crate) fn finished(system: &System, command: &Program) -> Result<Finished> {
    let mut finished = system.host.run(command)?;
    finished.tail = without_noise(&without_settings(&finished.tail));
    if let Some((package, id)) =
        refused(&finished.tail).and_then(|file| Some((file, repository(&finished.stdout, file)?)))
    {
        let named = format!("{package} of the repository {}", sources::shown(system, id)?);
        finished.tail = finished.tail.replace(package, &named);
    }
    Ok(finished)
}

/// Returns the file of a package without a valid signature.
fn refused(output: &str) -> Option<&str> {
    let line = output.lines().find(|line| line.ends_with(" is not signed") || line.contains(" is not correctly"))?;
    line.split(' ').find(|word| word.ends_with(".rpm"))
}

/// Returns the repository of a package's file, from the table of a transaction. Its rows may be wrapped.
fn repository<'a>(output: &'a str, file: &str) -> Option<&'a str> {
    let words: Vec<_> = output.split_whitespace().collect();
    let is_of = |row: &&[&str]| {
        let version = row[2].split_once(':').map_or(row[2], |(_, version)| version);
        file == format!("{}-{version}.{}.rpm", row[0], row[1])
    };
    words.windows(4).find(is_of).map(|row| row[3])
}

/// Returns dnf's output without what it says at its debug level, of its progress, and of its options.
fn without_noise(output: &str) -> String {
    const NOISE: [&str; 18] = [
        "DNF version: ",
        "Command: ",
        "Installroot: ",
        "Releasever: ",
        "cachedir: ",
        "Base command: ",
        "Extra commands: ",
        "User-Agent: ",
        "Loaded plugins: ",
        "repo: ",
        "countme: ",
        "timer: ",
        "Importing GPG key ",
        " Userid     : ",
        " Fingerprint: ",
        " From       : ",
        "Key imported successfully",
        "(try to add '",
    ];
    let is_noise = |line: &str| NOISE.iter().any(|noise| line.starts_with(noise)) || line.contains("B/s |");
    output.lines().filter(|line| !is_noise(line)).collect::<Vec<_>>().join("\n")
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
                let said = last.join("; ");
                // Half of a secret would not be recognized.
                failed.push((script, redaction::printed(&said).chars().take(MAX_SAID_CHARS).collect()));
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
    /// Whether the package lists of a third party's repository are missing.
    pub(crate) lacks_lists: bool,
}

/// Returns what a command would do; `None` if the package lists of a repository are missing that it needs. `what` names the command in
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
    let command = with_repositories(system, operation)?.args(options).args(rest.iter().cloned());
    let finished = finished(system, &command)?;
    let lacks_lists = finished.tail.contains(NO_LISTS);
    // With `--assumeno`, the exit code is 1 also if dnf has asked.
    if !finished.status.success() && !finished.tail.contains("Operation aborted.") {
        if lacks_lists {
            return Ok(None);
        }
        return Err(failed(what, &TOOLS.diagnose(system, &finished), &finished).into());
    }
    let (changes, replacements) = (changes(&finished.stdout), replacements(&finished.stdout));
    Ok(Some(Simulation { changes, replacements, lacks_lists }))
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
    fn a_refused_package_has_a_repository() {
        let table = " Package   Architecture  Version   Repository  Size\nInstalling:\n app  noarch  1:1.0-1.test  extra  6 k\n \
                     a-package-with-a-long-name\n    noarch  2.0-1.test  other  6 k\n";
        assert_eq!(repository(table, "app-1.0-1.test.noarch.rpm"), Some("extra"));
        assert_eq!(repository(table, "a-package-with-a-long-name-2.0-1.test.noarch.rpm"), Some("other"));
        assert_eq!(repository(table, "other-1.0-1.test.noarch.rpm"), None);
        let output = "Downloading\nPackage app-1.0-1.test.noarch.rpm is not signed\nError: GPG check FAILED";
        assert_eq!(refused(output), Some("app-1.0-1.test.noarch.rpm"));
    }

    #[test]
    fn only_what_explains_a_failure_is_kept() {
        let output = "DNF version: 4.14.0\ncachedir: /var/cache/dnf\napp   0.0  B/s |   0  B     00:00\n\
                      Importing GPG key 0x12:\n Userid     : \"x\"\n From       : /run/x\nuseradd: no\n\
                      (try to add '--skip-broken' to skip uninstallable packages)\nError: x";
        assert_eq!(without_noise(output), "useradd: no\nError: x");
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
