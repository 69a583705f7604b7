//! The kind `credential`.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Finding, Kind, Resource,
    file::{Encoding, File},
};
use crate::{
    error::{self, Class},
    host::{
        command::Program,
        memory::DIRECTORY,
        root::{FileType, Ownership},
        state,
    },
    net::retry::Patience,
    system::{Fact, System},
    value::{AbsPath, FileMode, secret_source::SecretSource},
};

/// A secret of a store, for a service: the file `/run/glovo-bootstrap/credentials/NAME`, which only root can read, on a file
/// system in memory that is never swapped. The unit takes it with `LoadCredential=NAME:/run/glovo-bootstrap/credentials/NAME`,
/// systemd.exec(5). A service with this path in `restart_on` is restarted for a new version. If the store does not answer,
/// the present version stays. After a reboot the next run reads it again: with `ConditionPathExists=` for the same path
/// in its unit, the service waits for that.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceCredential {
    /// Its name, such as `db_password`.
    #[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"))]
    name: CredentialPath,
    /// Its source: `ssm:///app/db_password`, `secretsmanager://NAME-or-ARN` or `vault://MOUNT/PATH#KEY`. `#KEY` picks one
    /// field of a JSON object.
    source: SecretSource,
    /// The encoding of the secret in its store. Default: the file has the text itself.
    encoding: Option<Encoding>,
    /// Where to keep a copy for a boot at which the store does not answer. `systemd-creds`: on the disk, encrypted with the
    /// key of this machine, systemd-creds(1). Default: there is no copy.
    cache: Option<CredentialCache>,
}

/// Where the copy of a credential is kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum CredentialCache {
    /// On the disk, encrypted by systemd.
    SystemdCreds,
}

/// The file of a declared name.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct CredentialPath(AbsPath);

impl TryFrom<String> for CredentialPath {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        ensure!(
            !name.is_empty() && name.len() < 65 && !name.starts_with(['.', '-']) && name.chars().all(is_plain),
            "`{}` is not the name of a credential: use up to 64 letters, digits, `_`, `-` and `.`",
            name.escape_debug()
        );
        AbsPath::from(DIRECTORY).join(&name).map(Self)
    }
}

impl Kind for ServiceCredential {
    const NAME: &'static str = "credential";
    const EXAMPLE: &'static str = r#"kind = "credential"
name = "db_password"
source = "ssm:///app/db_password""#;
}

impl Resource for ServiceCredential {
    fn title(&self) -> String {
        self.name.0.leaf().to_owned()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.name.0)
    }

    fn secret(&self) -> Option<&AbsPath> {
        Some(&self.name.0)
    }

    fn check(&self) -> Vec<Finding> {
        self.file().check()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        if self.cache.is_some() {
            system.check_program("systemd-creds", 0)?;
        }
        let is_mounted = system.host.has_credential_memory()?;
        let written = self.plan_file(system, is_mounted)?;
        Ok(mount(is_mounted).into_iter().chain(written).collect())
    }

    fn version_to_come(&self, system: &System) -> Result<Option<String>> {
        self.file().version_to_come(system)
    }
}

/// Returns the change that mounts the file system in memory, unless it is mounted.
pub(super) fn mount(is_mounted: bool) -> Option<Change> {
    (!is_mounted).then(|| {
        Change::new("mount a file system in memory, without swap, for credentials", |system: &System| {
            system.host.mount_credential_memory()
        })
    })
}

impl ServiceCredential {
    /// Makes a credential, for a kind that has several.
    pub(super) fn new(name: String, source: SecretSource) -> Result<Self> {
        Ok(Self { name: name.try_into()?, source, encoding: None, cache: None })
    }

    /// Returns its file.
    pub(super) fn path(&self) -> &AbsPath {
        &self.name.0
    }

    /// Returns the changes of its file and its copy. Earlier changes mount the file system.
    pub(super) fn plan_file(&self, system: &System, is_mounted: bool) -> Result<Vec<Change>> {
        let file = self.file();
        let is_there = is_mounted && system.root().status(&self.name.0)?.is_some();
        if !is_there && let Some(change) = self.restoration(system)? {
            return Ok(vec![change]);
        }
        let mut changes = if is_mounted { file.plan(system)? } else { vec![file.new_secret(system)?] };
        changes.extend(self.keep_copy(system, !changes.is_empty())?);
        Ok(changes)
    }

    /// Returns the path of the encrypted copy; `None` if none is kept.
    fn copy(&self) -> Result<Option<AbsPath>> {
        let name = format!("credential-{}.cred", self.name.0.leaf());
        self.cache.map(|CredentialCache::SystemdCreds| state::path(&name)).transpose()
    }

    /// Returns the name of the state file with the source and the version of the copy.
    fn note_of_copy(&self) -> String {
        format!("credential-{}.json", self.name.0.leaf())
    }

    /// Returns the change that decrypts the copy, if there is one and the store does not answer.
    fn restoration(&self, system: &System) -> Result<Option<Change>> {
        let Some(copy) = self.copy()? else { return Ok(None) };
        // The copy of another source, or of another declared version, is another secret.
        let of_copy = state::read::<String>(system.root(), &self.note_of_copy());
        let version = of_copy.as_ref().and_then(|of_copy| of_copy.strip_prefix(&format!("{} ", self.source)));
        let Some(version) = version.map(str::to_owned) else { return Ok(None) };
        if system.root().status(&copy)?.is_none() {
            return Ok(None);
        }
        match system.secret(&self.source, Patience::Short) {
            Err(error) if error::class(&error) == Class::Transient => {
                system.warn(format!("{} gets the value of its encrypted copy: {error:#}", self.title()));
            }
            _ => return Ok(None),
        }
        let (path, source, file) = (self.name.0.clone(), self.source.clone(), self.file());
        let action = move |system: &System| {
            let program = systemd_creds("decrypt", &path, &copy, &path);
            _ = system.host.run_checked(&program)?;
            system.root().own_file(&path, Ownership { uid: 0, gid: 0, mode: 0o400 }, FileType::Regular)?;
            // The copy may be older than what was written last.
            file.remember_version(system, &source, version.clone())
        };
        let change = Change::new("create from its encrypted copy", action);
        Ok(Some(change.brings([Fact::Path(self.name.0.clone())])))
    }

    /// Returns the change that encrypts a copy, if one is declared and is missing or older than the credential.
    fn keep_copy(&self, system: &System, is_new: bool) -> Result<Option<Change>> {
        let Some(copy) = self.copy()? else { return Ok(None) };
        let (note, version) = (self.note_of_copy(), self.present_version(system)?);
        // A killed run may have written the credential, and not the copy.
        let is_current = version.is_some() && state::read::<String>(system.root(), &note) == version;
        if !is_new && is_current && system.root().status(&copy)?.is_some() {
            return Ok(None);
        }
        let (path, credential) = (self.name.0.clone(), self.clone());
        Ok(Some(Change::new("keep an encrypted copy for the next boot", move |system: &System| {
            state::make_directory(system.root())?;
            // Until the new copy is complete, the earlier one stays.
            let new: AbsPath = format!("{copy}.new").parse()?;
            system.root().remove(&new)?;
            _ = system.host.run_checked(&systemd_creds("encrypt", &path, &path, &new))?;
            system.root().own_file(&new, Ownership { uid: 0, gid: 0, mode: 0o600 }, FileType::Regular)?;
            system.root().rename_beside(&new, &copy)?;
            let version = credential.present_version(system)?;
            version.map_or(Ok(()), |version| state::write(system.root(), &note, &version))
        })))
    }

    /// Returns source and version of the credential, which has the store's present content. If the store does not answer, they
    /// are those that were noted last. A run that was killed before it noted them has left an older note, or none.
    fn present_version(&self, system: &System) -> Result<Option<String>> {
        match system.secret(&self.source, Patience::Short) {
            Ok(read) => Ok(Some(format!("{} {}", self.source, read.version))),
            Err(error) if error::class(&error) == Class::Transient => Ok(self.file().written_version(system)),
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> File {
        File::of_secret(self.name.0.clone(), self.source.clone(), self.encoding, FileMode(0o400))
    }
}

/// Returns the program that encrypts or decrypts a credential from one file to another. No secret is in its arguments.
fn systemd_creds(verb: &str, credential: &AbsPath, from: &AbsPath, to: &AbsPath) -> Program {
    let name = format!("--name={}", credential.leaf());
    Program::new(["systemd-creds", verb, &name, from.as_str(), to.as_str()]).private()
}
