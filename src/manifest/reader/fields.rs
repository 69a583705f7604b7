//! The fields of a step or a resource: their types, and the faults of all of them.

use std::{borrow::Cow, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Reader, faults::place, substitution::Unknown};
use crate::{
    diagnostic::{Diagnostic, Text, did_you_mean, may_hold_secret},
    manifest::{COMMON_FIELDS, expected, schema},
    resource::{KINDS, KindEntry, Resource},
    value::Span,
    variables::value::converted,
};

/// The longest text that a hint shows as a list.
const MAX_LISTED_BYTES: usize = 60;

impl Reader<'_> {
    /// Reports all faults of a resource's fields. Returns the resource, and whether all its values are as written.
    ///
    /// serde stops at the first bad field. To find the next one, the value of the kind's example replaces the bad
    /// value.
    pub(super) fn faulty(
        &mut self,
        text: &Text,
        entry: &KindEntry,
        table: &mut DeTable<'_>,
        span: &Range<usize>,
        unknown: &Unknown,
    ) -> Option<(Box<dyn Resource>, bool)> {
        let fields = schema::fields(entry);
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let what = format!("kind `{}`", entry.name);
        self.unknown(text, table, &[&known[..], &COMMON_FIELDS[..]].concat(), &what, "");
        *table = std::mem::take(table).into_iter().filter(|(name, _)| known.contains(&&**name.get_ref())).collect();
        let missing: Vec<_> =
            fields.iter().filter(|field| field.required && !table.contains_key(&*field.name)).collect();
        for field in &missing {
            self.report(text, span, format!("{what} needs the field `{}`", field.name), None);
        }
        if !missing.is_empty() {
            return None;
        }
        let mut table = table.clone();
        let faults = self.faults.count();
        let mut is_as_written = true;
        loop {
            let error = match parse(entry, &table, span) {
                Ok(resource) => return Some((resource, is_as_written)).filter(|_| self.faults.count() == faults),
                Err(error) => error,
            };
            let place = error.span().unwrap_or_else(|| span.clone());
            let variable = self.whole_at(&place);
            if variable.is_some() && convert_in(&mut table, &place, error.message()) {
                continue;
            }
            let within =
                |value: &Spanned<DeValue<'_>>| value.span().start <= place.start && place.end <= value.span().end;
            let bad = table.iter().find(|(_, value)| within(value)).map(|(name, _)| name.clone());
            if !bad.as_ref().is_some_and(|name| unknown.has(name.get_ref())) {
                let words = match (expected::in_words(error.message()), &bad) {
                    (Some(words), Some(name)) => format!("`{}`: {words}", name.get_ref()),
                    (words, _) => words.unwrap_or_else(|| error.message().into()),
                };
                let (words, hint) = self.with_origin(words, variable.as_deref());
                let hint = hint.or_else(|| unquoted(&table, bad.as_ref()?.get_ref(), &words));
                let hint = hint.or_else(|| listed(text.text.get(place.clone())?, bad.as_ref()?.get_ref(), &words));
                let hint = hint.or_else(|| is_for_quotes(&words).then(|| in_quotes(entry.example, bad.as_ref())));
                let field = bad.as_ref().map_or("", |name| name.get_ref());
                self.fault_of_field(text, &place, field, words, hint);
            }
            let name = bad?;
            is_as_written = false;
            // The span of the replacement is outside the text, so a fault in it ends the loop.
            let stand_in = DeTable::parse(entry.example).ok()?.into_inner().remove(&**name.get_ref());
            _ = table.remove(&**name.get_ref());
            if let Some(stand_in) = stand_in {
                _ = table.insert(name, Spanned::new(usize::MAX..usize::MAX, stand_in.into_inner()));
            }
        }
    }

    /// Returns the variable whose placeholder is the whole value at a place.
    fn whole_at(&self, place: &Range<usize>) -> Option<String> {
        self.whole.iter().find(|(span, _)| span == place).map(|(_, name)| name.clone())
    }

    /// Returns the words of a fault in the value of a variable without a secret, and a hint that names the variable.
    fn with_origin(&self, mut words: String, variable: Option<&str>) -> (String, Option<String>) {
        let Some(name) = variable else { return (words, None) };
        if self.variables.is_secret(name) {
            words.truncate(words.find(", found ").unwrap_or(words.len()));
        }
        (words, Some(self.variables.origin(name)))
    }

    /// Takes the deadline of a step or a resource out of its table.
    pub(super) fn timeout(&mut self, text: &Text, table: &mut DeTable<'_>, unknown: &Unknown) -> Option<Duration> {
        let timeout = self.take::<Span>(text, table, "timeout", unknown)?;
        if timeout.get_ref().0.is_zero() {
            let hint = Some("leave it out: a step has one hour".into());
            self.report(text, &timeout.span(), "`timeout` is 0, which is always exceeded", hint);
        }
        Some(timeout.into_inner().0)
    }

    /// Takes a field out of a table. Reports a wrong type.
    pub(super) fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        text: &Text,
        table: &mut DeTable<'_>,
        name: &str,
        unknown: &Unknown,
    ) -> Option<Spanned<T>> {
        let value = table.remove(name)?;
        let span = value.span();
        let variable = self.whole_at(&span);
        let read = |value: DeValue<'_>| T::deserialize(ValueDeserializer::from(Spanned::new(span.clone(), value)));
        let value = value.into_inner();
        let converted = |error: toml::de::Error| match converted(&value, error.message(), span.clone()) {
            Some(value) if variable.is_some() => read(value),
            _ => Err(error),
        };
        match read(value.clone()).or_else(converted) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(_) if unknown.has(name) => None,
            Err(error) => {
                let words = expected::in_words(error.message()).unwrap_or_else(|| error.message().into());
                let (words, hint) = self.with_origin(format!("`{name}`: {words}"), variable.as_deref());
                self.report(text, &span, words, hint);
                None
            }
        }
    }

    /// Reports unknown fields. A field with the name of a kind may be meant as a resource, which begins with
    /// `[[heading]]`.
    pub(super) fn unknown(
        &mut self,
        text: &Text,
        table: &DeTable<'_>,
        known: &[&str],
        what: &str,
        heading_of_resource: &str,
    ) {
        let mut unknown: Vec<_> = table.keys().filter(|name| !known.contains(&&**name.get_ref())).collect();
        // A table is sorted by names, but faults are reported in the order of the text.
        unknown.sort_by_key(|name| name.span().start);
        for name in unknown {
            let span = name.span();
            let name = name.get_ref();
            let conceals = self.conceals || may_hold_secret(name);
            self.faults.add(|| {
                let is_kind = !heading_of_resource.is_empty() && KINDS.iter().any(|kind| kind.name == name);
                let is_resource = name == "resource" && heading_of_resource == "step.resource";
                let hint = if is_resource {
                    "in a manifest of several steps, begin each resource with [[step.resource]]".into()
                } else if is_kind {
                    format!("begin the resource with [[{heading_of_resource}]], and give it kind = \"{name}\"")
                } else {
                    let list = || format!("its fields are: {}", known.join(", "));
                    did_you_mean(name, known.iter().copied()).unwrap_or_else(list)
                };
                Diagnostic {
                    message: format!("unknown field `{name}` in {what}"),
                    place: Some(place(text, &span, conceals)),
                    hint: Some(hint),
                }
            });
        }
    }
}

/// Passes a resource's fields to its kind.
pub(super) fn parse(
    entry: &KindEntry,
    table: &DeTable<'_>,
    span: &Range<usize>,
) -> Result<Box<dyn Resource>, toml::de::Error> {
    (entry.parse)(ValueDeserializer::from(Spanned::new(span.clone(), DeValue::Table(table.clone()))))
}

/// Converts the value at a place to the type that a field wants. Returns whether it did.
fn convert_in(table: &mut DeTable<'_>, place: &Range<usize>, message: &str) -> bool {
    table.iter_mut().any(|(_, value)| convert(value, place, message))
}

fn convert(value: &mut Spanned<DeValue<'_>>, place: &Range<usize>, message: &str) -> bool {
    let is_here = value.span() == *place;
    let new = if is_here { converted(value.get_ref(), message, place.clone()) } else { None };
    match (new, value.get_mut()) {
        (Some(new), value) => {
            *value = new;
            true
        }
        (None, DeValue::Array(values)) => values.iter_mut().any(|value| convert(value, place, message)),
        (None, DeValue::Table(table)) => convert_in(table, place, message),
        (None, _) => false,
    }
}

/// Returns whether a fault is that of a number, a date, true or false where a string is expected.
fn is_for_quotes(words: &str) -> bool {
    let found = words.rsplit_once("expected a string, found ").map_or("", |(_, found)| found);
    found.starts_with(|c: char| c.is_ascii_digit() || c == '-') || ["true", "false"].contains(&found)
}

/// Returns the hint for a number or a boolean that should be a text. That of a time also needs a unit.
fn in_quotes(example: &str, field: Option<&Spanned<Cow<'_, str>>>) -> String {
    let example = DeTable::parse(example).ok();
    let value = field.and_then(|field| example.as_ref()?.get_ref().get(&**field.get_ref())?.get_ref().as_str());
    let unit =
        if value.is_some_and(|value| value.parse::<Span>().is_ok()) { ", with a unit: ms, s, m, h or d" } else { "" };
    format!("write the value in quotes{unit}")
}

/// Returns the hint for words that should be a list.
///
/// `written` is the value in the manifest. One with a placeholder may hold a secret, and one with quotes is for a shell.
fn listed(written: &str, field: &str, words: &str) -> Option<String> {
    let text = written.strip_prefix(['"', '\''])?.strip_suffix(['"', '\''])?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+@, ".contains(c);
    if !words.contains("expected a list, found ")
        || may_hold_secret(field)
        || text.len() > MAX_LISTED_BYTES
        || !text.chars().all(is_plain)
    {
        return None;
    }
    let list: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
    Some(format!("write a list: {field} = [{}]", list.join(", ")))
}

/// Returns the hint for a name with dots in a table of a field, which TOML takes for a table unless it is quoted.
fn unquoted(table: &DeTable<'_>, field: &str, words: &str) -> Option<String> {
    let Some(DeValue::Table(values)) = table.get(field).map(Spanned::get_ref) else { return None };
    let inner = |value: &'_ Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Table(values) => values.iter().next().map(|(name, _)| name.get_ref().to_string()),
        _ => None,
    };
    let (name, next) = values.iter().find_map(|(name, value)| Some((name.get_ref(), inner(value)?)))?;
    words.ends_with("found a table").then(|| format!("write the name in quotes: \"{name}.{next}\""))
}
