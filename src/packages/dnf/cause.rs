//! The texts of dnf, librepo and rpm by which the cause of a failure is known.

use super::{
    sources::{self, FailureLine},
    transaction::lacks_ignored,
};
use crate::{
    packages::cause::{Cause, CauseTable},
    value::quoted,
};

/// The texts are those of dnf 4.14 and rpm 4.16 to 4.18 in the C locale.
#[rustfmt::skip]
pub(crate) const TABLE: CauseTable = CauseTable { own_lines, advice, rows: &[
    (Cause::Permanent, &["Read-only file system"],
        "make the read-only file system writable; to find it: findmnt --options ro"),
    (Cause::Locked, &["create transaction lock", "obtain the transaction lock", "Waiting for process with pid"],
        "find the process that holds the lock: fuser -v /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock"),
    (Cause::Permanent, &["No space left on device", "more space needed on the", "more space on the",
            "more inodes on the"],
        "free space or inodes on the full file system, or make it writable; to find it: df -h; df -i; \
         findmnt --options ro"),
    (Cause::Permanent, &["database disk image is malformed", "rpmdb open failed", "cannot open Packages database"],
        "look at the rpm database, which cannot be read: rpm --verifydb"),
    (Cause::Permanent, &["GPG signature is not available"],
        "use a repository with a signed index, or correct its `baseurl`; with an https URL, `repo_gpgcheck = false` of \
         yum_repository accepts an unsigned index"),
    (Cause::Permanent, &["Bad GPG signature"],
        "add no key from the repository's server: the index was changed on the way, or the vendor has a new key, or its key \
         has expired; compare the fingerprint that the vendor publishes elsewhere: gpg --show-keys KEYFILE"),
    (Cause::Permanent, &["GPG verification is enabled", "Signing key not found",
            "signature verification error", "key import failed", "Failed to retrieve GPG key", "Invalid GPG Key",
            "Import of key(s) didn't help", "Problem repository"],
        "declare the key that signs the repository; to see the keys of all repositories: \
         grep -r gpgkey /etc/yum.repos.d"),
    (Cause::Permanent, &["is not signed", "GPG check FAILED", "is not installed. Failing package", "not correctly installed"],
        "use signed packages, or declare the key that signs them; to list the keys: rpm -qa gpg-pubkey*"),
    (Cause::Certificate, &["Curl error (60)"],
        "check that the package ca-certificates is installed and that the clock is right: timedatectl status"),
    (Cause::Permanent, &["Curl error (77)", "Curl error (58)", "Curl error (59)"],
        "check that the package ca-certificates is installed and that the clock is right: timedatectl status"),
    (Cause::Permanent, &["Status code: 401", "Status code: 403", "Status code: 407"],
        "check the credentials of the repository in /etc/yum.repos.d, or the proxy: the server refuses access"),
    (Cause::Network, &["Status code: 429", "Status code: 500", "Status code: 502", "Status code: 503",
            "Status code: 504"],
        "wait for the overloaded mirror, or use another one"),
    (Cause::Network, &["Curl error (5)", "Curl error (6)", "Curl error (7)", "Curl error (28)", "Curl error (35)",
            "Curl error (52)", "Curl error (56)"],
        "check that this machine can reach the repository in the message above"),
    (Cause::Permanent, &["repodata/repomd.xml (IP", "Curl error (3)", "Curl error (37)", "Cannot find a valid baseurl",
            "Cannot prepare internal mirrorlist"],
        "correct the repository's `baseurl`, `metalink` or `mirrorlist`: there is no repository at this address"),
    (Cause::Stale, &["Status code: 404", "checksum doesn't match", "checksum mismatch", "Checksum error"],
        "try again in some minutes: the mirror may be in the middle of an update"),
    (Cause::Network, &["Curl error (", "Cannot download", "All mirrors were tried", "Failed to download metadata",
            "Error downloading packages"],
        "check that this machine can reach the repository in the message above"),
    (Cause::Permanent, &["no enabled repositories"],
        "enable or declare a repository; to list all of them: dnf repolist --all"),
    (Cause::Permanent, &["protected packages"],
        "leave out the change: it would remove a package that this machine or its manifest needs"),
    (Cause::Permanent, &["filtered out by exclude filtering", "filtered out by modular filtering"],
        "release the hold or the exclusion of the package, or enable its module stream; to see them: \
         dnf versionlock list; dnf module list; grep -r exclude /etc/dnf/dnf.conf /etc/yum.repos.d"),
    (Cause::Permanent, &["nothing provides"],
        "declare the repository that has what the package needs; to list those of this machine: dnf repolist"),
    (Cause::Permanent, &["conflicting requests", "cannot install both", "conflicts with", "problem with installed",
            "cannot install the best", "has inferior architecture"],
        "resolve the conflict in dnf's output above; the repositories may not have a declared version"),
    (Cause::Permanent, &["Operation aborted"],
        "remove `assumeno` from the configuration of dnf: it answers no to every question; it is in /etc/dnf/dnf.conf"),
    (Cause::Unknown, &["No packages marked for reinstall"],
        "declare a repository that has the installed version, or another version of the package"),
    (Cause::Permanent, &["scriptlet failed", " scriptlet in rpm package"],
        "fix the cause in the output of the package's script above"),
    (Cause::Permanent, &["No available modular metadata", "Invalid configuration value", "Config error",
            "Parsing file"],
        "correct the configuration of dnf that the message above names; it is in /etc/dnf and /etc/yum.repos.d"),
    (Cause::Unknown, &["No match for argument", "Unable to find a match", "No package "],
        "correct the name or the version; to list the known versions of all packages: dnf list --showduplicates"),
]};

/// Returns the hint for a package that no repository has. dnf's line has the name and perhaps a version: `app-1.0-*`.
fn advice(line: &str) -> Option<String> {
    let (_, package) = line.split_once("No match for argument: ")?;
    let begins = |at: &usize| package[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let end = package.match_indices('-').map(|(at, _)| at).find(begins).unwrap_or(package.len());
    let pattern = quoted(&format!("{}*", &package[..end]));
    Some(format!(
        "correct the name or the version, or declare its repository before it; to list those that there are: \
         dnf list --showduplicates {pattern}"
    ))
}

/// Returns the lines of dnf and rpm, without those of the packages' scripts. Continuation lines are indented.
fn own_lines(output: &str) -> Vec<&str> {
    const BEGINNINGS: [&str; 21] = [
        "[Errno ",
        "Config error",
        "Operation aborted",
        "Error",
        "error:",
        "warning:",
        "Warning",
        "No match",
        "No package",
        "Unable",
        "Ignoring",
        "Failed",
        "Cannot",
        "Can't",
        "Package ",
        "Public key",
        "The GPG",
        "Import of key",
        "Waiting for process",
        "RPM: error",
        "Problem repository",
    ];
    let is_decisive = decisive(output);
    let (mut is_own, mut is_others) = (false, false);
    let filter = |line: &&str| {
        match sources::failed(line) {
            Some((part, id)) => {
                is_others = part == FailureLine::Causes && !is_decisive(id);
                if !is_decisive(id) {
                    return false;
                }
            }
            None if is_others && line.starts_with("  - ") => return false,
            None => is_others = false,
        }
        let begins = BEGINNINGS.iter().any(|beginning| line.starts_with(beginning));
        is_own = begins || is_own && line.starts_with([' ', '[']) || line.starts_with("[MIRROR]");
        is_own
    };
    output.lines().filter(filter).collect()
}

/// Returns whether the failure of a repository is the failure of dnf. It is not if dnf has gone on without that repository
/// and has found all packages, or if another repository has ended it.
fn decisive(output: &str) -> impl Fn(&str) -> bool {
    let ignored = sources::ignored(output);
    let has_ended = |(part, id)| (part == FailureLine::End).then_some(id);
    let last = output.lines().filter_map(sources::failed).filter_map(has_ended).next_back();
    let lacks_ignored = lacks_ignored(output);
    move |id| match (ignored.is_empty(), last) {
        (true, Some(last)) => id == last,
        (true, None) => true,
        (false, _) => lacks_ignored || !ignored.contains(&id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_no_repository_has_is_named_in_the_hint() {
        for (package, pattern) in [
            ("ngimx", "'ngimx*'"),
            ("app-1:9.0-*", "'app*'"),
            ("java-21-openjdk", "'java*'"),
            ("gcc-c++", "'gcc-c++*'"),
        ] {
            let hint = TABLE.diagnosis(&format!("No match for argument: {package}\n")).hint.unwrap().into_owned();
            assert!(hint.ends_with(&format!(": dnf list --showduplicates {pattern}")), "{hint}");
        }
    }

    fn all(cause: Cause, outputs: &[&str]) {
        for output in outputs {
            assert_eq!(TABLE.diagnosis(output).cause, cause, "{output}");
        }
    }

    fn metadata(reason: &str) -> String {
        format!(
            "app   0.0  B/s |   0  B     00:00    \nErrors during downloading metadata for repository 'app':\n  - {reason}\n\
             Error: Failed to download metadata for repo 'app': Cannot download repomd.xml: \
             Cannot download repodata/repomd.xml: All mirrors were tried"
        )
    }

    #[test]
    fn failures_of_the_network_are_temporary() {
        for reason in [
            "Curl error (7): Couldn't connect to server for http://r/repodata/repomd.xml [Failed to connect to r port 80]",
            "Curl error (6): Couldn't resolve host name for http://r/repodata/repomd.xml [Could not resolve host: r]",
            "Curl error (28): Timeout was reached for http://r/repodata/repomd.xml [Connection timed out]",
            "Status code: 503 for http://r/repodata/repomd.xml (IP: 10.0.0.1)",
        ] {
            all(Cause::Network, &[&metadata(reason)]);
        }
        let ignored = metadata("Curl error (7): Couldn't connect to server for http://r/repodata/repomd.xml [x]")
            + "\nIgnoring repositories: app\nNo match for argument: foo\nError: Unable to find a match: foo";
        all(Cause::Network, &[&ignored]);
        let line = TABLE.diagnosis(&ignored).line.to_owned();
        assert!(line.contains("Curl error (7)"), "the repository, not the name: {line}");
        // Amazon Linux's own repositories are lists of mirrors.
        for reason in
            ["(6): Couldn't resolve host name", "(7): Couldn't connect to server", "(28): Timeout was reached"]
        {
            let list = format!(
                "Error: Failed to download metadata for repo 'amazonlinux': Cannot prepare internal mirrorlist: \
                 Curl error {reason} for http://cdn.amazonlinux.com/mirror.list [x]"
            );
            all(Cause::Network, &[&list]);
        }
    }

    #[test]
    fn only_the_repository_that_ends_dnf_is_its_cause() {
        let failed = |id: &str, reason: &str| {
            format!(
                "Errors during downloading metadata for repository '{id}':\n  - {reason}\nError: Failed to download \
                 metadata for repo '{id}': Cannot download repomd.xml: All mirrors were tried\n"
            )
        };
        let third = failed("third", "Status code: 403 for http://third/repodata/repomd.xml (IP: 10.0.0.1)");
        let own = failed("own", "Curl error (7): Couldn't connect to server for http://own/repodata/repomd.xml [x]");
        all(Cause::Network, &[&format!("{third}{own}")]);
        let ignored = format!("{third}Ignoring repositories: third\n");
        let script = format!("{ignored}error: %prein(app-1.0-1.noarch) scriptlet failed, exit status 1");
        assert!(TABLE.diagnosis(&script).line.contains("scriptlet failed"));
        let missing = format!("{ignored}No match for argument: app\nError: Unable to find a match: app");
        assert!(TABLE.diagnosis(&missing).line.contains("Status code: 403"));
    }

    #[test]
    fn a_wrong_address_or_certificate_is_no_temporary_failure() {
        for reason in [
            "Status code: 404 for http://r/x/repodata/repomd.xml (IP: 10.0.0.1)",
            "Status code: 403 for http://r/x/repodata/repomd.xml (IP: 10.0.0.1)",
            "Curl error (37): Couldn't read a file:// file for file:///x/repodata/repomd.xml [Couldn't open file]",
        ] {
            all(Cause::Permanent, &[&metadata(reason)]);
        }
        let certificate =
            "Curl error (60): SSL peer certificate or SSH remote key was not OK for https://r/repodata/repomd.xml [x]";
        all(Cause::Certificate, &[&metadata(certificate)]);
        assert!(!Cause::Certificate.is_transient());
    }

    #[test]
    fn signatures_are_told_as_the_cause() {
        let unsigned = "Downloading Packages:\nPackage foo-1.2-1.noarch.rpm is not signed\nError: GPG check FAILED";
        let index = "Error: Failed to download metadata for repo 'app': repomd.xml GPG signature verification error: \
                     Bad GPG signature";
        let missing = "Error: Failed to download metadata for repo 'app': GPG verification is enabled, but GPG signature \
                       is not available. This may be an error: Curl error (37): Couldn't read a file:// file";
        let wrong = "Public key for foo-1.2-1.noarch.rpm is not installed. Failing package is: foo-1.2-1.noarch\n \
                     GPG Keys are configured as: file:///etc/pki/rpm-gpg/app\nError: GPG check FAILED";
        all(Cause::Permanent, &[unsigned, index, missing, wrong]);
        let hint = |output| TABLE.diagnosis(output).hint.unwrap_or_default().into_owned();
        assert!(hint(index).contains("add no key") && hint(missing).contains("signed index"));
        assert!(hint(unsigned).contains("signed packages") && hint(wrong).contains("declare the key"));
    }

    #[test]
    fn locks_and_stale_mirrors_are_recognized() {
        all(
            Cause::Locked,
            &["error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)\n\
               Error: Could not run transaction."],
        );
        all(
            Cause::Stale,
            &["[MIRROR] foo-1.2-1.noarch.rpm: Status code: 404 for http://r/foo-1.2-1.noarch.rpm (IP: 10.0.0.1)\n\
               [FAILED] foo-1.2-1.noarch.rpm: No more mirrors to try - All mirrors were already tried without success\n\
               Error: Error downloading packages:"],
        );
    }

    #[test]
    fn unknown_names_may_be_in_newer_lists_and_conflicts_are_not() {
        all(Cause::Unknown, &["No match for argument: foo-9.*\nError: Unable to find a match: foo-9.*"]);
        all(
            Cause::Permanent,
            &[
                "Error: \n Problem: conflicting requests\n  - nothing provides nowhere >= 3 needed by broken-1.0-1.noarch",
                "Error: \n Problem: The operation would result in removing the following protected packages: loser",
                "Error: \n Problem: cannot install both slow-2.0-1.noarch and slow-1.0-1.noarch\n  - conflicting requests",
                "Error: Transaction test error:\n  installing package big-1-1.x86_64 needs 5GB more space on the / filesystem",
                "error: %prein(badpre-1.0-1.noarch) scriptlet failed, exit status 127\nError: Transaction failed",
                "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Read-only file system)",
                "something new",
            ],
        );
    }

    #[test]
    fn what_the_machine_lacks_is_told() {
        for (output, words) in [
            ("[Errno 28] No space left on device", "free space"),
            (
                "Error: Transaction test error:\n  installing package a-1-1.x86_64 needs 1 more inodes on the / filesystem",
                "inodes",
            ),
            ("RPM: error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Read-only file system)", "writable"),
            ("Config error: [Errno 30] Read-only file system: '/var/log/dnf.log': '/var/log/dnf.log'", "writable"),
            (
                "Config error: Parsing file \"/etc/dnf/dnf.conf\" failed: IniParser: Missing '=' at line 9",
                "configuration",
            ),
            ("Installed size: 12\nOperation aborted.", "assumeno"),
            (
                "Installed package a-1-1.noarch not available.\nError: No packages marked for reinstall.",
                "installed version",
            ),
        ] {
            let hint = TABLE.diagnosis(output).hint.unwrap_or_default().into_owned();
            assert!(hint.contains(words), "{output}: {hint}");
        }
    }

    #[test]
    fn output_of_package_scripts_is_not_a_cause() {
        let output = "post of agent: Curl error (7): Couldn't connect\n\
                      error: %prein(agent-1.0-1.noarch) scriptlet failed, exit status 1\nError: Transaction failed";
        assert!(TABLE.diagnosis(output).line.contains("scriptlet failed"));
    }
}
