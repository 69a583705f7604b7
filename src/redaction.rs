//! Removes secrets from text: the values of variables in files, and everything that may be a credential.
//!
//! A secret is a variable of a file (`--variables FILE`), or what a store of secrets has answered. [`shown`] is applied last
//! to all output of this process: its output, its log, its report, its messages to its supervisor. [`printed`] is applied
//! before to what other programs print: they may have read a secret file. [`line`] is applied to text for CloudFormation
//! and the console as well. A value is found in every form in which a program prints it.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{Mutex, PoisonError, RwLock},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};

pub use self::console::line;
use self::{places::HiddenPlace, private::PrivateTexts};

mod console;
pub mod forms;
mod named;
mod places;
mod private;

/// The replacement of a credential.
const LEFT_OUT: &str = "***";
/// A name has a secret value if it begins or ends with one of these.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "signature",
    "credential",
    "authorization",
    "api_key",
    "apikey",
    "access_key",
];
/// A name has a secret value, too, if it ends with one of these. At the start they are parts of other words.
const ENDINGS: [&str; 8] = ["_pwd", "_pass", "_pw", "_psk", "_pin", "community", "private_key", "secret_key"];

/// What is known of one secret file. A larger one is read up to here.
pub const MAX_FILE_BYTES: usize = 32 << 10;
/// A shorter value is an ordinary word. In a message it is a secret only if its name says so.
const MIN_VALUE_BYTES: usize = 6;
/// A variable of a file whose value is a word of small letters is a setting, such as `staging`, and no secret. A longer one
/// may be a password that a program has made.
const MAX_WORD_BYTES: usize = 12;

/// The redaction of this process's output.
static CURRENT: RwLock<Redaction> = RwLock::new(Redaction::new());
/// What is removed from the output of other programs besides.
static PRIVATE: Mutex<PrivateTexts> = Mutex::new(PrivateTexts::new());

/// Applies a redaction to all later output of this process, besides what is known so far.
pub fn install(redaction: Redaction) {
    let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
    current.settings.extend(redaction.settings);
    current.settings.sort();
    current.settings.dedup();
    current.add(redaction.values);
}

/// Keeps a text in all later output of this process: its caller has typed it, so that other users could read it, too. A value
/// inside of it stays.
pub fn keep(typed: String) {
    CURRENT.write().unwrap_or_else(PoisonError::into_inner).typed.push(typed);
}

/// Removes one more value from all later output of this process. `name` replaces it.
pub fn learn(name: &str, value: &str) {
    CURRENT.write().unwrap_or_else(PoisonError::into_inner).add(parts(name, value));
}

/// Removes the lines of a secret file from all later output of other programs, and the values whose names say that they
/// are secrets. A line or a value of fewer than 6 bytes stays. The first 32 KiB of a file are known, and 128 KiB of all.
/// The only line of a file is a secret by itself, and so is a declared password.
pub fn learn_file(bytes: &[u8]) {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner).add(&String::from_utf8_lossy(bytes));
}

/// Returns a text without secrets, and without the passwords of URLs. Package managers print those of repositories.
pub fn shown(text: &str) -> Cow<'_, str> {
    without_passwords(CURRENT.read().unwrap_or_else(PoisonError::into_inner).text(text))
}

/// Returns what another program has printed: without secrets, and without what secret files hold.
pub fn printed(text: &str) -> Cow<'_, str> {
    let mut private = PRIVATE.lock().unwrap_or_else(PoisonError::into_inner);
    let current = CURRENT.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = current.found(text, says_secret);
    // Both are found in the text as it is: what one replaces may be a part of what the other one looks for.
    found.extend(private.found(text));
    without_passwords(places::without(text, found))
}

/// Returns the start of what another program has printed, from a text that was cut. At its end, half of a secret would not be
/// recognized: that much is left out.
pub fn printed_start(text: &str) -> Cow<'_, str> {
    let shown = printed(text);
    let end = shown.floor_char_boundary(shown.len().saturating_sub(longest_bytes()));
    shown[..end].to_owned().into()
}

/// Returns whether a line of another program's output is nothing but encoded data. A secret may be in several of them.
pub fn is_encoded(line: &[u8]) -> bool {
    places::is_encoded(line.trim_ascii())
}

fn without_passwords(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => forms::without_url_passwords(text, LEFT_OUT),
        Cow::Owned(text) => forms::without_url_passwords(&text, LEFT_OUT).into_owned().into(),
    }
}

/// Returns the content of a file without secrets. Short values are removed as well.
pub fn shown_content(text: &str) -> Cow<'_, str> {
    CURRENT.read().unwrap_or_else(PoisonError::into_inner).content(text)
}

/// Returns the length of the longest text that is removed, in bytes.
pub fn longest_bytes() -> usize {
    let current = CURRENT.read().unwrap_or_else(PoisonError::into_inner).longest_bytes;
    current.max(PRIVATE.lock().unwrap_or_else(PoisonError::into_inner).longest_bytes())
}

/// Returns a value and its lines, each with its replacement. A program may print any line of a value.
fn parts(name: &str, value: &str) -> Vec<(String, String)> {
    let parts = std::iter::once(value).chain(value.lines());
    // A short line such as `{` is no secret.
    let is_word = |part: &&str| part.len() >= MIN_VALUE_BYTES || part.contains(char::is_alphanumeric);
    parts.map(str::trim).filter(is_word).map(|part| (part.to_owned(), format!("{{{{ {name} }}}}"))).collect()
}

/// The secret values, each with its replacement.
#[derive(Default)]
pub struct Redaction {
    /// The texts that are searched for literally, in the order of their bytes.
    forms: Vec<(String, String)>,
    /// The texts that are searched for in encoded text, in the order of their bytes.
    values: Vec<(String, String)>,
    /// The forms of values that are no secrets. They are removed from the content of files.
    settings: Vec<(String, String)>,
    /// The texts that stay.
    typed: Vec<String>,
    /// Whether a value is shorter than the other forms.
    has_short: bool,
    /// The length of the longest text that is removed.
    longest_bytes: usize,
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values.iter().map(|(_, name)| name)).finish()
    }
}

impl Redaction {
    const fn new() -> Self {
        Self { forms: vec![], values: vec![], settings: vec![], typed: vec![], has_short: false, longest_bytes: 0 }
    }

    /// Makes a redaction of the values of these variables, given by name and value.
    pub fn of_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::of([], variables)
    }

    /// Makes a redaction of secrets, and of the values of variables of which some may be settings.
    pub fn of<'a>(
        secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut redaction = Self::default();
        let (settings, values): (Vec<_>, Vec<_>) =
            variables.into_iter().partition(|(name, value)| is_setting(value) && !is_sensitive(name));
        redaction.add(secrets.into_iter().chain(values).flat_map(|(name, value)| parts(name, value)).collect());
        let settings = settings.into_iter().flat_map(|(name, value)| parts(name, value));
        let forms = settings.flat_map(|(value, name)| forms(&value).into_iter().map(move |form| (form, name.clone())));
        redaction.settings = forms.collect();
        redaction.settings.sort();
        redaction
    }

    /// Adds values, each with its replacement. Only the new ones are worked on: a path of Parameter Store may give a
    /// thousand, one by one.
    fn add(&mut self, mut values: Vec<(String, String)>) {
        values.retain(|(value, _)| !value.is_empty());
        values.sort();
        values.dedup_by(|one, other| one.0 == other.0);
        values.retain(|(value, name)| !self.knows(value, name));
        if values.is_empty() {
            return;
        }
        self.hide_names(&mut values);
        self.add_forms(&values);
        // `&#x27;` and `\u0026` stand for one byte.
        let longest = values.iter().map(|(value, _)| 6 * value.len()).max().unwrap_or_default();
        self.longest_bytes = self.longest_bytes.max(longest);
        self.has_short |= values.iter().any(|(value, _)| value.len() < MIN_VALUE_BYTES);
        self.values.append(&mut values);
        self.values.sort();
    }

    /// Adds the forms in which programs print these values.
    fn add_forms(&mut self, values: &[(String, String)]) {
        self.add_some_forms(values, |_, _| true);
    }

    /// Adds the forms of these values in which none is an ordinary word.
    fn add_encoded_forms(&mut self, values: &[(String, String)]) {
        self.add_some_forms(values, |form, value| form != value);
    }

    fn add_some_forms(&mut self, values: &[(String, String)], is_searched: impl Fn(&str, &str) -> bool) {
        let long = values.iter().filter(|(value, _)| value.len() >= MIN_VALUE_BYTES);
        let new = long.flat_map(|(value, name)| {
            let forms = forms(value).into_iter().filter(|form| is_searched(form, value));
            forms.map(|form| (form, name.clone())).collect::<Vec<_>>()
        });
        self.forms.extend(new.inspect(|(form, _)| self.longest_bytes = self.longest_bytes.max(form.len())));
        self.forms.sort_by(|one, other| one.0.cmp(&other.0));
    }

    /// Returns whether a value is known. A short one gets the name that says that it is a secret.
    fn knows(&mut self, value: &str, name: &str) -> bool {
        let Ok(at) = self.values.binary_search_by(|(known, _)| known.as_str().cmp(value)) else { return false };
        let known = &mut self.values[at].1;
        if value.len() < MIN_VALUE_BYTES && !is_sensitive(known) && is_sensitive(name) {
            name.clone_into(known);
        }
        true
    }

    /// Hides the names, old and new, that show a value.
    fn hide_names(&mut self, new: &mut [(String, String)]) {
        // A thousand values with the same replacement would be compared a million times.
        let is_told = |name: &str, values: &[(String, String)]| {
            name != LEFT_OUT
                && values.iter().any(|(value, _)| value.len() >= MIN_VALUE_BYTES && name.contains(&**value))
        };
        let old = self.values.iter().map(|(_, name)| name).filter(|name| is_told(name, new));
        let old: BTreeSet<String> = old.cloned().collect();
        if !old.is_empty() {
            let names = self.values.iter_mut().chain(&mut self.forms).map(|(_, name)| name);
            names.filter(|name| old.contains(*name)).for_each(|name| LEFT_OUT.clone_into(name));
        }
        let told: Vec<bool> = new.iter().map(|(_, name)| is_told(name, new) || is_told(name, &self.values)).collect();
        let names = new.iter_mut().zip(told).filter(|(_, is_told)| *is_told);
        names.for_each(|((_, name), _)| LEFT_OUT.clone_into(name));
    }

    /// Returns a text without the values, which may be plain, in base64, or encoded as in JSON, a URL or a web page.
    ///
    /// A short value is removed only as a whole word, and only if its variable's name says that it is a secret.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found = self.found(text, says_secret);
        if !found.is_empty() {
            let typed = self.typed.iter().flat_map(|typed| text.match_indices(typed));
            let typed: Vec<_> = typed.map(|(start, typed)| start..start + typed.len()).collect();
            found.retain(|place| !typed.iter().any(|typed| typed.start <= place.start && place.end <= typed.end));
        }
        places::without(text, found)
    }

    /// Returns a file's content without the values. Here every short value is a secret: `pin=7461`.
    pub fn content<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found = self.found(text, |_| true);
        found.extend(places::literal(text.as_bytes(), &self.settings));
        places::without(text, found)
    }

    /// Returns the places of the values in a text; those of short values only if their names say so.
    fn found(&self, text: &str, is_secret_if_short: impl Fn(&str) -> bool) -> Vec<HiddenPlace<'_>> {
        // Most runs know no secret, and each of their texts comes by here.
        if self.values.is_empty() && self.forms.is_empty() {
            return vec![];
        }
        let mut found = places::literal(text.as_bytes(), &self.forms);
        found.extend(places::wrapped(text, &self.forms));
        found.extend(places::encoded(text, &self.values));
        if !self.has_short {
            return found;
        }
        let is_short = |(value, name): &&(String, String)| value.len() < MIN_VALUE_BYTES && is_secret_if_short(name);
        let words = self.values.iter().filter(is_short);
        let words: Vec<_> = words.flat_map(|(value, name)| places::words(text, value, name, &found)).collect();
        found.extend(words);
        found
    }

    /// Returns a line that is safe for a stack's events and for a console.
    pub fn line(&self, text: &str) -> String {
        line(&self.text(text))
    }
}

/// Returns the forms in which programs print a value: plain, escaped, and in base64, also as a part of longer data.
fn forms(value: &str) -> Vec<String> {
    let json = serde_json::to_string(value).unwrap_or_default();
    let hexadecimal: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        value.to_owned(),
        json.trim_matches('"').to_owned(),
        value.escape_debug().to_string(),
        // Quoted as in a shell.
        value.replace('\'', r"'\''"),
        value.replace('\'', r#"'"'"'"#),
        value.replace('\\', r"\\"),
        value.chars().flat_map(|c| r#"\"$`"#.contains(c).then_some('\\').into_iter().chain([c])).collect(),
        hexadecimal.to_ascii_uppercase(),
        hexadecimal,
    ];
    for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
        let alone = engine.encode(value);
        forms.push(alone.trim_end_matches('=').to_owned());
        forms.push(alone);
        // In longer data, one or two bytes may precede the value. These characters depend only on the value.
        for before in 0..3 {
            let encoded = engine.encode([&[0; 2][..before], value.as_bytes()].concat());
            let (first, last) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
            forms.push(encoded[first..last].to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// A function that decodes the character (or a byte of it) at the start of a text. It returns the length of the encoded form.
type Decode = fn(&[u8], &mut Vec<u8>) -> Option<usize>;

/// The encodings of single characters, each with the characters that an encoded text must have.
const ENCODINGS: [(&[char], Decode); 3] = [(&['%', '+'], percent), (&['&'], entity), (&['\\'], escape)];

/// Decodes `%2F`, as in a URL.
fn percent(text: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    decoded.push(u8::try_from(hex(digits)?).ok()?);
    Some(3)
}

/// Decodes `&amp;`, `&#39;` or `&#x27;`, as in a web page.
fn entity(text: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
    let rest = text.strip_prefix(b"&")?;
    let end = rest.iter().take(MAX_ENTITY_BYTES).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let c = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(digits) => char::from_u32(hex(digits.as_bytes())?)?,
            None => char::from_u32(number.parse().ok()?)?,
        },
        None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
    };
    decoded.extend(c.encode_utf8(&mut [0; 4]).bytes());
    Some(end + 2)
}

/// Decodes `\n` or `\u0026`, as in JSON.
fn escape(text: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
    let rest = text.strip_prefix(b"\\")?;
    if let Some((_, byte)) = ESCAPES.iter().find(|(known, _)| rest.first() == Some(known)) {
        decoded.push(*byte);
        return Some(2);
    }
    let unit = |text: &[u8]| u16::try_from(hex(text.strip_prefix(b"\\u")?.get(..4)?)?).ok();
    let units = [unit(text)?, unit(text.get(6..)?).unwrap_or_default()];
    let c = char::decode_utf16(units).next()?.ok()?;
    decoded.extend(c.encode_utf8(&mut [0; 4]).bytes());
    Some(6 * c.len_utf16())
}

/// Limits the length of an entity from `&` to `;`.
const MAX_ENTITY_BYTES: usize = 10;
const ENTITIES: [(&str, char); 5] = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')];
const ESCAPES: [(u8, u8); 8] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'/', b'/'),
    (b'b', 0x08),
    (b'f', 0x0c),
    (b'n', b'\n'),
    (b'r', b'\r'),
    (b't', b'\t'),
];

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns whether a value is a word of small letters.
fn is_setting(value: &str) -> bool {
    (MIN_VALUE_BYTES..=MAX_WORD_BYTES).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Returns whether a value that is an ordinary word is a secret all the same: its name says so, or says too much.
fn says_secret(name: &str) -> bool {
    name == LEFT_OUT || is_sensitive(name)
}

/// Returns whether a name says that its value is a secret. That of a store's secret is the last part of its URL.
pub fn is_sensitive(name: &str) -> bool {
    let name = name.rsplit_once("://").map_or(name, |(_, path)| path.rsplit(['/', '#']).next().unwrap_or(path));
    let name = normal(name);
    names_secret(&name) || NAMES.iter().any(|sensitive| name.starts_with(sensitive))
}

/// Returns a name as [`names_secret`] knows it: `DB-Password` as `db_password`.
fn normal(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Returns whether a variable's name says that its value is a secret: `db_password`, but not `password_length`.
pub fn names_secret(name: &str) -> bool {
    let singular = name.strip_suffix('s').unwrap_or(name);
    ENDINGS.iter().any(|ending| name.ends_with(ending)) || NAMES.iter().any(|sensitive| singular.ends_with(sensitive))
}

/// Checks that no form of a value remains in a text.
///
/// The first line of the input is the value. The rest is the text around it; the value is inserted at a `|`.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (value, text) = input.split_once('\n').unwrap_or((&input, "|"));
    let value = value.trim();
    // The replacement of a value has these characters.
    if value.len() < MIN_VALUE_BYTES || value.contains(['{', '}', '*']) {
        return;
    }
    let (before, after) = text.split_once('|').unwrap_or((text, ""));
    let percent: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let numbers: String = value.chars().map(|c| format!("&#{};", u32::from(c))).collect();
    let base64 = [BASE64_STANDARD, BASE64_URL_SAFE].map(|engine| engine.encode(value));
    let redaction = Redaction::of_variables([("password", value)]);
    for form in [value, &percent, &numbers, &base64[0], &base64[1]] {
        let told = format!("{before}{form}{after}");
        for shown in [redaction.text(&told), redaction.content(&told)] {
            assert!(!shown.contains(value), "the value is shown");
            assert!(!shown.contains(&percent), "the value is shown percent-encoded");
            assert!(!shown.contains(&numbers), "the value is shown as on a web page");
            assert!(
                !base64.iter().any(|form| shown.contains(form.trim_end_matches('='))),
                "the value is shown in base64"
            );
        }
    }
}

#[cfg(test)]
mod tests;
