//! Escapes foreign text for a terminal, a log or a report.
//!
//! Foreign text comes from outside this program: a program's output, the journal (and so any client's User-Agent), names
//! of files, answers of servers. A terminal obeys control characters in such a text: ESC ] 52 sets the clipboard, U+202E
//! reverses a line. [`crate::view`] prints only text that has been escaped here.

use std::{borrow::Cow, ops::Add};

use crate::redaction;

/// A text that is safe to print: [`redaction::shown`] has redacted it, and foreign control characters are escaped.
///
/// Any string converts to one line. [`Shown::lines`] makes a text of several lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Makes a text of several lines.
    pub fn lines(text: &str) -> Self {
        Self(lines(&redaction::shown(text)).into_owned())
    }

    /// Makes a JSON document, on one line or on several.
    pub fn json(document: &str) -> Self {
        Self(json(document).into_owned())
    }

    /// Makes one line in a colour. `code` has the parameters of ANSI's SGR, such as `31` for red.
    pub fn painted(code: &'static str, text: &str) -> Self {
        Self(format!("\x1b[{code}m{}\x1b[0m", Self::from(text).0))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self(line(&redaction::shown(text)).into_owned())
    }
}

impl From<&String> for Shown {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl<T: Into<Shown>> Add<T> for Shown {
    type Output = Self;

    fn add(mut self, text: T) -> Self {
        self.0.push_str(&text.into().0);
        self
    }
}

/// Returns a text with each control character as its number, such as `\x1b` or `\u{202e}`.
///
/// Line ends and tabs stay. A second call changes nothing.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_instruction(c) && c != '\n')
}

/// Returns a text as one line. A line end becomes `\n`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_instruction)
}

/// Returns a JSON document with each control character as JSON's own escape, `\u009b`. Its meaning stays the same.
pub fn json(document: &str) -> Cow<'_, str> {
    // Outside of strings, JSON has no control characters except line ends.
    replaced(document, |c| is_instruction(c) && c != '\n', |c| format!("\\u{:04x}", u32::from(c)))
}

/// Returns whether a character controls a terminal.
///
/// These are control characters (C0 without the tab, DEL, C1), line separators, and characters that change the direction
/// of text: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>.
fn is_instruction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || c.is_control() && c != '\t'
}

fn escaped(text: &str, is_shown: impl Fn(char) -> bool) -> Cow<'_, str> {
    replaced(text, is_shown, |c| match c {
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        c if c.is_ascii() => format!("\\x{:02x}", u32::from(c)),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    })
}

fn replaced(text: &str, is_shown: impl Fn(char) -> bool, shown: impl Fn(char) -> String) -> Cow<'_, str> {
    // Most texts are plain: this is asked of each resource of each run.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(&is_shown) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut result, c| {
            if is_shown(c) {
                result.push_str(&shown(c));
            } else {
                result.push(c);
            }
            result
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_control_character_is_shown_as_its_number() {
        for (text, shown) in [
            ("plain ä 漢 👩‍🚀 \t tab", "plain ä 漢 👩‍🚀 \t tab"),
            ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
            ("\u{9b}31m \u{85}", "\\u{9b}31m \\u{85}"),
            ("\x7f\x08\r", "\\x7f\\x08\\r"),
            ("\u{202a}\u{202e}\u{2066}\u{2069}", "\\u{202a}\\u{202e}\\u{2066}\\u{2069}"),
            ("\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}", "\\u{61c}\\u{200e}\\u{200f}\\u{2028}\\u{2029}"),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(lines(text), shown);
            assert_eq!(lines(shown), shown, "once is enough");
        }
        assert_eq!((lines("a\nb"), line("a\nb")), ("a\nb".into(), "a\\nb".into()));
        for c in (0..=0x1f).chain(0x7f..=0x9f).filter_map(char::from_u32).filter(|c| *c != '\t') {
            assert!(!line(&c.to_string()).contains(c), "{c:?}");
        }
    }

    #[test]
    fn only_our_own_colours_are_instructions() {
        let shown = Shown::from("a\x1b[31m\n") + Shown::painted("1", "b\x1b[0m") + Shown::lines("c\n\u{9b}");
        assert_eq!(shown.as_str(), "a\\x1b[31m\\n\x1b[1mb\\x1b[0m\x1b[0mc\n\\u{9b}");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ "a\u{9b}": "\x1b[2J\u{202e}\x7f\u{85} \n \t ä" });
        let document = json(&serde_json::to_string_pretty(&value).unwrap()).into_owned();
        assert!(!document.contains(['\x1b', '\u{9b}', '\u{202e}', '\x7f', '\u{85}']), "{document:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).unwrap(), value);
    }
}
