//! Downloads of package archives that this program makes before apt-get does.
//!
//! apt has one connection to each mirror. This program downloads several archives at a time, and large ones in parts.
//! apt prints the URLs and the SHA-256 digests from its signed lists (`--print-uris`, apt-get(8)). apt downloads the
//! rest itself: archives behind a proxy, with credentials or on a medium, and those whose download fails here.
//!
//! apt trusts an archive in its cache that has the right name and size (apt-pkg/acquire-item.cc). So this program
//! verifies an archive before it gives it its name, and also verifies archives that are in the cache already. Neither
//! this program nor apt syncs archives to the disk, because that costs more time than is saved; after a power cut one
//! may be torn. No lock is needed: an archive appears whole, and another apt writes the same bytes.

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

/// The options that make apt-get print the archives of an installation, also those in its cache, with SHA-256 digests.
pub(crate) const PRINT: [&str; 3] =
    ["--print-uris", "-oAcquire::ForceHash=SHA256", "-oDir::Cache::archives=/nonexistent/"];

/// Where apt looks for archives.
pub(crate) const DIRECTORY: &str = "/var/cache/apt/archives";
/// The owner and mode that apt gives its archives.
const OWNERSHIP: Ownership = Ownership { uid: 0, gid: 0, mode: 0o644 };
/// Fewer archives than this are left to apt, if they also have fewer than [`MIN_TOTAL_BYTES`].
const MIN_ARCHIVES: usize = 4;
/// For less than this, apt is as quick.
const MIN_TOTAL_BYTES: u64 = 8 << 20;

/// The options for apt's directories and credentials, with their usual values; apt.conf(5), `apt_auth.conf(5)`.
///
/// With another value, apt downloads the archives itself.
const LAYOUT: [(&str, &str); 6] = [
    ("Dir", "/"),
    ("Dir::Cache", "var/cache/apt"),
    ("Dir::Cache::archives", "archives"),
    ("Dir::Etc", "etc/apt"),
    ("Dir::Etc::netrc", "auth.conf"),
    ("Dir::Etc::netrcparts", "auth.conf.d"),
];
/// The options for apt's connections: proxies, certificates, limits. If one is set, apt downloads the archives itself.
const CONNECTIONS: [&str; 2] = ["Acquire::http::", "Acquire::https::"];
/// An option of [`CONNECTIONS`] that Ubuntu sets. It changes only apt's `User-Agent`.
const HARMLESS: &str = "Acquire::http::User-Agent-Non-Interactive";
/// The file and the directory with credentials for mirrors.
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
        // apt downloads the archive if this fails.
        Download { size: Some(self.size), has_fallback: true, ..download }
    }

    /// Returns whether apt's cache has it.
    ///
    /// A file with its size and another digest is removed. apt replaces a file of another size.
    fn is_there(&self, system: &System) -> Result<bool> {
        let Self { path, size, .. } = self;
        if system.root().status(path)?.is_none_or(|status| status.size != *size) {
            return Ok(false);
        }
        if system.host.digest(path)? == Some(self.sha256) {
            return Ok(true);
        }
        tracing::warn!("{path} does not have the SHA-256 of the package lists; it is downloaded again");
        system.root().remove(path)?;
        Ok(false)
    }
}

/// Returns an upper bound for the bytes of the archives that apt's cache does not have yet.
pub(crate) fn missing_bytes(root: &Root, printed: &Finished) -> u64 {
    let mut missing = 0;
    for line in printed.stdout.lines() {
        // apt does not copy archives of `file:` sources.
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

/// Downloads the archives of an installation, unless apt must or can do it as quickly.
///
/// `printed` is the output of the installation's command with [`PRINT`].
///
/// # Errors
/// Only if a signal or a deadline ends the run.
pub(crate) fn fetch(system: &System, printed: &Finished) -> Result<()> {
    let result =
        sweep(system.root()).and_then(|()| missing(system, printed)).and_then(|archives| place(system, &archives));
    if let Err(error) = result {
        system.host.stop.check()?;
        tracing::warn!("apt downloads the packages itself, because this program failed to: {error:#}");
    }
    Ok(())
}

/// Removes the unnamed archives of killed runs. This run may leave the downloads to apt and not reuse them.
fn sweep(root: &Root) -> Result<()> {
    let directory = AbsPath::from(DIRECTORY);
    for name in root.list(&directory)?.iter().filter(|name| name.starts_with('.') && name.ends_with(".glovo-bootstrap"))
    {
        root.remove(&directory.join(name)?)?;
    }
    Ok(())
}

/// Returns the archives that this program downloads; none if apt must or can do it as quickly.
fn missing(system: &System, printed: &Finished) -> Result<Vec<Archive>> {
    let mut archives = vec![];
    for archive in printed.stdout.lines().filter_map(parse) {
        if !archive.is_there(system)? {
            archives.push(archive);
        }
    }
    if archives.len() < MIN_ARCHIVES && total(&archives) < MIN_TOTAL_BYTES {
        return Ok(vec![]);
    }
    let config = system.host.run_checked(&Program::new(["apt-config", "dump"]))?;
    if let Some(option) = config.stdout.lines().find(|line| is_special(line)) {
        tracing::debug!(option, "apt downloads the packages itself");
        return Ok(vec![]);
    }
    if has_credentials(system.root())? {
        tracing::debug!("apt downloads the packages itself: it has credentials for mirrors");
        return Ok(vec![]);
    }
    // The largest archive takes longest, so its download begins first.
    archives.sort_by_key(|archive| std::cmp::Reverse(archive.size));
    Ok(archives)
}

/// Downloads archives to apt's cache.
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

/// Parses a line of `--print-uris`: `'http://host/name_1%3a2_all.deb' name_1%3a2_all.deb 4711 SHA256:…`.
///
/// Returns `None` for other lines, and for archives that apt must download: another scheme, credentials in the URL,
/// another hash.
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

/// Returns whether a line of `apt-config dump`, `NAME "VALUE";`, requires that apt downloads the archives itself.
fn is_special(line: &str) -> bool {
    let Some((name, value)) = line.split_once(' ') else { return false };
    let value = value.trim_end_matches(';').trim_matches('"');
    if let Some((_, usual)) = LAYOUT.iter().find(|(option, _)| option.eq_ignore_ascii_case(name)) {
        // Some releases end a directory with a slash.
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
    fn other_schemes_names_and_hashes_are_left_to_apt() {
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
    fn an_unusual_apt_configuration_is_recognized() {
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
