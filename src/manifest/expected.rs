//! A wrong type in the words of the manifest language, instead of those of serde and Rust.

/// Returns what a field expects and what was found, if that is what serde says: `expected a list, found "nginx"`, or
/// `` `ext5` is not one of `ext4`, `xfs` ``.
pub(super) fn in_words(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, expected) = rest.split_once(", expected ")?;
        let words = expected.trim_start_matches("one of ").replace(" or ", ", ");
        return Some(format!("{found} is not one of {words}"));
    }
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.split_once(", expected ")?;
    Some(format!("expected {}, found {}", kind(expected), value(found)))
}

fn kind(expected: &str) -> String {
    let most = match expected {
        "a sequence" => return "a list".into(),
        "a map" => return "a table".into(),
        "a boolean" => return "true or false".into(),
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" | "usize" => u64::MAX,
        _ if expected.starts_with("struct ") => return "a table".into(),
        _ => return expected.into(),
    };
    format!("a number from 0 to {most}")
}

fn value(found: &str) -> String {
    for number in ["integer `", "floating point `", "boolean `"] {
        if let Some(value) = found.strip_prefix(number).and_then(|rest| rest.strip_suffix('`')) {
            return value.into();
        }
    }
    match found.strip_prefix("string ") {
        Some(text) => text.into(),
        None if found == "sequence" => "a list".into(),
        None if found == "map" => "a table".into(),
        None => found.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_the_language_has_them() {
        for (message, words) in [
            ("invalid type: string \"nginx\", expected a sequence", "expected a list, found \"nginx\""),
            ("invalid value: integer `-1`, expected u32", "expected a number from 0 to 4294967295, found -1"),
            (
                "invalid type: string \"one\", expected usize",
                "expected a number from 0 to 18446744073709551615, found \"one\"",
            ),
            ("invalid type: integer `3`, expected a string", "expected a string, found 3"),
            (
                "invalid type: floating point `1.5`, expected u64",
                "expected a number from 0 to 18446744073709551615, found 1.5",
            ),
            ("invalid type: sequence, expected a boolean", "expected true or false, found a list"),
            ("invalid type: map, expected a string", "expected a string, found a table"),
            ("unknown variant `ext5`, expected `ext4` or `xfs`", "`ext5` is not one of `ext4`, `xfs`"),
            ("unknown variant `d`, expected one of `a`, `b`, `c`", "`d` is not one of `a`, `b`, `c`"),
            ("invalid type: boolean `true`, expected struct X with 2 elements", "expected a table, found true"),
        ] {
            assert_eq!(in_words(message).as_deref(), Some(words), "{message}");
        }
        assert_eq!(in_words("`x` is not a unit of size"), None);
    }
}
