//! Secrets that are found again: each has two words that stand in no other text.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};

/// A secret value, by the name of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Canary(pub &'static str);

/// A word of a canary in one form, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub name: &'static str,
    pub form: &'static str,
    pub text: String,
}

impl Canary {
    /// Returns the value. It has nothing that a URL, JSON or a shell would have to quote.
    pub fn value(self) -> String {
        self.halves().join("/")
    }

    /// Returns its words. A value that is cut in the middle still shows one of them.
    pub fn halves(self) -> [String; 2] {
        [format!("qv{}lx", self.0), format!("zj{}wk", self.0)]
    }
}

/// Returns the forms of a word: plain, reversed, in base64 wherever it stands in the encoded text, hexadecimal, and
/// percent-encoded.
fn forms(word: &str) -> Vec<(&'static str, String)> {
    let hex = |before: &str| word.bytes().map(|byte| format!("{before}{byte:02x}")).collect::<String>();
    let mut forms = vec![
        ("plain", word.to_owned()),
        ("reversed", word.chars().rev().collect()),
        ("hexadecimal", hex("")),
        ("hexadecimal", hex("").to_uppercase()),
        ("percent-encoded", hex("%")),
        ("percent-encoded", hex("%").to_uppercase()),
    ];
    for before in 0..3 {
        let encoded = BASE64_STANDARD.encode([&[0; 2][..before], word.as_bytes()].concat());
        // These characters depend only on the word.
        let (first, last) = ((before * 8).div_ceil(6), (before + word.len()) * 8 / 6);
        forms.push(("base64", encoded[first..last].to_owned()));
    }
    forms
}

/// Returns all forms of all words.
pub fn patterns(canaries: &[Canary]) -> Vec<Hit> {
    let mut patterns = vec![];
    for canary in canaries {
        for word in canary.halves() {
            let forms = forms(&word).into_iter();
            patterns.extend(forms.map(|(form, text)| Hit { name: canary.0, form, text }));
        }
    }
    // The credentials of the machine's role are not ours to choose.
    for text in machine::SECRETS {
        patterns.push(Hit { name: "role", form: "plain", text: text.to_owned() });
    }
    patterns
}

/// Returns what stands in a text.
pub fn found(text: &str, patterns: &[Hit]) -> BTreeSet<Hit> {
    patterns.iter().filter(|hit| text.contains(&hit.text)).cloned().collect()
}
