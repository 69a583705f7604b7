//! The values that a file gives to variables: one for all machines, or one for each distribution or family.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{check_name, is_fact, stored::StoredSecret, value::Value};
use crate::{
    diagnostic::{Diagnostic, Faults, Place, Text, did_you_mean},
    value::distribution,
};

/// What a file or the command line gives to a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    /// The value on all machines.
    Everywhere(Value),
    /// The values by `host.distribution` or `host.family`.
    ByDistribution(BTreeMap<String, Value>),
    /// The value is a secret of a store, which is read when a text needs it.
    Stored(StoredSecret),
}

/// A message, a hint and a place.
type Complaint = (String, Option<String>, Range<usize>);

impl Setting {
    /// Makes the setting of a text.
    pub(super) fn text(text: &str) -> Self {
        Self::Everywhere(Value::Text(text.into()))
    }

    /// Returns its values.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        let (one, several) = match self {
            Self::Everywhere(value) => (Some(value), None),
            Self::ByDistribution(values) => (None, Some(values.values())),
            Self::Stored(_) => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// Returns the texts that are secret if the setting is.
    pub(super) fn texts(&self) -> impl Iterator<Item = &String> {
        self.values().flat_map(Value::texts)
    }

    /// Returns the distributions and families that it names.
    pub(super) fn distributions(&self) -> impl Iterator<Item = &String> {
        let Self::ByDistribution(values) = self else { return None.into_iter().flatten() };
        Some(values.keys()).into_iter().flatten()
    }

    /// Reads a value of a file.
    fn read(name: &str, value: &DeValue<'_>, span: Range<usize>) -> Result<Self, Complaint> {
        let Some(table) = value.as_table().filter(|table| !table.is_empty()) else {
            return single(&format!("`{name}`"), value, span).map(Self::Everywhere);
        };
        if table.contains_key("secret") {
            let read = StoredSecret::deserialize(ValueDeserializer::from(Spanned::new(span.clone(), value.clone())));
            return read.map(Self::Stored).map_err(|error| {
                let place = error.span().unwrap_or(span);
                (format!("variable `{name}`: {}", error.message()), None, place)
            });
        }
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let distribution = &**key.get_ref();
            check_distribution(name, distribution).map_err(|(message, hint)| (message, hint, key.span()))?;
            let value = single(&format!("`{name}` for {distribution}"), value.get_ref(), value.span())?;
            _ = values.insert(distribution.to_owned(), value);
        }
        Ok(Self::ByDistribution(values))
    }
}

/// Reads a value that is no table.
fn single(whose: &str, value: &DeValue<'_>, span: Range<usize>) -> Result<Value, Complaint> {
    Value::read(value).map_err(|other| {
        let hint = "write a string in quotes, true, false, a number, or a list of strings".to_owned();
        (format!("the value of variable {whose} is {other}"), Some(hint), span)
    })
}

/// Fails if a key of a variable's table is neither a distribution nor a family.
fn check_distribution(variable: &str, key: &str) -> Result<(), (String, Option<String>)> {
    if distribution::names().any(|name| name == key) {
        return Ok(());
    }
    let list = || {
        let names: Vec<_> = distribution::names().collect();
        format!(
            "for names with values, write a list: NAME = [\"KEY=VALUE\"]; a table has values by distribution or family: {}",
            names.join(", ")
        )
    };
    let shown = key.escape_debug();
    let message = format!("`{shown}` in the value of variable `{variable}` is not a distribution or family");
    Err((message, Some(did_you_mean(key, distribution::names()).unwrap_or_else(list))))
}

/// Reads a file of variables.
pub(super) fn read(
    text: &Text,
    values: &mut BTreeMap<String, Setting>,
    broken: &mut BTreeSet<String>,
    places: &mut BTreeMap<String, Place>,
) -> Faults {
    let (table, errors) = DeTable::parse_recoverable(&text.text);
    let mut faults = Faults::default();
    for error in &errors {
        faults.add(|| Diagnostic::syntax(text, error));
    }
    faults.extend(read_table(text, table.get_ref(), values, broken, places));
    faults
}

/// Reads a table of variables.
pub(super) fn read_table(
    text: &Text,
    table: &DeTable<'_>,
    values: &mut BTreeMap<String, Setting>,
    broken: &mut BTreeSet<String>,
    places: &mut BTreeMap<String, Place>,
) -> Faults {
    let mut faults = Faults::default();
    for (name, value) in table {
        let read = match check_name(&written(name.get_ref(), value.get_ref())) {
            Ok(()) => Setting::read(name.get_ref(), value.get_ref(), value.span()),
            Err(message) => Err((message, None, name.span())),
        };
        let (message, hint, span) = match read {
            Ok(setting) => {
                _ = values.insert(name.get_ref().to_string(), setting);
                _ = places.insert(name.get_ref().to_string(), Place::new(text, &name.span()));
                continue;
            }
            Err(complaint) => complaint,
        };
        _ = broken.insert(name.get_ref().to_string());
        faults.add(|| Diagnostic { message, place: Some(Place::new(text, &span)), hint });
    }
    faults
}

/// Returns the name as it is written: `host.version = "13"` is a table in TOML.
fn written<'a>(name: &'a str, value: &DeValue<'_>) -> Cow<'a, str> {
    let key = value.as_table().and_then(|table| table.keys().next()).map(Spanned::get_ref);
    let dotted = key.map(|key| format!("{name}.{key}")).filter(|dotted| is_fact(dotted));
    dotted.map_or(name.into(), Cow::Owned)
}
