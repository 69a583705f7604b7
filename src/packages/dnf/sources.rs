//! The repositories in this machine's files (dnf.conf(5)), and those of them that are a third party's.
//!
//! A third-party repository comes neither from the manifest nor from the distribution. It may fail without making an
//! installation fail. Where its own file has `skip_if_unavailable`, the file decides. A file of a manifest has it.

use anyhow::Result;

use crate::{redaction, system::System, value::AbsPath};

/// The file of dnf's settings, which may have repositories too.
const SETTINGS: &str = "/etc/dnf/dnf.conf";
/// The directories of the repositories' files; dnf.conf(5), `reposdir`.
const DIRECTORIES: [&str; 3] = ["/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"];
/// Limits the size of a file with repositories. Real ones are smaller.
const MAX_BYTES: u64 = 1 << 20;

/// The names of the distributions' own keys begin so.
const KEYS: [&str; 8] = [
    "RPM-GPG-KEY-amazon-linux-",
    "RPM-GPG-KEY-redhat-",
    "RPM-GPG-KEY-fedora-",
    "RPM-GPG-KEY-centosofficial",
    "RPM-GPG-KEY-CentOS-",
    "RPM-GPG-KEY-Rocky-",
    "RPM-GPG-KEY-AlmaLinux-",
    "RPM-GPG-KEY-oracle",
];
/// The domains of the distributions' own repositories. They count if a repository has no key: Fedora's servers also have
/// EPEL, which is no part of RHEL.
const HOSTS: [&str; 7] = [
    "amazonlinux.com",
    "redhat.com",
    "fedoraproject.org",
    "centos.org",
    "rockylinux.org",
    "almalinux.org",
    "oracle.com",
];
/// The ids of the distributions' own repositories, or what comes before a `-` in them.
const IDS: [&str; 8] = ["amazonlinux", "kernel-livepatch", "rhel", "fedora", "updates", "baseos", "appstream", "crb"];

/// What dnf says before it goes on without some repositories.
const IGNORED: &str = "Ignoring repositories: ";

/// A repository of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct DnfSource {
    id: String,
    is_disabled: bool,
    /// `gpgkey`.
    key: String,
    /// `baseurl`, `metalink` and `mirrorlist`.
    addresses: Vec<String>,
    /// Whether its file has `skip_if_unavailable`.
    decides: bool,
}

impl DnfSource {
    /// Returns whether the source comes neither from a manifest nor from the distribution.
    ///
    /// A source that may be a mirror of the distribution does not count as a third party's. A blocked mirror must not hide
    /// security updates from this machine without an error.
    fn is_third_partys(&self) -> bool {
        let has_its_id = IDS
            .iter()
            .any(|known| self.id.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')));
        let has_its_key =
            self.key.split(['/', ' ', ',', '\n']).any(|name| KEYS.iter().any(|key| name.starts_with(key)));
        let has_its_host = self.key.is_empty() && self.addresses.iter().any(|address| is_of_distribution(address));
        !(self.decides || has_its_id || has_its_key || has_its_host)
    }
}

fn is_of_distribution(address: &str) -> bool {
    let host = address.split_once("://").map_or("", |(_, rest)| rest).split(['/', ':']).next().unwrap_or_default();
    HOSTS
        .iter()
        .any(|known| host.strip_suffix(known).is_some_and(|subdomain| subdomain.is_empty() || subdomain.ends_with('.')))
}

/// Returns the repositories of all files, each with its file.
fn all(system: &System) -> Result<Vec<(DnfSource, AbsPath)>> {
    let root = system.root();
    let mut files = vec![AbsPath::from(SETTINGS)];
    for directory in DIRECTORIES {
        files.extend(root.matching(&format!("{directory}/*.repo"))?);
    }
    let mut all = vec![];
    for file in files {
        let text = root.read(&file, MAX_BYTES)?.unwrap_or_default();
        all.extend(sections(&String::from_utf8_lossy(&text)).into_iter().map(|source| (source, file.clone())));
    }
    Ok(all)
}

/// Returns the options with which dnf goes on without the third-party repositories that it cannot update.
pub(super) fn may_fail(system: &System) -> Result<Vec<String>> {
    let sources = all(system)?;
    let third_partys = sources.iter().filter(|(source, _)| !source.is_disabled && source.is_third_partys());
    Ok(third_partys.map(|(source, _)| format!("--setopt={}.skip_if_unavailable=1", source.id)).collect())
}

/// Warns of each repository without which dnf has gone on.
pub(super) fn warn_of_ignored(system: &System, output: &str) -> Result<()> {
    for id in ignored(output) {
        let reason = reason(output, id).map(|reason| format!(": {}", redaction::printed(reason))).unwrap_or_default();
        let shown = shown(system, id)?;
        system.warn(format!("the repository {shown} could not be updated; nothing is installed from it{reason}"));
    }
    Ok(())
}

/// Returns the id of a repository with its file, for messages.
pub(super) fn shown(system: &System, id: &str) -> Result<String> {
    let file = all(system)?.into_iter().find(|(source, _)| source.id == id);
    Ok(file.map_or_else(|| id.to_owned(), |(_, file)| format!("{id} ({file})")))
}

/// Returns the ids of the repositories without which dnf has gone on.
pub(super) fn ignored(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix(IGNORED)).flat_map(|ids| ids.split(", ")).collect()
}

/// Returns why dnf could not update a repository.
fn reason<'a>(output: &'a str, id: &str) -> Option<&'a str> {
    let mut of_download = output.lines().skip_while(|line| failed(line) != Some((FailureLine::Causes, id)));
    let cause = of_download.nth(1).and_then(|line| line.strip_prefix("  - "));
    cause.or_else(|| {
        let end = output.lines().find(|line| failed(line) == Some((FailureLine::End, id)))?;
        Some(end.split_once("': ")?.1)
    })
}

/// What a line of dnf says of a repository that it could not update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureLine {
    /// The lines after it are the causes.
    Causes,
    /// It is all of an error.
    End,
}

/// Returns the id of the repository that a line calls failed.
pub(super) fn failed(line: &str) -> Option<(FailureLine, &str)> {
    let begin = [
        ("Errors during downloading metadata for repository '", FailureLine::Causes),
        ("Error: Failed to download metadata for repo '", FailureLine::End),
    ];
    let (rest, part) = begin.iter().find_map(|(begin, part)| Some((line.strip_prefix(begin)?, *part)))?;
    Some((part, rest.split_once('\'')?.0))
}

/// Parses a file: `[ID]`, and below it lines of `KEY=VALUE`. A value continues on lines that begin with a blank.
fn sections(text: &str) -> Vec<DnfSource> {
    let mut sections: Vec<DnfSource> = vec![];
    let mut key = "";
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(id) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            sections.push(DnfSource { id: id.0.to_owned(), ..DnfSource::default() });
            continue;
        }
        let value = match line.split_once('=') {
            _ if line.starts_with([' ', '\t']) => line,
            Some((name, value)) => {
                key = name.trim();
                value
            }
            None => continue,
        };
        let (Some(section), value) = (sections.last_mut(), value.trim()) else { continue };
        match key {
            "enabled" => section.is_disabled = ["0", "no", "false", "off"].contains(&&*value.to_lowercase()),
            "gpgkey" => section.key += &format!("{value} "),
            "baseurl" | "metalink" | "mirrorlist" => {
                section.addresses.extend(value.split([' ', ',']).map(str::to_owned));
            }
            "skip_if_unavailable" => section.decides = true,
            _ => {}
        }
    }
    // `main` has dnf's own settings. dnf would take other characters as a pattern.
    let is_id = |id: &str| id != "main" && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    sections.retain(|section| is_id(&section.id));
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_parties_are_told_from_the_distribution() {
        let is_third_partys = |text: &str| {
            let sections = sections(text);
            assert_eq!(sections.len(), 1, "{text}");
            sections[0].is_third_partys()
        };
        let amazon = "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2023\n";
        for own in [
            &format!("[x]\nbaseurl=https://mirror.example/al2023\n{amazon}"),
            "[amazonlinux]\nbaseurl=https://mirror.example/al2023\ngpgkey=https://mirror.example/key",
            "[rhel-9-appstream-rhui-rpms]\nmirrorlist=https://rhui.example/\n",
            "[x]\nmirrorlist = http://cdn.amazonlinux.com/al2023/core/mirrors/mirror.list\n",
            "[x]\nbaseurl=https://h.example/\n  https://redhat.com/x\n",
            // As the kind yum_repository writes it.
            "# x\n[x]\nbaseurl=https://h.example/\nskip_if_unavailable=0\n",
        ] {
            assert!(!is_third_partys(own), "{own}");
        }
        for other in [
            "[x]\nbaseurl=https://h.example/\n",
            "[docker-ce-stable]\nbaseurl=https://download.docker.com/linux\ngpgkey=https://download.docker.com/gpg\n",
            "[epel]\nmetalink=https://mirrors.fedoraproject.org/x\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-EPEL-9\n",
            "[x]\nbaseurl=https://redhat.com.example/\n",
            "[rhelish]\nbaseurl=https://h.example/\n# skip_if_unavailable=0\n",
        ] {
            assert!(is_third_partys(other), "{other}");
        }
    }

    #[test]
    fn only_repositories_are_read() {
        let text = "[main]\nskip_if_unavailable=True\n[a*]\nbaseurl=x\n[one]\nenabled = False\n[two]\nenabled=1\n";
        let read: Vec<_> = sections(text).into_iter().map(|source| (source.id, source.is_disabled)).collect();
        assert_eq!(read, [("one".into(), true), ("two".into(), false)]);
    }

    #[test]
    fn an_ignored_repository_has_a_reason() {
        let output = "\
Errors during downloading metadata for repository 'one':
  - Status code: 404 for http://h/one/repodata/repomd.xml (IP: 10.0.0.1)
Error: Failed to download metadata for repo 'one': Cannot download repomd.xml: All mirrors were tried
Error: Failed to download metadata for repo 'two': Cannot prepare internal mirrorlist: Curl error (6): x
Ignoring repositories: one, two";
        assert_eq!(ignored(output), ["one", "two"]);
        assert_eq!(reason(output, "one"), Some("Status code: 404 for http://h/one/repodata/repomd.xml (IP: 10.0.0.1)"));
        assert_eq!(reason(output, "two"), Some("Cannot prepare internal mirrorlist: Curl error (6): x"));
        assert_eq!(reason(output, "three"), None);
    }
}
