//! The boundary between text of others and what reads it: a terminal, a log, a report.
//!
//! Text of others is whatever this program did not write itself: a program's output, the journal (and so any client's
//! User-Agent), names of files, answers of servers. A terminal obeys what such a text says: ESC ] 52 sets the clipboard,
//! U+202E turns a line around. [`crate::view`] prints nothing that has not come through here.

use std::{borrow::Cow, ops::Add};

use crate::redaction;

/// A text that may be shown as it is: it has passed [`redaction::shown`], what others wrote in it is visible, and only our
/// own colours are instructions.
///
/// Any string becomes one, as one line; text of several lines says so by [`Shown::lines`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// A text of several lines.
    pub fn lines(text: &str) -> Self {
        Self(lines(&redaction::shown(text)).into_owned())
    }

    /// A JSON document, on one line or on several.
    pub fn json(document: &str) -> Self {
        Self(json(document).into_owned())
    }

    /// One line in a colour: `code` holds the parameters of ANSI's SGR, such as `31` for red.
    pub fn painted(code: &'static str, text: &str) -> Self {
        Self(format!("\x1b[{code}m{}\x1b[0m", Self::from(text).0))
    }

    /// What a terminal gets.
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

/// A text of several lines, with each character that is an instruction shown as its number: `\x1b`, `\u{202e}`.
/// Line ends and tabs stay. What it returns it leaves as it is.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_instruction(c) && c != '\n')
}

/// The same for a text that is to stay in its line: a line end is shown as `\n`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_instruction)
}

/// A JSON document with such characters as its own escapes, `\u009b`: valid as before, and of the same meaning.
pub fn json(document: &str) -> Cow<'_, str> {
    // Elsewhere than in a string JSON has none of them but line ends.
    replaced(document, |c| is_instruction(c) && c != '\n', |c| format!("\\u{:04x}", u32::from(c)))
}

/// Control characters (C0 without the tab, DEL, C1), line separators, and those that turn the direction of what is
/// written: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>.
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
    fn every_instruction_to_a_terminal_is_shown_as_its_number() {
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
