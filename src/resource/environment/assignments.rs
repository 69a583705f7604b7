//! Names with values, as a table or as a list of `NAME=VALUE`, and the file that systemd reads them from.

use std::fmt;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Names with values, in their order. A name may be there twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assignments(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Assignments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableOrList;
        impl<'de> de::Visitor<'de> for TableOrList {
            type Value = Assignments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // The words for which a text of the command line becomes a list.
                f.write_str("a sequence")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut table: A) -> Result<Assignments, A::Error> {
                let mut assignments = vec![];
                while let Some((name, AssignedValue(value))) = table.next_entry()? {
                    assignments.push((name, value));
                }
                Ok(Assignments(assignments))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Assignments, A::Error> {
                let mut assignments = vec![];
                while let Some(text) = list.next_element::<String>()? {
                    // The value is not shown, because it may be a secret.
                    let (name, value) =
                        text.split_once('=').ok_or_else(|| de::Error::custom("an element has no `=`"))?;
                    assignments.push((name.to_owned(), value.to_owned()));
                }
                Ok(Assignments(assignments))
            }
        }
        deserializer.deserialize_any(TableOrList)
    }
}

/// A value of a table. TOML has numbers and booleans, which an environment has as texts. A number with a point is refused:
/// it would lose digits, as in `1.10`.
struct AssignedValue(String);

impl<'de> Deserialize<'de> for AssignedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = AssignedValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AssignedValue, E> {
                Ok(AssignedValue(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<AssignedValue, E> {
                Ok(AssignedValue(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<AssignedValue, E> {
                Ok(AssignedValue(number.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// Returns the schema: a table of values, or a list of texts.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["object", "array"],
        "items": { "type": "string" },
        "additionalProperties": { "type": ["string", "boolean", "integer"] },
    })
}

/// Returns whether a text is the name of an environment variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns whether systemd passes a value on as it is: it drops one with other control characters than these.
pub(super) fn is_possible(value: &str) -> bool {
    !value.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Returns a line of an `EnvironmentFile=`, systemd.exec(5).
///
/// In double quotes, `"`, `\`, `` ` `` and `$` have a backslash before them, and a newline stands for itself. systemd
/// replaces no variable and no specifier (`%`) there.
pub(super) fn line(name: &str, value: &str) -> String {
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            line.push('\\');
        }
        line.push(c);
    }
    line.push_str("\"\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_as_systemd_reads_it() {
        for (value, expected) in [
            ("plain", "A=\"plain\"\n"),
            ("", "A=\"\"\n"),
            (" two words # no comment ; ' ", "A=\" two words # no comment ; ' \"\n"),
            (r#"a"b\c$d`e%f"#, "A=\"a\\\"b\\\\c\\$d\\`e%f\"\n"),
            ("one\ntwo", "A=\"one\ntwo\"\n"),
        ] {
            assert_eq!(line("A", value), expected, "{value}");
        }
    }

    #[test]
    fn names_and_values_that_systemd_would_drop_are_known() {
        for name in ["A", "_a1", "LOG_LEVEL"] {
            assert!(is_variable_name(name), "{name}");
        }
        for name in ["", "1A", "A-B", "A.B", "A B", "\u{c4}"] {
            assert!(!is_variable_name(name), "{name}");
        }
        assert!(is_possible("a\tb\nc \u{e9}") && !is_possible("a\rb") && !is_possible("\u{1b}[1m"));
    }
}
