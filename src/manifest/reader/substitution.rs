//! The substitution of variables in the strings of a table, before a kind sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{Reader, faults::place};
use crate::{
    diagnostic::{Diagnostic, Text},
    variables::{Unresolved, only_placeholder},
};

/// The fields of a table that have a variable without a value: a fact that is unknown in an image, or a faulty
/// variable. Their strings stay as written and are not checked.
#[derive(Default)]
pub(super) struct Unknown {
    pub(super) fields: BTreeSet<String>,
    /// The first variable whose value is unknown and which is no fault.
    pub(super) variable: Option<String>,
    /// The fields that hold a secret variable, each with one of them: with one of a store, if it holds one.
    pub(super) secrets: BTreeMap<String, String>,
}

/// The variables that a value holds.
#[derive(Default)]
pub(super) struct HeldVariables {
    /// The first one of unknown value.
    pub(super) unknown: Option<String>,
    /// Those that are secrets.
    pub(super) secrets: Vec<String>,
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
        self.whole.clear();
        let mut unknown = Unknown::default();
        for (name, value) in table.iter_mut().filter(|(name, _)| which(name.get_ref())) {
            let mut held = HeldVariables::default();
            let is_resolved = self.substitute(text, value, &mut held);
            let HeldVariables { unknown: variable, secrets } = held;
            // A secret of a store is refused in more fields than one of a file.
            let secret = secrets.iter().find(|name| self.variables.is_certainly_secret(name)).or(secrets.first());
            unknown.secrets.extend(secret.map(|secret| (name.get_ref().to_string(), secret.clone())));
            if variable.is_some() || !is_resolved {
                _ = unknown.fields.insert(name.get_ref().to_string());
                unknown.variable = unknown.variable.take().or(variable);
            }
        }
        unknown
    }

    /// Replaces the variables in a value. Adds those of unknown value and the secret ones to `held`. Returns whether
    /// none of the variables is a fault.
    pub(super) fn substitute(
        &mut self,
        text: &Text,
        value: &mut Spanned<DeValue<'_>>,
        held: &mut HeldVariables,
    ) -> bool {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(string) if string.contains("{{") => {
                held.secrets.extend(self.variables.secrets_in(string));
                if let Some(name) = only_placeholder(string) {
                    self.whole.push((span.clone(), name.to_owned()));
                    if let Some(typed) = self.variables.typed(name) {
                        *value.get_mut() = typed.to_toml(span);
                        return true;
                    }
                }
                let resolved =
                    if self.asks { self.variables.resolve(string) } else { self.variables.resolve_known(string) };
                match resolved {
                    Ok(resolved) => {
                        *string = resolved.text.into();
                        held.unknown = held.unknown.take().or(resolved.unknown);
                    }
                    Err((first, others)) => {
                        for unresolved in std::iter::once(&first).chain(&others) {
                            self.report_unresolved(text, &span, unresolved);
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
                let mut has_lists = false;
                for value in values.iter_mut() {
                    let is_text = value.get_ref().is_str();
                    all &= self.substitute(text, value, held);
                    has_lists |= is_text && value.get_ref().is_array();
                }
                if has_lists {
                    splice(values);
                }
                return all;
            }
            DeValue::Table(table) => {
                let mut all = true;
                for (_, value) in table.iter_mut() {
                    all &= self.substitute(text, value, held);
                }
                return all;
            }
            _ => {}
        }
        true
    }

    /// Reports a placeholder without a value, at its place in the string.
    fn report_unresolved(&mut self, text: &Text, string: &Range<usize>, unresolved: &Unresolved) {
        let conceals = self.conceals;
        self.faults.add(|| {
            let written = text.text.get(string.clone()).unwrap_or_default();
            let within = unresolved.range(written).map(|at| string.start + at.start..string.start + at.end);
            let place = place(text, &within.unwrap_or_else(|| string.clone()), conceals);
            Diagnostic { message: unresolved.message(), place: Some(place), hint: unresolved.hint(self.variables) }
        });
    }
}

/// Replaces the lists in a list with their elements.
fn splice(values: &mut DeArray<'_>) {
    let elements = std::mem::replace(values, DeArray::new()).into_iter().flat_map(|value| {
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(elements) => elements.into_iter().collect(),
            value => vec![Spanned::new(span, value)],
        }
    });
    *values = elements.collect();
}
