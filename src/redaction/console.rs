//! A line for readers elsewhere: a stack's events and a console. Everything that may be a credential is left out.

use super::{LEFT_OUT, forms, is_sensitive};

/// Returns a line without credentials, in printable ASCII.
///
/// It removes queries and passwords of URLs, values of sensitive names, and everything that looks like a key. Consoles
/// show only ASCII reliably.
pub fn line(text: &str) -> String {
    if forms::is_in(text) {
        return LEFT_OUT.into();
    }
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words: Vec<String> = vec![];
    // The value may be the word after the name, as in `password = x`. After a colon it may be the rest of the line.
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

/// Returns a URL without its query, its fragment, its user and its password.
fn url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.into() };
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    // The punctuation of the sentence is not a part of the URL.
    let end = query.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "?#&=%+-._~/;@!$*".contains(c));
    let authority = rest.find('/').unwrap_or(rest.len());
    let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}{end}", &rest[host..])
}

/// Returns a word without runs of characters that may be a key or a token.
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
