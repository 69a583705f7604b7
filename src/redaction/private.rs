//! What secret files hold. It is left out of what other programs print, and of nothing else: such a file holds ordinary
//! words, too.

use std::iter;

use super::{LEFT_OUT, MIN_VALUE_BYTES, Redaction, names_secret, normal};

/// Limits what is known of all secret files. Each line is searched for, in all its forms, in each line of output.
const MAX_BYTES: usize = 32 << 10;

impl Redaction {
    /// Adds the lines of a file, and each value in them whose name says that it is a secret.
    pub(super) fn add_file(&mut self, text: &str) {
        let known: usize = self.values.iter().map(|(value, _)| value.len()).sum();
        let parts = text.lines().flat_map(|line| iter::once(line.trim()).chain(values(line)));
        let is_new = |part: &&str| part.len() >= MIN_VALUE_BYTES && !self.values.iter().any(|(value, _)| value == part);
        let room = |left: &mut usize, part: &'_ str| {
            *left = left.checked_sub(part.len())?;
            Some((part.to_owned(), LEFT_OUT.to_owned()))
        };
        let parts: Vec<_> = parts.filter(is_new).scan(MAX_BYTES.saturating_sub(known), room).collect();
        self.add(parts);
    }
}

/// Returns the values in a line whose names say that they are secrets, each whole and by its words: `password=…`,
/// `"password": "…"`, `<password>…</password>`, `password …`.
fn values(line: &str) -> impl Iterator<Item = &str> {
    let separators = line.match_indices([' ', '\t', '=', ':', '>']);
    let named = separators.filter(|(at, _)| names_secret(&normal(name_before(&line[..*at]))));
    named.map(|(at, _)| value_after(&line[at..])).flat_map(|value| iter::once(value).chain(value.split_whitespace()))
}

/// Returns the name at the end of a text.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t', '"', '\'']);
    let start = text.rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.'));
    &text[start.map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))..]
}

/// Returns the value at the start of a text, after its separator and without its quotes.
fn value_after(text: &str) -> &str {
    let text = text.trim_start_matches([' ', '\t', '=', ':', '>']);
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return text.split([',', ';', '&', '<', '}']).next().unwrap_or_default().trim();
    };
    let text = &text[1..];
    let is_end = |(at, _): &(usize, &str)| !text[..*at].ends_with('\\');
    text.match_indices(quote).find(is_end).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn values_are_found_by_their_names_in_the_forms_of_usual_files() {
        for (line, expected) in [
            ("password=hunter2!", &["hunter2!"][..]),
            ("export DB_PASSWORD='hunter2 and more'", &["hunter2 and more", "hunter2", "and", "more"]),
            ("spring.datasource.password: hunter2", &["hunter2"]),
            (r#"{"user": "application", "token": "a\"b, c", "port": 5432}"#, &[r#"a\"b, c"#, r#"a\"b,"#, "c"]),
            ("<password>hunter2</password>", &["hunter2"]),
            ("machine example.com login app password hunter2", &["hunter2"]),
            ("'secret_key' => 'hunter2',", &["hunter2"]),
            ("Authorization: Bearer hunter2", &["Bearer hunter2", "Bearer", "hunter2"]),
            ("user = application", &[]),
            ("password_encryption = scram-sha-256", &[]),
            ("é password=é", &["é"]),
        ] {
            let found: BTreeSet<&str> = values(line).filter(|value| !value.is_empty()).collect();
            assert_eq!(found, expected.iter().copied().collect(), "{line}");
        }
    }

    #[test]
    fn what_is_known_of_files_has_a_limit() {
        let mut redaction = Redaction::default();
        let file =
            |first: u32| (first..first + 2000).map(|number| format!("line number {number:06}\n")).collect::<String>();
        redaction.add_file("short\nline number 000000\n");
        redaction.add_file(&file(0));
        redaction.add_file(&file(0));
        assert_eq!(redaction.text("line number 000000 and short"), "*** and short");
        let known: usize = redaction.values.iter().map(|(value, _)| value.len()).sum();
        assert!(known <= MAX_BYTES && known + 18 > MAX_BYTES, "{known}");
    }
}
