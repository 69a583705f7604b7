//! What secret files hold. It is removed from what other programs print, but not from this program's own words: such a
//! file holds ordinary words, too.

use std::{collections::BTreeSet, mem};

use super::{
    LEFT_OUT, MAX_FILE_BYTES, MIN_VALUE_BYTES, Redaction,
    named::{is_of_name, values},
    places,
    places::HiddenPlace,
    says_secret,
};

/// Limits the lines that are known of all secret files: each is kept in some twenty forms.
const MAX_BYTES: usize = 128 << 10;
/// Limits the named values that are known. A value may have several ends, and several meanings.
const MAX_VALUES_BYTES: usize = 2 * MAX_BYTES;
/// A program may print a part of a long line. So a line is known by its pieces, each of at least this length.
const PIECE_BYTES: usize = 64;
/// A shorter line is removed only as a whole word: `exit 1` is in `exit 127`, too.
const MIN_LINE_BYTES: usize = 12;
/// From this length on, the only line of a file is searched everywhere, also if it is a word.
const MIN_SURE_BYTES: usize = 8;

/// The parts of secret files that no other program's output shows.
pub(super) struct PrivateTexts {
    redaction: Redaction,
    /// What is removed only as a whole word, in the order of its bytes.
    words: Vec<(String, String)>,
    values: KnownParts,
    lines: KnownParts,
    /// Texts that nothing has been compared with yet. In most runs that stays so.
    pending: Vec<String>,
}

/// Parts of secret files, until they are too many.
struct KnownParts {
    parts: BTreeSet<String>,
    bytes: usize,
    max_bytes: usize,
}

impl KnownParts {
    const fn new(max_bytes: usize) -> Self {
        Self { parts: BTreeSet::new(), bytes: 0, max_bytes }
    }

    /// Returns the parts that are new, each with its replacement.
    fn add<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
        let mut unknown = vec![];
        for part in parts {
            let bytes = self.bytes + part.len();
            if part.len() >= MIN_VALUE_BYTES && bytes <= self.max_bytes && self.parts.insert(part.to_owned()) {
                self.bytes = bytes;
                unknown.push((part.to_owned(), LEFT_OUT.to_owned()));
            }
        }
        unknown
    }
}

impl PrivateTexts {
    pub(super) const fn new() -> Self {
        Self {
            redaction: Redaction::new(),
            words: vec![],
            values: KnownParts::new(MAX_VALUES_BYTES),
            lines: KnownParts::new(MAX_BYTES),
            pending: vec![],
        }
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
        let words = places::literal(text.as_bytes(), &self.words).into_iter();
        let words: Vec<_> = words.filter(|place| places::is_word(text, place, &found)).collect();
        found.extend(words);
        found
    }

    pub(super) fn longest_bytes(&mut self) -> usize {
        self.prepare();
        let words = self.words.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
        self.redaction.longest_bytes.max(words)
    }

    /// Reads the added texts: first the values that are secrets by themselves, then the lines.
    fn prepare(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let texts = mem::take(&mut self.pending);
        // The one line of a file is a password or a token. It needs no name.
        let alone: Vec<&str> =
            texts.iter().filter(|text| lines(text).count() == 1).flat_map(|text| lines(text)).collect();
        let lines: Vec<&str> = texts.iter().flat_map(|text| lines(text)).collect();
        let named: Vec<String> = lines.iter().flat_map(|line| values(line)).collect();
        let is_sure = |value: &str| value.len() >= MIN_SURE_BYTES && alone.contains(&value);
        let (short, long): (Vec<&str>, Vec<&str>) = alone
            .iter()
            .copied()
            .chain(named.iter().flat_map(|value| value.lines()))
            .partition(|value| value.len() < PIECE_BYTES + MIN_VALUE_BYTES);
        let (plain, other): (Vec<_>, Vec<_>) =
            self.values.add(short).into_iter().partition(|(value, _)| is_plain(value) && !is_sure(value));
        self.redaction.add(other);
        self.redaction.add_encoded_forms(&plain);
        let (words, lines): (Vec<&str>, Vec<&str>) =
            lines.into_iter().filter(|line| !is_heading(line)).partition(|line| line.len() < MIN_LINE_BYTES);
        self.words.extend(plain);
        self.words.extend(self.lines.add(words));
        self.words.sort();
        let mut pieces_of = |parts: &mut KnownParts, texts: Vec<&str>| {
            self.redaction.add(parts.add(texts.into_iter().flat_map(pieces)));
        };
        pieces_of(&mut self.values, long);
        pieces_of(&mut self.lines, lines);
    }
}

/// Returns the lines of a file. A carriage return ends a line of a program's output, too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty())
}

/// Returns whether a value is a word or a number: `postgres` is in `postgresql.service`, too.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit()) || value.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Returns whether a line is only a name or a heading: `database:`, `server {`, `[Service]`. With a digit before a letter
/// it may be a key.
fn is_heading(line: &str) -> bool {
    let name = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    let is_name = |name: &str| {
        let is_of_key = |two: &[u8]| two[0].is_ascii_digit() && two[1].is_ascii_alphabetic();
        name.chars().all(|c| is_of_name(c) || c == ' ') && !name.as_bytes().windows(2).any(is_of_key)
    };
    name.or_else(|| line.strip_suffix([':', '{'])).is_some_and(is_name)
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

#[cfg(test)]
mod tests;
