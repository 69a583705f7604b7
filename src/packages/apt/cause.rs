//! The texts of apt and dpkg by which the cause of a failure is known.

use crate::packages::cause::{Cause, CauseTable};

/// The texts are those of apt 2.0 to 3.0 and dpkg 1.19 to 1.22 in the C locale.
#[rustfmt::skip]
pub(crate) const TABLE: CauseTable = CauseTable { own_lines, advice: |_| None, rows: &[
    (Cause::Interrupted, &["dpkg was interrupted, you must manually run"],
        "finish the interrupted run: dpkg --configure -a"),
    (Cause::Locked, &["Could not get lock", "Unable to lock directory", "Unable to acquire the dpkg frontend lock",
            "locked by another process"],
        "find the process that holds the lock: fuser -v /var/lib/dpkg/lock-frontend"),
    (Cause::Permanent, &["No space left on device", "don't have enough free space"],
        "free space or inodes on the full file system; to find it: df -h; df -i"),
    (Cause::Permanent, &["Read-only file system"],
        "make the read-only file system writable; to find it: findmnt --options ro"),
    (Cause::Permanent, &["The following signatures", "GPG error", "OpenPGP signature verification failed",
            "isn't valid, got 'NOSPLIT'"],
        "declare the key that signs the repository; to see the key that its source names: \
         grep -r -i -E 'signed-by|uris|^deb' /etc/apt/sources.list /etc/apt/sources.list.d"),
    (Cause::Clock, &["is not valid yet"],
        "set this machine's clock, which is behind; to see what sets it: timedatectl status"),
    (Cause::Expired, &["is expired (invalid since", "is expired."],
        "use another mirror; the index of this one has expired"),
    (Cause::Permanent, &["Conflicting values set for option"],
        "remove one of the two files in /etc/apt/sources.list.d that name this repository with different keys"),
    (Cause::Permanent, &["changed its '"],
        "accept the repository's new name once: apt-get update --allow-releaseinfo-change"),
    (Cause::Certificate, &["Certificate verification failed", "certificate verify failed"],
        "check that the package ca-certificates is installed and that the clock is right: timedatectl status"),
    (Cause::Permanent, &["error processing package", "error processing archive"],
        "fix the cause in the package's output above; the next run configures the package"),
    (Cause::Permanent, &["Held packages were changed"],
        "release the held packages; to list them: apt-mark showhold"),
    (Cause::Permanent, &["held broken packages", "Unmet dependencies", "Unable to satisfy dependencies",
            "unable to correct dependencies"],
        "resolve the conflict in apt's output above; the repositories may not have a declared version"),
    (Cause::Permanent, &["401  ", "403  "],
        "check the credentials in /etc/apt/auth.conf.d: the mirror refuses access"),
    (Cause::Network, &["429  ", "500  ", "502  ", "503  ", "504  "],
        "wait for the overloaded mirror, or use another one"),
    // apt also prints the next two if a mirror answers with the errors above.
    (Cause::Permanent, &["is not signed", "is no longer signed", "unauthenticated packages"],
        "use a signed repository; apt installs nothing from an unsigned one"),
    (Cause::Permanent, &["does not have a Release file"],
        "correct `uris` or `suites`: there is no repository at this address"),
    (Cause::Stale, &["404  ", "File not found", "Hash Sum mismatch", "File has unexpected size"],
        "try again in some minutes: the mirror may be in the middle of an update"),
    (Cause::Network, &["Failed to fetch", "Some index files failed to download"],
        "check that this machine can reach the mirror in the message above"),
    (Cause::Unknown, &["Unable to locate package", "has no installation candidate", "was not found"],
        "correct the name or the version; to list the known versions of all packages: apt-cache policy '*'"),
]};

/// Returns the lines of apt and dpkg, without those of maintainer scripts.
///
/// `E:` marks an error, `W:` a warning, `Err:` a failed download. dpkg prints its name. Continuation lines are indented.
fn own_lines(output: &str) -> Vec<&str> {
    let mut is_own = false;
    let filter = |line: &&str| {
        let begins = ["E:", "W:", "Err:", "dpkg:", "dpkg-deb:"].iter().any(|prefix| line.starts_with(prefix));
        is_own = begins || is_own && line.starts_with(' ');
        is_own
    };
    output.lines().filter(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(cause: Cause, outputs: &[&str]) {
        for output in outputs {
            assert_eq!(TABLE.diagnosis(output).cause, cause, "{output}");
        }
    }

    #[test]
    fn held_locks_and_interrupted_runs_are_recognized() {
        all(
            Cause::Locked,
            &[
                "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\n\
             E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
                "E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)\n\
             E: Unable to lock directory /var/lib/apt/lists/",
                "dpkg: error: dpkg frontend lock is locked by another process",
                "dpkg: error: dpkg frontend lock was locked by another process with pid 4711\nNote: removing the lock file is always wrong",
            ],
        );
        all(
            Cause::Interrupted,
            &["E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. "],
        );
    }

    #[test]
    fn failures_of_the_network_and_the_clock_are_recognized() {
        all(
            Cause::Network,
            &[
                "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'\n\
             W: Some index files failed to download. They have been ignored, or old ones used instead.",
                "E: Failed to fetch http://127.0.0.1:8098/debian/pool/n.deb  Could not connect to 127.0.0.1:8098 (127.0.0.1). - connect (111: Connection refused)",
                "E: Failed to fetch http://deb.debian.org/debian/pool/n.deb  503  Service Unavailable [IP: 151.101.2.132 80]",
                "Err:3 http://deb.debian.org/debian bookworm Release\n  503  Service Unavailable [IP: 151.101.2.132 80]\n\
             E: The repository 'http://deb.debian.org/debian bookworm Release' does not have a Release file.",
            ],
        );
        all(
            Cause::Clock,
            &[
                "E: Release file for http://deb.debian.org/debian/dists/bookworm-updates/InRelease is not valid yet (invalid for another 2h 5min 1s). Updates for this repository will not be applied.",
            ],
        );
    }

    #[test]
    fn an_expired_index_is_no_temporary_failure() {
        let expired = "E: Release file for http://x/InRelease is expired (invalid since 2d 3h 4min 5s). Updates for this repository will not be applied.";
        all(Cause::Expired, &[expired]);
        assert!(!Cause::Expired.is_transient() && Cause::Clock.is_transient());
    }

    #[test]
    fn failures_that_an_update_may_fix_are_recognized() {
        all(
            Cause::Stale,
            &[
                "E: Failed to fetch http://deb.debian.org/debian/pool/main/n/nginx/nginx_1.22.1-9_amd64.deb  404  Not Found [IP: 151.101.2.132 80]\n\
             E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?",
                "E: Failed to fetch http://deb.debian.org/debian/dists/bookworm/main/binary-amd64/Packages.xz  Hash Sum mismatch\n   Hashes of expected file:",
                "E: Failed to fetch http://archive.ubuntu.com/x  File has unexpected size (12 != 13). Mirror sync in progress? [IP: 91.189.91.83 80]",
                "E: Failed to fetch file:/repo/pool/n.deb  File not found - /repo/pool/n.deb (2: No such file or directory)",
            ],
        );
        all(
            Cause::Unknown,
            &[
                "E: Unable to locate package nginx",
                "E: Package 'nginx' has no installation candidate",
                "E: Version '9.9' for 'nginx' was not found",
            ],
        );
    }

    #[test]
    fn permanent_failures_are_recognized() {
        all(
            Cause::Permanent,
            &[
                "W: GPG error: http://x/debian bookworm InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 9A9C5A7350E34DB2\n\
             E: The repository 'http://x/debian bookworm InRelease' is not signed.",
                "W: OpenPGP signature verification failed: http://x/debian trixie InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 2EE425D81B49A5386B8506DD9A9C5A7350E34DB2, which is needed to verify signature.\n\
             E: The repository 'http://x/debian trixie InRelease' is not signed.",
                "Ign:1 http://x bookworm InRelease\n  404  Not Found [IP: 10.0.0.1 80]\n\
             E: The repository 'http://x bookworm Release' is not signed.",
                "E: The repository 'http://x bookworm Release' does not have a Release file.",
                "Err:2 http://x bookworm Release\n  404  Not Found [IP: 10.0.0.1 80]\n\
             E: The repository 'http://x bookworm Release' does not have a Release file.",
                "E: Failed to fetch http://x/n.deb  403  Forbidden [IP: 10.0.0.1 80]",
                "dpkg: error processing package nginx (--configure):\n installed nginx package post-installation script subprocess returned error exit status 1\n\
             Errors were encountered while processing:\n nginx\nE: Sub-process /usr/bin/dpkg returned an error code (1)",
                "dpkg: error processing archive /var/cache/apt/archives/n.deb (--unpack):\n cannot copy extracted data for './usr/n' to '/usr/n.dpkg-new': failed to write (No space left on device)",
                "E: You don't have enough free space in /var/cache/apt/archives/.",
                "E: Unable to correct problems, you have held broken packages.",
                "E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).",
                "something new",
            ],
        );
        let hint = |output| TABLE.diagnosis(output).hint.unwrap_or_default().into_owned();
        let full = "dpkg: error processing archive n.deb (--unpack):\n failed to write (No space left on device)";
        assert!(hint(full).contains("df -h"), "the disk, not the package");
        let refused = "E: Failed to fetch http://x/InRelease  403  Forbidden [IP: 10.0.0.1 80]\n\
             E: The repository 'http://x bookworm InRelease' is not signed.";
        assert!(hint(refused).contains("refuses access"), "the mirror, not the signature");
        assert_eq!(TABLE.diagnosis(refused).line, refused.lines().next().unwrap());
    }

    #[test]
    fn output_of_maintainer_scripts_is_not_a_cause() {
        let output = "Setting up agent (1.0) ...\nagent: Failed to fetch its configuration: 503  Service Unavailable\n\
             dpkg: error processing package agent (--configure):\n installed agent package post-installation script subprocess returned error exit status 1";
        all(Cause::Permanent, &[output]);
        all(Cause::Permanent, &["Could not get lock of my own"]);
    }
}
