//! Placeholders: `{{ name }}` in a text, and the reasons why one cannot be replaced.

use std::{ops::Range, rc::Rc};

use super::{OfEachInstance, Variables};
use crate::{diagnostic::did_you_mean, value::distribution};

/// A placeholder that cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The text between its braces.
    pub(super) name: String,
    /// The number of placeholders before it in its string.
    pub(super) index: usize,
    pub(super) why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It has no end.
    Open,
    /// Its name is not a valid variable name.
    NoName,
    NotSet,
    /// Its default is the value of a variable whose default leads back to it.
    Circle,
    /// Its value is a list, which has no place inside a text.
    List,
    /// Its value is unknown here.
    Unknown,
    /// Its table has no value for the machine's distribution and family.
    NoneHere(Rc<Vec<String>>),
    /// The machine could not provide the fact: the reason and a hint.
    Untold(Rc<(String, Option<String>)>),
}

impl Unresolved {
    /// Returns the text between its braces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the fault in words.
    pub fn message(&self) -> String {
        self.message_of(&format!("{{{{ {} }}}}", self.name))
    }

    /// Returns the fault in words, with the name as it is written.
    pub fn message_of(&self, written: &str) -> String {
        let name = &self.name;
        match &self.why {
            Why::Open => "`{{` without `}}`".into(),
            Why::NoName => format!("`{name}` is not a variable's name"),
            Why::NotSet => format!("variable `{name}` is not set"),
            Why::Circle => format!("the default of variable `{name}` leads back to itself"),
            Why::List => format!("variable `{name}` is a list, but a text or a condition needs a single value"),
            Why::Unknown => format!("`{written}` is unknown: {OfEachInstance}"),
            Why::NoneHere(names) => format!("variable `{name}` has no value for {}", names.join(" or its family ")),
            Why::Untold(untold) => format!("`{written}` cannot be determined: {}", untold.0),
        }
    }

    /// Returns the hint.
    pub fn hint(&self, variables: &Variables) -> Option<String> {
        let near = || did_you_mean(&self.name, variables.names());
        let literal = || "a literal `{{` is written `{{{{`".to_owned();
        match &self.why {
            Why::Open => Some(literal()),
            Why::NoName => Some(near().unwrap_or_else(literal)),
            Why::NotSet => Some(near().unwrap_or_else(|| {
                let places = "in [variables] of a single file, in variables.toml of a directory";
                format!("pass --set {}=VALUE, or set it {places}", self.name)
            })),
            Why::Circle => Some(format!("pass --set {}=VALUE, or write a value as its default", self.name)),
            Why::List => Some(format!("write \"{{{{ {} }}}}\" alone: as a list, or as an element of one", self.name)),
            Why::Unknown => Some("leave the resource to the boot: phase = \"boot\"".into()),
            Why::NoneHere(names) => {
                let is_key = |name: &&String| distribution::names().any(|known| known == name.as_str());
                let key = names.iter().rfind(is_key).map(|key| format!(", or add to its table: {key} = \"VALUE\""));
                Some(format!("pass --set {}=VALUE{}", self.name, key.unwrap_or_default()))
            }
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

/// A part of a string value.
pub(super) enum Piece<'a> {
    Literal(&'a str),
    /// A name, and the bytes from brace to brace.
    Placeholder(&'a str, Range<usize>),
    /// `{{` without `}}`, up to the end.
    Open(usize),
}

/// Returns the parts of a string: `{{ name }}` is a placeholder, `{{{{` a literal `{{`.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
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

/// Returns the name of the placeholder that is a whole text.
pub fn only_placeholder(text: &str) -> Option<&str> {
    let mut pieces = pieces(text);
    match (pieces.next(), pieces.next()) {
        (Some(Piece::Placeholder(name, _)), None) => Some(name),
        _ => None,
    }
}
