//! What secret files hold. It is removed from what other programs print, but not from this program's own words: such a
//! file holds ordinary words, too.

use std::{borrow::Cow, collections::BTreeSet, mem};

use super::{LEFT_OUT, MIN_VALUE_BYTES, Redaction, names_secret, normal, places, places::HiddenPlace, says_secret};

/// Limits what is known of one secret file, and of all of them: each part of it is kept in some twenty forms.
const MAX_FILE_BYTES: usize = 32 << 10;
const MAX_BYTES: usize = 128 << 10;
/// A program may print a part of a long line. So a line is known by its pieces, each of at least this length.
const PIECE_BYTES: usize = 64;
/// A shorter line is removed only as a whole word: `exit 1` is in `exit 127`, too.
const MIN_LINE_BYTES: usize = 12;
/// Limits the values of a line, and the text in which the end of one is searched.
const MAX_VALUES: usize = 100;
const MAX_VALUE_BYTES: usize = 8 << 10;
/// Words that stand where a secret may, but say what is done with it.
const NO_VALUES: [&str; 8] = ["Bearer", "Basic", "Digest", "required", "optional", "enabled", "disabled", "default"];

/// The parts of secret files that no other program's output shows.
pub(super) struct PrivateTexts {
    redaction: Redaction,
    /// The short lines.
    words: BTreeSet<String>,
    known: BTreeSet<String>,
    bytes: usize,
    /// Texts that nothing has been compared with yet. In most runs that stays so.
    pending: Vec<String>,
}

impl PrivateTexts {
    pub(super) const fn new() -> Self {
        Self { redaction: Redaction::new(), words: BTreeSet::new(), known: BTreeSet::new(), bytes: 0, pending: vec![] }
    }

    /// Adds the text of a file.
    pub(super) fn add(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_FILE_BYTES)];
        if !self.pending.iter().any(|pending| pending == text) {
            self.pending.push(text.to_owned());
        }
    }

    /// Returns the places of what is known in a text.
    pub(super) fn found(&mut self, text: &str) -> Vec<HiddenPlace<'_>> {
        self.prepare();
        let mut found = self.redaction.found(text, says_secret);
        let words: Vec<_> = self.words.iter().flat_map(|word| places::words(text, word, LEFT_OUT, &found)).collect();
        found.extend(words);
        found
    }

    pub(super) fn longest_bytes(&mut self) -> usize {
        self.prepare();
        self.redaction.longest_bytes
    }

    /// Reads the added texts: first the values whose names say that they are secrets, then the lines.
    fn prepare(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let texts = mem::take(&mut self.pending);
        // A carriage return ends a line of a program's output.
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.split(['\n', '\r'])).map(str::trim).collect();
        let values: Vec<Cow<'_, str>> = lines.iter().flat_map(|line| values(line)).collect();
        let (short, long): (Vec<&str>, Vec<&str>) = values
            .iter()
            .flat_map(|value| value.lines())
            .partition(|value| value.len() < PIECE_BYTES + MIN_VALUE_BYTES);
        let short = self.unknown(short);
        self.redaction.add(short.into_iter().map(|value| (value, LEFT_OUT.to_owned())).collect());
        let (words, lines): (Vec<&str>, Vec<&str>) =
            lines.into_iter().filter(|line| !is_heading(line)).partition(|line| line.len() < MIN_LINE_BYTES);
        let words = self.unknown(words);
        self.words.extend(words);
        let pieces = self.unknown(long.into_iter().chain(lines).flat_map(pieces));
        let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece, LEFT_OUT.to_owned())).collect();
        self.redaction.add_forms(&pieces);
    }

    /// Returns the parts that are new, until too much is known.
    fn unknown<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut unknown = vec![];
        for part in parts {
            let bytes = self.bytes + part.len();
            if part.len() >= MIN_VALUE_BYTES && bytes <= MAX_BYTES && self.known.insert(part.to_owned()) {
                self.bytes = bytes;
                unknown.push(part.to_owned());
            }
        }
        unknown
    }
}

/// Returns whether a line is only a name or a heading: `database:`, `server {`, `[Service]`.
fn is_heading(line: &str) -> bool {
    let name = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    name.or_else(|| line.strip_suffix([':', '{'])).is_some_and(|name| name.chars().all(|c| is_of_name(c) || c == ' '))
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

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Returns the values in a line whose names say that they are secrets: `password=…`, `"password": "…"`,
/// `<password>…</password>`, `password …`. Where a value may end in several places, all of them are returned.
fn values(line: &str) -> Vec<Cow<'_, str>> {
    let (mut values, mut rest) = (vec![], line);
    if line.starts_with(['#', ';']) {
        return values;
    }
    while let Some(start) = rest.find(is_of_name).filter(|_| values.len() < MAX_VALUES) {
        let named = &rest[start..];
        let (name, after) = named.split_at(named.find(|c| !is_of_name(c)).unwrap_or(named.len()));
        let after_quote = after.strip_prefix(['"', '\'']).unwrap_or(after);
        let value = after_quote.trim_start_matches([' ', '\t', '=', ':', '>']);
        if value.len() < after_quote.len() && is_secret(name) {
            values.extend(values_at(&value[..value.floor_char_boundary(MAX_VALUE_BYTES)]));
        }
        rest = after;
    }
    values.retain(|value| !is_path(value) && !NO_VALUES.contains(&&**value));
    values
}

/// Returns whether a name says that its value is a secret: `DB_PASSWORD`, `privateKey`, `PASS`.
fn is_secret(name: &str) -> bool {
    let mut words = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && words.ends_with(|c: char| c.is_ascii_lowercase()) {
            words.push('_');
        }
        words.push(c);
    }
    let name = normal(&words);
    names_secret(&name) || matches!(&*name, "pass" | "pwd" | "psk")
}

/// Returns whether a value names a file. That is no secret, but the key in it.
fn is_path(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '/' | '-');
    value.strip_prefix('/').is_some_and(|rest| rest.contains('/') && rest.chars().all(is_plain))
}

/// Returns the values that may begin a text.
fn values_at(text: &str) -> Vec<Cow<'_, str>> {
    if let Some(quote @ ('"' | '\'')) = text.chars().next() {
        return quoted(&text[1..], quote);
    }
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    let cut = text.split([',', ';', '&', '<', '}']).next().unwrap_or_default().trim_end();
    let mut values: Vec<Cow<'_, str>> = vec![cut.into()];
    // `Bearer …`, and a value before a comment. The end of a long query string is another one's value.
    let words = if words.len() == 3 { &words[..1] } else { &*words };
    values.extend(words.iter().filter(|word| word.len() < 4 * PIECE_BYTES).map(|word| Cow::Borrowed(*word)));
    values
}

/// Returns the value before a quote, as it is written and as JSON means it.
fn quoted(text: &str, quote: char) -> Vec<Cow<'_, str>> {
    let is_escaped = |at: usize| text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let ends_before = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', ',', ';', '}', ']', ')', '>', '/']);
    let mut ends = text.match_indices(quote).map(|(at, _)| at);
    let end = ends.find(|at| !is_escaped(*at) && ends_before(&text[at + 1..])).or_else(|| text.rfind(quote));
    let value = &text[..end.unwrap_or(text.len())];
    let meant = serde_json::from_str::<String>(&format!("\"{value}\"")).ok().filter(|meant| meant != value);
    [Some(Cow::Borrowed(value)), meant.map(Cow::Owned)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(private: &mut PrivateTexts, text: &str) -> String {
        places::without(text, private.found(text)).into_owned()
    }

    #[test]
    fn values_are_found_by_their_names_in_the_forms_of_usual_files() {
        for (line, expected) in [
            ("password=hunter2!", &["hunter2!"][..]),
            ("password=ab,cd;ef # old", &["ab", "ab,cd;ef"]),
            ("password = hunter2 and more", &["hunter2 and more", "hunter2"]),
            ("export DB_PASSWORD='hunter2 and more'", &["hunter2 and more"]),
            ("password: 'it''s'", &["it''s"]),
            ("spring.datasource.password: hunter2", &["hunter2"]),
            (r#"{"user": "application", "token": "a\"b, c", "port": 5432}"#, &[r#"a\"b, c"#, r#"a"b, c"#]),
            (r#"{"token": "a\\", "user": "application"}"#, &[r"a\\", r"a\"]),
            (r#""private_key": "first\nsecond""#, &[r"first\nsecond", "first\nsecond"]),
            ("<password>hunter2</password>", &["hunter2</password>", "hunter2"]),
            ("machine example.com login app password hunter2", &["hunter2"]),
            ("'secret_key' => 'hunter2',", &["hunter2"]),
            ("PrivateKey = aGVsbG8=", &["aGVsbG8="]),
            ("PASS=/k9Zq/7x", &["/k9Zq/7x"]),
            ("Authorization: Bearer hunter2", &["Bearer hunter2", "hunter2"]),
            ("private_key = /etc/app/tls.key", &[]),
            ("password required", &[]),
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
        private.add("database:\n[Service]\nserver {\n  host = db.example.com\rexit 1\nshort\n");
        let text = "database: short [Service] server { host = db.example.com } exit 1 exit 127";
        assert_eq!(shown(&mut private, text), "database: short [Service] server { *** } *** exit 127");
    }

    #[test]
    fn a_part_of_a_long_line_is_known_too() {
        let key = "0123456789abcdefghij".repeat(100);
        let mut private = PrivateTexts::new();
        private.add(&format!("{{\"private_key\": \"-----BEGIN-----\\n{key}\\n\", \"user\": \"é{key}\"}}"));
        for printed in [&*key, &format!("error: é{key}"), &key[..PIECE_BYTES]] {
            let shown = shown(&mut private, printed);
            assert!(!shown.contains("0123456789"), "{shown}");
        }
        assert!(private.longest_bytes() < 512, "{}", private.longest_bytes());
    }

    #[test]
    fn named_values_of_all_files_come_before_lines() {
        let mut private = PrivateTexts::new();
        let mut tokens = |name: &str| {
            let pairs =
                (0..900).map(|number| format!("\"{name}_{number:04}\": {{\"token\": \"{name}-{number:06}\"}}, "));
            private.add(&format!("{{{}}}", pairs.collect::<String>()));
        };
        ["one", "two", "three", "four", "five"].into_iter().for_each(&mut tokens);
        private.add("password=hunter2\n");
        assert_eq!(shown(&mut private, "one-000000, hunter2"), "***, ***");
        assert!(private.bytes <= MAX_BYTES, "{}", private.bytes);
    }

    #[test]
    fn a_file_that_is_made_for_it_takes_no_long_time() {
        for text in
            [" ".repeat(MAX_FILE_BYTES), "password=".repeat(4000), "\"".repeat(MAX_FILE_BYTES), "a ".repeat(16000)]
        {
            let mut private = PrivateTexts::new();
            private.add(&text);
            assert!(private.found("nothing of it").is_empty());
        }
    }
}
