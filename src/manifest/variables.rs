//! Variables: `{{ name }}` in parsed string values, never in the text, so that a value can't become syntax.

use std::{cell::RefCell, collections::BTreeMap, fmt};

use anyhow::Result;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Text, did_you_mean};
use crate::redaction::Redaction;

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
    facts: Facts,
    asked: RefCell<BTreeMap<String, String>>,
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
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
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
        Self {
            declared: BTreeMap::new(),
            given: BTreeMap::new(),
            private: BTreeMap::new(),
            facts: Box::new(facts),
            asked: RefCell::default(),
        }
    }

    /// Gives one, over what the manifest declares and over any earlier one.
    ///
    /// # Errors
    /// If the name can't be one.
    pub fn give(&mut self, name: &str, value: &str) -> Result<(), String> {
        check_name(name)?;
        _ = self.given.insert(name.into(), value.into());
        Ok(())
    }

    /// Gives all of a file, and reports what can't be set, without showing any of its lines.
    pub fn give_all(&mut self, text: &Text) -> Vec<Diagnostic> {
        let mut values = BTreeMap::new();
        let mut diagnostics = read(text, &mut values);
        diagnostics.iter_mut().filter_map(|diagnostic| diagnostic.place.as_mut()).for_each(Place::conceal);
        self.private.extend(values.clone());
        self.given.extend(values);
        diagnostics
    }

    /// Sets all of a `variables.toml`, as far as the operator gives nothing else, and reports what can't be set.
    pub fn declare_all(&mut self, text: &Text) -> Vec<Diagnostic> {
        read(text, &mut self.declared)
    }

    /// The same with the table `[variables]` of a manifest.
    pub(super) fn declare_table(&mut self, text: &Text, table: &DeTable<'_>) -> Vec<Diagnostic> {
        read_table(text, table, &mut self.declared)
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
    /// If one can't be replaced, also if its value is not known here and now.
    pub fn substitute(&self, text: &str) -> Result<String, Unresolved> {
        let resolved = self.resolve(text)?;
        match resolved.unknown {
            None => Ok(resolved.text),
            Some(name) => Err(Unresolved {
                message: format!("`{{{{ {name} }}}}` can't be found out: {OfEachInstance}"),
                hint: Some("leave the resource to the boot: phase = \"boot\"".into()),
            }),
        }
    }

    /// The same, but what is not known here and now stays as it is written.
    ///
    /// # Errors
    /// If one can't be replaced.
    pub fn resolve(&self, text: &str) -> Result<Resolved, Unresolved> {
        replace(text, |name| self.value(name))
    }

    /// The same, but variables that are not set are unknown, and facts are not asked.
    ///
    /// # Errors
    /// If it holds something else than a variable's name.
    pub fn resolve_known(&self, text: &str) -> Result<Resolved, Unresolved> {
        replace(text, |name| match self.known(name) {
            Some(value) => Ok(Value::Known(value)),
            None if is_name(name) || is_fact(name) => Ok(Value::Unknown),
            None => self.value(name),
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().chain(self.given.keys()).map(String::as_str)
    }

    fn known(&self, name: &str) -> Option<String> {
        let set = self.given.get(name).or_else(|| self.declared.get(name)).cloned();
        set.or_else(|| self.asked.borrow().get(name).cloned())
    }

    fn value(&self, name: &str) -> Result<Value, Unresolved> {
        if let Some(value) = self.known(name) {
            return Ok(Value::Known(value));
        }
        match (self.facts)(name) {
            Some(Ok(value)) => {
                _ = self.asked.borrow_mut().insert(name.into(), value.clone());
                Ok(Value::Known(value))
            }
            Some(Err(error)) if error.is::<OfEachInstance>() => Ok(Value::Unknown),
            Some(Err(error)) => {
                let hint = crate::error::hint(&error).map(Into::into);
                Err(Unresolved { message: format!("`{{{{ {name} }}}}` can't be found out: {error:#}"), hint })
            }
            None => {
                let hint = did_you_mean(name, self.names())
                    .unwrap_or_else(|| format!("give it: --set {name}=VALUE, or a line in variables.toml"));
                let message = if is_name(name) || name.contains('.') {
                    format!("variable `{name}` is not set")
                } else {
                    format!("`{name}` is not a variable's name")
                };
                Err(Unresolved { message, hint: Some(hint) })
            }
        }
    }
}

fn replace(text: &str, value: impl Fn(&str) -> Result<Value, Unresolved>) -> Result<Resolved, Unresolved> {
    let mut resolved = Resolved { text: String::with_capacity(text.len()), unknown: None };
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        resolved.text.push_str(&rest[..start]);
        rest = &rest[start + 2..];
        if let Some(literal) = rest.strip_prefix("{{") {
            resolved.text.push_str("{{");
            rest = literal;
            continue;
        }
        let Some((name, after)) = rest.split_once("}}") else {
            return Err(Unresolved {
                message: "`{{` without `}}`".into(),
                hint: Some("a literal `{{` is written `{{{{`".into()),
            });
        };
        match value(name.trim())? {
            Value::Known(value) => resolved.text.push_str(&value),
            Value::Unknown => {
                resolved.text.push_str(&format!("{{{{{name}}}}}"));
                _ = resolved.unknown.get_or_insert_with(|| name.trim().to_owned());
            }
        }
        rest = after;
    }
    resolved.text.push_str(rest);
    Ok(resolved)
}

impl fmt::Debug for Variables {
    /// Names only: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Reads a file of variables.
fn read(text: &Text, values: &mut BTreeMap<String, String>) -> Vec<Diagnostic> {
    let (table, errors) = DeTable::parse_recoverable(&text.text);
    let mut diagnostics: Vec<Diagnostic> = errors.iter().map(|error| super::syntax_error(text, error)).collect();
    diagnostics.extend(read_table(text, table.get_ref(), values));
    diagnostics
}

fn read_table(text: &Text, table: &DeTable<'_>, values: &mut BTreeMap<String, String>) -> Vec<Diagnostic> {
    let mut diagnostics = vec![];
    for (name, value) in table {
        let (message, hint, span) = match value.get_ref() {
            DeValue::String(value) => match check_name(name.get_ref()) {
                Ok(()) => {
                    _ = values.insert(name.get_ref().to_string(), value.to_string());
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
        diagnostics.push(Diagnostic { message, place: Some(Place::new(text, &span)), hint });
    }
    diagnostics
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
        let unset = variables.substitute("{{ app_versoin }}").unwrap_err();
        assert_eq!(unset.message, "variable `app_versoin` is not set");
        assert_eq!(unset.hint.unwrap(), "did you mean `app_version`?");
        assert!(variables.substitute("{{ instance.region }}").unwrap_err().message.contains("no metadata service"));
        assert!(variables.substitute("{{ a").is_err() && variables.substitute("{{ A B }}").is_err());
    }

    #[test]
    fn facts_cannot_be_set() {
        assert!(variables().give("instance.id", "i-1").is_err());
        assert!(variables().give("Upper", "1").is_err());
    }
}
