//! Archives of packages, fetched by our own downloads before apt-get asks for them: several at a time and large ones
//! in parts, where apt has one connection to each mirror.
//!
//! What to fetch, and what it must hash to, apt says itself, from its signed lists (`--print-uris`, apt-get(8)). What
//! it would fetch in a way of its own (through a proxy, with credentials, from a medium) is left to it, and so is all
//! that goes wrong here: this saves time or does nothing.
//!
//! apt takes an archive that has the right name and size for the right one (apt-pkg/acquire-item.cc). So nothing gets
//! its name before it is verified; and what is there already is verified too: it isn't made durable, as apt does not
//! either, because that would cost all the time that is saved, and after a power cut it may be torn. No lock is held:
//! an archive appears whole, and another apt that fetches the same one puts the same bytes in its place.

use anyhow::{Result, ensure};

use crate::{
    fetch::{pull::Download, source::Source},
    host::{
        command::{Finished, Program},
        root::{Ownership, Root},
    },
    system::System,
    value::{AbsPath, ByteSize, Sha256},
};

/// What apt-get is told besides, to say what an installation needs: also what it has; and its SHA-256, not its MD5.
pub(crate) const PRINT: [&str; 3] =
    ["--print-uris", "-oAcquire::ForceHash=SHA256", "-oDir::Cache::archives=/nonexistent/"];

/// Where apt looks for archives.
pub(crate) const DIRECTORY: &str = "/var/cache/apt/archives";
/// As apt makes them.
const OWNERSHIP: Ownership = Ownership { uid: 0, gid: 0, mode: 0o644 };
/// Fewer archives than this that are smaller than that all in all are there before we have begun.
const MANY: usize = 4;
const LARGE: u64 = 8 << 20;

/// Options that make apt's directories and credentials others than those that we know, unless they have these values;
/// apt.conf(5), `apt_auth.conf(5)`.
const LAYOUT: [(&str, &str); 6] = [
    ("Dir", "/"),
    ("Dir::Cache", "var/cache/apt"),
    ("Dir::Cache::archives", "archives"),
    ("Dir::Etc", "etc/apt"),
    ("Dir::Etc::netrc", "auth.conf"),
    ("Dir::Etc::netrcparts", "auth.conf.d"),
];
/// Options for how apt connects: proxies, certificates, limits. What is set there is for apt to obey.
const CONNECTIONS: [&str; 2] = ["Acquire::http::", "Acquire::https::"];
/// The one of them that Ubuntu sets, and that changes nothing but apt's `User-Agent`.
const HARMLESS: &str = "Acquire::http::User-Agent-Non-Interactive";
/// Where credentials for mirrors are.
const CREDENTIALS: [&str; 2] = ["/etc/apt/auth.conf", "/etc/apt/auth.conf.d"];

/// An archive that an installation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Archive {
    path: AbsPath,
    size: u64,
    sha256: Sha256,
    source: Source,
}

impl Archive {
    fn download(&self) -> Download {
        let download = Download::new(self.source.clone(), Some(self.sha256));
        // What can't be had so is left to apt.
        Download { size: Some(self.size), has_fallback: true, ..download }
    }

    /// Whether it is there already. Another of its size is removed; of any other size apt does so.
    fn is_there(&self, system: &System) -> Result<bool> {
        let Self { path, size, .. } = self;
        if system.root().status(path)?.is_none_or(|status| status.size != *size) {
            return Ok(false);
        }
        if system.host.digest(path)? == Some(self.sha256) {
            return Ok(true);
        }
        tracing::warn!("{path} is torn or another one: it is fetched again");
        system.root().remove(path)?;
        Ok(false)
    }
}

/// How many bytes of archives are not there yet, at most.
pub(crate) fn missing_bytes(root: &Root, printed: &Finished) -> u64 {
    let mut missing = 0;
    for line in printed.stdout.lines() {
        // Those on a file system of this machine are not copied.
        let Some((url, rest)) = line.strip_prefix('\'').and_then(|line| line.split_once("' ")) else { continue };
        let Some((name, size)) = rest.split_once(' ').filter(|_| !url.starts_with("file:")) else { continue };
        let size: u64 = size.split(' ').next().unwrap_or_default().parse().unwrap_or_default();
        let path = AbsPath::from(DIRECTORY).join(name);
        let is_there = path
            .is_ok_and(|path| root.status(&path).is_ok_and(|status| status.is_some_and(|status| status.size == size)));
        missing += if is_there { 0 } else { size };
    }
    missing
}

/// Fetches the archives of an installation, as far as that is simple and worth it. `printed` is what the installation's
/// command said with [`PRINT`].
///
/// # Errors
/// Only if a signal or a deadline ends the run.
pub(crate) fn fetch(system: &System, printed: &Finished) -> Result<()> {
    let result =
        sweep(system.root()).and_then(|()| missing(system, printed)).and_then(|archives| place(system, &archives));
    if let Err(error) = result {
        system.host.stop.check()?;
        tracing::warn!("the packages are left to apt to fetch: {error:#}");
    }
    Ok(())
}

/// Removes what a run left that was killed before it could give an archive its name: the next one may leave it to apt.
fn sweep(root: &Root) -> Result<()> {
    let directory = AbsPath::from(DIRECTORY);
    for name in root.list(&directory)?.iter().filter(|name| name.starts_with('.') && name.ends_with(".glovo-bootstrap"))
    {
        root.remove(&directory.join(name)?)?;
    }
    Ok(())
}

/// What is to be fetched by us; nothing if apt can do as well.
fn missing(system: &System, printed: &Finished) -> Result<Vec<Archive>> {
    let mut archives = vec![];
    for archive in printed.stdout.lines().filter_map(parse) {
        if !archive.is_there(system)? {
            archives.push(archive);
        }
    }
    if archives.len() < MANY && total(&archives) < LARGE {
        return Ok(vec![]);
    }
    let config = system.host.run_checked(&Program::new(["apt-config", "dump"]))?;
    if let Some(option) = config.stdout.lines().find(|line| is_special(line)) {
        tracing::debug!(option, "the packages are left to apt to fetch");
        return Ok(vec![]);
    }
    if has_credentials(system.root())? {
        tracing::debug!("the packages are left to apt to fetch: there are credentials for mirrors");
        return Ok(vec![]);
    }
    // The one that takes longest must not be the last to begin.
    archives.sort_by_key(|archive| std::cmp::Reverse(archive.size));
    Ok(archives)
}

/// Puts them where apt looks for them.
fn place(system: &System, archives: &[Archive]) -> Result<()> {
    let downloads: Vec<Download> = archives.iter().map(Archive::download).collect();
    system.prefetch(downloads.clone());
    let placed = place_each(system, archives);
    if placed.is_err() {
        system.fetcher.abandon(&downloads);
    }
    placed
}

fn place_each(system: &System, archives: &[Archive]) -> Result<()> {
    let total = ByteSize(total(archives));
    let mut done = 0;
    for (index, archive) in archives.iter().enumerate() {
        system.host.progress(&format!("packages: {index} of {}, {} of {total}", archives.len(), ByteSize(done)));
        let Archive { path, size, .. } = archive;
        let mut fetched = system.fetch(&archive.download())?;
        ensure!(fetched.size == *size, "{path} has {} bytes, not the {size} of the package lists", fetched.size);
        let mut staged = system.root().stage(path, OWNERSHIP)?;
        fetched.hand_over(&mut staged)?;
        staged.rename()?;
        done += size;
    }
    Ok(())
}

fn total(archives: &[Archive]) -> u64 {
    archives.iter().map(|archive| archive.size).sum()
}

/// A line of `--print-uris`: `'http://host/name_1%3a2_all.deb' name_1%3a2_all.deb 4711 SHA256:…`. `None` for all
/// others, and for what isn't simple to fetch: another scheme, credentials in the URL, another hash.
fn parse(line: &str) -> Option<Archive> {
    let (url, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let [name, size, hash] = rest.split(' ').collect::<Vec<_>>().try_into().ok()?;
    if name.starts_with('.') || name.contains('/') || !name.ends_with(".deb") {
        return None;
    }
    Some(Archive {
        path: AbsPath::from(DIRECTORY).join(name).ok()?,
        size: size.parse().ok()?,
        sha256: hash.strip_prefix("SHA256:")?.parse().ok()?,
        source: url.parse().ok().filter(|source| matches!(source, Source::Http(_)))?,
    })
}

/// Whether a line of `apt-config dump`, `NAME "VALUE";`, says that apt fetches in a way that we don't.
fn is_special(line: &str) -> bool {
    let Some((name, value)) = line.split_once(' ') else { return false };
    let value = value.trim_end_matches(';').trim_matches('"');
    if let Some((_, usual)) = LAYOUT.iter().find(|(option, _)| option.eq_ignore_ascii_case(name)) {
        // Some releases end a directory in a slash.
        return value != *usual && value.strip_suffix('/') != Some(usual);
    }
    let begins_with = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let is_of_connections = CONNECTIONS.iter().any(begins_with) && name != HARMLESS;
    !value.is_empty() && (name == "RootDir" || is_of_connections)
}

fn has_credentials(root: &Root) -> Result<bool> {
    let [file, directory] = CREDENTIALS.map(AbsPath::from);
    Ok(root.status(&file)?.is_some() || !root.list(&directory)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "SHA256:571eca080240737810771b9d85cd21150bf797e7e438f4148fb98f182929be3d";

    fn is_ours(url: &str, name: &str, hash: &str) -> bool {
        parse(&format!("'{url}' {name} 6942 {hash}")).is_some()
    }

    #[test]
    fn a_line_of_apt_names_an_archive() {
        let url = "http://deb.debian.org/debian/pool/libnss3_2%3.87.1-1%2bdeb12u4_amd64.deb";
        let line = format!("'{url}' libnss3_2%3a3.87.1-1+deb12u4_amd64.deb 1881084 {HASH}");
        let Archive { path, size, sha256, source } = parse(&line).unwrap();
        assert_eq!(path.as_str(), "/var/cache/apt/archives/libnss3_2%3a3.87.1-1+deb12u4_amd64.deb");
        assert_eq!((size, format!("SHA256:{sha256}").as_str(), source), (1_881_084, HASH, Source::Http(url.into())));
        for other in
            ["", "Reading package lists...", "  nginx nginx-common", "'http://h/x.deb'", "'http://h/x.deb' x.deb"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_simple_is_left_to_apt() {
        assert!(is_ours("http://h/x.deb", "x.deb", HASH) && is_ours("https://h/x.deb", "x.deb", HASH));
        for url in [
            "file:/srv/x.deb",
            "file:///srv/x.deb",
            "copy:/srv/x.deb",
            "cdrom:[Debian 12]/pool/x.deb",
            "mirror+http://h/x.deb",
            "tor+http://h/x.deb",
            "s3://bucket/x.deb",
            "http://user:password@h/x.deb",
        ] {
            assert!(!is_ours(url, "x.deb", HASH), "{url}");
        }
        for name in ["../x.deb", "a/x.deb", ".x.deb", "lock", "x.deb/"] {
            assert!(!is_ours("http://h/x.deb", name, HASH), "{name}");
        }
        for hash in ["MD5Sum:d41d8cd98f00b204e9800998ecf8427e", &HASH.replace("256", "512"), "SHA256:571e", ""] {
            assert!(!is_ours("http://h/x.deb", "x.deb", hash), "{hash}");
        }
    }

    #[test]
    fn how_apt_is_to_connect_is_for_apt_to_obey() {
        for usual in [
            r#"Acquire::http "";"#,
            r#"Acquire::Languages:: "none";"#,
            r#"Acquire::http::User-Agent-Non-Interactive "true";"#,
            r#"Dir "/";"#,
            r#"Dir::Cache "var/cache/apt";"#,
            r#"Dir::Cache "var/cache/apt/";"#,
            r#"Dir::Cache::archives "archives/";"#,
            r#"Dir::Etc::netrc "auth.conf";"#,
            "",
        ] {
            assert!(!is_special(usual), "{usual}");
        }
        for special in [
            r#"Acquire::http::Proxy "http://proxy:3128";"#,
            r#"Acquire::HTTP::proxy::deb.debian.org "DIRECT";"#,
            r#"Acquire::https::CAInfo "/etc/ssl/mirror.pem";"#,
            r#"Acquire::http::Dl-Limit "100";"#,
            r#"Dir::Cache "/mnt/cache";"#,
            r#"Dir::Cache::archives "/mnt/archives/";"#,
            r#"Dir::Etc::netrcparts "";"#,
            r#"RootDir "/mnt";"#,
        ] {
            assert!(is_special(special), "{special}");
        }
    }
}
