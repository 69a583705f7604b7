//! The reports of earlier runs that changed something or did not succeed: `/var/lib/glovo-bootstrap/runs`. A file's name is
//! the run's id, which sorts by time.

use anyhow::{Context, Result};

use super::Report;
use crate::{
    host::{root::Root, state},
    system::System,
    value::AbsPath,
};

/// How many reports are kept: the machine's first run, and the newest ones.
const MAX_REPORTS: usize = 20;

/// Keeps the report of a run that has ended or is interrupted by a reboot. Without it, `status --list` is shorter, so a
/// failure is no error of the run.
pub(super) fn keep(report: &Report, system: &System) {
    if report.exit_code == Some(0) && report.changes(false) == 0 {
        return;
    }
    let root = system.root();
    let kept = state::write_beside(root, state::RUNS, &report.run_id, report).and_then(|()| forget_old(system));
    if let Err(error) = kept {
        tracing::debug!("this run is not kept for `status --list`: {error:#}");
    }
}

/// Reads the kept reports of this machine, the newest first. Those that cannot be read are left out.
///
/// # Errors
/// If the directory cannot be listed.
pub fn read(system: &System) -> Result<Vec<Report>> {
    let reports = names(system.root())?.into_iter().rev().filter(|id| !id.starts_with('.'));
    let reports = reports.filter_map(|id| state::read::<Report>(system.root(), &format!("{}/{id}", state::RUNS)));
    Ok(reports.filter(|report| report.is_of(system)).collect())
}

/// Removes all kept reports.
pub(super) fn remove(root: &Root) -> Result<()> {
    for id in names(root)? {
        root.remove(&path(&id)?)?;
    }
    Ok(())
}

/// Leaves the first report and the newest ones. Those that cannot be read, or are of another machine whose disk was copied,
/// go first; and what a killed run has left.
fn forget_old(system: &System) -> Result<()> {
    let mut ids = names(system.root())?;
    if ids.len() <= MAX_REPORTS {
        return Ok(());
    }
    for id in ids.extract_if(.., |id| id.starts_with('.') || !is_ours(system, id)) {
        system.root().remove(&path(&id)?)?;
    }
    let too_many = ids.len().saturating_sub(MAX_REPORTS);
    for id in ids.iter().skip(1).take(too_many) {
        system.root().remove(&path(id)?)?;
    }
    Ok(())
}

fn is_ours(system: &System, id: &str) -> bool {
    let report = state::load::<Report>(system.root(), &format!("{}/{id}", state::RUNS));
    report.is_ok_and(|report| report.is_some_and(|report| report.is_of(system)))
}

fn names(root: &Root) -> Result<Vec<String>> {
    let mut names = root.list(&state::path(state::RUNS)?).context("listing the earlier runs")?;
    names.sort();
    Ok(names)
}

fn path(id: &str) -> Result<AbsPath> {
    state::path(state::RUNS)?.join(id)
}
