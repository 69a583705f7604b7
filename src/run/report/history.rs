//! The reports of earlier runs that changed something or did not succeed: `/var/lib/glovo-bootstrap/runs`.

use anyhow::{Context, Result};

use super::Report;
use crate::{
    host::{root::Root, state},
    system::System,
    value::AbsPath,
};

/// The directory below the state directory. A file's name is the run's id, which sorts by time.
const DIRECTORY: &str = "runs";
/// How many reports are kept: the machine's first run, and the newest ones.
const MAX_REPORTS: usize = 20;

/// Keeps the report of a run that has ended. Without it, `status --list` is shorter, so a failure is no error of the run.
pub(super) fn keep(report: &Report, root: &Root) {
    if report.exit_code == Some(0) && report.changes(false) == 0 {
        return;
    }
    let kept = state::write_beside(root, DIRECTORY, &report.run_id, report).and_then(|()| forget_old(root));
    if let Err(error) = kept {
        tracing::debug!("this run is not kept for `status --list`: {error:#}");
    }
}

/// Reads the kept reports of this machine, the newest first. Those that cannot be read are left out.
///
/// # Errors
/// If the directory cannot be listed.
pub fn read(system: &System) -> Result<Vec<Report>> {
    let reports = ids(system.root())?.into_iter().rev();
    let reports = reports.filter_map(|id| state::read::<Report>(system.root(), &format!("{DIRECTORY}/{id}")));
    Ok(reports.filter(|report| report.is_of(system)).collect())
}

/// Removes all kept reports.
pub(super) fn remove(root: &Root) -> Result<()> {
    for id in ids(root)? {
        root.remove(&path(&id)?)?;
    }
    Ok(())
}

fn forget_old(root: &Root) -> Result<()> {
    let ids = ids(root)?;
    let too_many = ids.len().saturating_sub(MAX_REPORTS);
    for id in ids.iter().skip(1).take(too_many) {
        root.remove(&path(id)?)?;
    }
    Ok(())
}

fn ids(root: &Root) -> Result<Vec<String>> {
    let directory = state::path(DIRECTORY)?;
    let mut ids = root.list(&directory).context("listing the earlier runs")?;
    ids.retain(|name| !name.starts_with('.'));
    ids.sort();
    Ok(ids)
}

fn path(id: &str) -> Result<AbsPath> {
    state::path(DIRECTORY)?.join(id)
}
