//! Fields with a value for each architecture: `source = { x86_64 = "…", aarch64 = "…" }`.

use std::{collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::Reader;
use crate::{
    diagnostic::{Text, did_you_mean},
    manifest::{ARCHITECTURES, BY_ARCHITECTURE},
};

/// Other names of the architectures.
const OTHER_NAMES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// A field, its place, and its value for each architecture.
type ValueTable<'i> = (Spanned<DeString<'i>>, Range<usize>, DeTable<'i>);

/// A resource for each architecture.
pub(super) struct Variants<'i> {
    /// That of this machine, or the first one where the architecture is unknown.
    pub(super) chosen: DeTable<'i>,
    pub(super) others: Vec<DeTable<'i>>,
}

impl Reader<'_> {
    /// Chooses the values of this machine's architecture. Returns `None` after a fault.
    pub(super) fn variants<'i>(&mut self, text: &Text, mut table: DeTable<'i>) -> Option<Variants<'i>> {
        let is_table = |field: &&str| table.get(*field).is_some_and(|value| value.get_ref().is_table());
        let fields: Vec<&str> = BY_ARCHITECTURE.into_iter().filter(is_table).collect();
        if fields.is_empty() {
            return Some(Variants { chosen: table, others: vec![] });
        }
        let mut tables = vec![];
        for field in fields {
            let Some((name, value)) = table.remove_entry(field) else { continue };
            let span = value.span();
            if let DeValue::Table(values) = value.into_inner() {
                tables.push((name, span, values));
            }
        }
        let faults = self.faults.count();
        let named = self.named_architectures(text, &tables, table.get("sha256"));
        if self.faults.count() > faults {
            return None;
        }
        let here = self.variables.look_up("host.architecture", true).ok().flatten();
        if let (Some(here), true, Some((field, span, _))) = (&here, self.asks, tables.first())
            && !named.contains(&**here)
        {
            let message = format!("`{}` has no value for this machine's architecture, {here}", field.get_ref());
            let list: Vec<String> = named.iter().map(|name| format!("{name:?}")).collect();
            let hint = format!(
                "add it, or leave the resource out here: where = {{ \"host.architecture\" = [{}] }}",
                list.join(", ")
            );
            self.report(text, span, message, Some(hint));
            return None;
        }
        let chosen = named.iter().find(|name| Some(**name) == here.as_deref()).or(named.first()).copied();
        let variant = |architecture: &str| {
            let mut variant = table.clone();
            for (field, _, values) in &tables {
                let value = values.get(architecture).cloned();
                variant.extend(value.map(|value| (field.clone(), value)));
            }
            variant
        };
        let others = named.iter().filter(|name| Some(**name) != chosen).map(|name| variant(name)).collect();
        Some(Variants { chosen: variant(chosen?), others })
    }

    /// Returns the architectures that any of the fields names. Reports values that do not belong together; `digest` is the
    /// resource's own, for all architectures.
    fn named_architectures(
        &mut self,
        text: &Text,
        tables: &[ValueTable<'_>],
        digest: Option<&Spanned<DeValue<'_>>>,
    ) -> BTreeSet<&'static str> {
        for (field, span, values) in tables {
            self.architectures(text, field.get_ref(), span, values);
        }
        let named: BTreeSet<&str> = ARCHITECTURES
            .into_iter()
            .filter(|name| tables.iter().any(|(_, _, values)| values.contains_key(*name)))
            .collect();
        for (field, span, values) in tables {
            for missing in named.iter().filter(|name| !values.contains_key(**name)) {
                let message = format!("`{}` has no value for {missing}, but another field has", field.get_ref());
                self.report(text, span, message, Some(format!("add {missing} = \"VALUE\"")));
            }
        }
        if let (Some((_, span, _)), Some(digest)) =
            (tables.iter().find(|(field, ..)| field.get_ref() == "source"), digest)
            && digest.get_ref().as_str().is_some_and(|digest| !digest.is_empty())
            && named.len() > 1
        {
            let values: Vec<String> = named.iter().map(|name| format!("{name} = \"HEX\"")).collect();
            let hint = format!("give each one its digest: sha256 = {{ {} }}", values.join(", "));
            let message = "`source` differs between the architectures, but `sha256` is the same";
            self.report(text, span, message, Some(hint));
        }
        named
    }

    /// Reports names that are no architecture, and a table without names.
    fn architectures(&mut self, text: &Text, field: &str, span: &Range<usize>, values: &DeTable<'_>) {
        let list = || format!("the architectures are: {}", ARCHITECTURES.join(", "));
        if values.is_empty() {
            self.report(text, span, format!("`{field}` names no architecture"), Some(list()));
        }
        for name in values.keys().filter(|name| !ARCHITECTURES.contains(&&**name.get_ref())) {
            let written = name.get_ref();
            let other = OTHER_NAMES.iter().find(|(other, _)| other == written);
            let hint = match other {
                Some((_, name)) => format!("did you mean `{name}`?"),
                None => did_you_mean(written, ARCHITECTURES).unwrap_or_else(list),
            };
            let message = format!("`{}` in `{field}` is not an architecture", written.escape_debug());
            self.report(text, &name.span(), message, Some(hint));
        }
    }
}
