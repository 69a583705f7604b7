//! The end of a step with `reboot = "if-required"`.

use anyhow::{Context, Result};

use super::{Run, Step};
use crate::{
    error::{self, Fault},
    packages, redaction,
    run::{
        reboot::RebootNote,
        report::{ChangeReport, ErrorReport, Outcome, RebootReport, ResourceReport},
        supervisor::{self, RunMessage},
    },
    system::{Mode, Phase},
    visible,
};

/// Its name in the report.
const TITLE: &str = "reboot";

impl Run<'_> {
    /// Sets the report's `reboot` if the machine requires it. Returns the step's exit code, and whether that failed.
    pub(super) fn reboot_if_required(&mut self, index: usize, step: &Step) -> (u8, bool) {
        if self.system.phase() != Phase::Boot || !self.system.root().is_host() {
            return (0, false);
        }
        let mut report = ResourceReport { resource: TITLE.into(), outcome: Outcome::Unchanged, ..Default::default() };
        let result = self.look_for_reasons(index, step, &mut report);
        let mut code = 0;
        if let Err(error) = result {
            code = error::exit_code(&error);
            let failed = self.end_fails(TITLE, step, &error, true);
            report = ResourceReport { changes: report.changes, warnings: report.warnings, ..failed };
        }
        for change in &report.changes {
            self.observer.borrow_mut().change(TITLE, change);
        }
        for warning in &report.warnings {
            self.observer.borrow_mut().warning(TITLE, warning);
        }
        if !(report.changes.is_empty() && report.warnings.is_empty() && report.error.is_none()) {
            self.report.steps[index].resources.push(report);
        }
        (code, code != 0)
    }

    /// Shows that a part of a step's end has failed, and tells the supervisor if that is the step's `first` failure.
    /// Returns its report.
    pub(super) fn end_fails(&self, title: &str, step: &Step, error: &anyhow::Error, first: bool) -> ResourceReport {
        let why = ErrorReport::new(error);
        if first {
            let message = RunMessage { resource: Some(title.into()), error: Some(why.clone()), ..Default::default() };
            supervisor::tell(&message);
        }
        self.observer.borrow_mut().failure(title, &format!("step {}", step.name), error, false);
        ResourceReport { resource: title.into(), outcome: Outcome::Failed, error: Some(why), ..Default::default() }
    }

    fn look_for_reasons(&mut self, index: usize, step: &Step, report: &mut ResourceReport) -> Result<()> {
        let system = self.system;
        let reasons = packages::reboot_reasons(&system.host).context("asking whether the machine needs a reboot")?;
        let Some(reasons) = reasons else {
            report.warnings.push("no package manager of this machine says whether it needs a reboot".into());
            return Ok(());
        };
        let why = visible::line(&redaction::shown(&reasons.join("; "))).into_owned();
        let change = ChangeReport::new(&format!("restart the machine: {why}"), false, None);
        match (system.mode(), reasons.is_empty()) {
            (Mode::Plan, true) if self.report.steps[index].changes(false) > 0 => {
                let summary = "restart the machine, if these changes require it";
                report.changes.push(ChangeReport::new(summary, true, None));
            }
            (Mode::Plan, true) => {}
            (Mode::Run, true) => RebootNote::forget(system, &step.name)?,
            _ if !system.is_live() => {
                let why_not = system.why_not_live();
                report.warnings.push(format!("the machine is not restarted, because {why_not}, but needs it: {why}"));
            }
            (mode, false) => {
                if RebootNote::read(system)?.has_rebooted(&step.name, &why) {
                    let fault = Fault::new(format!("after the reboot, the machine still needs a reboot: {why}"));
                    let hint = "find out why that reboot did not help; to go on without another one, leave out \
                                `reboot` in the step";
                    return Err(fault.hint(hint).into());
                }
                report.changes.push(change);
                report.outcome = if mode == Mode::Plan { Outcome::Pending } else { Outcome::Changed };
                if mode == Mode::Run {
                    self.report.reboot = Some(RebootReport { after: step.name.clone(), why });
                }
            }
        }
        Ok(())
    }
}
