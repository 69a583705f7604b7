//! The version of a file's declared content, where it is known before the content is written.

use anyhow::Result;

use super::{
    File, Verify,
    origin::{Arrived, Origin},
};
use crate::{host::state, net::retry::Patience, system::System, value::Sha256};

impl File {
    /// Returns a text that differs if a run would write other content now; `None` if that is not known.
    pub(super) fn version(&self, system: &System) -> Result<Option<String>> {
        if let Some(content) = self.bytes()? {
            return Ok(Some(Sha256::of(&content).to_string()));
        }
        let Some(source) = self.secret_source() else { return self.origin()?.version(system) };
        let read = self.read_secret(system, source, Patience::Short)?;
        Ok(Some(match &*read.version {
            "" => Sha256::of(read.value.bytes()).to_string(),
            version => format!("{source} {version}"),
        }))
    }
}

impl Origin<'_> {
    /// Returns the version of the content that the source has now; see [`File::version`].
    fn version(&self, system: &System) -> Result<Option<String>> {
        let of_source = match (self.file.sha256, self.sources.local()) {
            (Some(wanted), _) => Some(wanted.to_string()),
            (None, Some(path)) => system.host.digest(path)?.map(|digest| digest.to_string()),
            (None, None) if self.file.verify == Some(Verify::None) => Some(self.sources.id()),
            (None, None) => system.fetcher.etag(&system.host, self.sources.first())?,
        };
        let Some(of_source) = of_source else { return Ok(None) };
        let member = self.file.member.as_ref().map_or("", |member| member.as_str());
        if !self.file.template {
            return Ok(Some(format!("{of_source} {member}")));
        }
        // The template was downloaded before a service could refuse it.
        let arrived = state::read::<Arrived>(system.root(), &self.state_name());
        let Some(template) = arrived.and_then(|arrived| arrived.template) else { return Ok(None) };
        let text = self.file.render(system, &template)?;
        Ok(Some(format!("{of_source} {}", Sha256::of(text.as_bytes()))))
    }
}
