//! The secrets that a manifest names, so that machines can be allowed to read exactly these.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::value::secret_source::SecretSource;

/// The secrets that a manifest names: as sources of its resources, and as values of its variables.
#[derive(Debug, Default, Clone)]
pub struct NamedSecrets {
    /// Those with a known name.
    pub known: BTreeSet<SecretSource>,
    /// The sources with a variable of unknown value, as they are written.
    pub unknown: BTreeSet<String>,
}

impl NamedSecrets {
    /// Adds the secrets that a resource has as its source, of one or of each architecture, and as its credentials.
    pub(super) fn add_sources(&mut self, resource: &DeTable<'_>, is_unknown: impl Fn(&str) -> bool) {
        for field in ["source", "credentials"] {
            let values: Vec<&DeValue<'_>> = match resource.get(field).map(Spanned::get_ref) {
                Some(DeValue::Table(values)) => values.values().map(Spanned::get_ref).collect(),
                Some(DeValue::Array(values)) => values.iter().map(Spanned::get_ref).collect(),
                value => value.into_iter().collect(),
            };
            let texts = values.into_iter().filter_map(DeValue::as_str);
            // In a list, `NAME=` precedes the URL.
            let urls = texts.map(|text| match text.split_once('=') {
                Some((_, url)) if field == "credentials" && SecretSource::is_one(url) => url,
                _ => text,
            });
            self.add(urls.filter(|url| SecretSource::is_one(url)), is_unknown(field));
        }
    }

    fn add<'t>(&mut self, urls: impl Iterator<Item = &'t str>, is_unknown: bool) {
        for url in urls {
            if is_unknown && url.contains("{{") {
                _ = self.unknown.insert(url.to_owned());
            } else {
                // A faulty URL is a fault of its field.
                self.known.extend(url.parse());
            }
        }
    }
}
