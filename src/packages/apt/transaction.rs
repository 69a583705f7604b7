//! The changes that apt-get would make, from its simulation (`--simulate`, apt-get(8)).

use anyhow::Result;

use super::cause;
use crate::{
    host::command::Program,
    packages::{manager::PackageChange, tools::failed},
    system::System,
};

/// Returns the changes of a command with `--simulate`. `what` names it in an error.
///
/// # Errors
/// If apt-get would refuse it.
pub(crate) fn simulated(system: &System, what: &str, command: &Program) -> Result<Vec<PackageChange>> {
    let finished = system.host.run(command)?;
    if !finished.status.success() {
        return Err(failed(what, &cause::TABLE.diagnosis(&finished.tail), &finished).into());
    }
    Ok(finished.stdout.lines().filter_map(parse).collect())
}

/// Parses a line such as `Inst nginx [1.22.1-9] (1.24.0-1 Debian:12/stable [amd64])` or `Remv nginx [1.22.1-9]`.
pub(crate) fn parse(line: &str) -> Option<PackageChange> {
    let (verb, rest) = line.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    let (from, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((version, rest)) => (Some(version.to_owned()), rest.trim_start()),
        None => (None, rest),
    };
    let to = match verb {
        "Inst" => Some(rest.strip_prefix('(')?.split([' ', ')']).next()?.to_owned()),
        "Remv" | "Purg" => None,
        _ => return None,
    };
    Some(PackageChange { name: name.to_owned(), from, to })
}

/// Returns the names under apt-get's heading of the packages that a command would remove.
pub(crate) fn removed(output: &str) -> Vec<String> {
    let after = output.lines().skip_while(|line| *line != "The following packages will be REMOVED:").skip(1);
    let names = after.take_while(|line| line.starts_with(' ')).flat_map(str::split_whitespace);
    names.map(|name| name.trim_end_matches('*').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_simulation_are_read() {
        let read = |line: &str| {
            let change = parse(line)?;
            let [from, to] = [change.from, change.to].map(Option::unwrap_or_default);
            Some(format!("{} {from}>{to}", change.name))
        };
        for (line, expected) in [
            (
                "Inst nginx [1.22.1-9] (1.24.0-1 Debian:12/stable, Debian-Security:12/stable-security [amd64]) []",
                "nginx 1.22.1-9>1.24.0-1",
            ),
            ("Inst libc6:i386 (2.36-9 Debian:12/stable [i386])", "libc6:i386 >2.36-9"),
            ("Remv nginx [1.22.1-9]", "nginx 1.22.1-9>"),
            ("Remv nginx [1.22.1-9] [nginx-common ]", "nginx 1.22.1-9>"),
            ("Purg nginx [1:1.22.1-9]", "nginx 1:1.22.1-9>"),
        ] {
            assert_eq!(read(line).as_deref(), Some(expected), "{line}");
        }
        for other in [
            "",
            "Reading package lists...",
            "Conf nginx (1.24.0-1 Debian:12/stable [amd64])",
            "Inst nginx",
            "Inst nginx 1.0",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn the_packages_that_an_installation_removes_are_read() {
        let output = "The following NEW packages will be installed:\n  a\nThe following packages will be REMOVED:\n  b c*\n  d:i386\n\
                      0 upgraded, 1 newly installed, 3 to remove and 0 not upgraded.\n";
        assert_eq!(removed(output), ["b", "c", "d:i386"]);
        assert_eq!(removed("The following NEW packages will be installed:\n  a\n"), [""; 0]);
    }
}
