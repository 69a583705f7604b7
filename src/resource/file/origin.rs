//! The source of a file: its download, and the later check whether the file still has the source's content.

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{File, MAX_TEXT_BYTES, Verify, member::MemberName};
use crate::{
    error::{self, Class, Fault},
    fetch::{pull::Download, source::Sources, spool::other_bytes},
    host::{root::Staged, state},
    system::{Fact, System},
    value::{AbsPath, Sha256},
};

/// A file and its sources.
pub(super) struct Origin<'a> {
    pub file: &'a File,
    pub sources: &'a Sources,
}

/// The record of a file whose manifest has no digest of its final content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Arrived {
    /// See [`Sources::id`].
    source: String,
    /// The `ETag` of the source.
    etag: Option<String>,
    /// The digest of the downloaded content.
    sent: Sha256,
    /// The digest of the written content, with the template filled in.
    published: Sha256,
    /// The member of the downloaded archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// The text of a template, to fill it in again without a download.
    pub(super) template: Option<String>,
}

impl Origin<'_> {
    fn download(&self) -> Download {
        Download::new(self.sources.clone(), self.file.sha256)
    }

    pub fn state_name(&self) -> String {
        note(&self.file.path)
    }

    /// Returns the difference between the written content, given by its digest, and the source's; `None` if there is none.
    pub fn difference(&self, system: &System, digest: Option<Sha256>) -> Result<Option<String>> {
        if let (Some(path), true) = (self.sources.local(), self.file.is_as_sent()) {
            if self.is_expected(system) {
                return Ok(Some("write new content".into()));
            }
            let origin = system.host.digest(path)?.with_context(|| format!("{path} does not exist"))?;
            return Ok((Some(origin) != digest).then(|| self.file.new_content(origin)));
        }
        let Some(arrived) = state::read::<Arrived>(system.root(), &self.state_name()) else {
            return Ok(Some("write content (the source of the present content is not known)".into()));
        };
        if arrived.source != self.sources.id() {
            return Ok(Some("write content of another source".into()));
        }
        if arrived.member.as_deref() != self.file.member.as_ref().map(MemberName::as_str) {
            return Ok(Some("write another member".into()));
        }
        if Some(arrived.published) != digest {
            return Ok(Some("write content again (the file has changed since)".into()));
        }
        if let Some(template) = &arrived.template {
            let text = match self.file.render(system, template) {
                // A store of secrets does not answer.
                Err(error) if error::class(&error) == Class::Transient => {
                    system.warn(format!("{} keeps its present content: {error:#}", self.file.path));
                    return Ok(None);
                }
                text => text?,
            };
            if Sha256::of(text.as_bytes()) != arrived.published {
                return Ok(Some("write content with other variables".into()));
            }
        }
        if let Some(wanted) = self.file.sha256 {
            return Ok((arrived.sent != wanted).then(|| self.file.new_content(wanted)));
        }
        if self.file.verify == Some(Verify::None) {
            return Ok(None);
        }
        if let Some(path) = self.sources.local() {
            let origin = system.host.digest(path)?.with_context(|| format!("{path} does not exist"))?;
            return Ok((arrived.sent != origin).then(|| self.file.new_content(origin)));
        }
        let etag = system.fetcher.etag(&system.host, self.sources.first())?;
        Ok((etag.is_none() || etag != arrived.etag).then(|| "write new content (the source has another ETag)".into()))
    }

    /// Downloads the content to the staged file.
    pub fn bring(&self, system: &System, staged: &mut Staged) -> Result<Arrived> {
        if self.file.verify == Some(Verify::None) {
            tracing::warn!(source = %self.sources, "verify = \"none\": the downloaded content is not verified");
        }
        let mut fetched = system.fetch(&self.download())?;
        let template = if self.file.template { Some(text(&mut fetched.file, self.sources)?) } else { None };
        let member = self.file.member.as_ref().map(|member| member.as_str().to_owned());
        let published = match &template {
            None if member.is_some() => self.file.copy_member(system, &fetched.file, staged)?,
            None => {
                fetched.hand_over(staged)?;
                fetched.sha256
            }
            Some(template) => {
                let text = self.file.render(system, template)?;
                staged.write_all(text.as_bytes())?;
                Sha256::of(text.as_bytes())
            }
        };
        Ok(Arrived { source: self.sources.id(), etag: fetched.etag, sent: fetched.sha256, published, member, template })
    }

    /// Records the source of the written content, if the manifest has no digest of it.
    pub fn remember(&self, system: &System, arrived: &Arrived) -> Result<()> {
        if self.file.sha256.is_some() && self.file.is_as_sent() {
            return Ok(());
        }
        state::write(system.root(), &self.state_name(), arrived)
    }

    /// Returns whether an earlier planned change writes the source, a file of this machine.
    fn is_expected(&self, system: &System) -> bool {
        self.sources.local().is_some_and(|path| is_expected(system, path))
    }

    /// Fails if the source is a file of this machine that a run could not copy. An earlier planned change may write it.
    pub fn foresee(&self, system: &System) -> Result<()> {
        let Some(path) = self.sources.local() else { return Ok(()) };
        foresee(system, path, self.file.sha256)?;
        if is_expected(system, path) {
            return Ok(());
        }
        if self.file.template
            && let Some((mut file, _)) = system.root().open_file(path)?
        {
            match self.file.render(system, &text(&mut file, self.sources)?) {
                // A store of secrets does not answer.
                Err(error) if error::class(&error) == Class::Transient => {}
                rendered => drop(rendered?),
            }
        }
        self.file.foresee_member(system, path)
    }

    /// Returns the content that a run would write, if it is short.
    ///
    /// # Errors
    /// If a run would fail to download it too. A temporary failure is no error.
    pub fn preview(&self, system: &System) -> Result<Option<Vec<u8>>> {
        if self.is_expected(system) || self.file.member.is_some() {
            return Ok(None);
        }
        let mut fetched = match system.fetch(&self.download()) {
            Ok(fetched) if fetched.size <= MAX_TEXT_BYTES => fetched,
            Ok(_) => return Ok(None),
            Err(error) if error::class(&error) == Class::Permanent => return Err(error),
            Err(error) => {
                tracing::warn!("the difference is not shown: {error:#}");
                return Ok(None);
            }
        };
        if self.file.template {
            return Ok(Some(self.file.render(system, &text(&mut fetched.file, self.sources)?)?.into_bytes()));
        }
        let mut bytes = vec![];
        _ = fetched.file.read_to_end(&mut bytes).with_context(|| format!("reading {}", self.sources))?;
        Ok(Some(bytes))
    }
}

/// Returns whether an earlier planned change writes a source, which is a file of this machine.
pub fn is_expected(system: &System, path: &AbsPath) -> bool {
    system.expects(&Fact::Path(path.clone())) || system.expects(&Fact::Packages)
}

/// Fails if a run could not copy a source, which is a file of this machine. An earlier planned change may write it.
pub fn foresee(system: &System, path: &AbsPath, sha256: Option<Sha256>) -> Result<()> {
    let known = system.expected_digest(path);
    if known.is_none() && is_expected(system, path) {
        return Ok(());
    }
    let actual = match known {
        // The copy follows no link at the path itself, as the digest does.
        None => system.root().open_file(path)?.map(|_| system.digest(path)).transpose()?.flatten(),
        known => known,
    };
    let Some(actual) = actual else {
        bail!("{path} does not exist");
    };
    if let Some(wanted) = sha256.filter(|wanted| *wanted != actual) {
        let size = system.root().status(path)?.map_or(0, |status| status.size);
        let fault = anyhow::Error::from(other_bytes(size, actual, wanted));
        return Err(fault.context(format!("verifying {path}")));
    }
    Ok(())
}

/// Returns the name of the state file with the record of a file.
pub fn note(path: &AbsPath) -> String {
    format!("file-{}.json", &Sha256::of(path.as_str().as_bytes()).to_string()[..32])
}

fn text(file: &mut impl Read, sources: &Sources) -> Result<String> {
    let mut text = String::new();
    let read =
        file.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text).with_context(|| format!("{sources} is not a text"))?;
    if read as u64 > MAX_TEXT_BYTES {
        return Err(Fault::new(format!("{sources} is too long for a template: at most {MAX_TEXT_BYTES} bytes")).into());
    }
    Ok(text)
}
