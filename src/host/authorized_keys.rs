//! Public SSH keys and files of them, in the format of `authorized_keys` in sshd(8).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{Sha256, printable};

/// The types of keys that sshd accepts, each with the number of parts of its key, RFC 4253 and OpenSSH's PROTOCOL.u2f.
/// DSA is not among them.
const TYPES: [(&str, usize); 7] = [
    ("ssh-ed25519", 2),
    ("ssh-rsa", 3),
    ("ecdsa-sha2-nistp256", 3),
    ("ecdsa-sha2-nistp384", 3),
    ("ecdsa-sha2-nistp521", 3),
    ("sk-ssh-ed25519@openssh.com", 3),
    ("sk-ecdsa-sha2-nistp256@openssh.com", 4),
];
/// The options without a value, sshd(8). sshd takes upper-case letters for lower-case ones.
const FLAGS: [&str; 2] = ["restrict", "cert-authority"];
/// The options without a value that also exist with `no-` before them.
const SWITCHES: [&str; 7] =
    ["agent-forwarding", "port-forwarding", "pty", "touch-required", "user-rc", "verify-required", "x11-forwarding"];
/// The options with a value in double quotes.
const WITH_VALUE: [&str; 8] =
    ["command", "environment", "expiry-time", "from", "permitlisten", "permitopen", "principals", "tunnel"];

/// A line of `authorized_keys`: options, type, key and comment. Options and comment may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct SshKey(String);

/// The parts of a line: sshd allows a login by its key, within its options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Parts<'a> {
    options: &'a str,
    blob: Vec<u8>,
    comment: &'a str,
}

impl TryFrom<String> for SshKey {
    type Error = anyhow::Error;

    fn try_from(line: String) -> Result<Self> {
        printable(&line)?;
        check_options(parts(line.trim())?.options)?;
        Ok(Self(line.trim().to_owned()))
    }
}

impl SshKey {
    fn parts(&self) -> Result<Parts<'_>> {
        parts(&self.0)
    }

    /// Returns the bytes of its key, which are the same for other options and comments.
    pub fn blob(&self) -> Option<Vec<u8>> {
        Some(self.parts().ok()?.blob)
    }

    /// Returns the digest of its key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.parts().map_or_else(|_| String::new(), |parts| parts.fingerprint())
    }
}

impl Parts<'_> {
    fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::of(&self.blob).0))
    }

    fn in_words(&self) -> String {
        if self.comment.is_empty() { self.fingerprint() } else { format!("{} ({})", self.fingerprint(), self.comment) }
    }
}

/// Splits a line. Returns an error if it is not a key.
fn parts(line: &str) -> Result<Parts<'_>> {
    ensure!(!line.starts_with('#'), "not a public SSH key: a line with `#` is a comment");
    let type_of = |word: &str| TYPES.iter().find(|(name, _)| *name == word);
    let first = end_of_word(line);
    let (options, key) =
        if type_of(&line[..first]).is_some() { ("", line) } else { (&line[..first], line[first..].trim_start()) };
    let mut words = key.splitn(3, [' ', '\t']);
    let (name, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((_, number)) = type_of(name) else {
        bail!("not a public SSH key: it has none of the types {}", TYPES.map(|(name, _)| name).join(", "));
    };
    let blob = BASE64_STANDARD.decode(base64).context("not a public SSH key: the part after its type is not base64")?;
    ensure!(
        is_whole(&blob, name, *number),
        "not a public SSH key: the part after its type is not a whole key of type {name}"
    );
    Ok(Parts { options, blob, comment: words.next().unwrap_or_default().trim() })
}

/// Returns whether a key has all of its parts, RFC 4253, section 6.6. The first one is the type. Each part begins with its
/// length.
fn is_whole(mut blob: &[u8], name: &str, number: usize) -> bool {
    let mut parts = vec![];
    while let Some((length, rest)) = blob.split_first_chunk() {
        let Some((part, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { return false };
        parts.push(part);
        blob = rest;
    }
    let has_size = |part: &[u8]| if name.contains("ed25519") { part.len() == 32 } else { !part.is_empty() };
    blob.is_empty() && parts.len() == number && parts[0] == name.as_bytes() && has_size(parts[1])
}

/// Fails if sshd would not accept a key because of its options.
fn check_options(options: &str) -> Result<()> {
    let mut rest = options;
    while !rest.is_empty() {
        let (written, after) = rest.split_at(rest.find([',', '=']).unwrap_or(rest.len()));
        let name = written.to_ascii_lowercase();
        rest = if WITH_VALUE.contains(&&*name) {
            let value = after.strip_prefix("=\"").and_then(|value| value.split_at_checked(end_of_value(value)?));
            &value.with_context(|| format!("the option `{written}` needs a value: {name}=\"VALUE\""))?.1[1..]
        } else {
            let is_switch = SWITCHES.contains(&name.strip_prefix("no-").unwrap_or(&name));
            ensure!(
                (FLAGS.contains(&&*name) || is_switch) && !after.starts_with('='),
                "`{}` is not an option of sshd, which would refuse the key",
                written.escape_debug()
            );
            after
        };
        match rest.strip_prefix(',') {
            Some("") => bail!("a comma ends the options, and sshd would refuse the key"),
            Some(next) => rest = next,
            None => ensure!(rest.is_empty(), "a comma is missing after the option `{written}`"),
        }
    }
    Ok(())
}

/// Returns the place of the quote that ends a value. `\"` is a quote in it.
fn end_of_value(value: &str) -> Option<usize> {
    value.match_indices('"').map(|(at, _)| at).find(|at| !value[..*at].ends_with('\\'))
}

/// Returns the end of the first word. A quoted part of an option may have spaces.
fn end_of_word(line: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            '"' if !is_escaped => is_quoted = !is_quoted,
            ' ' | '\t' if !is_quoted => return at,
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    line.len()
}

/// The result of [`merge`].
pub struct MergedKeys {
    /// The new content.
    pub content: Vec<u8>,
    /// Its differences from the present content, in words.
    pub differences: Vec<String>,
}

/// Adds the declared keys to a file. A line of a declared key with other options is replaced by the declared line.
///
/// Other lines stay as they are. Their comments may be in any encoding.
pub fn merge(now: &[u8], declared: &[SshKey], is_exclusive: bool) -> Result<MergedKeys> {
    let wanted: Vec<Parts<'_>> = declared.iter().map(SshKey::parts).collect::<Result<_>>()?;
    let (mut lines, mut differences, mut written) = (vec![], vec![], BTreeSet::new());
    for line in now.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        let trimmed = text.trim();
        let found = parts(trimmed).ok();
        let Some(at) = found.as_ref().and_then(|key| wanted.iter().position(|other| other.blob == key.blob)) else {
            let stays = !is_exclusive || trimmed.is_empty() || trimmed.starts_with('#');
            if stays {
                lines.push(line);
            } else {
                differences.push(match found {
                    Some(key) => format!("remove {}", key.fingerprint()),
                    None => "remove a line that is not a key".to_owned(),
                });
            }
            continue;
        };
        let is_same = found.is_some_and(|key| key.options == wanted[at].options);
        let is_first = written.insert(at);
        if !is_same {
            differences.push(format!("set the options of {}", wanted[at].in_words()));
        }
        // A further line of the same key could grant more than the declared one.
        match (is_same, is_first) {
            (true, _) => lines.push(line),
            (false, true) => lines.push(declared[at].0.as_bytes()),
            (false, false) => {}
        }
    }
    for (at, key) in wanted.iter().enumerate().filter(|(at, _)| !written.contains(at)) {
        differences.push(format!("add {}", key.in_words()));
        lines.push(declared[at].0.as_bytes());
    }
    let content = lines.iter().flat_map(|line| [*line, b"\n"]).flatten().copied().collect();
    Ok(MergedKeys { content, differences })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8, before: &str, after: &str) -> String {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend([seed; 32]);
        format!("{before}ssh-ed25519 {}{after}", BASE64_STANDARD.encode(blob))
    }

    fn declared(lines: &[String]) -> Vec<SshKey> {
        lines.iter().map(|line| SshKey::try_from(line.clone()).unwrap()).collect()
    }

    #[test]
    fn a_key_is_a_type_and_its_base64() {
        for good in [
            key(1, "", ""),
            key(1, "", " ada@laptop of 2027"),
            key(1, "no-X11-forwarding,NO-pty,environment=\"A=,\",tunnel=\"0\" ", ""),
            key(1, "restrict,command=\"echo \\\"a b\\\"\",from=\"10.0.0.0/8\" ", " ada"),
        ] {
            assert!(SshKey::try_from(good.clone()).is_ok(), "{good}");
        }
        for bad in [
            String::new(),
            "ssh-ed25519".to_owned(),
            "ssh-ed25519 AAAA".to_owned(),
            key(1, "", "").replace("ssh-ed25519", "ssh-rsa"),
            key(1, "", "").replace("ssh-ed25519", "ssh-dss"),
            key(1, "command=\"open ", ""),
            key(1, "# ", ""),
            key(1, "", "").trim_end_matches('=').get(..60).unwrap_or_default().to_owned(),
            key(1, "restict,no-pty ", ""),
            key(1, "no-restrict ", ""),
            key(1, "restrict, ", ""),
            key(1, "from=10.0.0.1 ", ""),
            key(1, "command ", ""),
            key(1, "pty=\"yes\" ", ""),
            key(1, "from=\"10.0.0.1\"pty ", ""),
            key(1, ",pty ", ""),
            key(1, "", "\nssh-rsa AAAA"),
            "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
        ] {
            assert!(SshKey::try_from(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_added_and_other_lines_stay() {
        let (ours, other) = (key(1, "", " ada"), key(2, "", " bob"));
        let merged =
            merge(format!("# keys\n{other}").as_bytes(), &declared(std::slice::from_ref(&ours)), false).unwrap();
        assert_eq!(merged.content, format!("# keys\n{other}\n{ours}\n").as_bytes());
        assert!(matches!(&merged.differences[..], [one] if one.starts_with("add SHA256:") && one.ends_with(" (ada)")));
        assert!(
            merge(&merged.content, &declared(&[key(1, "", " another comment")]), false).unwrap().differences.is_empty()
        );
    }

    #[test]
    fn lines_in_any_encoding_stay_as_they_are() {
        let ours = key(1, "", "");
        let now = [key(2, "", " M").as_bytes(), b"\xfcller\r\n\xff\n"].concat();
        let merged = merge(&now, &declared(std::slice::from_ref(&ours)), false).unwrap();
        assert_eq!(merged.content, [&now, ours.as_bytes(), b"\n"].concat());
    }

    #[test]
    fn exclusive_keys_remove_others_and_keep_comments() {
        let (ours, other) = (key(1, "", " ada"), key(2, "", " bob"));
        let merged = merge(
            format!("# keys\n{other}\n{ours}\nrubbish\n").as_bytes(),
            &declared(std::slice::from_ref(&ours)),
            true,
        )
        .unwrap();
        assert_eq!(merged.content, format!("# keys\n{ours}\n").as_bytes());
        assert_eq!(merged.differences[1], "remove a line that is not a key");
    }

    #[test]
    fn no_second_line_grants_more_than_the_declared_options() {
        let (restricted, free) = (key(1, "restrict ", ""), key(1, "", ""));
        let merged =
            merge(format!("{free}\n{free}\n").as_bytes(), &declared(std::slice::from_ref(&restricted)), false).unwrap();
        assert_eq!(merged.content, format!("{restricted}\n").as_bytes());
        let merged =
            merge(format!("{restricted}\n{free}\n").as_bytes(), &declared(std::slice::from_ref(&restricted)), false)
                .unwrap();
        assert_eq!(merged.content, format!("{restricted}\n").as_bytes());
    }
}
