//! The values in a line of a file whose names say that they are secrets, and the passwords of its URLs.

use super::{Decode, entity, forms::url_passwords, names_secret, normal, percent, places::decoded};

/// Limits the bytes of the values of a line, and the text in which the end of one is searched.
const MAX_LINE_BYTES: usize = 128 << 10;
const MAX_VALUE_BYTES: usize = 8 << 10;
/// A longer word behind a name may be a query string, whose end is the value of another name.
const MAX_WORD_BYTES: usize = 256;
/// The ends of names of secrets in the files of usual programs, such as Redis and Rails.
const ENDINGS: [&str; 8] = [
    "requirepass",
    "masterauth",
    "secret_key_base",
    "preshared_key",
    "pre_shared_key",
    "encryption_key",
    "signing_key",
    "master_key",
];
/// What may follow the name of a secret, as in `DB_PASSWORD_PROD`.
const SUFFIXES: [&str; 7] = ["_prod", "_production", "_staging", "_test", "_dev", "_old", "_new"];
/// Words before a secret in the header `Authorization` of HTTP.
const SCHEMES: [&str; 3] = ["bearer ", "basic ", "token "];
/// Prefixes of a string in Python.
const STRING_PREFIXES: [&str; 6] = ["b", "r", "u", "f", "br", "rb"];
/// Words that stand where a secret may, but say what is done with it, or name an algorithm.
const NO_VALUES: [&str; 24] = [
    "bearer",
    "basic",
    "digest",
    "required",
    "optional",
    "enabled",
    "disabled",
    "default",
    "sha256",
    "sha384",
    "sha512",
    "sha-256",
    "sha-384",
    "sha-512",
    "bcrypt",
    "scrypt",
    "argon2",
    "argon2i",
    "argon2id",
    "pbkdf2",
    "yescrypt",
    "ed25519",
    "scram-sha-256",
    "scram-sha-512",
];
/// Directories below `/`. A path in one of them is no secret; another text that begins with `/` may be a key in base64.
const TOP_DIRECTORIES: [&str; 18] = [
    "bin", "boot", "data", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv",
    "tmp", "usr", "var",
];

/// Returns the values in a line whose names say that they are secrets: `password=…`, `"password": "…"`,
/// `<password>…</password>`, `password …`. Where a value may end in several places, all of them are returned, and what
/// the value means if it is escaped.
pub(super) fn values(line: &str) -> Vec<String> {
    let mut values: Vec<String> = vec![];
    if line.starts_with(['#', ';']) {
        return values;
    }
    let (mut rest, mut bytes) = (line, 0);
    while let Some(start) = rest.find(is_of_name).filter(|_| bytes < MAX_LINE_BYTES) {
        let named = &rest[start..];
        let (name, after) = named.split_at(named.find(|c| !is_of_name(c)).unwrap_or(named.len()));
        let after_quote = after.strip_prefix(['"', '\'']).unwrap_or(after);
        let value = after_quote.trim_start_matches([' ', '\t', '=', ':', '>']);
        if value.len() < after_quote.len() && is_secret(name) {
            for value in values_at(&value[..value.floor_char_boundary(MAX_VALUE_BYTES)]) {
                bytes += value.len();
                values.push(value.to_owned());
            }
        }
        rest = after;
    }
    for (_, password) in url_passwords(line) {
        values.extend([password.to_owned(), text_of(password, percent)]);
    }
    values.retain(|value| is_value(value));
    let inner: Vec<String> = values.iter().map(|value| inner(value).to_owned()).collect();
    values.extend(inner);
    let meant: Vec<String> = values.iter().flat_map(|value| meant(value)).collect();
    values.extend(meant);
    values
}

pub(super) fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Returns whether a name says that its value is a secret: `DB_PASSWORD`, `privateKey`, `PASS`, `TOKEN_2`.
fn is_secret(name: &str) -> bool {
    let mut words = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && words.ends_with(|c: char| c.is_ascii_lowercase()) {
            words.push('_');
        }
        words.push(c);
    }
    let name = normal(&words);
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let name = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    let has_ending = ENDINGS.iter().any(|ending| name.ends_with(ending));
    has_ending || names_secret(name) || matches!(name, "pass" | "pwd" | "psk")
}

/// Returns whether a text may be a secret: no path of a file, and no word such as `required`.
fn is_value(text: &str) -> bool {
    let text = inner(text);
    !is_path(text) && !NO_VALUES.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Returns whether a value names a file. That is no secret, but the key in it.
fn is_path(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '/' | '-');
    let Some(rest) = value.strip_prefix('/') else { return false };
    let Some((first, _)) = rest.split_once('/') else { return false };
    rest.chars().all(is_plain) || (TOP_DIRECTORIES.contains(&first) && !rest.contains(char::is_whitespace))
}

/// Returns the values that may begin a text, as they are written.
fn values_at(text: &str) -> impl Iterator<Item = &str> {
    let mut values = vec![];
    if let Some(quote @ ('"' | '\'')) = text.chars().next() {
        values.push(quoted(&text[1..], quote));
        return values.into_iter();
    }
    values.push(text.split([',', ';', '&', '<', '}']).next().unwrap_or_default().trim_end());
    // A passphrase may have any of these.
    values.extend(Some(text.trim_end()).filter(|rest| rest.len() < MAX_WORD_BYTES));
    // An element of XML may have entities such as `&amp;`.
    values.extend(text.split_once("</").map(|(element, _)| element.trim_end()));
    if let Some(list) = text.strip_prefix(['[', '(']) {
        values.extend(list.split([']', ')']).next().unwrap_or_default().split(',').map(inner));
    }
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    // `Bearer …`, and a value before a comment.
    let words = if words.len() == 3 { &words[..1] } else { &*words };
    values.extend(words.iter().filter(|word| word.len() < MAX_WORD_BYTES));
    values.into_iter()
}

/// Returns the value before a quote.
fn quoted(text: &str, quote: char) -> &str {
    let is_escaped = |at: usize| text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let ends_before = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', ',', ';', '}', ']', ')', '>', '/']);
    let mut ends = text.match_indices(quote).map(|(at, _)| at);
    let end = ends.find(|at| !is_escaped(*at) && ends_before(&text[at + 1..])).or_else(|| text.rfind(quote));
    &text[..end.unwrap_or(text.len())]
}

/// Returns a value without the quotes and brackets around it and without a scheme: those of a larger text or a list.
fn inner(value: &str) -> &str {
    let is_around = |c: char| c.is_whitespace() || "\"'`\\()[]{},;".contains(c);
    let mut text = value.trim_matches(is_around);
    if let Some((prefix, rest)) = text.split_once(['"', '\''])
        && STRING_PREFIXES.iter().any(|known| prefix.eq_ignore_ascii_case(known))
    {
        text = rest.trim_matches(is_around);
    }
    let scheme =
        SCHEMES.iter().find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    scheme.map_or(text, |scheme| text[scheme.len()..].trim_matches(is_around))
}

/// Returns what an escaped value means: in JSON, in a shell, in YAML and in XML.
fn meant(value: &str) -> Vec<String> {
    let mut meant = vec![];
    if value.contains('\\') {
        let json = serde_json::from_str::<String>(&format!("\"{value}\"")).ok();
        meant.push(json.unwrap_or_else(|| without_backslashes(value)));
    }
    meant.extend([r"'\''", "''"].iter().filter(|quote| value.contains(**quote)).map(|quote| value.replace(quote, "'")));
    if value.contains('&') {
        meant.push(text_of(value, entity));
    }
    meant.retain(|meant| meant != value);
    meant
}

/// Returns a text in which each character behind a backslash stands for itself.
fn without_backslashes(text: &str) -> String {
    let mut chars = text.chars();
    let next = || match chars.next() {
        Some('\\') => chars.next(),
        next => next,
    };
    std::iter::from_fn(next).collect()
}

/// Returns a text without an encoding of its characters.
fn text_of(text: &str, decode: Decode) -> String {
    String::from_utf8_lossy(&decoded(text.as_bytes(), decode).0).into_owned()
}
