//! Variables: `{{ name }}` in parsed string values, never in the text, so that a value can't become syntax.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    rc::Rc,
};

use anyhow::Result;
use toml::de::{DeTable, DeValue};

use crate::{
    diagnostic::{Diagnostic, Faults, Place, Text, did_you_mean},
    redaction::Redaction,
};

/// Answers for the read-only names, such as `instance.region`, asked only when one is used.
type Facts = Box<dyn Fn(&str) -> Option<Result<String>>>;

/// The variables of a manifest.
pub struct Variables {
    /// What the manifest itself declares.
    declared: BTreeMap<String, String>,
    /// What the operator gives instead.
    given: BTreeMap<String, String>,
    /// What the operator gives in files, which is not shown.
    private: BTreeMap<String, String>,
    /// Those whose declaration is a fault, which is reported as one: they have a value, but it can't be told.
    broken: BTreeSet<String>,
    /// Where the values of files and manifests stand.
    places: BTreeMap<String, Place>,
    /// What some string or template has asked for.
    used: RefCell<BTreeSet<String>>,
    facts: Facts,
    asked: RefCell<BTreeMap<String, Result<String, Why>>>,
}

/// Why a fact is not told while an image is made: it would be the build machine's.
#[derive(Debug)]
pub struct OfEachInstance;

impl fmt::Display for OfEachInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("each instance has its own")
    }
}

impl std::error::Error for OfEachInstance {}

/// A placeholder that can't be replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// What stands between its braces.
    name: String,
    /// How many placeholders stand before it in its string.
    index: usize,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// It has no end.
    Open,
    /// It has no name that a variable could have.
    NoName,
    NotSet,
    /// Its value is not known here and now.
    Unknown,
    /// The machine can't tell: the reason and a hint.
    Untold(Rc<(String, Option<String>)>),
}

impl Unresolved {
    /// What is wrong.
    pub fn message(&self) -> String {
        let name = &self.name;
        match &self.why {
            Why::Open => "`{{` without `}}`".into(),
            Why::NoName => format!("`{name}` is not a variable's name"),
            Why::NotSet => format!("variable `{name}` is not set"),
            Why::Unknown => format!("`{{{{ {name} }}}}` can't be found out: {OfEachInstance}"),
            Why::Untold(untold) => format!("`{{{{ {name} }}}}` can't be found out: {}", untold.0),
        }
    }

    /// What to do.
    pub fn hint(&self, variables: &Variables) -> Option<String> {
        let near = || did_you_mean(&self.name, variables.names());
        let literal = || "a literal `{{` is written `{{{{`".to_owned();
        match &self.why {
            Why::Open => Some(literal()),
            Why::NoName => Some(near().unwrap_or_else(literal)),
            Why::NotSet => Some(
                near().unwrap_or_else(|| format!("give it: --set {}=VALUE, or a line in variables.toml", self.name)),
            ),
            Why::Unknown => Some("leave the resource to the boot: phase = \"boot\"".into()),
            Why::Untold(untold) => untold.1.clone(),
        }
    }

    /// Its bytes in the string's text as it is written, in quotes and with escapes; `None` where they can't be told.
    pub fn range(&self, written: &str) -> Option<Range<usize>> {
        let mut placeholders = pieces(written).filter(|piece| !matches!(piece, Piece::Literal(_)));
        match placeholders.nth(self.index)? {
            Piece::Placeholder(name, range) if name == self.name => Some(range),
            Piece::Open(start) => Some(start..start + 2),
            _ => None,
        }
    }
}

/// A part of a string.
enum Piece<'a> {
    Literal(&'a str),
    /// A name, and the bytes from brace to brace.
    Placeholder(&'a str, Range<usize>),
    /// `{{` without `}}`, up to the end.
    Open(usize),
}

/// The parts of a string: `{{ name }}` is a placeholder, `{{{{` stands for a literal `{{`.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let piece = if let Some(inner) = rest.strip_prefix("{{") {
            if inner.starts_with("{{") {
                at += 4;
                return Some(Piece::Literal("{{"));
            }
            match inner.split_once("}}") {
                Some((name, _)) => Piece::Placeholder(name.trim(), at..at + name.len() + 4),
                None => Piece::Open(at),
            }
        } else {
            Piece::Literal(&rest[..rest.find("{{").unwrap_or(rest.len())])
        };
        at = match &piece {
            Piece::Literal("") => return None,
            Piece::Literal(literal) => at + literal.len(),
            Piece::Placeholder(_, range) => range.end,
            Piece::Open(_) => text.len(),
        };
        Some(piece)
    })
}

/// A text with its placeholders replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The text. A placeholder of unknown value stands in it as it is written.
    pub text: String,
    /// The first of these.
    pub unknown: Option<String>,
}

/// What is known of a variable.
enum Value {
    Known(String),
    /// It has one, but not here and now.
    Unknown,
}

impl Variables {
    /// No variables yet, and read-only facts from this function: `None` for a name it doesn't know.
    pub fn new(facts: impl Fn(&str) -> Option<Result<String>> + 'static) -> Self {
        let (declared, given, private, broken) = Default::default();
        let (places, used, asked) = Default::default();
        Self { declared, given, private, broken, places, used, facts: Box::new(facts), asked }
    }

    /// Gives one, over what the manifest declares and over any earlier one.
    ///
    /// # Errors
    /// If the name can't be one.
    pub fn give(&mut self, name: &str, value: &str) -> Result<(), String> {
        check_name(name)?;
        _ = self.given.insert(name.into(), value.into());
        _ = self.places.remove(name);
        Ok(())
    }

    /// Gives all of a file, and reports what can't be set, without showing any of its lines.
    pub fn give_all(&mut self, text: &Text) -> Faults {
        let mut values = BTreeMap::new();
        let mut places = BTreeMap::new();
        let mut faults = read(text, &mut values, &mut self.broken, &mut places);
        faults.conceal();
        places.values_mut().for_each(Place::conceal);
        self.places.extend(places);
        self.private.extend(values.clone());
        self.given.extend(values);
        faults
    }

    /// Sets all of a `variables.toml`, as far as the operator gives nothing else, and reports what can't be set.
    pub fn declare_all(&mut self, text: &Text) -> Faults {
        read(text, &mut self.declared, &mut self.broken, &mut self.places)
    }

    /// The same with the table `[variables]` of a manifest.
    pub(super) fn declare_table(&mut self, text: &Text, table: &DeTable<'_>) -> Faults {
        read_table(text, table, &mut self.declared, &mut self.broken, &mut self.places)
    }

    /// What takes the values of files out of a text.
    pub fn redaction(&self) -> Redaction {
        Redaction::of_variables(self.private.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Supposes that a fact, such as `instance.region`, has this value: it is not asked of the machine.
    pub fn suppose(&mut self, fact: &str, value: &str) {
        _ = self.given.insert(fact.into(), value.into());
    }

    /// Replaces every `{{ name }}`. `{{{{` stands for a literal `{{`. A replaced value is not looked at again.
    ///
    /// # Errors
    /// The first one that can't be replaced, also if its value is not known here and now.
    pub fn substitute(&self, text: &str) -> Result<String, Unresolved> {
        match self.resolve(text) {
            Ok(Resolved { text, unknown: None }) => Ok(text),
            Ok(Resolved { unknown: Some(name), .. }) => Err(Unresolved { name, index: 0, why: Why::Unknown }),
            Err((first, _)) => Err(first),
        }
    }

    /// The same, but what is not known here and now stays as it is written.
    ///
    /// # Errors
    /// All that can't be replaced: the first one and the others.
    pub fn resolve(&self, text: &str) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
        replace(text, |name| self.value(name))
    }

    /// The same, but variables that are not set are unknown, and facts are not asked.
    ///
    /// # Errors
    /// What is something else than a variable's name.
    pub fn resolve_known(&self, text: &str) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
        replace(text, |name| match self.known(name) {
            Some(known) => known.map(Value::Known),
            None if is_name(name) || is_fact(name) => Ok(Value::Unknown),
            None => self.value(name),
        })
    }

    /// Notes the variables that a template uses, which is filled in later.
    pub fn note_template(&self, text: &str) {
        for piece in pieces(text) {
            if let Piece::Placeholder(name, _) = piece {
                _ = self.used.borrow_mut().insert(name.into());
            }
        }
    }

    /// What the operator gives and no string has asked for.
    pub fn unused(&self) -> Vec<Diagnostic> {
        let used = self.used.borrow();
        let unused = self.given.keys().filter(|name| !used.contains(*name) && !is_fact(name));
        let warning = |name: &String| Diagnostic {
            message: format!("no step and no template uses the variable `{name}`"),
            place: self.places.get(name).cloned(),
            hint: did_you_mean(name, used.iter().map(String::as_str)),
        };
        unused.map(warning).collect()
    }

    /// Values that hold the name of another variable in braces, as a template does: they stay as they are written.
    pub fn nested(&self) -> Vec<Diagnostic> {
        let is_declared = |name: &&String| !self.given.contains_key(*name);
        let values = self.given.iter().chain(self.declared.iter().filter(|(name, _)| is_declared(name)));
        let nested = values.filter_map(|(name, value)| {
            let inner = pieces(value).find_map(|piece| match piece {
                Piece::Placeholder(inner, _) if is_fact(inner) || self.names().any(|known| known == inner) => {
                    Some(inner)
                }
                _ => None,
            })?;
            Some(Diagnostic {
                message: format!(
                    "`{{{{ {inner} }}}}` in the value of `{name}` is not replaced: only steps and templates are"
                ),
                place: self.places.get(name).cloned(),
                hint: Some(format!("write `{{{{ {inner} }}}}` beside `{{{{ {name} }}}}`, where that is used")),
            })
        });
        nested.collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().chain(self.given.keys()).map(String::as_str)
    }

    fn known(&self, name: &str) -> Option<Result<String, Why>> {
        _ = self.used.borrow_mut().insert(name.into());
        let set = self.given.get(name).or_else(|| self.declared.get(name)).cloned();
        set.map(Ok).or_else(|| self.asked.borrow().get(name).cloned())
    }

    fn value(&self, name: &str) -> Result<Value, Why> {
        if let Some(known) = self.known(name) {
            return known.map(Value::Known);
        }
        if self.broken.contains(name) {
            return Ok(Value::Unknown);
        }
        let Some(told) = (self.facts)(name) else {
            return Err(if is_name(name) || is_fact(name) { Why::NotSet } else { Why::NoName });
        };
        let told = match told {
            Err(error) if error.is::<OfEachInstance>() => return Ok(Value::Unknown),
            Err(error) => {
                let hint = crate::error::hint(&error).map(Into::into);
                Err(Why::Untold(Rc::new((format!("{error:#}"), hint))))
            }
            Ok(value) => Ok(value),
        };
        // What can't be told is not asked for again either: that may take seconds.
        _ = self.asked.borrow_mut().insert(name.into(), told.clone());
        told.map(Value::Known)
    }
}

fn replace(text: &str, value: impl Fn(&str) -> Result<Value, Why>) -> Result<Resolved, (Unresolved, Vec<Unresolved>)> {
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
            Ok(Value::Known(value)) => resolved.text.push_str(&value),
            Ok(Value::Unknown) => {
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
    /// Names only: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Reads a file of variables.
fn read(
    text: &Text,
    values: &mut BTreeMap<String, String>,
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

fn read_table(
    text: &Text,
    table: &DeTable<'_>,
    values: &mut BTreeMap<String, String>,
    broken: &mut BTreeSet<String>,
    places: &mut BTreeMap<String, Place>,
) -> Faults {
    let mut faults = Faults::default();
    for (name, value) in table {
        let (message, hint, span) = match value.get_ref() {
            DeValue::String(value) => match check_name(name.get_ref()) {
                Ok(()) => {
                    _ = values.insert(name.get_ref().to_string(), value.to_string());
                    _ = places.insert(name.get_ref().to_string(), Place::new(text, &name.span()));
                    continue;
                }
                Err(message) => (message, None, name.span()),
            },
            other => (
                format!("the value of variable `{}` is a {}, not a string", name.get_ref(), other.type_str()),
                Some("write it in quotes".into()),
                value.span(),
            ),
        };
        _ = broken.insert(name.get_ref().to_string());
        faults.add(|| Diagnostic { message, place: Some(Place::new(text, &span)), hint });
    }
    faults
}

fn check_name(name: &str) -> Result<(), String> {
    if is_fact(name) {
        return Err(format!(
            "`{name}` is read-only: a run asks it of the machine (validate, plan and --root take --set)"
        ));
    }
    if !is_name(name) {
        return Err(format!("`{name}` is not a variable's name: use lower-case letters, digits and `_`"));
    }
    Ok(())
}

/// Whether this is the name of a fact: read-only, and asked of the machine.
pub fn is_fact(name: &str) -> bool {
    name.starts_with("instance.") || name.starts_with("host.")
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::new(|name| match name {
            "host.hostname" => Some(Ok("web\"1\n{{ a }}".into())),
            "instance.region" => Some(Err(anyhow::anyhow!("no metadata service"))),
            _ => None,
        });
        variables.give("a", "1").unwrap();
        variables.give("app_version", "2").unwrap();
        variables
    }

    #[test]
    fn values_are_replaced_once_and_stay_literal() {
        let variables = variables();
        assert_eq!(variables.substitute("x-{{ a }}{{app_version}}.jar").unwrap(), "x-12.jar");
        assert_eq!(variables.substitute("{{ host.hostname }}").unwrap(), "web\"1\n{{ a }}");
        assert_eq!(variables.substitute("{{{{ a }}").unwrap(), "{{ a }}");
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        let variables = variables();
        let told = |text: &str| {
            let (first, others) = variables.resolve(text).unwrap_err();
            let told = |one: &Unresolved| (one.message(), one.hint(&variables).unwrap_or_default(), one.range(text));
            std::iter::once(&first).chain(&others).map(told).collect::<Vec<_>>()
        };
        let literal = "a literal `{{` is written `{{{{`".to_owned();
        let unset = "variable `app_versoin` is not set".to_owned();
        assert_eq!(
            told("a {{{{ {{ app_versoin }} {{ a }}{{.Names}}{{ b"),
            [
                (unset, "did you mean `app_version`?".into(), Some(7..24)),
                ("`.Names` is not a variable's name".into(), literal.clone(), Some(32..42)),
                ("`{{` without `}}`".into(), literal, Some(42..44)),
            ]
        );
        assert!(told("{{ instance.region }}")[0].0.contains("no metadata service"));
        assert_eq!(told("{{ A B }}")[0].0, "`A B` is not a variable's name");
    }

    #[test]
    fn a_fact_is_asked_for_once() {
        let asked = Rc::new(std::cell::Cell::new(0));
        let count = asked.clone();
        let variables = Variables::new(move |_| {
            count.set(count.get() + 1);
            Some(Err(anyhow::anyhow!("no metadata service")))
        });
        let (_, others) = variables.resolve(&"{{ instance.region }}".repeat(1000)).unwrap_err();
        assert_eq!((others.len(), asked.get()), (999, 1));
    }

    #[test]
    fn facts_cannot_be_set() {
        assert!(variables().give("instance.id", "i-1").is_err());
        assert!(variables().give("Upper", "1").is_err());
    }
}
