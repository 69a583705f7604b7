//! The last pass over words that leave the machine: what is or may be a credential is left out, whoever put it there.

use crate::credentials;

/// What stands for something left out.
const LEFT_OUT: &str = "***";
/// A name that ends or begins with one of these has a value that is nobody's business.
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

/// A value shorter than this is a word like others, and no secret.
const SHORTEST: usize = 6;

/// A text in which the values of variables are replaced by their names.
pub(super) fn values(text: &str, secrets: &[(String, String)]) -> String {
    // A value that holds another one comes first; of one with several lines each is looked for.
    let lines = |(name, value): &(String, String)| -> Vec<(String, String)> {
        value.lines().map(|line| (format!("{{{{ {name} }}}}"), line.trim().to_owned())).collect()
    };
    let mut all: Vec<(String, String)> = secrets.iter().flat_map(lines).collect();
    all.retain(|(_, value)| value.len() >= SHORTEST);
    all.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    all.iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, name))
}

/// A line that may be shown to whoever sees a stack's events or a console.
pub fn shown(text: &str, secrets: &[(String, String)]) -> String {
    line(&values(text, secrets))
}

/// A line without queries and passwords in URLs, without values of sensitive names, without anything that looks like a
/// key; and without control characters or anything else but ASCII, which is all that a console can be trusted with.
pub(super) fn line(text: &str) -> String {
    if credentials::is_in(text) {
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

/// A URL without its query, its fragment and whoever logs in.
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
        result.push_str(if credentials::is_secret(run, 40) { LEFT_OUT } else { run });
        result.push_str(&piece[run.len()..]);
    }
    result
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
}
