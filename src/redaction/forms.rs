//! The recognition of credentials by their form. Each function that finds one returns the position of the first.

use std::borrow::Cow;

/// Finds a private key: its header, and soon after it a line of its body.
pub fn private_key(text: &str) -> Option<usize> {
    text.match_indices("-----BEGIN ").map(|(at, _)| at).find(|at| {
        let after = &text[*at..];
        let Some((header, body)) = after[11..].split_once("-----") else { return false };
        let is_key = header.ends_with("PRIVATE KEY") || header == "PGP PRIVATE KEY BLOCK";
        is_key && header.len() < 40 && runs(body, 600).any(|(_, run)| run.len() >= 48)
    })
}

/// Finds a secret access key of AWS, after its name or soon after a key id.
pub fn aws_secret(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let words = ["secret_access_key", "secretaccesskey", "aws_secret_key"];
    let named = words.iter().flat_map(|name| lower.match_indices(name)).find(|(at, name)| {
        let after = &text[at + name.len()..];
        let value = after.trim_start_matches([' ', '\t', '"', '\'', '=', ':']);
        let between = &after[..after.len() - value.len()];
        let secret = runs(value, 200).next().filter(|(start, _)| *start == 0);
        between.contains(['=', ':']) && between.len() < 10 && secret.is_some_and(|(_, run)| is_secret(run, 20))
    });
    let with_id = ["AKIA", "ASIA"].iter().flat_map(|prefix| text.match_indices(prefix)).find(|(at, _)| {
        let is_id = |run: &str| run.len() == 20 && run.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let begins = !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric());
        let mut runs = runs(&text[*at..], 300);
        begins
            && runs.next().is_some_and(|(_, run)| is_id(run) && !run.contains("EXAMPLE"))
            && runs.any(|(_, run)| run.len() == 40 && is_secret(run, 40))
    });
    named.into_iter().chain(with_id).map(|(at, _)| at).min()
}

/// Returns whether a text has a credential that is recognized by its form.
pub fn is_in(text: &str) -> bool {
    [private_key, aws_secret, url_password].iter().any(|find| find(text).is_some())
}

/// Returns whether a run of characters may be a secret.
///
/// It must be too mixed for a name or a hexadecimal digest, and not the example in AWS's manuals.
pub fn is_secret(run: &str, shortest: usize) -> bool {
    let distinct = run.bytes().collect::<std::collections::BTreeSet<_>>().len();
    let has = |is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
    run.len() >= shortest
        && distinct > 10
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
        && !run.contains("EXAMPLE")
}

/// Returns the runs of base64 characters at the beginning of a text, with their positions.
fn runs(text: &str, length: usize) -> impl Iterator<Item = (usize, &str)> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mut end = text.len().min(length);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut at = 0;
    let pieces = text[..end].split(move |c| !is_base64(c)).map(move |run| {
        let start = at;
        // The character after a run may have several bytes. Only the position of the first run must be exact.
        at += run.len() + 1;
        (start, run)
    });
    pieces.filter(|(_, run)| !run.is_empty())
}

/// Finds `password` followed by a word; netrc(5).
pub fn netrc_password(text: &str) -> Option<usize> {
    let mut words = text.split_ascii_whitespace();
    let found = words.any(|word| word == "password") && words.next().is_some();
    found.then(|| text.find("password"))?
}

/// Finds a URL with a password: `https://user:password@host`.
pub fn url_password(text: &str) -> Option<usize> {
    text.match_indices("://").map(|(at, _)| at).find(|at| {
        let authority = text[at + 3..].split(['/', '\n']).next().unwrap_or_default();
        authority.split_once('@').and_then(|(user, _)| user.split_once(':')).is_some_and(|(_, word)| !word.is_empty())
    })
}

/// Returns the passwords of the URLs in a text, each with its position.
pub(super) fn url_passwords(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("://").filter_map(|(at, _)| {
        let authority = text[at + 3..].split(|c: char| c == '/' || c.is_whitespace()).next().unwrap_or_default();
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':').filter(|(_, password)| !password.is_empty())?;
        Some((at + 3 + name.len() + 1, password))
    })
}

/// Returns a text in which each password of a URL is replaced.
pub fn without_url_passwords<'a>(text: &'a str, replacement: &str) -> Cow<'a, str> {
    let (mut result, mut done) = (String::new(), 0);
    for (start, password) in url_passwords(text) {
        if start >= done {
            result = result + &text[done..start] + replacement;
            done = start + password.len();
        }
    }
    if done == 0 { text.into() } else { (result + &text[done..]).into() }
}
