//! The public keys with which a user logs in, in the format of sshd(8).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::User;
use crate::{
    error::Fault,
    host::root::FileType,
    resource::{Change, Resource, directory::Directory, file::File},
    system::{Fact, System},
    value::{AbsPath, FileMode, Sha256, printable, quoted},
};

/// The types of keys that sshd accepts. DSA is not among them.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Limits the size of the file. A line has about 600 bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A line of `authorized_keys`: options, type, key and comment. Options and comment may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct SshKey(String);

/// The parts of a line that decide who may log in and how.
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
        _ = parts(line.trim())?;
        Ok(Self(line.trim().to_owned()))
    }
}

impl SshKey {
    fn parts(&self) -> Result<Parts<'_>> {
        parts(&self.0)
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
    let is_type = |word: &str| TYPES.contains(&word);
    let first = end_of_word(line);
    let (options, key) =
        if is_type(&line[..first]) { ("", line) } else { (&line[..first], line[first..].trim_start()) };
    let mut words = key.splitn(3, [' ', '\t']);
    let (name, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !is_type(name) {
        bail!("not a public SSH key: it has none of the types {}", TYPES.join(", "));
    }
    let blob = BASE64_STANDARD.decode(base64).context("not a public SSH key: the part after its type is not base64")?;
    // RFC 4253, section 6.6: the key begins with the length and the text of its type.
    let length = u32::try_from(name.len()).unwrap_or_default().to_be_bytes();
    let head = [&length, name.as_bytes()].concat();
    ensure!(
        blob.starts_with(&head) && blob.len() > head.len() + 4,
        "not a public SSH key: the part after its type is not a key of type {name}"
    );
    Ok(Parts { options, blob, comment: words.next().unwrap_or_default().trim() })
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

/// The new content of the file, and its differences from the present content in words.
struct Merged {
    text: String,
    differences: Vec<String>,
}

/// Adds the declared keys to a file. A line of a declared key with other options is replaced by the declared line.
fn merge(now: &str, declared: &[SshKey], is_exclusive: bool) -> Result<Merged> {
    let wanted: Vec<Parts<'_>> = declared.iter().map(SshKey::parts).collect::<Result<_>>()?;
    let (mut lines, mut differences, mut written) = (vec![], vec![], BTreeSet::new());
    for line in now.lines() {
        let trimmed = line.trim();
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
            (false, true) => lines.push(&declared[at].0),
            (false, false) => {}
        }
    }
    for (at, key) in wanted.iter().enumerate().filter(|(at, _)| !written.contains(at)) {
        differences.push(format!("add {}", key.in_words()));
        lines.push(&declared[at].0);
    }
    let text = lines.iter().flat_map(|line| [line, "\n"]).collect();
    Ok(Merged { text, differences })
}

impl User {
    /// Returns a key that is declared twice.
    pub(super) fn key_declared_twice(&self) -> Option<&SshKey> {
        let mut seen = BTreeSet::new();
        self.ssh_keys.iter().flatten().find(|key| key.parts().is_ok_and(|parts| !seen.insert(parts.blob)))
    }

    /// Returns the change that gives the keys to a user that an earlier change of this resource makes.
    pub(super) fn plan_keys_of_new(&self, system: &System, home: &AbsPath) -> Result<Option<Change>> {
        let Some(keys) = self.ssh_keys.as_ref().filter(|keys| !keys.is_empty()) else { return Ok(None) };
        let is_there = system.root().status(home)?.is_some() || system.expects(&Fact::Path(home.clone()));
        if self.system && !is_there {
            return Err(self.homeless(home));
        }
        let words: Vec<_> = keys.iter().map(|key| Ok(key.parts()?.in_words())).collect::<Result<_>>()?;
        let (user, home) = (self.clone(), home.clone());
        let summary = format!("add {} to {home}/.ssh/authorized_keys", words.join(", "));
        Ok(Some(Change::new(summary, move |system| user.write_keys(system, &home))))
    }

    /// Returns the changes of the keys of an existing user.
    pub(super) fn plan_keys(&self, system: &System, home: &AbsPath) -> Result<Vec<Change>> {
        let Some(keys) = &self.ssh_keys else { return Ok(vec![]) };
        let (directory, path) = (home.join(".ssh")?, home.join(".ssh/authorized_keys")?);
        if keys.is_empty() && system.root().status(&directory)?.is_none() {
            return Ok(vec![]);
        }
        let is_home = system.root().status(&system.root().resolve(home)?)?;
        if is_home.is_none_or(|status| status.file_type != FileType::Directory)
            && !system.expects(&Fact::Path(home.clone()))
        {
            return Err(self.homeless(home));
        }
        let mut changes = Directory::private(directory.clone(), &self.name).plan(system)?;
        for change in &mut changes {
            change.summary = format!("{directory}: {}", change.summary);
        }
        let now = match system.root().status(&path)? {
            Some(status) if status.file_type == FileType::Link => {
                return Err(Fault::new(format!("{path} is a symbolic link"))
                    .hint(format!("look at its target, then remove the link: rm {}", quoted(path.as_str())))
                    .into());
            }
            Some(_) => system.root().read(&path, MAX_BYTES)?,
            None => None,
        };
        let text = String::from_utf8(now.clone().unwrap_or_default());
        let text = text.map_err(|_| {
            Fault::new(format!("{path} is not UTF-8"))
                .hint(format!("find the line, then correct it: grep -naxv '.*' {}", quoted(path.as_str())))
        })?;
        let merged = merge(&text, keys, self.exclusive_ssh_keys)?;
        if now.is_none() && merged.differences.is_empty() {
            return Ok(changes);
        }
        let content = if merged.differences.is_empty() { text } else { merged.text };
        let summary = merged.differences.join(", ");
        if system.root().status(&directory)?.is_none() {
            let (user, home) = (self.clone(), home.clone());
            let made = changes.into_iter().flat_map(|change| change.brings);
            let change = Change::new(format!("{path}: {summary}"), move |system| user.write_keys(system, &home));
            return Ok(vec![change.brings(made).brings([Fact::Path(path)])]);
        }
        for mut change in File::of_user(path.clone(), content, &self.name, FileMode(0o600)).plan(system)? {
            change.summary = match summary.as_str() {
                "" => format!("{path}: {}", change.summary),
                _ => format!("{path}: {summary}"),
            };
            changes.push(change);
        }
        Ok(changes)
    }

    /// Makes `.ssh` and writes the keys.
    fn write_keys(&self, system: &System, home: &AbsPath) -> Result<()> {
        for change in Directory::private(home.join(".ssh")?, &self.name).plan(system)? {
            change.action.map_or(Ok(()), |make| make(system))?;
        }
        system.forget();
        for change in self.plan_keys(system, home)? {
            change.action.map_or(Ok(()), |make| make(system))?;
        }
        Ok(())
    }

    fn homeless(&self, home: &AbsPath) -> anyhow::Error {
        Fault::new(format!("user {} has no home directory for its SSH keys: {home} does not exist", self.name))
            .hint(format!("declare it after the user: kind = \"directory\", path = \"{home}\", owner = \"{}\"; and the keys in a later step", self.name))
            .into()
    }
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
            key(1, "", "\nssh-rsa AAAA"),
            "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
        ] {
            assert!(SshKey::try_from(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_added_and_other_lines_stay() {
        let (ours, other) = (key(1, "", " ada"), key(2, "", " bob"));
        let merged = merge(&format!("# keys\n{other}"), &declared(std::slice::from_ref(&ours)), false).unwrap();
        assert_eq!(merged.text, format!("# keys\n{other}\n{ours}\n"));
        assert!(matches!(&merged.differences[..], [one] if one.starts_with("add SHA256:") && one.ends_with(" (ada)")));
        assert!(
            merge(&merged.text, &declared(&[key(1, "", " another comment")]), false).unwrap().differences.is_empty()
        );
    }

    #[test]
    fn exclusive_keys_remove_others_and_keep_comments() {
        let (ours, other) = (key(1, "", " ada"), key(2, "", " bob"));
        let merged =
            merge(&format!("# keys\n{other}\n{ours}\nrubbish\n"), &declared(std::slice::from_ref(&ours)), true)
                .unwrap();
        assert_eq!(merged.text, format!("# keys\n{ours}\n"));
        assert_eq!(merged.differences[1], "remove a line that is not a key");
    }

    #[test]
    fn no_second_line_grants_more_than_the_declared_options() {
        let (restricted, free) = (key(1, "restrict ", ""), key(1, "", ""));
        let merged = merge(&format!("{free}\n{free}\n"), &declared(std::slice::from_ref(&restricted)), false).unwrap();
        assert_eq!(merged.text, format!("{restricted}\n"));
        let merged =
            merge(&format!("{restricted}\n{free}\n"), &declared(std::slice::from_ref(&restricted)), false).unwrap();
        assert_eq!(merged.text, format!("{restricted}\n"));
    }
}
