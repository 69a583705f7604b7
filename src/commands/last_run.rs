//! `run --failures`: the upload of how a run ended, to the object of this machine.

use std::time::Duration;

use anyhow::Result;

use super::record;
use crate::{
    aws::instance_object::InstanceObjects,
    cli,
    error::{self, Class},
    notify::block::Block,
    redaction::Redaction,
    run::{
        report::{Report, last_run::LastRun},
        supervisor::{RunMessage, is_supervised},
    },
    system::{Phase, System},
    view::say,
};

/// How long an upload may hold up the end of a run.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the tag with the build is waited for.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1);

/// Uploads how a run ended: after the block of its failure, if there is one. A fault costs one line.
pub(super) fn upload(system: &System, place: &InstanceObjects, block: &str, last: LastRun) {
    let System { aws, host, .. } = system;
    let build = last.build.or_else(|| aws.own_build(host, BUILD_TIMEOUT));
    let body = format!("{block}{}", LastRun { build, ..last }.line());
    match aws.put_own_object(host, place, body.into_bytes(), UPLOAD_TIMEOUT) {
        Ok(()) if block.is_empty() => tracing::debug!("uploaded the outcome of the run to {place}"),
        Ok(()) => say(format!("uploaded the outcome of the run to {place}")),
        Err(error) => tracing::warn!("the outcome of the run was not uploaded to {place}: {error:#}"),
    }
}

/// A run without a supervisor that tells how it ended.
pub(super) struct Teller {
    place: InstanceObjects,
    /// The report of the run before.
    before: Option<Report>,
}

impl Teller {
    /// Returns it before a run begins; `None` if neither the command line nor the record has a place, if the run has only a
    /// part of the steps or makes an image, or if a supervisor tells.
    pub(super) fn of(
        system: &System,
        selection: &cli::SelectionArgs,
        manifest: &cli::ManifestArgs,
        given: Option<InstanceObjects>,
    ) -> Option<Self> {
        if is_supervised() || selection.is_partial() || system.phase() != Phase::Boot {
            return None;
        }
        let place = given.or_else(|| record::failures(system, manifest))?;
        let before = Report::read(system).ok().flatten().filter(|before| before.is_of(system));
        Some(Self { place, before })
    }

    /// Tells how the run ended. A run that another one has kept out, or that a signal has stopped, tells nothing.
    pub(super) fn tell(&self, system: &System, ran: &Result<Report>) {
        let last = match ran {
            Ok(report) => LastRun::of(report, self.before.as_ref()),
            Err(error) => match error::class(error) {
                Class::Locked | Class::Interrupted(_) => None,
                _ => Some(LastRun::failed(error::exit_code(error), None)),
            },
        };
        let Some(last) = last else { return };
        let failure = match ran {
            Ok(report) => RunMessage::of_failed(report),
            Err(error) => Some(RunMessage::of(error)),
        };
        // Secrets are removed from these texts already.
        let block = failure.map(|word| Block::new(None, None, &word, &Redaction::default()).to_string());
        upload(system, &self.place, &block.unwrap_or_default(), last);
    }
}
