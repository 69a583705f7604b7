//! Why apt or dpkg failed, told from what they print: their exit code is 100 for everything.

use crate::error::Fault;

/// What a failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
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
    /// This machine's clock is behind: it may be set soon.
    Clock,
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
    (Cause::Permanent, &["NO_PUBKEY", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "The following signatures", "GPG error",
            "OpenPGP signature verification failed", "is not signed", "is no longer signed", "cannot be authenticated",
            "unauthenticated packages", "isn't valid, got 'NOSPLIT'"],
        "the repository is not signed by a key that this machine trusts for it: compare the key of its `apt_repository`"),
    (Cause::Clock, &["is not valid yet"],
        "this machine's clock is behind: see `timedatectl`"),
    (Cause::Permanent, &["is expired (invalid since", "is expired."],
        "the repository's index has expired: its mirror is stale, or this machine's clock is ahead"),
    (Cause::Permanent, &["changed its '"],
        "the repository was renamed; accept it once: apt-get update --allow-releaseinfo-change"),
    (Cause::Permanent, &["Certificate verification failed", "certificate verify failed"],
        "the mirror's TLS certificate is not trusted: see `ca-certificates` and the clock"),
    (Cause::Permanent, &["error processing package", "error processing archive"],
        "its output is above and in /var/log/apt/term.log; the next run finishes what is left"),
    (Cause::Permanent, &["Held packages were changed"],
        "release the hold first: apt-mark unhold NAME"),
    (Cause::Permanent, &["held broken packages", "Unmet dependencies", "Unable to satisfy dependencies",
            "unable to correct dependencies"],
        "see what conflicts above; a version asked for may be missing from the repositories"),
    (Cause::Permanent, &["401  ", "403  "],
        "the mirror refuses: see its credentials in /etc/apt/auth.conf.d"),
    (Cause::Network, &["429  ", "500  ", "502  ", "503  ", "504  "],
        "the mirror is overloaded: see its status, or use another one"),
    (Cause::Permanent, &["does not have a Release file"],
        "nothing is published at that address: compare `uris` and `suites`"),
    (Cause::Stale, &["404  ", "File not found", "Hash Sum mismatch", "File has unexpected size"],
        "the mirror may be in the middle of an update"),
    (Cause::Network, &["Failed to fetch", "Some index files failed to download"],
        "see whether the mirror answers: curl -I URL"),
    (Cause::Unknown, &["Unable to locate package", "has no installation candidate", "was not found"],
        "compare name and version with `apt-cache policy NAME`"),
];

impl Cause {
    /// The cause and its hint, told from apt's or dpkg's output.
    pub(super) fn of(output: &str) -> (Self, Option<&'static str>) {
        let said = said(output);
        let mut rows = TEXTS.iter();
        let row = rows.find(|(_, texts, _)| texts.iter().any(|text| said.iter().any(|line| line.contains(text))));
        row.map_or((Self::Permanent, None), |(cause, _, hint)| (*cause, Some(hint)))
    }

    /// Whether the cause may pass by itself.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::Locked | Self::Network | Self::Stale | Self::Clock)
    }

    /// A fault with this cause's class and hint.
    pub(super) fn fault(self, message: String, hint: Option<&str>) -> Fault {
        let fault = Fault::new(message);
        let fault = if self.is_transient() { fault.transient() } else { fault };
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
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

    fn cause(output: &str) -> Cause {
        Cause::of(output).0
    }

    #[test]
    fn locks() {
        // apt 2.6, apt 1.6, dpkg 1.19.
        for output in [
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
            "E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)\nE: Unable to lock directory /var/lib/apt/lists/",
            "dpkg: error: dpkg frontend lock is locked by another process",
        ] {
            assert_eq!(cause(output), Cause::Locked, "{output}");
        }
        let output = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. ";
        assert_eq!(cause(output), Cause::Interrupted);
    }
}
