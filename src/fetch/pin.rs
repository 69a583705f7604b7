//! URLs that are pinned to the bytes behind them: `URL#sha256=HEX`.

use anyhow::Result;

use super::source::Source;
use crate::value::Sha256;

/// Stands between a URL and its digest. Servers never get it: a fragment stays with the client.
const MARK: &str = "#sha256=";

/// Splits a text into its URL and its digest, if it has one.
///
/// # Errors
/// If the digest is invalid.
pub fn split_pin(text: &str) -> Result<(&str, Option<Sha256>)> {
    match text.split_once(MARK) {
        Some((url, digest)) => Ok((url, Some(digest.parse()?))),
        None => Ok((text, None)),
    }
}

/// Returns the URL of a source with a digest.
pub fn pinned(source: &Source, digest: Sha256) -> String {
    format!("{source}{MARK}{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_url_is_split_into_what_it_was_made_of() {
        let (source, digest) = ("s3://b/k".parse().unwrap(), Sha256::of(b""));
        let text = pinned(&source, digest);
        assert_eq!(split_pin(&text).unwrap(), ("s3://b/k", Some(digest)));
        assert_eq!(split_pin("https://a/#md5=0").unwrap(), ("https://a/#md5=0", None));
        assert!(split_pin("s3://b/k#sha256=0").is_err());
    }
}
