//! The kind `yum_repository`.

mod words;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use self::words::{Credential, PackagePattern, RepositoryId, RepositoryUrl};
use super::{
    Change, Finding, Kind, Resource,
    repository::{Trial, check_family, check_key, owned_by_root, read_owned},
};
use crate::{
    error::Fault,
    fetch::pull::Download,
    host::root::Root,
    packages::{
        DECLARED,
        dnf::{self, Dnf},
        manager::Family,
        openpgp::Keyring,
        signing_key::{Fingerprints, Key, PinnedKey},
    },
    redaction,
    system::{Fact, System},
    value::{AbsPath, Sha256},
};

/// The directory of the repositories' files.
const REPOSITORIES: &str = "/etc/yum.repos.d";
/// The directory of their keys.
const KEYS: &str = "/etc/pki/rpm-gpg";
/// The other file with repositories; dnf.conf(5).
const SETTINGS: &str = "/etc/dnf/dnf.conf";
/// The mode of a key, and of a file without a secret.
const PUBLIC: u32 = 0o644;
/// The mode of a file with a secret.
const PRIVATE: u32 = 0o600;
/// Limits the size of a file with repositories. Real ones are smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The lowest priority that a repository can have; dnf.conf(5).
const MAX_PRIORITY: u8 = 99;

/// A package repository for dnf with its own signing key, as a file in `/etc/yum.repos.d`. The file is written only after dnf
/// has downloaded the repository's lists and verified their signature with this key. dnf checks the signature of each
/// package with it too. The first installation from the repository adds the key to rpm's keyring, which trusts it for
/// packages of all repositories. A later installation fails if it cannot update the lists of the repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YumRepository {
    /// The id of the repository, and the name of its files: `/etc/yum.repos.d/NAME.repo`, `/etc/pki/rpm-gpg/NAME.asc`.
    name: RepositoryId,
    /// The URL of the repository, or several URLs of mirrors. It may have variables of dnf, such as `$releasever` and
    /// `$basearch`. Exactly one of `baseurl`, `metalink` and `mirrorlist` is required. With a value of a variables file in
    /// a URL, the repository's file has mode 0600.
    #[serde(default)]
    baseurl: Vec<RepositoryUrl>,
    /// The URL of a metalink file, which names mirrors and the digest of the index.
    metalink: Option<RepositoryUrl>,
    /// The URL of a list of mirrors.
    mirrorlist: Option<RepositoryUrl>,
    /// The key that signs the repository: an https, http, s3 or file URL, a path, or the armored key itself. A key file
    /// with text outside its blocks of armor is refused.
    key: Key,
    /// SHA-256 of the key file. This or `key_fingerprint` is required, unless `key` is the key itself.
    key_sha256: Option<Sha256>,
    /// Fingerprint of the key: 40 hexadecimal digits, as `gpg --show-keys` prints it. A key file with another key is
    /// refused. It may be a list, for a key file with several keys or for the time of a change of keys. A file that
    /// has only some of the listed keys is accepted.
    key_fingerprint: Option<Fingerprints>,
    /// Whether the index of the repository is signed (`repodata/repomd.xml.asc`). `false` is for a repository without this
    /// signature, such as Amazon Linux's own. Then the URL must be https or file, and only the first installation
    /// shows whether the key is the right one. Default: true.
    repo_gpgcheck: Option<bool>,
    /// The user name for the server.
    username: Option<Credential>,
    /// The password for the server. The file has mode 0600 then, and is not written to an image, but at boot. The URL must
    /// be https.
    password: Option<Credential>,
    /// The priority of the repository, from 1 to 99. A package of a repository with a lower number is preferred. Default:
    /// 99.
    priority: Option<u8>,
    /// The packages that are never installed from this repository, such as `kernel*`.
    #[serde(default)]
    exclude: Vec<PackagePattern>,
    /// Whether its packages are installed also if an enabled module stream of RHEL 9 has them. Default: false.
    module_hotfixes: Option<bool>,
}

impl Kind for YumRepository {
    const NAME: &'static str = "yum_repository";
    const EXAMPLE: &'static str = r#"kind = "yum_repository"
name = "example"
baseurl = ["https://rpm.example.com/el/$releasever/$basearch"]
key = "https://rpm.example.com/key.asc"
key_fingerprint = "2EE4 25D8 1B49 A538 6B85  06DD 9A9C 5A73 50E3 4DB2""#;
}

impl Resource for YumRepository {
    fn secret_fields(&self) -> &'static [&'static str] {
        &["password"]
    }

    fn title(&self) -> String {
        self.name.id.clone()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.name.file)
    }

    fn private_bytes(&self) -> Option<Vec<u8>> {
        self.password.as_ref().map(|password| password.0.clone().into_bytes())
    }

    fn secret(&self) -> Option<&AbsPath> {
        self.password.as_ref().map(|_| &self.name.file)
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        Some(vec![&Dnf])
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = check_key(self.pinned_key()).into_iter().collect();
        if self.addresses().len() != 1 {
            findings.push(Finding::new("baseurl", "declare one of `baseurl`, `metalink` and `mirrorlist`"));
        }
        if self.username.is_some() != self.password.is_some() {
            findings.push(Finding::new("username", "`username` and `password` belong together"));
        }
        if self.priority.is_some_and(|priority| !(1..=MAX_PRIORITY).contains(&priority)) {
            findings.push(Finding::new("priority", format!("a priority is a number from 1 to {MAX_PRIORITY}")));
        }
        let unprotected = self.addresses().into_iter().find(|(_, urls)| urls.iter().any(|url| url.is_unprotected()));
        if let Some((field, _)) = unprotected {
            if self.repo_gpgcheck == Some(false) {
                let message = "without a signed index, others in the network could choose old packages over http";
                findings
                    .push(Finding::new(field, message).hint("use an https URL, or leave out `repo_gpgcheck = false`"));
            }
            if self.password.is_some() {
                let message = "others in the network could read the password over http";
                findings.push(Finding::new(field, message).hint("use an https URL"));
            }
        }
        findings
    }

    fn prefetch(&self, system: &System) -> Option<Download> {
        // A read error is reported later, when the run plans this resource.
        let there = self.published(system.root()).is_ok_and(|(keyring, _)| keyring.is_some());
        self.pinned_key().prefetch().filter(|_| !there)
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        check_family(system, &Dnf, Self::NAME)?;
        self.check_alone(system.root())?;
        let (keyring, now) = self.published(system.root())?;
        let wanted = keyring.map(|keyring| self.text(&self.name.key, &keyring));
        let summary = match (now, wanted) {
            (None, _) => format!("add {}", self.shown()),
            (Some(now), Some(wanted)) if now == wanted.as_bytes() => return Ok(vec![]),
            (Some(_), Some(_)) => format!("change to {}", self.shown()),
            (Some(_), None) => format!("replace the key by {}", self.key),
        };
        self.pinned_key().check_age()?;
        let repository = self.clone();
        let publish = move |system: &System| repository.publish(system);
        Ok(vec![Change::new(summary, publish).brings([Fact::Path(self.name.file.clone())])])
    }
}

impl YumRepository {
    fn pinned_key(&self) -> PinnedKey<'_> {
        PinnedKey { key: &self.key, sha256: self.key_sha256, fingerprints: self.key_fingerprint.as_ref() }
    }

    /// Returns the fields that say where the repository is, with their URLs.
    fn addresses(&self) -> Vec<(&'static str, Vec<&RepositoryUrl>)> {
        let fields = [
            ("baseurl", self.baseurl.iter().collect()),
            ("metalink", self.metalink.iter().collect()),
            ("mirrorlist", self.mirrorlist.iter().collect::<Vec<_>>()),
        ];
        fields.into_iter().filter(|(_, urls)| !urls.is_empty()).collect()
    }

    /// Returns the URLs for messages.
    fn shown(&self) -> String {
        let urls = self.addresses().into_iter().flat_map(|(_, urls)| urls);
        urls.map(|url| url.0.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Returns the content of the file; dnf.conf(5).
    fn text(&self, key: &AbsPath, keyring: &Keyring) -> String {
        let id = &self.name.id;
        let mut lines = vec![DECLARED.to_owned()];
        lines.extend(self.pinned_key().record(keyring));
        lines.extend([format!("[{id}]"), format!("name={id}")]);
        for (field, urls) in self.addresses() {
            let urls = urls.iter().map(|url| url.0.as_str()).collect::<Vec<_>>().join(" ");
            lines.push(format!("{field}={urls}"));
        }
        let is_index_signed = u8::from(self.repo_gpgcheck != Some(false));
        lines.extend(["enabled=1".into(), "gpgcheck=1".into(), format!("repo_gpgcheck={is_index_signed}")]);
        lines.extend([format!("gpgkey=file://{key}"), "skip_if_unavailable=0".into()]);
        lines.extend(self.username.as_ref().map(|username| format!("username={}", username.0)));
        lines.extend(self.password.as_ref().map(|password| format!("password={}", password.0)));
        lines.extend(self.priority.map(|priority| format!("priority={priority}")));
        if !self.exclude.is_empty() {
            let patterns = self.exclude.iter().map(|pattern| pattern.0.as_str()).collect::<Vec<_>>();
            lines.push(format!("excludepkgs={}", patterns.join(" ")));
        }
        lines.extend(self.module_hotfixes.map(|hotfixes| format!("module_hotfixes={}", u8::from(hotfixes))));
        lines.join("\n") + "\n"
    }

    fn mode(&self) -> u32 {
        if self.password.is_some() || self.has_secret_url() { PRIVATE } else { PUBLIC }
    }

    /// Returns whether a URL has a value that may be secret: that of a variable of a file. An image may have it.
    fn has_secret_url(&self) -> bool {
        let mut urls = self.addresses().into_iter().flat_map(|(_, urls)| urls);
        urls.any(|url| redaction::shown(&url.0) != url.0)
    }

    /// Returns the keyring, if it is in place and the declared one, and the repository's file, if it exists.
    fn published(&self, root: &Root) -> Result<(Option<Keyring>, Option<Vec<u8>>)> {
        let file = read_owned(root, &self.name.file, self.mode())?;
        let installed = read_owned(root, &self.name.key, PUBLIC)?.unwrap_or_default();
        let keyring = Keyring::read(&installed).ok().filter(|keyring| keyring.armored().as_bytes() == installed);
        let named_in = file.as_deref().unwrap_or_default();
        Ok((keyring.filter(|keyring| self.pinned_key().is(keyring, named_in)), file))
    }

    /// Fails if another file has a repository of the same id. dnf uses only the first one that it reads.
    fn check_alone(&self, root: &Root) -> Result<()> {
        let RepositoryId { id, file, .. } = &self.name;
        let section = format!("[{id}]");
        for path in [SETTINGS, &format!("{REPOSITORIES}/*.repo")].map(|pattern| root.matching(pattern)) {
            for path in path?.iter().filter(|path| *path != file) {
                let text = root.read(path, MAX_FILE_BYTES)?.unwrap_or_default();
                if String::from_utf8_lossy(&text).lines().any(|line| line.trim() == section) {
                    let message = format!("{path} has a repository with the id {id} already");
                    return Err(Fault::new(message).hint("use another `name`, or remove that file first").into());
                }
            }
        }
        Ok(())
    }

    /// Verifies the repository with temporary copies of its two files, then writes the files.
    ///
    /// It writes the key first, because no repository names it yet.
    fn publish(&self, system: &System) -> Result<()> {
        let root = system.root();
        let RepositoryId { id, file, key } = &self.name;
        let keyring = self.pinned_key().fetch(system)?;
        let armored = keyring.armored();
        {
            let trial = Trial::of(root, id, ["repos"])?;
            let [directory] = &trial.paths;
            _ = root.purge(directory)?;
            root.make_directory(directory, owned_by_root(0o700))?;
            let trial_key = directory.join(key.leaf())?;
            root.write(&trial_key, owned_by_root(PUBLIC), armored.as_bytes())?;
            let text = self.text(&trial_key, &keyring);
            root.write(&directory.join(file.leaf())?, owned_by_root(PRIVATE), text.as_bytes())?;
            dnf::repository::verify(system, id, directory)
                .with_context(|| format!("{} was not added: it could not be verified", self.shown()))?;
        }
        root.make_directories(&KEYS.into(), 0o755)?;
        root.write(key, owned_by_root(PUBLIC), armored.as_bytes())?;
        root.make_directories(&REPOSITORIES.into(), 0o755)?;
        root.write(file, owned_by_root(self.mode()), self.text(key, &keyring).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawM6YBYJKwYBBAHaRw8BAQdA2f1kCL1WHx2cBKUlsSfA4JyLmnkwJvLBRxBm
wEjO7Ae0FmFub3RoZXIgPHRlc3RAaW52YWxpZD6IkAQTFggAOBYhBBtwMUkimeeB
sPdrD4FldLWUq9y1BQJrAzpgAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJ
EIFldLWUq9y1n4ABAN4m/VipTvaEGM9PtGug/TIRS4R6nRocPl8YSPWQJ2+hAP4l
RmmuIxY2GUwt5R+XfstmWpzIJU8qSxtgi+Wx3kiKBg==
=Exx9
-----END PGP PUBLIC KEY BLOCK-----
";

    #[test]
    fn the_file_is_one_section_of_dnf() {
        let fields = "name = \"app\"\nbaseurl = [\"https://a/$basearch\", \"https://b/\"]\nkey_sha256 = \"DIGEST\"\n\
                      key = \"https://a/key\"\nusername = \"u\"\npassword = \"canary\"\npriority = 5\n\
                      exclude = [\"kernel*\", \"x\"]\nmodule_hotfixes = true\nrepo_gpgcheck = false";
        let digest = Sha256::of(KEY.as_bytes()).to_string();
        let repository: YumRepository = toml::from_str(&fields.replace("DIGEST", &digest)).unwrap();
        assert!(!format!("{repository:?}").contains("canary"));
        let keyring = Keyring::read(KEY.as_bytes()).unwrap();
        let record = repository.pinned_key().record(&keyring).unwrap();
        assert_eq!(
            repository.text(&repository.name.key, &keyring),
            format!(
                "# Written by glovo-bootstrap: change its manifest instead.\n{record}\n[app]\nname=app\n\
                 baseurl=https://a/$basearch https://b/\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=0\n\
                 gpgkey=file:///etc/pki/rpm-gpg/app.asc\nskip_if_unavailable=0\nusername=u\npassword=canary\n\
                 priority=5\nexcludepkgs=kernel* x\nmodule_hotfixes=1\n"
            )
        );
        assert_eq!((repository.mode(), repository.secret()), (PRIVATE, Some(&"/etc/yum.repos.d/app.repo".into())));
    }
}
