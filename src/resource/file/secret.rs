//! A file whose content is a secret of a store: it is compared with the secret itself, and never shown.

use std::{borrow::Cow, fmt};

use anyhow::Result;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Encoding, File, note};
use crate::{
    error::{self, Class, Fault},
    fetch::source::Sources,
    host::{
        root::{FileStatus, Staged},
        state,
    },
    net::retry::Patience,
    resource::{Change, Finding, Resource},
    secrets::ReadSecret,
    system::{Fact, Mode, System},
    value::{AbsPath, FileMode, Sha256, secret_source::SecretSource},
};

/// The source of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileSource {
    /// A download, or a file of the machine.
    Bytes(Sources),
    /// A secret of a store.
    Secret(SecretSource),
}

impl<'de> Deserialize<'de> for FileSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOfTwo;
        impl<'de> de::Visitor<'de> for OneOfTwo {
            type Value = FileSource;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a list of URLs")
            }
            fn visit_str<E: de::Error>(self, url: &str) -> Result<FileSource, E> {
                if SecretSource::is_one(url) {
                    return url.parse().map(FileSource::Secret).map_err(E::custom);
                }
                Sources::deserialize(de::value::StrDeserializer::new(url)).map(FileSource::Bytes)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<FileSource, A::Error> {
                Sources::deserialize(de::value::SeqAccessDeserializer::new(list)).map(FileSource::Bytes)
            }
        }
        deserializer.deserialize_any(OneOfTwo)
    }
}

impl JsonSchema for FileSource {
    fn schema_name() -> Cow<'static, str> {
        "FileSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Sources>()
    }
}

/// The record of a file's secret. It has no digest, which could be compared with those of guessed passwords.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenSecret {
    source: String,
    version: String,
}

impl File {
    /// Returns root's file with a secret, for a kind that writes one.
    pub(in crate::resource) fn of_secret(
        path: AbsPath,
        source: SecretSource,
        encoding: Option<Encoding>,
        mode: FileMode,
    ) -> Self {
        let file = Self::of_text(path, String::new());
        Self { source: Some(FileSource::Secret(source)), content: None, encoding, mode: Some(mode), ..file }
    }

    /// Returns its source, if that is a download or a file of the machine.
    pub(super) fn sources(&self) -> Option<&Sources> {
        match &self.source {
            Some(FileSource::Bytes(sources)) => Some(sources),
            _ => None,
        }
    }

    /// Returns its source, if that is a store of secrets.
    pub(super) fn secret_source(&self) -> Option<&SecretSource> {
        match &self.source {
            Some(FileSource::Secret(source)) => Some(source),
            _ => None,
        }
    }

    /// Removes what a secret file from a source now holds from all later output of other programs.
    pub(super) fn learn_content(&self, system: &System) {
        if self.secret && self.sources().is_some() {
            system.learn_secret(&self.path);
        }
    }

    /// Returns whether its content is never shown and never written to an image.
    pub(super) fn is_secret(&self) -> bool {
        self.secret || self.secret_source().is_some()
    }

    /// Returns the summary of a change to content with this digest. That of a secret is not shown: it could be guessed.
    pub(super) fn new_content(&self, digest: Sha256) -> String {
        if self.is_secret() {
            return "write new content".into();
        }
        format!("write new content, sha256 {}…", &digest.to_string()[..12])
    }

    /// Returns the fields that a secret's file cannot have.
    pub(super) fn faults_of_secret(&self) -> Vec<Finding> {
        if self.secret_source().is_none() {
            return vec![];
        }
        let fields = [
            ("sha256", self.sha256.is_some()),
            ("verify", self.verify.is_some()),
            ("member", self.member.is_some()),
            ("template", self.template),
        ];
        let finding = |(field, _)| Finding::new(field, format!("`{field}` is not for the secret of a store"));
        fields.into_iter().filter(|(_, is_set)| *is_set).map(finding).collect()
    }

    /// Fills in a template.
    ///
    /// # Errors
    /// If it holds the secret of a store, and other users could read the file.
    pub(super) fn render(&self, system: &System, template: &str) -> Result<String> {
        match system.stored_in(template) {
            Some(secret) if !self.is_secret() => {
                let message = format!("the template holds the secret `{secret}`, which other users could read");
                Err(Fault::new(message).hint("let only its owner read the file: secret = true").into())
            }
            _ => system.render(template),
        }
    }

    /// Returns the change that writes the secret of a file that does not exist, in a directory that an earlier change makes.
    pub(in crate::resource) fn new_secret(&self, system: &System) -> Result<Change> {
        let from = self.secret_source().map(|source| self.origin_of_secret(system, source)).transpose()?;
        let file = self.clone();
        let action = move |system: &System| {
            let changes = file.plan(system)?;
            changes.into_iter().filter_map(|change| change.action).try_for_each(|action| action(system))
        };
        let change = Change::new(format!("create {}", from.unwrap_or_default()), action);
        Ok(change.brings([Fact::Path(self.path.clone())]))
    }

    /// Returns the source and the version that were written last.
    pub(in crate::resource) fn written_version(&self, system: &System) -> Option<String> {
        let written = state::read::<WrittenSecret>(system.root(), &note(&self.path))?;
        Some(format!("{} {}", written.source, written.version))
    }

    /// Reads the secret that becomes the content.
    pub(super) fn read_secret(&self, system: &System, source: &SecretSource, patience: Patience) -> Result<ReadSecret> {
        let read = system.secret(source, patience)?;
        let value = if self.encoding.is_some() { read.value.decoded()? } else { read.value };
        Ok(ReadSecret { value, ..read })
    }

    /// Returns the difference between the file and the secret; `None` if there is none, or if the store does not answer.
    /// Then the file stays as it is, because a service may need it.
    pub(super) fn secret_difference(
        &self,
        system: &System,
        source: &SecretSource,
        status: &FileStatus,
    ) -> Result<Option<String>> {
        let read = match self.read_secret(system, source, Patience::Short) {
            Err(error) if error::class(&error) == Class::Transient => {
                system.warn(format!("{} keeps its present content: {error:#}", self.path));
                return Ok(None);
            }
            read => read?,
        };
        let wanted = read.value.bytes();
        let is_same = status.size == wanted.len() as u64
            && system.root().read(&self.path, status.size)?.as_deref() == Some(wanted);
        if is_same {
            return Ok(None);
        }
        let written = state::read::<WrittenSecret>(system.root(), &note(&self.path));
        let is_known =
            |written: &WrittenSecret| written.source == source.to_string() && written.version == read.version;
        let why = if written.is_some_and(|written| is_known(&written)) { " again" } else { "" };
        Ok(Some(format!("write the content{why}")))
    }

    /// Returns the end of a change's summary: the source and its version.
    ///
    /// # Errors
    /// If a run could not read the secret. For a plan, a store that does not answer is no error.
    pub(super) fn origin_of_secret(&self, system: &System, source: &SecretSource) -> Result<String> {
        match self.read_secret(system, source, Patience::Full) {
            Ok(read) if read.version.is_empty() => Ok(format!("from {source}")),
            Ok(read) => Ok(format!("from {source}, version {}", read.version)),
            Err(error) if system.mode() == Mode::Plan && error::class(&error) == Class::Transient => {
                system.warn(format!("the secret cannot be read now: {error:#}"));
                Ok(format!("from {source}"))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the secret to the staged file.
    pub(super) fn bring_secret(&self, system: &System, source: &SecretSource, staged: &mut Staged) -> Result<()> {
        staged.write_all(self.read_secret(system, source, Patience::Full)?.value.bytes())?;
        Ok(())
    }

    /// Records the version of the written secret.
    pub(super) fn remember_secret(&self, system: &System, source: &SecretSource) -> Result<()> {
        self.remember_version(system, source, system.secret(source, Patience::Full)?.version)
    }

    /// Records that this version of the secret is written.
    pub(in crate::resource) fn remember_version(
        &self,
        system: &System,
        source: &SecretSource,
        version: String,
    ) -> Result<()> {
        state::write(system.root(), &note(&self.path), &WrittenSecret { source: source.to_string(), version })
    }
}
