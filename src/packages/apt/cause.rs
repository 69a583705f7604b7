//! Why apt or dpkg failed, told from what they print: their exit code is 100 for everything.

use std::borrow::Cow;

use crate::error::Fault;

/// What a failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A dpkg run was cut off: `dpkg --configure -a`, and again.
    Interrupted,
    /// Somebody took a lock between our look and apt's: wait, and again.
    Locked,
    /// A mirror did not answer, or with an error of its own: again, later.
    Network,
    /// The lists are older than the mirror, or the mirror is being updated: update, and again.
    Stale,
    /// The lists don't know a package: update, and again.
    Unknown,
    /// This machine's clock is wrong: it may be set soon.
    Clock,
    /// An index is too old, unless this machine's clock is ahead.
    Expired,
    /// Trying again changes nothing.
    Permanent,
}

/// What apt and dpkg print, what it means and what to do about it; the first row with a match counts. The
/// texts are those of apt 2.0 to 3.0 and dpkg 1.19 to 1.22 in the C locale.
#[rustfmt::skip]
const TEXTS: &[(Cause, &[&str], &str)] = &[
    (Cause::Interrupted, &["dpkg was interrupted, you must manually run"],
        "finish it by hand: dpkg --configure -a"),
    (Cause::Locked, &["Could not get lock", "Unable to lock directory", "Unable to acquire the dpkg frontend lock",
            "locked by another process"],
        "see who holds the lock: fuser -v /var/lib/dpkg/lock-frontend"),
    (Cause::Permanent, &["No space left on device", "don't have enough free space"],
        "the file system is full: free space or inodes on it (df -h, df -i)"),
    (Cause::Permanent, &["Read-only file system"],
        "a file system is mounted read-only (findmnt --options ro)"),
    (Cause::Permanent, &["The following signatures", "GPG error", "OpenPGP signature verification failed",
            "isn't valid, got 'NOSPLIT'"],
        "the repository is not signed by a key that this machine trusts for it; see which key its source names: \
         grep -r -i -E 'signed-by|uris|^deb' /etc/apt/sources.list /etc/apt/sources.list.d"),
    (Cause::Clock, &["is not valid yet"],
        "this machine's clock is behind: see `timedatectl`"),
    (Cause::Expired, &["is expired (invalid since", "is expired."],
        "use another mirror: this one's index has expired"),
    (Cause::Permanent, &["Conflicting values set for option"],
        "a repository is declared twice, with different keys: remove one of its files in /etc/apt/sources.list.d"),
    (Cause::Permanent, &["changed its '"],
        "the repository was renamed; accept it once: apt-get update --allow-releaseinfo-change"),
    (Cause::Permanent, &["Certificate verification failed", "certificate verify failed"],
        "the mirror's TLS certificate is not trusted: see `ca-certificates` and the clock"),
    (Cause::Permanent, &["error processing package", "error processing archive"],
        "the package's own output is above; the next run finishes what is left"),
    (Cause::Permanent, &["Held packages were changed"],
        "release the hold first: apt-mark unhold NAME"),
    (Cause::Permanent, &["held broken packages", "Unmet dependencies", "Unable to satisfy dependencies",
            "unable to correct dependencies"],
        "see what conflicts above; a version asked for may be missing from the repositories"),
    (Cause::Permanent, &["401  ", "403  "],
        "the mirror refuses: see its credentials in /etc/apt/auth.conf.d"),
    (Cause::Network, &["429  ", "500  ", "502  ", "503  ", "504  "],
        "the mirror is overloaded: see its status, or use another one"),
    // apt says the next two also of a mirror that answers with the errors above.
    (Cause::Permanent, &["is not signed", "is no longer signed", "unauthenticated packages"],
        "the repository is not signed, and is not used without"),
    (Cause::Permanent, &["does not have a Release file"],
        "nothing is published at that address: compare `uris` and `suites`"),
    (Cause::Stale, &["404  ", "File not found", "Hash Sum mismatch", "File has unexpected size"],
        "the mirror may be in the middle of an update"),
    (Cause::Network, &["Failed to fetch", "Some index files failed to download"],
        "see whether the mirror answers: curl -I URL"),
    (Cause::Unknown, &["Unable to locate package", "has no installation candidate", "was not found"],
        "compare name and version with `apt-cache policy NAME`"),
];

/// What a failure's output tells.
#[derive(Debug)]
pub(crate) struct Diagnosis<'a> {
    /// What the failure calls for.
    pub(crate) cause: Cause,
    /// The line that tells it; the last one if none does.
    pub(crate) line: &'a str,
    hint: Option<Cow<'static, str>>,
}

impl<'a> Diagnosis<'a> {
    /// Tells it from apt's or dpkg's output.
    pub(crate) fn of(output: &'a str) -> Self {
        let said = said(output);
        for (cause, texts, hint) in TEXTS {
            if let Some(line) = said.iter().find(|line| texts.iter().any(|text| line.contains(text))) {
                return Self { cause: *cause, line, hint: Some((*hint).into()) };
            }
        }
        Self { cause: Cause::Permanent, line: output.lines().last().unwrap_or_default(), hint: None }
    }

    /// Says another thing to do about it.
    pub(crate) fn advise(&mut self, hint: String) {
        self.hint = Some(hint.into());
    }

    /// A fault with this cause's class and hint.
    pub(crate) fn fault(&self, message: String) -> Fault {
        let fault = Fault::new(message);
        let fault = if self.cause.is_transient() { fault.transient() } else { fault };
        match &self.hint {
            Some(hint) => fault.hint(hint.as_ref()),
            None => fault,
        }
    }
}

impl Cause {
    /// Whether the cause may pass by itself.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Self::Locked | Self::Network | Self::Stale | Self::Clock)
    }
}

/// The lines that apt and dpkg say themselves, not what maintainer scripts print: `E:` is an error, `W:` a
/// warning, `Err:` a failed download, dpkg names itself; what belongs to such a line is indented below it.
fn said(output: &str) -> Vec<&str> {
    let mut said = false;
    let of_theirs = |line: &&str| {
        let begins = ["E:", "W:", "Err:", "dpkg:", "dpkg-deb:"].iter().any(|speaker| line.starts_with(speaker));
        said = begins || said && line.starts_with(' ');
        said
    };
    output.lines().filter(of_theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(cause: Cause, outputs: &[&str]) {
        for output in outputs {
            assert_eq!(Diagnosis::of(output).cause, cause, "{output}");
        }
    }

    #[test]
    fn somebody_else_is_at_work() {
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
    fn what_may_pass() {
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
    fn an_expired_index_is_stale_or_seems_so() {
        let expired = "E: Release file for http://x/InRelease is expired (invalid since 2d 3h 4min 5s). Updates for this repository will not be applied.";
        all(Cause::Expired, &[expired]);
        assert!(!Cause::Expired.is_transient() && Cause::Clock.is_transient());
    }

    #[test]
    fn what_an_update_may_mend() {
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
    fn what_stays() {
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
        let hint = |output| Diagnosis::of(output).hint.unwrap_or_default().into_owned();
        let full = "dpkg: error processing archive n.deb (--unpack):\n failed to write (No space left on device)";
        assert!(hint(full).contains("df -h"), "the disk, not the package");
        let refused = "E: Failed to fetch http://x/InRelease  403  Forbidden [IP: 10.0.0.1 80]\n\
             E: The repository 'http://x bookworm InRelease' is not signed.";
        assert!(hint(refused).contains("refuses"), "the mirror, not the signature");
        assert_eq!(Diagnosis::of(refused).line, refused.lines().next().unwrap());
    }

    #[test]
    fn what_maintainer_scripts_print_is_not_believed() {
        let output = "Setting up agent (1.0) ...\nagent: Failed to fetch its configuration: 503  Service Unavailable\n\
             dpkg: error processing package agent (--configure):\n installed agent package post-installation script subprocess returned error exit status 1";
        all(Cause::Permanent, &[output]);
        all(Cause::Permanent, &["Could not get lock of my own"]);
    }
}
