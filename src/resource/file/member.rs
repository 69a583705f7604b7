//! A file that is one member of an archive.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::Digest;

use super::File;
use crate::{
    archive,
    host::root::{OpenFile, Staged},
    resource::Finding,
    system::System,
    value::{AbsPath, Sha256},
};

/// The bytes of a member that are copied at once.
const BUFFER_BYTES: usize = 128 << 10;

/// The path of a member in an archive, such as `bin/tool`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct MemberName(String);

impl MemberName {
    /// Returns the path as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MemberName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let path: AbsPath = format!("/{}", text.strip_prefix("./").unwrap_or(&text)).parse()?;
        anyhow::ensure!(!path.leaf().is_empty(), "`{text}` is not the path of a member, such as `bin/tool`");
        Ok(Self(path.as_str()[1..].to_owned()))
    }
}

impl File {
    /// Returns the faults of `member`.
    pub(super) fn faults_of_member(&self) -> Vec<Finding> {
        if self.member.is_none() {
            return vec![];
        }
        let mut findings = vec![];
        if self.source.is_none() {
            findings.push(Finding::new("member", "`member` is only about `source`"));
        }
        if self.sha256.is_none() {
            let finding = Finding::new("member", "`member` needs the `sha256` of the archive");
            findings.push(finding.hint("print it: sha256sum ARCHIVE"));
        }
        if self.template {
            findings.push(Finding::new("template", "`template` and `member` exclude each other"));
        }
        findings
    }

    /// Copies the member of an archive into the staged file. Returns the digest of its bytes.
    pub(super) fn copy_member(&self, system: &System, file: &OpenFile, staged: &mut Staged) -> Result<Sha256> {
        let member = self.member.as_ref().map_or("", MemberName::as_str);
        let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; BUFFER_BYTES]);
        archive::read_file(file, member, &mut |bytes| {
            loop {
                system.host.stop.check()?;
                match bytes.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => {
                        hasher.update(&buffer[..read]);
                        staged.write_all(&buffer[..read])?;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).with_context(|| format!("reading the member {member}")),
                }
            }
        })?;
        Ok(Sha256(hasher.finalize().into()))
    }

    /// Fails if an archive on this machine does not have the member.
    pub(super) fn foresee_member(&self, system: &System, archive: &AbsPath) -> Result<()> {
        let Some(member) = &self.member else { return Ok(()) };
        let Some((file, _)) = system.root().open_file(archive)? else { return Ok(()) };
        let found = archive::read_file(&file, member.as_str(), &mut |bytes| {
            // Reading all bytes checks them.
            _ = std::io::copy(bytes, &mut std::io::sink())
                .with_context(|| format!("reading the member {}", member.as_str()))?;
            Ok(())
        });
        found.with_context(|| format!("reading {archive}"))
    }
}
