//! Values that are checked when they are parsed. Code with an [`AbsPath`] or a [`FileMode`] need not check it again.

pub mod distribution;
mod links;
pub mod secret_source;

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use self::links::MAX_LINKS;

/// Fails if a name, path or unit has a control character.
///
/// A newline or an escape sequence would change the meaning of a log, an fstab or a unit file.
pub fn printable(text: &str) -> Result<()> {
    // Most texts are plain ASCII, and each path passes here.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => bail!("contains the control character {}", c.escape_default()),
        None => Ok(()),
    }
}

/// An absolute path in normal form: no `..`, no `.`, no double slash, no control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct AbsPath(String);

impl AbsPath {
    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path's directory; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        self.directory().map(|directory| Self(directory.into()))
    }

    /// Returns the same as text.
    pub fn directory(&self) -> Option<&str> {
        (self.0 != "/").then(|| &self.0[..self.last_slash().max(1)])
    }

    /// The directories above this path, from `/` on.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let slashes = self.0.match_indices('/').filter(|_| self.0 != "/");
        slashes.map(|(at, _)| &self.0[..at.max(1)])
    }

    fn last_slash(&self) -> usize {
        self.0.bytes().rposition(|byte| byte == b'/').unwrap_or_default()
    }

    /// Returns the last component; empty for `/`.
    pub fn leaf(&self) -> &str {
        &self.0[self.last_slash() + 1..]
    }

    /// Returns this path with one more component.
    ///
    /// # Errors
    /// If the component is not a valid one.
    pub fn join(&self, component: &str) -> Result<Self> {
        format!("{}/{component}", self.0.trim_end_matches('/')).parse()
    }
}

impl FromStr for AbsPath {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        printable(text)?;
        ensure!(text.starts_with('/'), "`{text}` is not an absolute path");
        ensure!(text.len() < 4096, "a path has at most 4095 bytes");
        let components = text[1..].trim_end_matches('/');
        for component in components.split('/') {
            ensure!(!matches!(component, "." | ".."), "`{text}` contains `{component}`: write the path without it");
            ensure!(!component.is_empty() || components.is_empty(), "`{text}` contains an empty component");
            ensure!(component.len() < 256, "a file name has at most 255 bytes");
        }
        Ok(Self(text[..=components.len()].into()))
    }
}

/// Converts a literal path of the code. Panics if the path is invalid, so it is never used for input.
impl From<&'static str> for AbsPath {
    fn from(text: &'static str) -> Self {
        text.parse().expect("a literal absolute path")
    }
}

impl TryFrom<String> for AbsPath {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AbsPath> for String {
    fn from(path: AbsPath) -> Self {
        path.0
    }
}

impl fmt::Display for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^([0-9A-Fa-f]{64})$"))]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Returns the digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl FromStr for Sha256 {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(
            text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            "a sha256 has 64 hexadecimal digits, but this one has {} characters",
            text.chars().count()
        );
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Self(digest))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// Permission bits, written as a string of octal digits: `"0644"`. A number is refused, because in TOML `0644` is invalid
/// and `644` is decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^[0-7]{3,4}$"))]
pub struct FileMode(pub u32);

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octal;
        impl de::Visitor<'_> for Octal {
            type Value = FileMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode as a string of octal digits, such as \"0644\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileMode, E> {
                // The standard library's parser also accepts a sign.
                let is_octal = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
                let octal = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
                octal.map(FileMode).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Octal)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A number of bytes, written with a unit: `"512MiB"`, `"1GiB"`, `"4096"` (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            unit => bail!("`{unit}` is not a unit of size: use KiB, MiB, GiB or TiB"),
        };
        ensure!(!number.is_empty(), "`{text}` is not a size, such as \"512MiB\"");
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
        bytes.map(Self).ok_or_else(|| anyhow::anyhow!("`{text}` is more than a 64-bit number of bytes"))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| self.0 >> shift > 0) {
            #[expect(clippy::cast_precision_loss, reason = "a rounded figure for a message")]
            Some((unit, shift)) => {
                let number = format!("{:.1}", self.0 as f64 / (1u64 << shift) as f64);
                write!(f, "{} {unit}", number.trim_end_matches(".0"))
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A duration, written with units: `"500ms"`, `"5s"`, `"10m"`, `"1h30m"`, `"1d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^([0-9]+(ms|s|m|h|d))+$"))]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut rest, mut millis) = (text, Some(0));
        loop {
            let (number, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            let (unit, after) = after.split_at(after.bytes().take_while(|byte| !byte.is_ascii_digit()).count());
            let scale: u64 = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "" if !number.is_empty() => bail!("`{text}` needs a unit: ms, s, m, h or d"),
                _ => bail!("`{text}` is not a duration, such as \"500ms\", \"5s\", \"10m\" or \"1h30m\""),
            };
            ensure!(!number.is_empty(), "`{text}` is not a duration, such as \"500ms\", \"5s\", \"10m\" or \"1h30m\"");
            let more = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
            millis = millis.zip(more).and_then(|(millis, more): (u64, u64)| millis.checked_add(more));
            if after.is_empty() {
                break;
            }
            rest = after;
        }
        // With at most a year, no later addition to the clock can overflow.
        match millis.filter(|ms| *ms <= 366 * 24 * 3_600_000) {
            Some(ms) => Ok(Self(Duration::from_millis(ms))),
            None => bail!("`{text}` is longer than a year"),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Returns a duration for messages: `340 ms`, `6.1 s`, `3 min 05 s`.
pub fn spoken(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// Returns a word for a shell, in quotes if it needs them. Users type the commands of hints as they are shown.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%#".contains(c);
    if !word.is_empty() && !word.starts_with('#') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command as a list of arguments. No shell reads it, so it needs no quoting.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>")]
pub struct Argv(pub Vec<String>);

impl TryFrom<Vec<String>> for Argv {
    type Error = anyhow::Error;
    fn try_from(argv: Vec<String>) -> Result<Self> {
        ensure!(argv.first().is_some_and(|program| !program.is_empty()), "a command needs at least a program");
        ensure!(argv.iter().all(|argument| !argument.contains('\0')), "an argument has a NUL character");
        Ok(Self(argv))
    }
}

/// Returns whether JSON has a number that is not written as it was read: one with a point, or with more than 64 bits.
pub fn changes_digits(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_f64(),
        serde_json::Value::Array(values) => values.iter().any(changes_digits),
        serde_json::Value::Object(fields) => fields.values().any(changes_digits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_normal() {
        for (text, path) in [("/", "/"), ("/a/b", "/a/b"), ("/a/", "/a")] {
            assert_eq!(text.parse::<AbsPath>().unwrap().as_str(), path);
        }
        for bad in ["", "a", "/a/../b", "/a/./b", "/a//b", "/a\nb", "/a\x1b[0m", "/.."] {
            assert!(bad.parse::<AbsPath>().is_err(), "{bad:?}");
        }
        let path = AbsPath::from("/etc/hosts");
        assert_eq!((path.parent().unwrap().as_str(), path.leaf()), ("/etc", "hosts"));
        assert_eq!(AbsPath::from("/etc").parent().unwrap().as_str(), "/");
        assert_eq!(AbsPath::from("/").parent(), None);
    }

    #[test]
    fn a_quoted_word_is_one_word_to_a_shell() {
        for (word, shown) in [
            ("/etc/a.b", "/etc/a.b"),
            ("/srv/a b;rm", "'/srv/a b;rm'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            (r"a\x2db.service", r"'a\x2db.service'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn sizes_and_spans_have_units_and_bounds() {
        assert_eq!("1GiB".parse::<ByteSize>().unwrap().0, 1 << 30);
        assert_eq!("4096".parse::<ByteSize>().unwrap().to_string(), "4 KiB");
        for bad in [
            "",
            "GiB",
            "1GB",
            "-1",
            "1.5GiB",
            "99999999999999999999",
            "20000000TiB",
            "+1GiB",
            "1_0GiB",
            "1 GiB",
            "1GiB ",
            "０",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?}");
        }
        for (text, seconds) in [("90s", 90), ("1h30m", 5400), ("1d", 86_400)] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), seconds);
        }
        for bad in
            ["", "5", "s", "5 s", "1w", "1h30", "h1", "400d", "99999999999h", "9000h", "+5s", "5_0s", " 5s", "5s\n"]
        {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mode_is_octal_digits_and_nothing_else() {
        let mode = |text: &str| FileMode::deserialize(de::value::StrDeserializer::<de::value::Error>::new(text));
        assert_eq!((mode("0644").unwrap().0, mode("755").unwrap().0), (0o644, 0o755));
        for bad in ["", "7", "+755", "+75", "-755", "0o75", " 755", "755 ", "7_55", "0888", "07777", "٧٥٥"] {
            assert!(mode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_prints_as_64_lower_case_digits() {
        let digest = Sha256::of(b"");
        assert_eq!(digest.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse::<Sha256>().unwrap(), digest);
        assert!("é".repeat(32).parse::<Sha256>().is_err());
    }
}
