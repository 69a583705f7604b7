//! The kind `apt_repository`.

mod words;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use self::words::{RepositoryName, SourceWord, Uri};
use super::{
    Change, Finding, Kind, Resource,
    repository::{Trial, check_family, check_key, owned_by_root, read_owned},
};
use crate::{
    fetch::pull::Download,
    host::root::Root,
    packages::{
        DECLARED,
        apt::{self, Apt},
        manager::Family,
        openpgp::Keyring,
        signing_key::{Fingerprints, Key, PinnedKey},
    },
    system::{Fact, System},
    value::{AbsPath, Sha256},
};

/// The directory of keys that only a single source trusts; sources.list(5).
const KEYRINGS: &str = "/etc/apt/keyrings";
/// The mode of the key and the sources file, which are no secrets. apt verifies signatures as the user `_apt`.
const MODE: u32 = 0o644;

/// A package repository with its own signing key, as a deb822 file in `/etc/apt/sources.list.d`. The file is written only
/// after apt has downloaded the repository's index and verified its signature with this key. The key is trusted only for
/// this repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AptRepository {
    /// The name of its files: `/etc/apt/sources.list.d/NAME.sources`, `/etc/apt/keyrings/NAME.gpg`.
    name: RepositoryName,
    /// The address of the repository, or several addresses of mirrors.
    uris: Vec<Uri>,
    /// Its suites, such as `bookworm`, or a path that ends in `/` and has no components.
    suites: Vec<SourceWord>,
    /// The components of each suite, such as `main`.
    #[serde(default)]
    components: Vec<SourceWord>,
    /// The architectures to use. Default: the machine's.
    #[serde(default)]
    architectures: Vec<SourceWord>,
    /// The key that signs the repository: an https, http, s3 or file URL, a path, or the armored key itself. A key file
    /// with text outside its blocks of armor is refused.
    key: Key,
    /// SHA-256 of the key file. This or `key_fingerprint` is required, unless `key` is the key itself.
    key_sha256: Option<Sha256>,
    /// Fingerprint of the key: 40 hexadecimal digits, as `gpg --show-keys` prints it. A key file with another key is
    /// refused. It may be a list, for a key file with several keys or for the time of a change of keys. A file that
    /// has only some of the listed keys is accepted.
    key_fingerprint: Option<Fingerprints>,
}

impl Kind for AptRepository {
    const NAME: &'static str = "apt_repository";
    const EXAMPLE: &'static str = r#"kind = "apt_repository"
name = "example"
uris = ["https://apt.example.com/debian"]
suites = ["bookworm"]
components = ["main"]
key = "https://apt.example.com/key.asc"
key_fingerprint = "2EE4 25D8 1B49 A538 6B85  06DD 9A9C 5A73 50E3 4DB2""#;
}

impl Resource for AptRepository {
    fn title(&self) -> String {
        self.name.name.clone()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.name.sources)
    }

    fn package_managers(&self) -> Option<Vec<Family>> {
        Some(vec![&Apt])
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        for (field, values) in [("uris", self.uris.len()), ("suites", self.suites.len())] {
            if values == 0 {
                findings.push(Finding::new(field, format!("`{field}` is empty")));
            }
        }
        for SourceWord(suite) in &self.suites {
            if suite.ends_with('/') != self.components.is_empty() {
                findings.push(
                    Finding::new("components", format!("the suite `{suite}` does not fit to the components"))
                        .hint("give a suite components, such as \"main\"; give a path that ends in `/` none"),
                );
            }
        }
        findings.extend(check_key(self.pinned_key()));
        findings
    }

    fn prefetch(&self, system: &System) -> Option<Download> {
        // A read error is reported later, when the run plans this resource.
        let there = self.published(system.root()).is_ok_and(|(keyring, _)| keyring.is_some());
        self.pinned_key().prefetch().filter(|_| !there)
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        check_family(system, &Apt, Self::NAME)?;
        let (keyring, now) = self.published(system.root())?;
        let wanted = keyring.map(|keyring| self.sources(&self.name.keyring, &keyring));
        let summary = match (now, wanted) {
            (None, _) => format!("add {}", words(&self.uris)),
            (Some(now), Some(wanted)) if now == wanted.as_bytes() => return Ok(vec![]),
            (Some(_), Some(_)) => format!("change to {}", words(&self.uris)),
            (Some(_), None) => format!("replace the key by {}", self.key),
        };
        self.pinned_key().check_age()?;
        let repository = self.clone();
        let publish = move |system: &System| repository.publish(system);
        Ok(vec![Change::new(summary, publish).brings([Fact::Path(self.name.sources.clone())])])
    }
}

impl AptRepository {
    fn pinned_key(&self) -> PinnedKey<'_> {
        PinnedKey { key: &self.key, sha256: self.key_sha256, fingerprints: self.key_fingerprint.as_ref() }
    }

    /// Returns the content of the file in `sources.list.d`; deb822(5).
    fn sources(&self, path: &AbsPath, keyring: &Keyring) -> String {
        let fields = [
            ("Types", "deb".to_owned()),
            ("URIs", words(&self.uris)),
            ("Suites", words(&self.suites)),
            ("Components", words(&self.components)),
            ("Architectures", words(&self.architectures)),
            ("Signed-By", path.to_string()),
        ];
        let mut lines = vec![format!("{DECLARED}\n")];
        lines.extend(self.pinned_key().record(keyring).map(|record| record + "\n"));
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        lines.extend(given.map(|(field, value)| format!("{field}: {value}\n")));
        lines.concat()
    }

    /// Returns the keyring, if it is in place and the declared one, and the sources file, if it exists.
    fn published(&self, root: &Root) -> Result<(Option<Keyring>, Option<Vec<u8>>)> {
        let sources = read_owned(root, &self.name.sources, MODE)?;
        let installed = read_owned(root, &self.name.keyring, MODE)?.unwrap_or_default();
        let keyring = Keyring::read(&installed).ok().filter(|keyring| keyring.packets() == installed);
        let named_in = sources.as_deref().unwrap_or_default();
        Ok((keyring.filter(|keyring| self.pinned_key().is(keyring, named_in)), sources))
    }

    /// Verifies the repository with temporary copies of its two files, then writes the files.
    ///
    /// It writes the key first, because no source names it yet.
    fn publish(&self, system: &System) -> Result<()> {
        let root = system.root();
        let RepositoryName { name, sources, keyring: path } = &self.name;
        let keyring = self.pinned_key().fetch(system)?;
        let public = owned_by_root(MODE);
        {
            let trial = Trial::of(root, name, ["gpg", "sources"])?;
            let [trial_key, trial_sources] = &trial.paths;
            root.write(trial_key, public, keyring.packets())?;
            root.write(trial_sources, public, self.sources(trial_key, &keyring).as_bytes())?;
            apt::verify(system, trial_sources)
                .with_context(|| format!("{} was not added: it could not be verified", words(&self.uris)))?;
        }
        root.make_directories(&KEYRINGS.into(), 0o755)?;
        root.write(path, public, keyring.packets())?;
        root.write(sources, public, self.sources(path, &keyring).as_bytes())?;
        // Earlier releases wrote armored keys.
        let armored = AbsPath::from(KEYRINGS).join(&format!("{name}.asc"))?;
        if root.status(&armored)?.is_some() { root.remove(&armored) } else { Ok(()) }
    }
}

fn words<T: AsRef<str>>(values: &[T]) -> String {
    values.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::scratch::Scratch, stop::Interrupt, system::Mode};

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
    const FINGERPRINT: &str = "1B7031492299E781B0F76B0F816574B594ABDCB5";

    fn parse(toml: &str) -> Result<AptRepository, toml::de::Error> {
        let table: toml::Table = toml.parse()?;
        table.into_iter().filter(|(name, _)| name != "kind").collect::<toml::Table>().try_into()
    }

    fn repository(key: &str) -> AptRepository {
        let uris = r#"["https://a.example.com/debian", "https://b.example.com/debian"]"#;
        let toml =
            format!("name = \"example\"\nuris = {uris}\nsuites = [\"bookworm\"]\ncomponents = [\"main\", \"x/y\"]");
        parse(&format!("{toml}\n{key}")).unwrap()
    }

    fn messages(repository: &AptRepository) -> Vec<String> {
        repository.check().into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn the_file_is_deb822() {
        let mut repository =
            repository(&format!("key = \"https://example.com/key\"\nkey_fingerprint = \"{FINGERPRINT}\""));
        let path = AbsPath::from("/etc/apt/keyrings/example.gpg");
        let keyring = Keyring::read(KEY.as_bytes()).unwrap();
        assert_eq!(
            repository.sources(&path, &keyring),
            "# Written by glovo-bootstrap: change its manifest instead.\n\
             Types: deb\n\
             URIs: https://a.example.com/debian https://b.example.com/debian\n\
             Suites: bookworm\n\
             Components: main x/y\n\
             Signed-By: /etc/apt/keyrings/example.gpg\n"
        );
        repository.architectures = vec![SourceWord("arm64".into())];
        assert!(repository.sources(&path, &keyring).contains("\nArchitectures: arm64\n"));
        assert_eq!(messages(&repository), [""; 0]);
    }

    #[test]
    fn a_key_is_pinned_and_alone() {
        assert_eq!(
            messages(&repository("key = \"/usr/share/keyrings/a.gpg\"")),
            ["a key from a path or URL needs `key_sha256` or `key_fingerprint`"]
        );
        assert_eq!(messages(&repository(&format!("key = \"\"\"\n{KEY}\"\"\""))), [""; 0]);
        assert_eq!(
            messages(&repository(&format!("key = \"\"\"{KEY}\"\"\"\nkey_fingerprint = \"{}\"", "0".repeat(40)))),
            [format!("the key file has the key {FINGERPRINT}, but {} is declared", "0".repeat(40))]
        );
        let pinned = repository(&format!("key = \"https://example.com/key\"\nkey_fingerprint = \"{FINGERPRINT}\""));
        assert!(pinned.pinned_key().read(KEY.as_bytes()).is_ok());
        let second = "mDMEawM6YBYJKwYBBAHaRw8BAQdAzOb7Gz5fYO4Xc1tXP1uZBz27Z4kEKa0M3sva\nNQwyrNs=\n";
        let hidden =
            format!("{KEY}-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{second}-----END PGP PUBLIC KEY BLOCK-----\n");
        let error = pinned.pinned_key().read(hidden.as_bytes()).unwrap_err();
        let other = "the key file has the key 2EE425D81B49A5386B8506DD9A9C5A7350E34DB2";
        assert!(error.to_string().starts_with(other), "{error}");
        let digest = Sha256::of(KEY.as_bytes());
        let pinned = repository(&format!("key = \"https://example.com/key\"\nkey_sha256 = \"{digest}\""));
        assert!(
            pinned.pinned_key().read(KEY.as_bytes()).is_ok() && pinned.pinned_key().read(hidden.as_bytes()).is_err()
        );
    }

    #[test]
    fn several_keys_are_pinned_by_a_list() {
        let (other, third) = ("2EE425D81B49A5386B8506DD9A9C5A7350E34DB2", "0".repeat(40));
        let pinned = |list: &str| repository(&format!("key = \"https://example.com/key\"\nkey_fingerprint = {list}"));
        let second = "mDMEawM6YBYJKwYBBAHaRw8BAQdAzOb7Gz5fYO4Xc1tXP1uZBz27Z4kEKa0M3sva\nNQwyrNs=\n";
        let both = format!("{KEY}-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{second}-----END PGP PUBLIC KEY BLOCK-----\n");
        let list = pinned(&format!("[\"{FINGERPRINT}\", \"{other}\"]"));
        assert!(list.pinned_key().read(both.as_bytes()).is_ok() && list.pinned_key().read(KEY.as_bytes()).is_ok());
        let error =
            pinned(&format!("[\"{FINGERPRINT}\", \"{third}\"]")).pinned_key().read(both.as_bytes()).unwrap_err();
        let message = format!("the key file has the key {other}, but {FINGERPRINT}, {third} are declared");
        assert_eq!(error.to_string(), message);
        let empty = "name = \"a\"\nuris = []\nsuites = []\nkey = \"/k\"\nkey_fingerprint = []";
        assert!(parse(empty).unwrap_err().to_string().contains("a list of fingerprints has at least one"));
    }

    #[test]
    fn suites_and_components_go_together() {
        let key = format!("key = \"\"\"{KEY}\"\"\"");
        let mut flat = repository(&key);
        flat.suites = vec![SourceWord("./".into())];
        assert_eq!(messages(&flat), ["the suite `./` does not fit to the components"]);
        flat.components.clear();
        assert_eq!(messages(&flat), [""; 0]);
        flat.suites.clear();
        assert_eq!(messages(&flat), ["`suites` is empty"]);
    }

    #[test]
    fn values_cannot_leave_their_line_or_file() {
        let example = AptRepository::EXAMPLE;
        assert_eq!(messages(&parse(example).unwrap()), [""; 0]);
        for (good, bad) in [
            ("\"example\"", "\"../example\""),
            ("\"example\"", "\".example\""),
            ("https://apt.example.com/debian", "https://apt.example.com/a b"),
            ("https://apt.example.com/debian", "https://user:secret@apt.example.com/"),
            ("https://apt.example.com/debian", "/srv/debian"),
            ("bookworm", "bookworm\\nTrusted: yes"),
            ("\"main\"", "\"#\""),
            ("\"main\"", "\"\""),
        ] {
            assert!(example.contains(good) && parse(&example.replacen(good, bad, 1)).is_err(), "{bad}");
        }
    }

    /// An image's tree.
    struct RepositoryImage(Scratch);

    impl RepositoryImage {
        fn new() -> Self {
            Self(Scratch::of(&[("/var/lib/dpkg/status", "")]))
        }

        /// Returns the planned changes, and whether the key is downloaded.
        fn plan(&self, repository: &AptRepository) -> (Vec<String>, bool) {
            let system = System::open(self.0.path(), Mode::Plan, Interrupt::default()).unwrap();
            let changes = repository.plan(&system).unwrap().into_iter().map(|change| change.summary);
            (changes.collect(), repository.prefetch(&system).is_some())
        }
    }

    const SOURCES: &str = "etc/apt/sources.list.d/example.sources";
    const KEYRING: &str = "etc/apt/keyrings/example.gpg";
    const URIS: &str = "https://a.example.com/debian https://b.example.com/debian";

    #[test]
    fn a_repository_that_is_in_place_needs_no_network() {
        let image = RepositoryImage::new();
        let repository = repository(&format!("key = \"https://example.com/key\"\nkey_fingerprint = \"{FINGERPRINT}\""));
        let keyring = Keyring::read(KEY.as_bytes()).unwrap();
        let sources = repository.sources(&repository.name.keyring, &keyring);
        let replace = vec!["replace the key by https://example.com/key".to_owned()];
        assert_eq!(image.plan(&repository), (vec![format!("add {URIS}")], true));
        image.0.write(KEYRING, keyring.packets());
        assert_eq!(image.plan(&repository), (vec![format!("add {URIS}")], false));
        image.0.write(SOURCES, &sources);
        assert_eq!(image.plan(&repository), (vec![], false));
        image.0.write(SOURCES, sources.replace("main", "contrib"));
        assert_eq!(image.plan(&repository), (vec![format!("change to {URIS}")], false));
        image.0.set_mode(KEYRING, 0o600);
        assert_eq!(image.plan(&repository), (replace.clone(), true));
        // An earlier release wrote armored text, which apt's verifiers read differently.
        image.0.remove(KEYRING);
        image.0.write("etc/apt/keyrings/example.asc", KEY);
        image.0.write(SOURCES, sources.replace("example.gpg", "example.asc"));
        assert_eq!(image.plan(&repository), (replace.clone(), true));
        image.0.write(KEYRING, KEY);
        image.0.write(SOURCES, &sources);
        assert_eq!(image.plan(&repository), (replace, true));
    }

    #[test]
    fn a_keyring_is_recognized_by_the_digest_of_its_key_file() {
        let image = RepositoryImage::new();
        let packets = Keyring::read(KEY.as_bytes()).unwrap().packets().to_vec();
        let of = |file: &[u8]| {
            repository(&format!("key = \"https://example.com/key\"\nkey_sha256 = \"{}\"", Sha256::of(file)))
        };
        let replace = ["replace the key by https://example.com/key".to_owned()];
        for file in [KEY.as_bytes(), &packets] {
            let repository = of(file);
            let sources = repository.sources(&repository.name.keyring, &repository.pinned_key().read(file).unwrap());
            image.0.write(SOURCES, sources);
            image.0.write(KEYRING, &packets);
            assert_eq!(image.plan(&repository), (vec![], false));
            assert_eq!(image.plan(&of(b"another file")).0, replace);
            image.0.write(KEYRING, packets.repeat(2));
            assert_eq!(image.plan(&repository).0, replace);
        }
    }
}
