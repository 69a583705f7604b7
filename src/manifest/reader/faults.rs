//! The faults that the reader reports, each with its place. A line that may hold a secret is not shown.

use std::ops::Range;

use super::Reader;
use crate::diagnostic::{Diagnostic, Place, Text, may_hold_secret};

/// Returns the place of a fault; `conceals` leaves out its line. It is made only for a fault that is shown: there may be
/// a hundred thousand faults.
pub(super) fn place(text: &Text, span: &Range<usize>, conceals: bool) -> Place {
    let mut place = Place::new(text, span);
    if conceals {
        place.conceal();
    }
    place
}

impl Reader<'_> {
    pub(super) fn report(
        &mut self,
        text: &Text,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.fault(text, span, || (message.into(), hint));
    }

    /// Reports a fault whose text is made only if it is shown.
    pub(super) fn fault(&mut self, text: &Text, span: &Range<usize>, words: impl FnOnce() -> (String, Option<String>)) {
        let conceals = self.conceals;
        self.faults.add(|| {
            let (message, hint) = words();
            Diagnostic { message, place: Some(place(text, span, conceals)), hint }
        });
    }

    /// Reports a fault in the value of a field. That of a secret is not shown.
    pub(super) fn fault_of_field(
        &mut self,
        text: &Text,
        span: &Range<usize>,
        field: &str,
        mut words: String,
        hint: Option<String>,
    ) {
        let conceals = may_hold_secret(field) || self.conceals;
        if conceals {
            words.truncate(words.find(", found ").unwrap_or(words.len()));
        }
        self.faults.add(|| Diagnostic { message: words, place: Some(place(text, span, conceals)), hint });
    }
}
