//! Variables: `{{ name }}` is replaced in parsed string values, not in the text, so that a value cannot become syntax.

mod doubts;
mod follow;
mod placeholder;
mod setting;
mod stored;
pub mod value;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
};

use anyhow::Result;
use toml::de::DeTable;

use self::{
    placeholder::{Piece, Why, pieces},
    setting::{Setting, read, read_table},
    value::Value,
};
pub use self::{
    placeholder::{Unresolved, only_placeholder},
    stored::StoredSecret,
};
use crate::{
    diagnostic::{Faults, Place, Text},
    redaction::Redaction,
};

/// The facts by which a machine chooses among the values of a variable, the first one first.
const DISTRIBUTION: [&str; 2] = ["host.distribution", "host.family"];

/// Returns facts: the values of read-only names, such as `instance.region`. Called only when a fact is used.
type Facts = Box<dyn Fn(&str) -> Option<Result<String>>>;

/// Reads secrets of stores. Called only when a secret is used.
type Stores = Box<dyn Fn(&StoredSecret) -> Result<String>>;

/// The variables of a manifest.
pub struct Variables {
    /// The manifest's own declarations.
    declared: BTreeMap<String, Setting>,
    /// The operator's values, which override the manifest's.
    given: BTreeMap<String, Setting>,
    /// The operator's values from files, which are never shown.
    private: BTreeMap<String, Setting>,
    /// The variables whose values are files of one secret each.
    secret_files: BTreeSet<String>,
    /// The variables with a faulty declaration. The fault is reported; their values are unknown.
    broken: BTreeSet<String>,
    /// Whether a source of the operator's values was not read. Then no variable is known to be unset.
    is_partial: bool,
    /// Where the manifest's own declarations stand.
    declared_places: BTreeMap<String, Place>,
    /// Where the operator's values from files stand.
    given_places: BTreeMap<String, Place>,
    /// The parameters that gave the operator's values, as URLs. Other programs may use the parameters of a path, too.
    parameters: BTreeMap<String, String>,
    /// What some string or template has asked for.
    used: RefCell<BTreeSet<String>>,
    facts: Facts,
    stores: Stores,
    asked: RefCell<BTreeMap<String, Result<String, Why>>>,
    /// The secrets that could not be read, each with the error.
    unread: RefCell<BTreeMap<String, Rc<anyhow::Error>>>,
}

/// The reason why a fact is unknown while an image is made: it would be the build machine's.
#[derive(Debug)]
pub struct OfEachInstance;

impl fmt::Display for OfEachInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("each instance has its own")
    }
}

impl std::error::Error for OfEachInstance {}

/// A text with its placeholders replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The text. A placeholder of unknown value stays as written.
    pub text: String,
    /// The first placeholder of unknown value.
    pub unknown: Option<String>,
}

/// The value of a variable, as far as it is known.
enum VariableValue {
    Known(Value),
    /// The value exists, but is unknown here.
    Unknown,
}

impl Variables {
    /// Returns no variables, with read-only facts from this function. It returns `None` for an unknown name. The secrets of
    /// stores are unknown.
    pub fn new(facts: impl Fn(&str) -> Option<Result<String>> + 'static) -> Self {
        let (declared, given, private, secret_files, broken, is_partial) = Default::default();
        let (declared_places, given_places, parameters, used, asked, unread) = Default::default();
        let (facts, stores): (Facts, Stores) = (Box::new(facts), Box::new(|_| Err(OfEachInstance.into())));
        Self {
            declared,
            given,
            private,
            secret_files,
            broken,
            is_partial,
            declared_places,
            given_places,
            parameters,
            used,
            facts,
            stores,
            asked,
            unread,
        }
    }

    /// Sets the function that reads secrets of stores.
    #[must_use]
    pub fn with_stores(self, stores: impl Fn(&StoredSecret) -> Result<String> + 'static) -> Self {
        Self { stores: Box::new(stores), ..self }
    }

    /// Sets a variable. It overrides the manifest and earlier values.
    ///
    /// # Errors
    /// If the name is not a valid variable name.
    pub fn give(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.give_setting(name, Setting::text(value))
    }

    /// Sets a variable like [`Self::give`]. Its value is a secret, as one of a file is.
    ///
    /// # Errors
    /// If the name is not a valid variable name.
    pub fn give_private(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.give(name, value)?;
        _ = self.private.insert(name.into(), Setting::text(value));
        _ = self.secret_files.insert(name.into());
        Ok(())
    }

    fn give_setting(&mut self, name: &str, setting: Setting) -> Result<(), String> {
        check_name(name)?;
        self.forget_given(name);
        _ = self.given.insert(name.into(), setting);
        Ok(())
    }

    /// Removes what is known about an earlier value.
    fn forget_given(&mut self, name: &str) {
        _ = self.given_places.remove(name);
        _ = self.parameters.remove(name);
        _ = self.asked.borrow_mut().remove(name);
    }

    /// Takes each variable without a value for one whose value is unknown here: a source of values was not read.
    pub fn miss_a_source(&mut self) {
        self.is_partial = true;
    }

    /// Sets all variables of a file. Returns the faults, without the texts of their lines.
    pub fn give_all(&mut self, text: &Text) -> Faults {
        let mut values = BTreeMap::new();
        let mut places = BTreeMap::new();
        let mut faults = read(text, &mut values, &mut self.broken, &mut places);
        faults.conceal();
        places.values_mut().for_each(Place::conceal);
        for name in values.keys() {
            self.forget_given(name);
        }
        self.given_places.extend(places);
        self.private.extend(values.clone());
        self.given.extend(values);
        faults
    }

    /// Sets the defaults of a `variables.toml`. Returns the faults.
    pub fn declare_all(&mut self, text: &Text) -> Faults {
        read(text, &mut self.declared, &mut self.broken, &mut self.declared_places)
    }

    /// Sets the defaults of the table `[variables]` of a manifest. Returns the faults.
    pub(super) fn declare_table(&mut self, text: &Text, table: &DeTable<'_>) -> Faults {
        read_table(text, table, &mut self.declared, &mut self.broken, &mut self.declared_places)
    }

    /// Returns the redaction that removes the values of files from a text.
    pub fn redaction(&self) -> Redaction {
        let values = self.private.iter().flat_map(|(name, value)| value.texts().map(move |text| (name, text)));
        let (secrets, values): (Vec<_>, Vec<_>) = values
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .partition(|(name, _)| self.secret_files.contains(*name));
        Redaction::of(secrets, values)
    }

    /// Sets a fact, such as `instance.region`, so that the machine is not asked for it.
    pub fn suppose(&mut self, fact: &str, value: &str) {
        _ = self.given.insert(fact.into(), Setting::text(value));
    }

    /// Takes a supposition back.
    pub fn forget(&mut self, fact: &str) {
        _ = self.given.remove(fact);
    }

    /// Returns the distributions and families that have values of their own; none if this machine's is known.
    pub fn distributions(&self) -> BTreeSet<String> {
        let is_known = DISTRIBUTION.iter().any(|fact| matches!(self.value(fact), Ok(VariableValue::Known(_))));
        let settings = self.declared.values().chain(self.given.values()).filter(|_| !is_known);
        settings.flat_map(Setting::distributions).cloned().collect()
    }

    /// Replaces every `{{ name }}`. `{{{{` is a literal `{{`. A value itself is not searched for placeholders.
    ///
    /// # Errors
    /// The first placeholder that cannot be replaced, also because its value is unknown here.
    pub fn substitute(&self, text: &str) -> Result<String, Unresolved> {
        match self.resolve(text) {
            Ok(Resolved { text, unknown: None }) => Ok(text),
            Ok(Resolved { unknown: Some(name), .. }) => Err(Unresolved { name, index: 0, why: Why::Unknown }),
            Err((first, _)) => Err(first),
        }
    }

    /// Replaces every `{{ name }}` whose value is known. A placeholder of unknown value stays as written.
    ///
    /// # Errors
    /// All placeholders that cannot be replaced: the first one and the others.
    pub fn resolve(&self, text: &str) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
        replace(text, |name| self.value(name))
    }

    /// Replaces like [`Self::resolve`], but unset variables count as unknown, and the machine is not asked for facts.
    ///
    /// # Errors
    /// The placeholders whose names are not valid variable names.
    pub fn resolve_known(&self, text: &str) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
        replace(text, |name| match self.look_up(name, false) {
            Ok(Some(value)) => Ok(VariableValue::Known(Value::Text(value))),
            Ok(None) => Ok(VariableValue::Unknown),
            Err(unresolved) => Err(unresolved.why),
        })
    }

    /// Returns the value of a variable that is no text. A text of the command line is a list if the manifest's default
    /// is one.
    pub fn typed(&self, name: &str) -> Option<Value> {
        let name = self.followed(name).ok()?;
        let declared = self.declared.get(name);
        let is_list = declared.is_some_and(|setting| setting.values().any(|value| matches!(value, Value::List(_))));
        let value = match self.here(self.given.get(name).or(declared)?) {
            Ok(VariableValue::Known(Value::Text(text))) if is_list => value::list(&text),
            Ok(VariableValue::Known(value)) if !matches!(value, Value::Text(_)) => value,
            _ => return None,
        };
        _ = self.used.borrow_mut().insert(name.into());
        Some(value)
    }

    /// Returns where a variable's value comes from, for a hint.
    pub fn origin(&self, name: &str) -> String {
        if self.is_secret(name) {
            return format!("the value is that of the secret variable `{name}`");
        }
        match self.place(name) {
            _ if self.given.contains_key(name) => {
                let by = self.parameters.get(name).map_or("--set", String::as_str);
                format!("the value is that of variable `{name}`, set by {by}")
            }
            Some(place) => format!("the value is that of variable `{name}`, set at {place}"),
            None => format!("the value is that of `{name}`"),
        }
    }

    /// Returns the secret variables of a text.
    pub fn secrets_in(&self, text: &str) -> Vec<String> {
        let names = pieces(text).filter_map(|piece| match piece {
            Piece::Placeholder(name, _) => Some(name),
            _ => None,
        });
        names.filter(|name| self.is_secret(name)).map(Into::into).collect()
    }

    /// Returns whether a variable's value is a secret. A value of the command line replaces that of a file.
    pub fn is_secret(&self, name: &str) -> bool {
        let name = self.followed(name).unwrap_or(name);
        self.is_stored(name) || self.private.get(name).is_some_and(|value| self.given.get(name) == Some(value))
    }

    /// Returns the value of a variable or a fact; `None` if it is unknown here. Unless `asks`, the machine is not asked
    /// for a fact, and an unset variable counts as unknown.
    ///
    /// # Errors
    /// If it has no value.
    pub fn look_up(&self, name: &str, asks: bool) -> Result<Option<String>, Unresolved> {
        let value = match self.known(name) {
            Some(Err(Why::NoneHere(_))) if !asks => Ok(VariableValue::Unknown),
            Some(known) => known,
            None if !asks && (is_name(name) || is_fact(name)) => Ok(VariableValue::Unknown),
            None => self.value(name),
        };
        match value {
            Ok(VariableValue::Known(value)) => match value.text() {
                Some(text) => Ok(Some(text.into_owned())),
                None => Err(Unresolved { name: name.into(), index: 0, why: Why::List }),
            },
            Ok(VariableValue::Unknown) => Ok(None),
            Err(why) => Err(Unresolved { name: name.into(), index: 0, why }),
        }
    }

    /// Notes the variables that a template uses, which is filled in later.
    pub fn note_template(&self, text: &str) {
        for piece in pieces(text) {
            if let Piece::Placeholder(name, _) = piece {
                _ = self.used.borrow_mut().insert(name.into());
            }
        }
    }

    /// Returns where the value of a variable stands; `None` for one of the command line.
    fn place(&self, name: &str) -> Option<&Place> {
        let places = if self.given.contains_key(name) { &self.given_places } else { &self.declared_places };
        places.get(name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().chain(self.given.keys()).map(String::as_str)
    }

    fn known(&self, name: &str) -> Option<Result<VariableValue, Why>> {
        let name = match self.followed(name) {
            Ok(name) => name,
            Err(why) => return Some(Err(why)),
        };
        _ = self.used.borrow_mut().insert(name.into());
        match self.given.get(name).or_else(|| self.declared.get(name)) {
            Some(Setting::Stored(_)) | None => {}
            Some(setting) => return Some(self.here(setting)),
        }
        let told = self.asked.borrow().get(name).cloned();
        told.map(|told| told.map(|text| VariableValue::Known(Value::Text(text))))
    }

    /// Returns the value that a setting has on this machine: that of the distribution, else of the family.
    fn here(&self, setting: &Setting) -> Result<VariableValue, Why> {
        let values = match setting {
            Setting::Everywhere(value) => return Ok(VariableValue::Known(value.clone())),
            Setting::ByDistribution(values) => values,
            Setting::Stored(_) => return Ok(VariableValue::Unknown),
        };
        let mut names = vec![];
        for fact in DISTRIBUTION {
            let VariableValue::Known(Value::Text(distribution)) = self.value(fact)? else { continue };
            if let Some(value) = values.get(&distribution) {
                return Ok(VariableValue::Known(value.clone()));
            }
            names.push(distribution);
        }
        if names.len() < DISTRIBUTION.len() {
            return Ok(VariableValue::Unknown);
        }
        names.dedup();
        Err(Why::NoneHere(Rc::new(names)))
    }

    fn value(&self, name: &str) -> Result<VariableValue, Why> {
        let name = self.followed(name)?;
        if let Some(known) = self.known(name) {
            return known;
        }
        if self.broken.contains(name) || self.is_partial && is_name(name) && self.stored(name).is_none() {
            return Ok(VariableValue::Unknown);
        }
        if let Some(secret) = self.stored(name) {
            return Ok(self.read_stored(name, secret));
        }
        let Some(told) = (self.facts)(name) else {
            return Err(if is_name(name) || is_fact(name) { Why::NotSet } else { Why::NoName });
        };
        let told = match told {
            Err(error) if error.is::<OfEachInstance>() => return Ok(VariableValue::Unknown),
            Err(error) => {
                let hint = crate::error::hint(&error).map(Into::into);
                Err(Why::Untold(Rc::new((format!("{error:#}"), hint))))
            }
            Ok(value) => Ok(value),
        };
        // A failed fact is not asked for again either, because that may take seconds.
        _ = self.asked.borrow_mut().insert(name.into(), told.clone());
        told.map(|value| VariableValue::Known(Value::Text(value)))
    }
}

fn replace(
    text: &str,
    value: impl Fn(&str) -> Result<VariableValue, Why>,
) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
    let mut resolved = Resolved { text: String::with_capacity(text.len()), unknown: None };
    let mut unresolved = vec![];
    let mut placeholders = 0;
    for piece in pieces(text) {
        let (name, value, range) = match piece {
            Piece::Literal(literal) => {
                resolved.text.push_str(literal);
                continue;
            }
            Piece::Placeholder(name, range) => (name, value(name), range),
            Piece::Open(start) => ("", Err(Why::Open), start..text.len()),
        };
        match value {
            Ok(VariableValue::Known(value)) => match value.text() {
                Some(value) => resolved.text.push_str(&value),
                None => unresolved.push(Unresolved { name: name.to_owned(), index: placeholders, why: Why::List }),
            },
            Ok(VariableValue::Unknown) => {
                resolved.text.push_str(&text[range]);
                _ = resolved.unknown.get_or_insert_with(|| name.to_owned());
            }
            Err(why) => unresolved.push(Unresolved { name: name.to_owned(), index: placeholders, why }),
        }
        placeholders += 1;
    }
    let mut unresolved = unresolved.into_iter();
    match unresolved.next() {
        None => Ok(resolved),
        Some(first) => Err((first, unresolved.collect())),
    }
}

impl fmt::Debug for Variables {
    /// Shows names only, because a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if is_fact(name) {
        return Err(format!(
            "`{name}` is read-only: a run reads it from the machine (validate, plan and --root accept --set)"
        ));
    }
    if !is_name(name) {
        return Err(format!("`{name}` is not a variable's name: use lower-case letters, digits and `_`"));
    }
    Ok(())
}

/// Returns whether a name is a fact's: read-only, and read from the machine.
pub fn is_fact(name: &str) -> bool {
    name.starts_with("instance.") || name.starts_with("host.")
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests;
