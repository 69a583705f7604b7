//! The repositories in this machine's sources files (sources.list(5)), and those of them that are a third party's.
//!
//! A third-party repository comes neither from the manifest nor from the distribution. It may fail without making an
//! installation fail.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{host::command::Finished, packages::DECLARED, redaction, system::System, value::AbsPath};

const LIST: &str = "/etc/apt/sources.list";
/// The directory of the other sources files. `apt_repository` writes its files there.
pub(crate) const PARTS: &str = "/etc/apt/sources.list.d";
/// Limits the size of a sources file. Real ones are smaller.
const MAX_BYTES: u64 = 1 << 20;

/// The domains of the distributions' own repositories.
const HOSTS: [&str; 2] = ["debian.org", "ubuntu.com"];
/// The prefixes of the names of the distributions' own keyrings.
const KEYRINGS: [&str; 2] = ["debian-archive-", "ubuntu-archive-"];
/// The names of suites that are not code names.
const SUITES: [&str; 5] = ["stable", "oldstable", "testing", "unstable", "sid"];
/// The suffixes of a release's additional suites.
const POCKETS: [&str; 4] = ["security", "updates", "backports", "proposed-updates"];

/// Limits the output of apt that is kept of each stream. A longer output may lack a failure.
const MAX_OUTPUT_BYTES: usize = 8 << 10;
/// The warnings of apt for a failed repository.
const FAILURES: [&str; 4] = ["Failed to fetch", "GPG error", "signature verification", "An error occurred"];
/// apt's summary of all failures. It names no repository.
const SUMMARY: &str = "Some index files failed to download";

/// A suite of a repository, as a sources file names it.
#[derive(Debug, Default, PartialEq, Eq)]
struct AptSource {
    uri: String,
    suite: String,
    components: Vec<String>,
    /// A path, or fingerprints, or a key.
    signed_by: Option<String>,
    declared: bool,
}

/// A third-party repository that could not be updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryFailure {
    uri: String,
    /// apt's message about it.
    pub(crate) line: String,
}

impl RepositoryFailure {
    /// Returns whether a package's URL is in this repository.
    pub(crate) fn holds(&self, url: &str) -> bool {
        is_in(&self.uri, url)
    }

    /// Returns the warning for the operator.
    pub(crate) fn warning(&self) -> String {
        format!("the repository {} could not be updated; nothing is installed from it: {}", self.uri, self.line)
    }
}

/// All repositories in the sources files.
#[derive(Debug)]
pub(crate) struct AptSources {
    sources: Vec<AptSource>,
    codename: String,
}

impl AptSources {
    pub(crate) fn read(system: &System) -> Result<Self> {
        let root = system.root();
        let (list, parts) = (AbsPath::from(LIST), AbsPath::from(PARTS));
        let text = |path: &AbsPath| -> Result<String> {
            Ok(String::from_utf8_lossy(&root.read(path, MAX_BYTES)?.unwrap_or_default()).into_owned())
        };
        let mut sources = lines(&text(&list)?);
        for name in root.list(&parts)? {
            let file = parts.join(&name)?;
            if name.ends_with(".list") {
                sources.extend(lines(&text(&file)?));
            } else if name.ends_with(".sources") {
                sources.extend(stanzas(&text(&file)?));
            }
        }
        // A release without a code name has a suite of [`SUITES`].
        Ok(Self { sources, codename: system.host.fact("codename").unwrap_or_default() })
    }

    /// Returns the third-party repositories that failed.
    ///
    /// Returns `None` if apt's output names another failure or no repository, or is too long to be complete.
    pub(crate) fn failures(&self, finished: &Finished) -> Option<Vec<RepositoryFailure>> {
        if finished.tail.len() >= MAX_OUTPUT_BYTES {
            return None;
        }
        let mut failures: Vec<RepositoryFailure> = vec![];
        let mut lines = finished.tail.lines().peekable();
        while let Some(line) = lines.next() {
            let is_failure = line.starts_with("Err:")
                || line.starts_with("E:")
                || line.starts_with("W:") && FAILURES.iter().any(|failure| line.contains(failure));
            if !is_failure || line.contains(SUMMARY) {
                continue;
            }
            let uri = self.named_in(line).filter(|uri| self.is_third_partys(uri))?;
            // The line below `Err:` has the reason.
            let reason = lines.peek().filter(|next| next.starts_with(' ')).unwrap_or(&line);
            let reason = reason.trim_start_matches(['E', 'W', ':']).trim();
            if !failures.iter().any(|failure| failure.uri == uri) {
                failures.push(RepositoryFailure { uri: uri.to_owned(), line: redaction::printed(reason).into_owned() });
            }
        }
        Some(failures).filter(|failures| !failures.is_empty())
    }

    /// Returns the repository that a line of apt's output names.
    fn named_in(&self, line: &str) -> Option<&str> {
        let uris = self.sources.iter().map(|source| source.uri.as_str());
        // One repository may be in a directory of another.
        uris.filter(|uri| line.match_indices(uri).any(|(at, _)| is_in(uri, &line[at..]))).max_by_key(|uri| uri.len())
    }

    fn is_third_partys(&self, uri: &str) -> bool {
        self.sources.iter().filter(|source| source.uri == uri).all(|source| source.is_third_partys(&self.codename))
    }
}

impl AptSource {
    /// Returns whether the source comes neither from a manifest nor from the distribution.
    ///
    /// A source that may be a mirror of the distribution does not count as a third party's. A blocked mirror must not
    /// hide security updates from this machine without an error.
    fn is_third_partys(&self, codename: &str) -> bool {
        let host = self.uri.split_once("://").map_or("", |(_, rest)| rest).split(['/', ':']).next().unwrap_or_default();
        let has_its_host = HOSTS.iter().any(|known| {
            host.strip_suffix(known).is_some_and(|subdomain| subdomain.is_empty() || subdomain.ends_with('.'))
        });
        let (release, pocket) = self.suite.split_once(['-', '/']).unwrap_or((&self.suite, ""));
        let is_its_release = SUITES.contains(&release) || !codename.is_empty() && release == codename;
        let is_its_pocket = is_its_release && POCKETS.contains(&pocket);
        let has_its_keyring = match &self.signed_by {
            None => is_its_release && pocket.is_empty() && self.components.iter().any(|component| component == "main"),
            Some(keyring) => {
                let name = keyring.rsplit('/').next().unwrap_or_default();
                KEYRINGS.iter().any(|known| name.starts_with(known))
            }
        };
        !(self.declared || has_its_host || is_its_pocket || has_its_keyring)
    }
}

/// Returns whether an address is in a repository. `http://h.example` is not in `http://h`.
fn is_in(uri: &str, address: &str) -> bool {
    address.strip_prefix(uri).is_some_and(|rest| {
        !rest.starts_with(|next: char| next.is_alphanumeric() || ".:-_~%+".contains(next))
            // In a sentence, `host: ` ends an address. `host:80` does not.
            || rest.starts_with(": ")
    })
}

/// Parses a file with one source a line: `deb [signed-by=KEYRING] URI SUITE COMPONENT…`.
fn lines(text: &str) -> Vec<AptSource> {
    let source = |line: &str| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb-src").or_else(|| line.strip_prefix("deb"))?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut options = options.split_whitespace();
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(AptSource {
            uri: words.next().filter(|uri| uri.contains(":/"))?.trim_end_matches('/').to_owned(),
            suite: words.next()?,
            components: words.collect(),
            signed_by: options.find_map(|option| option.strip_prefix("signed-by=")).map(Into::into),
            declared: false,
        })
    };
    text.lines().filter_map(source).collect()
}

/// Parses a file in the format of deb822(5). Each suite of each address is one source.
fn stanzas(text: &str) -> Vec<AptSource> {
    let declared = text.starts_with(DECLARED);
    let mut sources = vec![];
    let mut fields: Vec<(String, String)> = vec![];
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields), declared));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)], declared: bool) -> Vec<AptSource> {
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
    let words = |name: &str| field(name).unwrap_or_default().split_whitespace().map(str::to_owned);
    if field("enabled").is_some_and(|enabled| enabled.eq_ignore_ascii_case("no")) {
        return vec![];
    }
    let suites: Vec<String> = words("suites").collect();
    let of_uri = |uri: String| {
        let components: Vec<String> = words("components").collect();
        let signed_by = field("signed-by").map(str::to_owned);
        suites.clone().into_iter().map(move |suite| AptSource {
            uri: uri.trim_end_matches('/').to_owned(),
            suite,
            components: components.clone(),
            signed_by: signed_by.clone(),
            declared,
        })
    };
    words("uris").flat_map(of_uri).collect()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    fn sources(list: &str, parts: &str) -> AptSources {
        let sources = lines(list).into_iter().chain(stanzas(parts)).collect();
        AptSources { sources, codename: "bookworm".into() }
    }

    #[test]
    fn a_third_party_source_is_recognized() {
        let is_third_partys = |line: &str| lines(line)[0].is_third_partys("bookworm");
        for line in [
            "deb https://dead.example/apt stable stable",
            "deb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable",
            "deb [ signed-by=/etc/apt/keyrings/hashicorp.gpg ] https://apt.releases.hashicorp.com bookworm main",
            "deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main",
            "deb-src https://not-debian.org/debian ./",
        ] {
            assert!(is_third_partys(line), "{line}");
        }
        for line in [
            "deb http://deb.debian.org/debian bookworm main",
            "deb https://cdn-aws.deb.debian.org:443/debian anything main",
            "deb http://eu-central-1.ec2.archive.ubuntu.com/ubuntu jammy universe",
            "deb http://mirror.corp/debian bookworm main",
            "deb mirror+file:///etc/apt/mirrors/debian.list bookworm main",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] http://mirror.corp/d x main",
            "deb [signed-by=/etc/apt/keyrings/corp.gpg] http://mirror.corp/debian-security bookworm-security main",
        ] {
            assert!(!is_third_partys(line), "{line}");
        }
        let stanza =
            "Types: deb\nURIs: https://a.example/x/ https://b.example\nSuites: s t\nSigned-By:\n -----BEGIN\n .\n";
        let third = stanzas(&format!("# a comment\n{stanza}"));
        assert_eq!((third.len(), third[0].uri.as_str(), third[3].suite.as_str()), (4, "https://a.example/x", "t"));
        assert!(third.iter().all(|source| source.is_third_partys("bookworm")));
        assert!(stanzas(&format!("{DECLARED}\n{stanza}")).iter().all(|source| !source.is_third_partys("bookworm")));
        assert_eq!(stanzas(&format!("Enabled: no\n{stanza}")), []);
        assert_eq!(lines("# deb http://h/ x y\ndeb cdrom:[Debian 12]/ bookworm main\ndeb\n"), []);
    }

    #[test]
    fn only_failures_of_third_parties_are_returned() {
        let sources = sources(
            "deb http://deb.debian.org/debian bookworm main\ndeb http://dead.example/debian stable x\n",
            "URIs: http://dead.example/debian/sub\nSuites: ./\n",
        );
        let failed = |output: &str| {
            let status = ExitStatus::from_raw(100 << 8);
            let failures = sources.failures(&Finished {
                status,
                stdout: String::new(),
                tail: output.into(),
                has_left_processes: false,
            })?;
            Some(failures.into_iter().map(|failure| (failure.uri, failure.line)).collect::<Vec<_>>())
        };
        let dead = |uri: &str, reason: &str| Some(vec![(uri.to_owned(), reason.to_owned())]);
        let refused = "Hit:1 http://deb.debian.org/debian bookworm InRelease\n\
            Err:2 http://dead.example/debian stable InRelease\n  Could not connect to dead.example:80\n\
            E: Failed to fetch http://dead.example/debian/dists/stable/InRelease  Could not connect to dead.example:80\n\
            E: Some index files failed to download. They have been ignored, or old ones used instead.";
        assert_eq!(failed(refused), dead("http://dead.example/debian", "Could not connect to dead.example:80"));
        let rotated = "W: GPG error: http://dead.example/debian/sub ./ InRelease: NO_PUBKEY 9A9C5A7350E34DB2\n\
            E: The repository 'http://dead.example/debian/sub ./ InRelease' is not signed.";
        assert!(failed(rotated).unwrap()[0].1.starts_with("GPG error: http://dead.example/debian/sub"));
        assert_eq!(failed(rotated).unwrap().len(), 1);
        let own = "E: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  503  Unavailable";
        for output in [
            own,
            &format!("{refused}\n{own}"),
            "E: Could not get lock /var/lib/apt/lists/lock",
            "E: Failed to fetch http://dead.example/debian-security/x  404",
            "W: Target Packages is configured multiple times in /etc/apt/sources.list:1",
            &format!("{refused}{}", "x".repeat(MAX_OUTPUT_BYTES)),
            "",
        ] {
            assert_eq!(failed(output), None, "{output}");
        }
    }

    #[test]
    fn an_address_with_the_same_prefix_may_be_elsewhere() {
        for (uri, address, expected) in [
            ("http://h", "http://h/pool/x.deb", true),
            ("http://h", "http://h stable InRelease", true),
            ("http://h", "http://h: it failed", true),
            ("http://h", "http://h'", true),
            ("http://h", "http://h:8080/x", false),
            ("http://h", "http://h.example/x", false),
            ("http://h/debian", "http://h/debian-security/x", false),
        ] {
            assert_eq!(is_in(uri, address), expected, "{uri} {address}");
        }
    }
}
