//! The kind `file`.

mod ahead;
mod attributes;
mod member;
pub(super) mod origin;
mod secret;
mod verified;
mod version;

use std::borrow::Cow;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

pub use self::origin::note;
use self::{member::MemberName, origin::Origin, secret::FileSource};
use super::{
    Change, Finding, Kind, Resource, Template,
    ownership::{AccountName, Ids, NameOrNumber, attributes},
};
use crate::{
    fetch::{
        pull::Download,
        source::{Source, Sources},
    },
    host::root::{FileStatus, FileType, Ownership, way::Owner},
    redaction,
    system::{Fact, System, places::Claim},
    value::{AbsPath, Argv, FileMode, Sha256},
};

/// Limits the size of templates and of files with a diff.
const MAX_TEXT_BYTES: u64 = 256 << 10;

/// A file with declared content, owner and mode. It is replaced as a whole: a reader sees the old content or the new one,
/// also after a power cut.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path. Its directory exists, or is declared before it.
    path: AbsPath,
    /// The source of its content: an https, http, s3 or file URL. Either this or `content`. It may be a list of URLs: after
    /// a failure of one, the next one is tried. Each but the last is tried at most twice. A table has the source of each
    /// architecture: `{ x86_64 = "https://…", aarch64 = "https://…" }`. A ssm, secretsmanager or vault URL names a secret
    /// of a store: the file is then a secret, and has the store's present version. If the store does not answer, the file
    /// stays as it is.
    source: Option<FileSource>,
    /// Its content, as text. Either this or `source`.
    content: Option<String>,
    /// The encoding of `content`, or of the secret of a store. `base64` is for binary content. Default: the file has the
    /// text itself.
    encoding: Option<Encoding>,
    /// SHA-256 of the source's content. Other content is never written. Required for https and http unless `verify` says how
    /// to trust the source, and for a list unless `verify` is `none`. `""` is the same as leaving it out. It may be a table
    /// by architecture, as `source`.
    #[serde(default, deserialize_with = "empty_is_none")]
    #[schemars(with = "String", extend("pattern" = "^([0-9A-Fa-f]{64})?$"))]
    sha256: Option<Sha256>,
    /// The member of the source, which is then an archive, that becomes the file, such as `bin/tool`: a regular file of a tar,
    /// tar.gz, tar.xz, tar.zst or zip, by its whole path in the archive. `sha256` is then the archive's, and required.
    member: Option<MemberName>,
    /// How to check a source without `sha256`. `etag`: compare the `ETag` at each run (default for s3). `none`: download
    /// once and keep the content.
    verify: Option<Verify>,
    /// Its owner, by name or by number, such as `1500`. Default: root. Below a user's directory it must be that user, who
    /// must have an account.
    owner: Option<NameOrNumber>,
    /// Its group, by name or by number. Default: the owner's primary group.
    group: Option<NameOrNumber>,
    /// Its permission bits. Default: 0644; 0600 for a secret.
    mode: Option<FileMode>,
    /// Whether `{{ name }}` in the source's content is replaced, as it always is in `content`. Default: false.
    #[serde(default)]
    template: bool,
    /// A command that must succeed before the file is written. `{}` is the path of the new file: its own name in a directory
    /// that only root may enter. `systemd-analyze verify` also checks a unit file, and a drop-in
    /// together with its unit.
    validate: Option<Argv>,
    /// Whether its content is a secret: there is no diff, the validator's output is not shown, and the file is not written
    /// to an image. Default: false.
    #[serde(default)]
    secret: bool,
}

/// The encoding of a file's content in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Base64 of RFC 4648 with padding. White space in it is ignored.
    Base64,
}

/// How to check a source without a declared digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Compare the source's `ETag` at each run. The source is trusted.
    Etag,
    /// Download once and keep the content.
    None,
}

/// Reads a digest; `None` for an empty text.
pub(super) fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha256>, D::Error> {
    match String::deserialize(deserializer)? {
        text if text.is_empty() => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl Kind for File {
    const NAME: &'static str = "file";
    const EXAMPLE: &'static str = r#"kind = "file"
path = "/var/www/glovo-app/systems-engineer-interview-1.0.0.jar"
source = "https://artifacts.example.com/systems-engineer-interview-1.0.0.jar"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
mode = "0644""#;
}

impl Resource for File {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn secret(&self) -> Option<&AbsPath> {
        self.is_secret().then_some(&self.path)
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        if self.is_secret() { &["content"] } else { &[] }
    }

    fn private_bytes(&self) -> Option<Vec<u8>> {
        self.bytes().ok().flatten().filter(|_| self.secret).map(Cow::into_owned)
    }

    fn doubts(&self) -> Vec<Finding> {
        self.mode_for_all().into_iter().collect()
    }

    fn needed_files(&self) -> Vec<(&'static str, &AbsPath)> {
        let sources = self.sources().map_or(&[][..], Sources::all);
        match sources {
            [Source::File(path)] => vec![("source", path)],
            _ => vec![],
        }
    }

    fn owner(&self) -> Option<&str> {
        Some(self.owner.as_ref().map_or("root", NameOrNumber::as_str))
    }

    fn template(&self) -> Option<Template<'_>> {
        let source = self.sources().filter(|_| self.template)?;
        Some(source.local().map_or(Template::Elsewhere, Template::Local))
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        match (&self.source, &self.content) {
            (Some(_), Some(_)) => {
                findings.push(Finding::new("content", "a file has either `source` or `content`, not both"));
            }
            (None, None) => findings.push(
                Finding::new("path", "the file has neither `source` nor `content`")
                    .hint("for an empty file, set content = \"\""),
            ),
            _ => {}
        }
        findings.extend(Finding::of_name(&self.path));
        match (self.encoding, &self.content) {
            (Some(_), None) if self.secret_source().is_none() => {
                findings.push(Finding::new("encoding", "`encoding` is only about `content` and the secret of a store"));
            }
            _ if self.bytes().is_err() => {
                findings.push(Finding::new("content", "the content is not base64").hint("print it: base64 FILE"));
            }
            _ => {}
        }
        if self.sha256.is_none() {
            match (self.sources().map(Sources::all), self.verify) {
                (Some([_, _, ..]), None | Some(Verify::Etag)) => findings.push(
                    Finding::new("source", "a file with several sources needs `sha256`, because their ETags differ")
                        .hint("print it: sha256sum FILE; or trust all sources with verify = \"none\""),
                ),
                (Some([Source::Http(_)]), None) => findings.push(
                    Finding::new("source", "a file from https or http needs `sha256`")
                        .hint("print it: sha256sum FILE; or trust the source: verify = \"etag\", or verify = \"none\" to download once"),
                ),
                _ => {}
            }
        }
        findings.extend(self.faults_of_member());
        findings.extend(self.faults_of_secret());
        if self.sha256.is_some() && self.verify.is_some() {
            findings.push(Finding::new("verify", "`verify` and `sha256` exclude each other"));
        }
        if self.template && self.source.is_none() {
            findings.push(Finding::new("template", "`content` is always a template").hint("leave `template` out"));
        }
        if let Some(argv) = &self.validate
            && !argv.0.iter().any(|argument| argument.contains("{}"))
        {
            findings.push(
                Finding::new("validate", "the command does not have the argument `{}`, the path of the new file")
                    .hint("add it, as in validate = [\"nginx\", \"-t\", \"-c\", \"{}\"]"),
            );
        }
        findings
    }

    fn prefetch(&self, system: &System) -> Option<Download> {
        let sources = self.sources().filter(|sources| sources.local().is_none())?;
        let sha256 = self.sha256;
        // A read error is reported later, when the run plans this resource.
        let digest = system.host.digest(&self.path).ok().flatten();
        let there = match sha256 {
            Some(wanted) if self.is_as_sent() => digest == Some(wanted),
            _ => digest.is_some(),
        };
        (!there).then(|| Download::new(sources.clone(), sha256))
    }

    fn etag_source(&self, system: &System) -> Option<Source> {
        let sources = self.sources().filter(|sources| sources.local().is_none())?;
        let is_asked = self.sha256.is_none() && self.verify != Some(Verify::None);
        let is_there = || system.host.digest(&self.path).ok().flatten().is_some();
        (is_asked && is_there()).then(|| sources.first().clone())
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let place = self.place(system)?;
        let Some(status) = place.status.filter(|status| status.file_type == FileType::Regular) else {
            let summary = if place.status.is_some() { "replace the symbolic link with a file" } else { "create" };
            return Ok(vec![self.write(system, summary.into(), place.wanted, None)?]);
        };
        if let Some(summary) = self.replaces_unreadable(system, &place, &status)? {
            return Ok(vec![self.write(system, summary, place.wanted, None)?]);
        }
        let Some(mut summary) = self.content_difference(system, &status)? else {
            return self.plan_attributes(system, &place, &status, true);
        };
        for other in attributes(system, &self.path, &status, place.wanted.0, Some(place.wanted.1))? {
            summary.push_str(", ");
            summary.push_str(&other);
        }
        Ok(vec![self.write(system, summary, place.wanted, Some(&status))?])
    }

    fn plan_without_secret(&self, system: &System) -> Result<Vec<Change>> {
        let place = self.place(system)?;
        let status = place.status.filter(|status| status.file_type == FileType::Regular);
        status.map_or(Ok(vec![]), |status| self.plan_attributes(system, &place, &status, false))
    }

    fn version_to_come(&self, system: &System) -> Result<Option<String>> {
        self.version(system)
    }

    fn plain_file(&self, system: &System) -> Option<&File> {
        self.is_plain(system).then_some(self)
    }
}

impl File {
    /// Returns root's file with this text, for a kind that writes one.
    pub(super) fn of_text(path: AbsPath, content: String) -> Self {
        Self {
            path,
            source: None,
            content: Some(content),
            encoding: None,
            sha256: None,
            member: None,
            verify: None,
            owner: None,
            group: None,
            mode: None,
            template: false,
            validate: None,
            secret: false,
        }
    }

    /// Returns this file with mode 0600 and a validator, and as a secret if it is one.
    pub(super) fn checked_by(self, validate: Vec<String>, secret: bool) -> Self {
        Self { mode: Some(FileMode(0o600)), validate: Some(Argv(validate)), secret, ..self }
    }

    /// Returns the bytes of the declared content; `None` if the file has a source.
    fn bytes(&self) -> Result<Option<Cow<'_, [u8]>>> {
        let Some(content) = &self.content else { return Ok(None) };
        Ok(Some(match self.encoding {
            None => content.as_bytes().into(),
            Some(Encoding::Base64) => {
                let text: String = content.split_ascii_whitespace().collect();
                BASE64_STANDARD.decode(text).context("the content is not base64")?.into()
            }
        }))
    }

    /// Returns a user's file with this text, for a kind that writes one.
    pub(super) fn of_user(path: AbsPath, content: Vec<u8>, owner: &AccountName, mode: FileMode) -> Self {
        let file = match String::from_utf8(content) {
            Ok(text) => Self::of_text(path, text),
            Err(other) => Self {
                encoding: Some(Encoding::Base64),
                ..Self::of_text(path, BASE64_STANDARD.encode(other.as_bytes()))
            },
        };
        Self { owner: Some(owner.into()), mode: Some(mode), ..file }
    }

    /// Returns whether it has the bytes of its source, neither a filled-in template nor a member of an archive.
    fn is_as_sent(&self) -> bool {
        !self.template && self.member.is_none()
    }

    /// Returns the difference between the file's content and the declared one; `None` if there is none.
    fn content_difference(&self, system: &System, status: &FileStatus) -> Result<Option<String>> {
        if let Some(content) = self.bytes()? {
            let same = status.size == content.len() as u64
                && system.root().read(&self.path, status.size)?.as_deref() == Some(&*content);
            return Ok((!same).then(|| "write new content".into()));
        }
        if let Some(source) = self.secret_source() {
            return self.secret_difference(system, source, status);
        }
        let digest = system.host.digest(&self.path)?;
        match (self.origin()?, self.sha256) {
            (origin, None) => origin.difference(system, digest),
            (origin, Some(_)) if !self.is_as_sent() => origin.difference(system, digest),
            (_, Some(wanted)) if digest == Some(wanted) => Ok(None),
            (_, Some(wanted)) => Ok(Some(self.new_content(wanted))),
        }
    }

    fn origin(&self) -> Result<Origin<'_>> {
        Ok(Origin { file: self, sources: self.sources().context("a file without content has a source")? })
    }

    /// Returns the change that writes the file.
    fn write(
        &self,
        system: &System,
        summary: String,
        (ids, mode): (Ids, u32),
        now: Option<&FileStatus>,
    ) -> Result<Change> {
        if system.mode() == crate::system::Mode::Plan {
            self.foresee(system)?;
        }
        if now.is_some_and(|now| now.file_type == FileType::Regular) {
            system.host.check_not_mounted(&self.path)?;
        }
        let diff = if self.is_secret() { None } else { self.diff(system, now)? };
        let summary = match &self.source {
            Some(FileSource::Bytes(source)) => format!("{summary} from {source}"),
            Some(FileSource::Secret(source)) => format!("{summary} {}", self.origin_of_secret(system, source)?),
            None => summary,
        };
        let file = self.clone();
        let action = move |system: &System| {
            let (uid, gid) = ids.unwrap_or_default();
            file.put(system, Ownership { uid, gid, mode })
        };
        let bytes = self.digest_to_come().map(|digest| Fact::Bytes(self.path.clone(), digest));
        let facts = [Fact::Path(self.path.clone()), Fact::Mode(self.path.clone(), mode)];
        Ok(Change::new(summary, action).diff(diff).brings(facts).brings(bytes))
    }

    /// Fails if this machine already shows that a run could not write the file.
    fn foresee(&self, system: &System) -> Result<()> {
        if let Some(argv) = &self.validate {
            // As in the run, the validator has the rights of the user that owns the directory.
            let of_any_owner = Claim { path: &self.path, owner: None, gid: None, makes_parents: false };
            let user = system.check_place(of_any_owner)?.user;
            match user {
                None => system.check_program(&argv.0[0], 0)?,
                Some(Owner::Id(uid)) => system.check_program(&argv.0[0], uid)?,
                // The id of a user to come is not known yet.
                Some(Owner::Name(_)) => system.check_program_exists(&argv.0[0])?,
            }
        }
        match self.sources() {
            Some(sources) => Origin { file: self, sources }.foresee(system),
            None => Ok(()),
        }
    }

    /// Returns the digest of the declared content, if the declaration alone shows it.
    fn digest_to_come(&self) -> Option<Sha256> {
        match self.bytes().ok()? {
            Some(content) => Some(Sha256::of(&content)),
            None if !self.is_as_sent() => None,
            None => self.sha256,
        }
    }

    fn put(&self, system: &System, ownership: Ownership) -> Result<()> {
        if self.put_ahead(system, ownership)? {
            return Ok(());
        }
        let mut staged = system.root().stage(&self.path, ownership)?;
        let arrived = match self.bytes()? {
            Some(content) => {
                staged.write_all(&content)?;
                None
            }
            None => match self.secret_source() {
                Some(source) => {
                    self.bring_secret(system, source, &mut staged)?;
                    None
                }
                None => Some(self.origin()?.bring(system, &mut staged)?),
            },
        };
        self.verify(system, &mut staged)?;
        system.keep_previous(&self.path)?;
        staged.publish()?;
        self.learn_content(system);
        if let Some(source) = self.secret_source() {
            return self.remember_secret(system, source);
        }
        arrived.map_or(Ok(()), |arrived| self.origin()?.remember(system, &arrived))
    }

    /// Returns the diff between the present and the new content. It is made only for a plan, because it takes time.
    fn diff(&self, system: &System, now: Option<&FileStatus>) -> Result<Option<String>> {
        let small = now.is_none_or(|status| status.size <= MAX_TEXT_BYTES);
        // A secret is not recognized in bytes that are decoded from it.
        let is_of_secret = self.encoding.is_some()
            && self.content.as_ref().is_some_and(|content| redaction::shown_content(content) != *content);
        if system.mode() != crate::system::Mode::Plan || !small || is_of_secret {
            return Ok(None);
        }
        let old = match now {
            Some(status) => system.root().read(&self.path, status.size)?.unwrap_or_default(),
            None => vec![],
        };
        let new = match (self.bytes()?, now) {
            (Some(content), _) => Some(content.into_owned()),
            // A new file from a source is not downloaded for a diff.
            (None, None) => None,
            (None, Some(_)) => self.origin()?.preview(system)?,
        };
        let (Ok(old), Some(Ok(new))) = (String::from_utf8(old), new.map(String::from_utf8)) else { return Ok(None) };
        if old == new || old.contains('\0') || new.contains('\0') {
            return Ok(None);
        }
        Ok(Some(self.patch(&old, &new)))
    }

    /// Returns a unified diff without the values of variables in files.
    ///
    /// If the new content has such a value, the present content may have an earlier one, so it is not shown.
    pub(in crate::resource) fn patch(&self, old: &str, new: &str) -> String {
        let (shown_old, shown_new) = (redaction::shown_content(old), redaction::shown_content(new));
        let mut diff = diffy::DiffOptions::new();
        let diff = diff
            .set_original_filename(format!("{} (now)", self.path))
            .set_modified_filename(format!("{} (declared)", self.path));
        let patch = diff.create_patch(&shown_old, &shown_new).to_string();
        if shown_old == old && shown_new == new {
            return patch;
        }
        let line = |(number, line): (usize, &str)| match line.strip_prefix('-') {
            Some(_) if number > 1 => "-(not shown: the file may have an earlier secret)\n".to_owned(),
            _ => format!("{line}\n"),
        };
        patch.lines().enumerate().map(line).collect()
    }
}
