//! The types of variables, and how a text is read as the type that a field wants.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use toml::{Spanned, de::DeValue};

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string, or a value of the command line.
    Text(String),
    /// True or false.
    Boolean(bool),
    /// A number as it is written.
    Number(String),
    /// A list of strings.
    List(Vec<String>),
}

impl Value {
    /// Reads a value of a file.
    ///
    /// # Errors
    /// What the value is instead, if no variable can have it.
    pub fn read(value: &DeValue<'_>) -> Result<Self, &'static str> {
        match value {
            DeValue::String(text) => Ok(Self::Text(text.to_string())),
            DeValue::Boolean(value) => Ok(Self::Boolean(*value)),
            DeValue::Integer(number) => Ok(Self::Number(number.to_string())),
            DeValue::Float(number) => Ok(Self::Number(number.to_string())),
            DeValue::Array(values) => {
                let texts: Option<_> = values.iter().map(|value| value.get_ref().as_str().map(Into::into)).collect();
                texts.map(Self::List).ok_or("a list with other values than strings")
            }
            DeValue::Datetime(_) => Err("a date"),
            DeValue::Table(_) => Err("a table"),
        }
    }

    /// Returns the value inside a text; `None` for a list.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text.into()),
            Self::Boolean(value) => Some(value.to_string().into()),
            Self::List(_) => None,
        }
    }

    /// Returns the texts that are secret if the value is: not `true` and `false`.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::Text(text) | Self::Number(text) => std::slice::from_ref(text),
            Self::Boolean(_) => &[],
            Self::List(texts) => texts,
        }
    }

    /// Returns the value as TOML.
    pub fn to_toml(&self, span: std::ops::Range<usize>) -> DeValue<'static> {
        match self {
            Self::Text(text) => DeValue::String(text.clone().into()),
            Self::Boolean(value) => DeValue::Boolean(*value),
            Self::Number(text) => number(text).unwrap_or_else(|| DeValue::String(text.clone().into())),
            Self::List(texts) => {
                let element = |text: &String| Spanned::new(span.clone(), DeValue::String(text.clone().into()));
                DeValue::Array(texts.iter().map(element).collect())
            }
        }
    }
}

/// Returns a text as a list: one of TOML, or that of one element.
pub fn list(text: &str) -> Value {
    let parsed = DeValue::parse(text).ok().map(|value| Value::read(value.get_ref()));
    match parsed {
        Some(Ok(Value::List(texts))) => Value::List(texts),
        _ => Value::List(vec![text.into()]),
    }
}

/// Returns a value as the type that a field wants, as serde says it; `None` if it cannot be this type.
pub fn converted(value: &DeValue<'_>, message: &str, span: std::ops::Range<usize>) -> Option<DeValue<'static>> {
    let wanted = message.rsplit_once("expected ").map_or(message, |(_, wanted)| wanted);
    let is_number = matches!(wanted, "u8" | "u16" | "u32" | "u64" | "i32" | "i64") || wanted.starts_with("a number");
    match value {
        DeValue::String(text) if wanted == "a boolean" => text.parse().ok().map(DeValue::Boolean),
        DeValue::String(text) if is_number => number(text),
        DeValue::String(text) if wanted == "a sequence" => Some(list(text).to_toml(span)),
        DeValue::Boolean(value) if wanted.starts_with("a string") => Some(DeValue::String(value.to_string().into())),
        DeValue::Integer(value) if wanted.starts_with("a string") => Some(DeValue::String(value.to_string().into())),
        DeValue::Float(value) if wanted.starts_with("a string") => Some(DeValue::String(value.to_string().into())),
        _ => None,
    }
}

/// Returns a number as TOML. The parser's numbers borrow their text, so each distinct one lives as long as the process.
fn number(text: &str) -> Option<DeValue<'static>> {
    static NUMBERS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let is_number = matches!(DeValue::parse(text).ok()?.get_ref(), DeValue::Integer(_) | DeValue::Float(_));
    let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = numbers.get(text).copied();
    let text = known.filter(|_| is_number).or_else(|| is_number.then(|| &*text.to_owned().leak()))?;
    _ = numbers.insert(text);
    DeValue::parse(text).ok().map(Spanned::into_inner)
}
