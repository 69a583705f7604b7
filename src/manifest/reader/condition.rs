//! The conditions of steps and resources: `where` says on which machines one applies.

use std::{ops::Range, rc::Rc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, substitution::HeldVariables};
use crate::{diagnostic::Text, host::facts::impossible, manifest::scope::Scope, variables::is_fact};

impl Reader<'_> {
    /// Takes `where` out of the table of a step or a resource. Asks for its facts, and returns where it applies.
    /// `outer` is the step's own scope.
    pub(super) fn scope(&mut self, text: &Text, table: &mut DeTable<'_>, outer: &Scope) -> Scope {
        let Some(value) = table.remove("where") else { return outer.clone() };
        let mut scope = outer.clone();
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let hint = Some("where = { \"instance.tags.Role\" = \"web\" }".into());
            self.report(text, &span, "`where` is not a table of facts and variables", hint);
            return scope;
        };
        let mut keys = vec![];
        flatten("", table, &mut keys);
        // The metadata service is asked last, and only if all else holds.
        keys.sort_by_key(|(key, at, _)| (key.starts_with("instance."), at.start));
        let mut conditions = scope.conditions.as_deref().cloned().unwrap_or_default();
        for (key, at, value) in keys {
            let Some(wanted) = self.wanted(text, &key, value, &mut scope.unknown) else { continue };
            if scope.not_here.is_none() {
                self.compare(text, &key, &at, &wanted, &mut scope);
            }
            _ = conditions
                .entry(key)
                .and_modify(|values| values.retain(|value| wanted.contains(value)))
                .or_insert(wanted);
        }
        scope.conditions = Some(Rc::new(conditions));
        scope
    }

    /// Returns the values of a condition; `None` if they are faulty or unknown here.
    fn wanted(
        &mut self,
        text: &Text,
        key: &str,
        mut value: Spanned<DeValue<'_>>,
        unknown: &mut Option<String>,
    ) -> Option<Vec<String>> {
        let span = value.span();
        let mut held = HeldVariables::default();
        if !self.substitute(text, &mut value, &mut held) {
            return None;
        }
        if let Some(secret) = held.secrets.iter().find(|name| self.variables.is_certainly_secret(name)) {
            let message = format!("a condition cannot be about the secret `{secret}`");
            let hint = Some("write the condition about a variable that is no secret".into());
            self.report(text, &span, message, hint);
            return None;
        }
        if held.unknown.is_some() {
            *unknown = unknown.take().or(held.unknown);
            return None;
        }
        let values = match value.into_inner() {
            DeValue::Array(values) => values.into_iter().collect(),
            value => vec![Spanned::new(span.clone(), value)],
        };
        if values.is_empty() {
            let hint = Some("name at least one value".into());
            self.report(text, &span, format!("no value of `{key}` is in an empty list"), hint);
            return None;
        }
        let mut wanted: Vec<String> = vec![];
        for value in values {
            match value.get_ref() {
                DeValue::String(value) => wanted.push(value.to_string()),
                DeValue::Boolean(value) => wanted.push(value.to_string()),
                DeValue::Integer(value) => wanted.push(value.to_string()),
                DeValue::Float(value) => wanted.push(value.to_string()),
                other => {
                    let message = format!("`{key}`: expected a string or a list of strings, found {}", article(other));
                    self.report(text, &value.span(), message, None);
                    return None;
                }
            }
            let hint = wanted.last().and_then(|wanted| Some((wanted.escape_debug(), impossible(key, wanted)?)));
            if let Some((wanted, hint)) = hint {
                let message = format!("no machine has the {key} `{wanted}`");
                self.report(text, &value.span(), message, Some(hint));
            }
        }
        Some(wanted)
    }

    /// Compares the value that a fact or variable has here.
    fn compare(&mut self, text: &Text, key: &str, at: &Range<usize>, wanted: &[String], scope: &mut Scope) {
        if self.variables.is_certainly_secret(key) {
            let hint = Some("write the condition about a variable that is no secret".into());
            self.report(text, at, format!("a condition cannot be about the secret `{key}`"), hint);
            return;
        }
        // The facts of the host take no time. They are asked for in a step that is not picked, too.
        let is_asked = self.asks || key.starts_with("host.");
        match self.variables.look_up(key, is_asked) {
            Ok(Some(value)) if wanted.contains(&value) => {}
            Ok(Some(value)) if self.variables.fault_of_switch(key, &value).is_some() => {
                let message = self.variables.fault_of_switch(key, &value).unwrap_or_default();
                self.report(text, at, message, Some(format!("pass --set {key}=on or --set {key}=off")));
            }
            Ok(Some(_)) if self.variables.is_secret(key) => {
                scope.not_here = Some(format!("variable `{key}` has another value"));
            }
            Ok(Some(value)) if value.is_empty() => scope.not_here = Some(format!("{key} is empty")),
            Ok(Some(value)) => scope.not_here = Some(format!("{key} is {value}")),
            Ok(None) => scope.unknown = scope.unknown.take().or_else(|| Some(key.into())),
            Err(_) if !self.asks => scope.unknown = scope.unknown.take().or_else(|| Some(key.into())),
            Err(unresolved) => {
                let (message, hint) = (unresolved.message_of(key), unresolved.hint(self.variables));
                self.report(text, at, message, hint);
            }
        }
    }
}

/// Adds the keys of a table with their places and values. `host.version = "13"` without quotes is a table in TOML.
fn flatten<'i>(prefix: &str, table: DeTable<'i>, keys: &mut Vec<(String, Range<usize>, Spanned<DeValue<'i>>)>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) if is_fact(&format!("{key}.")) => flatten(&format!("{key}."), table, keys),
            value => keys.push((key, name.span(), Spanned::new(span, value))),
        }
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
        _ => "a date",
    }
}
