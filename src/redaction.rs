//! What is never shown: the values of variables that an operator gives in a file, in any form in which a program prints
//! them, and in what leaves the machine whatever may be a credential.
//!
//! A secret gets here as a variable of a file (`--variables FILE`). Of all that this process tells (its output, its log,
//! its report, its words to its supervisor), [`shown`] is the last pass; what CloudFormation and the console get passes
//! [`line`] too.

use std::{
    borrow::Cow,
    cmp::Reverse,
    sync::{PoisonError, RwLock},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};

pub mod forms;

/// What stands for something left out.
const LEFT_OUT: &str = "***";
/// A name that begins or ends with one of these has a secret value.
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

/// A value shorter than this is a word like others: in words for people it is a secret only if its name says so.
const SHORTEST: usize = 6;

/// What this process must not show.
static CURRENT: RwLock<Redaction> = RwLock::new(Redaction { forms: vec![], values: vec![] });

/// Has these left out of all that this process shows from now on.
pub fn install(redaction: Redaction) {
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = redaction;
}

/// Returns a text as this process may show it.
pub fn shown(text: &str) -> Cow<'_, str> {
    CURRENT.read().unwrap_or_else(PoisonError::into_inner).text(text)
}

/// Returns the content of a file as this process may show it: short values are left out as well.
pub fn shown_content(text: &str) -> Cow<'_, str> {
    CURRENT.read().unwrap_or_else(PoisonError::into_inner).content(text)
}

/// How long the longest text is that is left out.
pub fn longest_bytes() -> usize {
    let current = CURRENT.read().unwrap_or_else(PoisonError::into_inner);
    let forms = current.forms.iter().map(|(form, _)| form.len());
    // `&#x27;` and `\u0026` stand for one byte.
    forms.chain(current.values.iter().map(|(value, _)| 6 * value.len())).max().unwrap_or_default()
}

/// Values that are not shown, each with what stands for it.
#[derive(Default)]
pub struct Redaction {
    /// What is looked for as it is, the longest first.
    forms: Vec<(String, String)>,
    /// What is looked for in encoded text, the longest first.
    values: Vec<(String, String)>,
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values.iter().map(|(_, name)| name)).finish()
    }
}

impl Redaction {
    /// Leaves out the values of these variables, given by name and value.
    pub fn of_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut values = vec![];
        for (name, value) in variables {
            // Of a value with several lines each is a secret too: a program may print any of them.
            for part in std::iter::once(value).chain(value.lines()) {
                values.push((part.trim().to_owned(), format!("{{{{ {name} }}}}")));
            }
        }
        values.retain(|(value, _)| !value.is_empty());
        values.sort();
        values.dedup_by(|one, other| one.0 == other.0);
        // What stands for a value must not tell one.
        let is_told = |name: &str| values.iter().any(|(value, _)| value.len() >= SHORTEST && name.contains(&**value));
        let names: Vec<bool> = values.iter().map(|(_, name)| is_told(name)).collect();
        for ((_, name), is_told) in values.iter_mut().zip(names) {
            if is_told {
                *name = LEFT_OUT.into();
            }
        }
        values.sort_by_key(|(value, _)| Reverse(value.len()));
        let long = values.iter().filter(|(value, _)| value.len() >= SHORTEST);
        let mut forms: Vec<_> =
            long.flat_map(|(value, name)| forms(value).into_iter().map(|form| (form, name.clone()))).collect();
        forms.sort_by_key(|(form, _)| Reverse(form.len()));
        Self { forms, values }
    }

    /// A text without the values, be they plain, in base64, or encoded as in JSON, a URL or a web page. A short value is left
    /// out if its variable's name says that it is a secret, and where it stands for itself.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.without(text, |name| name == LEFT_OUT || is_sensitive(name))
    }

    /// The same of a file's content, where every short value is a secret: `pin=7461`.
    pub fn content<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.without(text, |_| true)
    }

    fn without<'a>(&self, text: &'a str, is_secret_if_short: impl Fn(&str) -> bool) -> Cow<'a, str> {
        let mut result = Cow::Borrowed(text);
        for (form, name) in &self.forms {
            if result.contains(&**form) {
                result = result.replace(&**form, name).into();
            }
        }
        for (marks, decode) in ENCODINGS {
            if !result.contains(marks) {
                continue;
            }
            for (value, name) in self.values.iter().filter(|(value, _)| value.len() >= SHORTEST) {
                while let Some((start, end)) = find_encoded(&result, value, decode) {
                    result = format!("{}{name}{}", &result[..start], &result[end..]).into();
                }
            }
        }
        let is_short = |value: &str, name: &str| value.len() < SHORTEST && is_secret_if_short(name);
        for (value, name) in self.values.iter().filter(|(value, name)| is_short(value, name)) {
            if result.contains(&**value) {
                result = replace_word(&result, value, name).into();
            }
        }
        result
    }

    /// Returns a line that every reader of a stack's events or a console may see.
    pub fn line(&self, text: &str) -> String {
        line(&self.text(text))
    }
}

/// A value and what it looks like where programs print it: escaped, and in base64, alone or within something longer.
fn forms(value: &str) -> Vec<String> {
    let json = serde_json::to_string(value).unwrap_or_default();
    let hexadecimal: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        value.to_owned(),
        json.trim_matches('"').to_owned(),
        value.escape_debug().to_string(),
        // As shells quote it.
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
        // Behind one or two other bytes, and before any: the characters that hold bits of the value alone.
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

/// A text without a value where that stands for itself, and is no part of a longer word.
fn replace_word(text: &str, value: &str, name: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut replaced = String::new();
    let mut done = 0;
    for (start, _) in text.match_indices(value) {
        let end = start + value.len();
        let goes_on = (text[..start].ends_with(is_part) && value.starts_with(is_part))
            || (text[end..].starts_with(is_part) && value.ends_with(is_part));
        if !goes_on {
            replaced.push_str(&text[done..start]);
            replaced.push_str(name);
            done = end;
        }
    }
    replaced + &text[done..]
}

/// Appends the character, or the byte of one, that a text begins with in an encoded form. Tells the length of that form.
type Decode = fn(&[u8], &mut Vec<u8>) -> Option<usize>;

/// Encodings of single characters, each with what is in every text that needs it.
const ENCODINGS: [(&[char], Decode); 3] = [(&['%', '+'], percent), (&['&'], entity), (&['\\'], escape)];

/// `%2F`, as in a URL.
fn percent(text: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    decoded.push(u8::try_from(hex(digits)?).ok()?);
    Some(3)
}

/// `&amp;`, `&#39;` or `&#x27;`, as in a web page.
fn entity(text: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
    let rest = text.strip_prefix(b"&")?;
    let end = rest.iter().take(LONGEST_ENTITY).position(|byte| *byte == b';')?;
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

/// `\n` or `\u0026`, as in JSON.
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

/// The longest name or number between `&` and `;`, with that.
const LONGEST_ENTITY: usize = 10;
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

/// Where a value stands in a text of which any characters may be encoded, and spaces be `+`.
fn find_encoded(text: &str, value: &str, decode: Decode) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let (mut decoded, mut places) = (vec![], vec![]);
    let mut at = 0;
    while at < bytes.len() {
        let width = decode(&bytes[at..], &mut decoded).unwrap_or_else(|| {
            decoded.push(bytes[at]);
            1
        });
        places.resize(decoded.len(), at);
        at += width;
    }
    places.push(bytes.len());
    let is_same = |(byte, wanted): (&u8, u8)| *byte == wanted || (*byte == b'+' && wanted == b' ');
    let found = decoded.windows(value.len()).position(|window| window.iter().zip(value.bytes()).all(is_same))?;
    Some((places[found], places[found + value.len()]))
}

/// A line without queries and passwords in URLs, without values of sensitive names, without anything that looks like a
/// key; and without control characters or anything else but ASCII, which is all that a console can be trusted with.
pub fn line(text: &str) -> String {
    if forms::is_in(text) {
        return LEFT_OUT.into();
    }
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words: Vec<String> = vec![];
    // A value may be the word after its name, as in `password = x`; after a colon it may be all that follows.
    let mut next_is_value = false;
    for word in text.split(' ') {
        if std::mem::take(&mut next_is_value) {
            next_is_value = matches!(word, "" | "=");
            words.push(if next_is_value { word.into() } else { LEFT_OUT.into() });
            continue;
        }
        let word = without_runs(&url(word));
        let Some((name, value)) = word.split_once(['=', ':']).filter(|(name, _)| is_sensitive(name)) else {
            next_is_value = is_sensitive(&word) && text.contains(&format!("{word} = "));
            words.push(word);
            continue;
        };
        let separator = &word[name.len()..=name.len()];
        words.push(format!("{name}{separator}{}", if value.is_empty() { "" } else { LEFT_OUT }));
        if separator == ":" {
            words.push(LEFT_OUT.into());
            break;
        }
        next_is_value = value.is_empty();
    }
    words.join(" ").chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    NAMES.iter().any(|sensitive| name.ends_with(sensitive) || name.starts_with(sensitive))
}

/// Returns a URL without its query, its fragment, its user and its password.
fn url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.into() };
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    // What ends the sentence is no part of the URL.
    let end = query.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "?#&=%+-._~/;@!$*".contains(c));
    let authority = rest.find('/').unwrap_or(rest.len());
    let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}{end}", &rest[host..])
}

/// Without runs of characters that may be a key or a token.
fn without_runs(word: &str) -> String {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mut result = String::new();
    for piece in word.split_inclusive(|c: char| !is_base64(c)) {
        let run = piece.trim_end_matches(|c: char| !is_base64(c));
        result.push_str(if forms::is_secret(run, 40) { LEFT_OUT } else { run });
        result.push_str(&piece[run.len()..]);
    }
    result
}

/// A value is in no text that is shown, be it plain, in base64, or encoded as in a URL or a web page, whatever stands around
/// it.
///
/// The first line is the value, and the rest the text that each form of the value is put into, at a `|`.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (value, text) = input.split_once('\n').unwrap_or((&input, "|"));
    let value = value.trim();
    // What stands for a value has these characters.
    if value.len() < SHORTEST || value.contains(['{', '}', '*']) {
        return;
    }
    let (before, after) = text.split_once('|').unwrap_or((text, ""));
    let percent: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let numbers: String = value.chars().map(|c| format!("&#{};", u32::from(c))).collect();
    let base64 = [BASE64_STANDARD, BASE64_URL_SAFE].map(|engine| engine.encode(value));
    let redaction = Redaction::of_variables([("v", value)]);
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
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_credential_is_left_out() {
        let key = ["9drTJvcXLB89EXZL", "B5hxzQeXWxtvRL2wPq", "s7/+Kd"].concat();
        let jwt = ["eyJhbGciOiJIUzI1NiIsInR5cCI6", "IkpXVCJ9eyJzdWIiOiIxMjM0NTY3"].concat();
        for (text, shown) in [
            (
                "downloading https://b.s3.amazonaws.com/app.jar?X-Amz-Signature=abc&X-Amz-Credential=ASIA: 403",
                "downloading https://b.s3.amazonaws.com/app.jar: 403",
            ),
            ("s3://b/k#sha256=00, then", "s3://b/k, then"),
            ("https://example.com/?token=x", "https://example.com/"),
            ("http://example.com:8080/a is down", "http://example.com:8080/a is down"),
            ("password=hunter2 user=a", "password=*** user=a"),
            ("db.password = hunter2 user", "db.password = *** user"),
            ("Authorization: Bearer abc def", "Authorization: ***"),
            ("\"SessionToken\": \"abc\"", "\"SessionToken\": ***"),
            (&format!("key {key} is bad"), "key *** is bad"),
            (&format!("jwt ({jwt})"), "jwt (***)"),
            (&format!("aws_secret_access_key = {key}"), "***"),
            ("https://user:pass@example.com/x", "***"),
            ("https://user@example.com/x", "https://example.com/x"),
            ("a\x1b[31mb\tc\u{e9}", "a [31mb c?"),
        ] {
            assert_eq!(line(text), shown, "{text}");
        }
    }

    #[test]
    fn what_helps_is_kept() {
        for text in [
            "the instance metadata service gives no session token, but answers 403",
            "`systemctl start glovo-app.service` failed with exit code 1",
            "/var/www/glovo-app/systems-engineer-interview-1.0.0.jar: its sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "arn:aws:s3:::my-bucket/systemd/glovo-app.service",
        ] {
            assert_eq!(line(text), text);
        }
    }

    /// A value with everything in it that is encoded somewhere.
    const VALUE: &str = "Hün/ter \"22\"+&?";

    #[test]
    fn a_value_is_left_out_in_every_form() {
        let redaction =
            Redaction::of_variables([("db", VALUE), ("lines", "first line\nsecond line\n"), ("pin", "7461")]);
        let url = |set| percent_encoding::utf8_percent_encode(VALUE, set).to_string();
        let everything = url(percent_encoding::NON_ALPHANUMERIC);
        let spaces = Redaction::of_variables([("a", "pass word")]).text("p=pass+word").into_owned();
        assert_eq!(spaces, "p={{ a }}");
        let form = url(percent_encoding::NON_ALPHANUMERIC).replace("%20", "+");
        let json = serde_json::to_string(VALUE).unwrap();
        for text in [
            VALUE,
            &everything,
            &everything.to_lowercase().replace("h%c3%bcn", "H%c3%bcn"),
            &url(percent_encoding::CONTROLS),
            &form,
            json.trim_matches('"'),
            &BASE64_STANDARD.encode(VALUE),
            &BASE64_URL_SAFE.encode(VALUE),
            "second line",
        ] {
            let shown = redaction.text(&format!("before {text} after")).into_owned();
            let is_named = shown == "before {{ db }} after" || shown == "before {{ lines }} after";
            assert!(is_named, "{text} is shown as {shown}");
        }
        // Within something longer a few bits may be left, never the value.
        for before in ["", "u", "us", "user:"] {
            let encoded = BASE64_STANDARD.encode(format!("{before}{VALUE}@host"));
            let shown = redaction.text(&encoded).into_owned();
            assert!(shown.contains("{{ db }}") && shown.len() < encoded.len(), "{encoded} is shown as {shown}");
        }
    }

    #[test]
    fn a_value_is_left_out_as_shells_quote_it() {
        let redaction = Redaction::of_variables([("a", "it's-very'secret"), ("b", r#"ab\cd"ef$gh"#)]);
        for text in [
            r"it'\''s-very'\''secret",
            r#"it'"'"'s-very'"'"'secret"#,
            r#"ab\\cd"ef$gh"#,
            r#"ab\\cd\"ef\$gh"#,
            "61625c6364226566246768",
            "61625C6364226566246768",
        ] {
            let shown = redaction.text(text).into_owned();
            assert!(["{{ a }}", "{{ b }}"].contains(&shown.as_str()), "{text} is shown as {shown}");
        }
    }

    #[test]
    fn a_value_is_left_out_as_web_pages_and_json_escape_it() {
        let redaction = Redaction::of_variables([("a", r#"<it's> "a&b" é/\"#)]);
        for text in [
            // Python, Go, PHP and XML, in this order; then numbers alone.
            r"&lt;it&#x27;s&gt; &quot;a&amp;b&quot; é/\",
            r"&lt;it&#39;s&gt; &#34;a&amp;b&#34; é/\",
            r"&lt;it&#039;s&gt; &quot;a&amp;b&quot; é/\",
            r"&lt;it&apos;s&gt; &quot;a&amp;b&quot; &#233;/\",
            r"&#60;it&#X27;s&#x3E;&#32;&#x22;a&#38;b&#x22; &#xe9;&#47;&#92;",
            // Go, Python and PHP.
            r#"\u003cit's\u003e \"a\u0026b\" é/\\"#,
            r#"<it's> \"a&b\" \u00e9/\\"#,
            r"\u003Cit\u0027s\u003E \u0022a\u0026b\u0022 \u00E9\/\\",
        ] {
            let shown = redaction.text(&format!("x=\"{text}\";")).into_owned();
            assert_eq!(shown, "x=\"{{ a }}\";", "{text}");
        }
        for text in ["a & b &; &#; &#x; &nothing; &#1114112; \\u \\ud800 \\", "&amp;lt;it"] {
            assert_eq!(redaction.text(text), text);
        }
    }

    #[test]
    fn a_short_value_whose_name_says_secret_is_left_out_of_all() {
        let redaction = Redaction::of_variables([("db_password", "ab1"), ("token", "7"), ("port", "8080")]);
        let told = redaction.text("login failed: user:ab1@host (7), port 8080, x7 ab12").into_owned();
        assert_eq!(told, "login failed: user:{{ db_password }}@host ({{ token }}), port 8080, x7 ab12");
    }

    #[test]
    fn another_short_value_is_left_out_of_contents_alone() {
        let redaction = Redaction::of_variables([("pin", "7461"), ("empty", ""), ("one", "1")]);
        assert_eq!(redaction.text("exit code 1, pin=7461"), "exit code 1, pin=7461");
        assert_eq!(redaction.content("pin=7461 17461 x7461 7461."), "pin={{ pin }} 17461 x7461 {{ pin }}.");
        assert_eq!(redaction.content("a 1 é1 (1)"), "a {{ one }} é1 ({{ one }})");
    }

    #[test]
    fn what_stands_for_a_value_does_not_tell_one() {
        let redaction = Redaction::of_variables([("password", "password"), ("other", "hunter22")]);
        assert_eq!(redaction.text("password hunter22 50%"), "*** {{ other }} 50%");
        assert_eq!(Redaction::default().text("100 % a%2Fb"), "100 % a%2Fb");
    }
}
