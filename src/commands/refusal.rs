//! The document in place of a plan, for programs: the faults of a manifest, or an error before the first step.

use std::fmt;

use serde::Serialize;

use crate::{diagnostic::Diagnostic, error, redaction, run::report::ErrorReport, visible};

/// An error for faults that were shown. The first one is its message.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Vec<Diagnostic>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Diagnostic { message, place, .. }) = self.0.first() else { return f.write_str("invalid manifest") };
        let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        write!(f, "{place}{message}")
    }
}

impl std::error::Error for Refused {}

/// The document that `plan --json` prints in place of a plan.
#[derive(Debug, Serialize)]
pub(super) struct RefusedPlan {
    outcome: &'static str,
    exit_code: u8,
    error: ErrorReport,
    faults: Vec<FaultReport>,
}

/// A fault of the manifest.
#[derive(Debug, Serialize)]
struct FaultReport {
    message: String,
    /// `FILE:LINE:COLUMN`
    place: Option<String>,
    hint: Option<String>,
}

impl RefusedPlan {
    /// Returns the document for an error.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let shown = |text: &str| visible::lines(&redaction::shown(text)).into_owned();
        let refused = error.chain().find_map(|cause| cause.downcast_ref::<Refused>());
        let report = |fault: &Diagnostic| FaultReport {
            message: shown(&fault.message),
            place: fault.place.as_ref().map(|place| shown(&place.to_string())),
            hint: fault.hint.as_deref().map(shown),
        };
        Self {
            outcome: if refused.is_some() { "invalid" } else { "failed" },
            exit_code: error::exit_code(error),
            error: ErrorReport::new(error),
            faults: refused.iter().flat_map(|refused| &refused.0).map(report).collect(),
        }
    }
}
