//! The substitution of variables in the strings of a table, before a kind sees them.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Reader;
use crate::diagnostic::{Diagnostic, Place, Text};

/// The fields of a table that have a variable without a value: a fact that is unknown in an image, or a faulty
/// variable. Their strings stay as written and are not checked.
#[derive(Default)]
pub(super) struct Unknown {
    pub(super) fields: BTreeSet<String>,
    /// The first variable whose value is unknown and which is no fault.
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

    /// Replaces the variables in a value. Sets `unknown` to the first variable of unknown value. Returns whether none
    /// of the variables is a fault.
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
