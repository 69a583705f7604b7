//! What secret files hold. It is removed from what other programs print, but not from this program's own words: such a
//! file holds ordinary words, too.

use std::{borrow::Cow, collections::BTreeSet};

use super::{LEFT_OUT, MIN_VALUE_BYTES, Redaction, names_secret, normal};

/// Limits the text of all secret files that is known. Each part of it is kept in 20 forms.
const MAX_BYTES: usize = 128 << 10;
/// A program may print a part of a long line. So a line is known by its pieces, each of at least this length.
const PIECE_BYTES: usize = 64;
/// Words between a name and its secret.
const SCHEMES: [&str; 3] = ["Bearer", "Basic", "Digest"];

/// The parts of secret files that no other program's output shows.
pub(super) struct PrivateTexts {
    pub(super) redaction: Redaction,
    known: BTreeSet<String>,
    bytes: usize,
}

impl PrivateTexts {
    pub(super) const fn new() -> Self {
        Self { redaction: Redaction::new(), known: BTreeSet::new(), bytes: 0 }
    }

    /// Adds the values of a file whose names say that they are secrets, and its lines.
    pub(super) fn learn(&mut self, text: &str) {
        let values: Vec<Cow<'_, str>> = text.lines().flat_map(values).collect();
        let (short, long): (Vec<&str>, Vec<&str>) = values
            .iter()
            .flat_map(|value| value.lines())
            .partition(|value| value.len() < PIECE_BYTES + MIN_VALUE_BYTES);
        let short = self.unknown(short);
        self.redaction.add(short);
        let lines = text.lines().map(str::trim).filter(|line| !is_heading(line));
        let pieces = self.unknown(long.into_iter().chain(lines).flat_map(pieces));
        self.redaction.add_forms(&pieces);
    }

    /// Returns the parts that are new, each with its replacement, until too much is known.
    fn unknown<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
        let mut unknown = vec![];
        for part in parts {
            let bytes = self.bytes + part.len();
            if part.len() >= MIN_VALUE_BYTES && bytes <= MAX_BYTES && self.known.insert(part.to_owned()) {
                self.bytes = bytes;
                unknown.push((part.to_owned(), LEFT_OUT.to_owned()));
            }
        }
        unknown
    }
}

/// Returns whether a line is only a name or a heading: `database:`, `server {`, `[Service]`.
fn is_heading(line: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let name = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    name.or_else(|| line.strip_suffix([':', '{'])).is_some_and(|name| name.chars().all(is_word))
}

/// Cuts a text. A rest that would be too short belongs to the piece before it.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = vec![];
    let mut begin = 0;
    for (at, _) in text.char_indices() {
        if at - begin >= PIECE_BYTES && text.len() - at >= MIN_VALUE_BYTES {
            pieces.push(&text[begin..at]);
            begin = at;
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

/// Returns the values in a line whose names say that they are secrets: `password=…`, `"password": "…"`,
/// `<password>…</password>`, `password …`. Where a value may end in several places, all of them are returned.
fn values(line: &str) -> Vec<Cow<'_, str>> {
    if line.trim_start().starts_with(['#', ';']) {
        return vec![];
    }
    let separators = line.match_indices([' ', '\t', '=', ':', '>']);
    let named = separators.filter(|(at, _)| names_secret(&normal(name_before(&line[..*at]))));
    let mut values: Vec<_> = named.flat_map(|(at, _)| values_after(&line[at..])).collect();
    // A path is no secret, but the key in its file.
    values.retain(|value| !value.starts_with('/') && !SCHEMES.contains(&&**value));
    values
}

/// Returns the name at the end of a text.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t', '"', '\'']);
    let start = text.rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.'));
    &text[start.map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))..]
}

/// Returns the values that may begin a text, after their separator.
fn values_after(text: &str) -> Vec<Cow<'_, str>> {
    let text = text.trim_start_matches([' ', '\t', '=', ':', '>']).trim_end();
    if let Some(quote @ ('"' | '\'')) = text.chars().next() {
        return quoted(&text[1..], quote);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let cut = text.split([',', ';', '&', '<', '}']).next().unwrap_or_default().trim_end();
    // `Bearer …`, and a value before a comment.
    let word = if words.len() == 2 { words.last() } else { None };
    [Some(&text), Some(&cut), words.first(), word].into_iter().flatten().map(|value| (*value).into()).collect()
}

/// Returns the values before the next quote and before the last one. Those of JSON have escapes.
fn quoted(text: &str, quote: char) -> Vec<Cow<'_, str>> {
    let is_end = |(at, _): &(usize, &str)| !text[..*at].ends_with('\\');
    let ends = [text.match_indices(quote).find(is_end).map(|(at, _)| at), text.rfind(quote)];
    let values: BTreeSet<&str> = ends.into_iter().map(|end| &text[..end.unwrap_or(text.len())]).collect();
    let plain = values.iter().filter(|value| value.contains('\\'));
    let plain = plain.filter_map(|value| serde_json::from_str::<String>(&format!("\"{value}\"")).ok());
    values.iter().map(|value| Cow::Borrowed(*value)).chain(plain.map(Cow::Owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names_in_the_forms_of_usual_files() {
        for (line, expected) in [
            ("password=hunter2!", &["hunter2!"][..]),
            ("password=ab,cd;ef # old", &["ab,cd;ef # old", "ab", "ab,cd;ef"]),
            ("export DB_PASSWORD='hunter2 and more'", &["hunter2 and more"]),
            ("spring.datasource.password: hunter2", &["hunter2"]),
            (
                r#"{"user": "application", "token": "a\"b, c", "port": 5432}"#,
                &[r#"a\"b, c"#, r#"a"b, c"#, r#"a\"b, c", "port"#],
            ),
            (r#""private_key": "first\nsecond""#, &[r"first\nsecond", "first\nsecond"]),
            ("<password>hunter2</password>", &["hunter2</password>", "hunter2"]),
            ("machine example.com password hunter2", &["hunter2"]),
            ("'secret_key' => 'hunter2',", &["hunter2"]),
            ("Authorization: Bearer hunter2", &["Bearer hunter2", "hunter2"]),
            ("private_key = /etc/app/tls.key", &[]),
            ("# password: ask the administrator", &[]),
            ("user = application", &[]),
            ("password_encryption = scram-sha-256", &[]),
            ("é password=é", &["é"]),
        ] {
            let found: BTreeSet<Cow<'_, str>> = values(line).into_iter().filter(|value| !value.is_empty()).collect();
            assert_eq!(found, expected.iter().map(|value| Cow::Borrowed(*value)).collect(), "{line}");
        }
    }

    #[test]
    fn lines_go_and_headings_stay() {
        let mut private = PrivateTexts::new();
        private.learn("database:\n[Service]\nserver {\n  host = db.example.com\nshort\n");
        let shown = private.redaction.text("database: short [Service] server { host = db.example.com }").into_owned();
        assert_eq!(shown, "database: short [Service] server { *** }");
    }

    #[test]
    fn a_part_of_a_long_line_is_known_too() {
        let key = "0123456789abcdefghij".repeat(100);
        let mut private = PrivateTexts::new();
        private.learn(&format!("{{\"private_key\": \"-----BEGIN-----\\n{key}\\n\", \"user\": \"é{key}\"}}"));
        for printed in [&*key, &format!("error: é{key}"), &key[..PIECE_BYTES]] {
            let shown = private.redaction.text(printed).into_owned();
            assert!(!shown.contains("0123456789"), "{shown}");
        }
        assert!(private.redaction.longest_bytes < 512, "{}", private.redaction.longest_bytes);
    }

    #[test]
    fn what_is_known_has_a_limit_and_named_values_come_first() {
        let lines: String = (0..9000).map(|number| format!("line number {number:06}\n")).collect();
        let mut private = PrivateTexts::new();
        private.learn(&format!("{lines}password=hunter2\n"));
        private.learn(&lines);
        assert!(private.bytes <= MAX_BYTES && private.bytes + 18 > MAX_BYTES, "{}", private.bytes);
        assert_eq!(
            private.redaction.text("line number 000001, hunter2, line number 008999"),
            "***, ***, line number 008999"
        );
    }
}
