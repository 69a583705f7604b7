//! Variables in the strings of a table, replaced before a kind sees them.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Reader;
use crate::diagnostic::{Diagnostic, Place, Text};

/// The fields of a table that hold a variable of unknown value, such as a fact that is not told while an image is made,
/// or one that is a fault. Such a string stays as it is written, and what it must be is not checked.
#[derive(Default)]
pub(super) struct Unknown {
    pub(super) fields: BTreeSet<String>,
    /// The first of the variables that are no fault.
    pub(super) variable: Option<String>,
}

impl Unknown {
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains(field)
    }
}

impl Reader<'_> {
    /// Replaces the variables in some fields of a table.
    pub(super) fn substitute_table(
        &mut self,
        text: &Text,
        table: &mut DeTable<'_>,
        which: impl Fn(&str) -> bool,
    ) -> Unknown {
        let mut unknown = Unknown::default();
        for (name, value) in table.iter_mut().filter(|(name, _)| which(name.get_ref())) {
            let mut variable = None;
            let is_resolved = self.substitute(text, value, &mut variable);
            if variable.is_some() || !is_resolved {
                _ = unknown.fields.insert(name.get_ref().to_string());
                unknown.variable = unknown.variable.take().or(variable);
            }
        }
        unknown
    }

    /// Replaces the variables in a value, and tells the first one of unknown value. Whether none of them is a fault.
    fn substitute(&mut self, text: &Text, value: &mut Spanned<DeValue<'_>>, unknown: &mut Option<String>) -> bool {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(string) if string.contains("{{") => {
                let resolved =
                    if self.is_picked { self.variables.resolve(string) } else { self.variables.resolve_known(string) };
                match resolved {
                    Ok(resolved) => {
                        *string = resolved.text.into();
                        *unknown = unknown.take().or(resolved.unknown);
                    }
                    Err((first, others)) => {
                        for one in std::iter::once(&first).chain(&others) {
                            self.faults.add(|| {
                                let written = text.text.get(span.clone()).unwrap_or_default();
                                let within = one.range(written).map(|at| span.start + at.start..span.start + at.end);
                                let place = Some(Place::new(text, &within.unwrap_or_else(|| span.clone())));
                                Diagnostic { message: one.message(), place, hint: one.hint(self.variables) }
                            });
                        }
                        return false;
                    }
                }
            }
            DeValue::String(string) if string.contains('\0') => {
                self.report(text, &span, "the string holds a NUL character", None);
            }
            DeValue::Array(values) => {
                let mut all = true;
                for value in values.iter_mut() {
                    all &= self.substitute(text, value, unknown);
                }
                return all;
            }
            DeValue::Table(table) => {
                let mut all = true;
                for (_, value) in table.iter_mut() {
                    all &= self.substitute(text, value, unknown);
                }
                return all;
            }
            _ => {}
        }
        true
    }
}
