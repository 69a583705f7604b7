//! A reader of `OpenPGP` keyrings that returns the fingerprints of their public keys; RFC 4880.
//!
//! A package manager trusts every key of a repository's keyring, also a second key hidden behind the expected one. So
//! this reader refuses everything that it does not understand.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use schemars::JsonSchema;
use serde::Deserialize;
use sha1::Digest;

use crate::error::Fault;

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// Packet tags, RFC 4880 section 4.3.
const SECRET_KEY: u8 = 5;
const PUBLIC_KEY: u8 = 6;
const SIGNATURE: u8 = 2;
/// The packets that may follow a public key: signature, trust, user id, public subkey, user attribute.
const PARTS_OF_A_CERTIFICATE: [u8; 5] = [2, 12, 13, 14, 17];

/// The fingerprint of a key: 40 hexadecimal digits, as `gpg --show-keys` prints it. Spaces are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^( *[0-9A-Fa-f]){40} *$"))]
pub struct Fingerprint([u8; 20]);

impl FromStr for Fingerprint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        ensure!(
            digits.len() == 40 && digits.iter().all(u8::is_ascii_hexdigit),
            "a fingerprint has 40 hexadecimal digits (a shorter key id can be forged), but this one has {}",
            digits.len()
        );
        let mut fingerprint = [0; 20];
        for (byte, pair) in fingerprint.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Self(fingerprint))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A keyring as packets.
///
/// A package manager gets the packets, never the armored text: its verifier finds blocks of armor where this reader finds none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    packets: Vec<u8>,
    primary_keys: Vec<Fingerprint>,
}

impl Keyring {
    /// Reads a key file: packets or armored text.
    ///
    /// # Errors
    /// If it has other content than public keys, or no key.
    pub fn read(file: &[u8]) -> Result<Self> {
        // A packet's first byte has its highest bit set.
        let is_armored = file.first().is_some_and(|byte| byte & 0x80 == 0);
        let packets = if is_armored { dearmor(file)? } else { file.to_vec() };
        let primary_keys = fingerprints(&packets)?;
        Ok(Self { packets, primary_keys })
    }

    /// Returns the packets, joined.
    pub fn packets(&self) -> &[u8] {
        &self.packets
    }

    /// Returns the fingerprints of its primary keys; at least one.
    pub fn primary_keys(&self) -> &[Fingerprint] {
        &self.primary_keys
    }

    /// Returns the armored text, with one block for each primary key. A package manager may read only the first one of a block.
    pub fn armored(&self) -> String {
        let mut blocks: Vec<Vec<u8>> = vec![];
        let mut rest = &self.packets[..];
        while let Some((whole, tag, _)) = next_packet(&mut rest) {
            match blocks.last_mut() {
                Some(block) if tag != PUBLIC_KEY => block.extend(whole),
                _ => blocks.push(whole.to_vec()),
            }
        }
        blocks.iter().map(|block| armor(block)).collect()
    }

    /// Returns when its last primary key expires, in seconds since 1970; `None` if one of them never does.
    pub fn expiry(&self) -> Option<u64> {
        let mut keys: Vec<PrimaryKey> = vec![];
        let mut rest = &self.packets[..];
        while let Some((_, tag, body)) = next_packet(&mut rest) {
            match (tag, keys.last_mut()) {
                (PUBLIC_KEY, _) => {
                    keys.push(PrimaryKey { created: number(body.get(1..5)?), signed: 0, lifetime: None });
                }
                (SIGNATURE, Some(key)) => key.read(body),
                _ => {}
            }
        }
        let expiries: Option<Vec<_>> = keys.iter().map(|key| Some((key.created + key.lifetime?) as u64)).collect();
        expiries?.into_iter().max()
    }
}

/// What the signatures of a primary key say about its life. Times are in seconds.
struct PrimaryKey {
    created: usize,
    /// The time of the newest signature that counts.
    signed: usize,
    lifetime: Option<usize>,
}

impl PrimaryKey {
    /// Reads a signature: of a user id (0x10 to 0x13) or of the key (0x1F); RFC 4880 section 5.2.
    ///
    /// The newest one counts. If another key has made it, it has no lifetime, and the key counts as one without an end.
    fn read(&mut self, body: &[u8]) {
        let &[4, 0x10..=0x13 | 0x1F, _, _, high, low, ..] = body else { return };
        let Some(mut rest) = body.get(6..6 + number(&[high, low])) else { return };
        let (mut signed, mut lifetime) = (0, None);
        while let Some((kind, data)) = subpacket(&mut rest) {
            match kind & 0x7F {
                2 => signed = number(data),
                9 => lifetime = Some(number(data)).filter(|lifetime| *lifetime > 0),
                _ => {}
            }
        }
        if signed >= self.signed {
            (self.signed, self.lifetime) = (signed, lifetime);
        }
    }
}

/// Takes a subpacket's type and data off the front; section 5.2.3.1.
fn subpacket<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let length = match take(rest, 1)?[0] {
        short @ 0..192 => usize::from(short),
        long @ 192..255 => ((usize::from(long) - 192) << 8) + number(take(rest, 1)?) + 192,
        255 => number(take(rest, 4)?),
    };
    let (kind, data) = take(rest, length)?.split_first()?;
    Some((*kind, data))
}

/// Takes a whole packet off the front, and returns it with its tag and body.
fn next_packet<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], u8, &'a [u8])> {
    let before = *rest;
    let (tag, body) = packet(rest)?;
    Some((&before[..before.len() - rest.len()], tag, body))
}

/// Returns packets as a block of armored text; RFC 4880 section 6.2. Some readers need the checksum.
fn armor(packets: &[u8]) -> String {
    let body = BASE64.encode(packets);
    let lines = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    let checksum = BASE64.encode(&crc24(packets).to_be_bytes()[1..]);
    format!("{BEGIN}\n\n{lines}\n={checksum}\n{END}\n")
}

/// Returns the checksum of section 6.1.
fn crc24(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 0x80_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x186_4CFB };
    bytes.iter().fold(0xB7_04CE, |crc, byte| (0..8).fold(crc ^ u32::from(*byte) << 16, step) & 0xFF_FFFF)
}

/// Returns the fingerprints of the primary keys among packets.
fn fingerprints(packets: &[u8]) -> Result<Vec<Fingerprint>> {
    let mut rest = packets;
    let mut fingerprints = vec![];
    while !rest.is_empty() {
        let (tag, body) = packet(&mut rest).context("the key is incomplete or is not an OpenPGP key")?;
        match tag {
            PUBLIC_KEY => fingerprints.push(fingerprint(body)?),
            SECRET_KEY => bail!("the file has a secret key; publish only the public key (gpg --export)"),
            tag if PARTS_OF_A_CERTIFICATE.contains(&tag) && !fingerprints.is_empty() => {}
            tag => bail!("the file has an OpenPGP packet of type {tag}, which does not belong to a public key"),
        }
    }
    ensure!(!fingerprints.is_empty(), "the file has no public key");
    Ok(fingerprints)
}

/// Returns the packets of all blocks of an armored text; RFC 4880 section 6.2.
///
/// Only blank lines may be between blocks. In other text, the operator or a verifier might see another key.
fn dearmor(text: &[u8]) -> Result<Vec<u8>> {
    let mut packets = vec![];
    let mut lines = text.split(|byte| *byte == b'\n').map(trim_end).enumerate();
    while let Some((index, line)) = lines.next() {
        if line == BEGIN.as_bytes() {
            packets.extend(block(lines.by_ref().map(|(_, line)| line))?);
        } else if !line.is_empty() {
            let shown: String = String::from_utf8_lossy(line).escape_debug().take(80).collect();
            let message = format!("line {} of the key is outside a public key block: `{shown}`", index + 1);
            return Err(Fault::new(message)
                .hint(format!("publish a key file without text before `{BEGIN}` or after `{END}`"))
                .into());
        }
    }
    ensure!(!packets.is_empty(), "there is no line `{BEGIN}`");
    Ok(packets)
}

/// Returns the packets of a block, from its second line on. The checksum is ignored, as RFC 9580 section 6.1 requires.
fn block<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let is_header = line.windows(2).any(|pair| pair == b": ");
        ensure!(is_header, "the armor's headers are not followed by an empty line");
    }
    let mut body = vec![];
    let mut is_over = false;
    for line in lines {
        if line == END.as_bytes() {
            return BASE64.decode(body).context("the armored key is not valid Base64");
        }
        ensure!(!is_over, "the armored key continues after its checksum");
        is_over = line.starts_with(b"=") && line.len() == 5;
        if !is_over {
            body.extend(line);
        }
    }
    bail!("the armored key has no line `{END}`")
}

/// Returns a line without the blanks at its end, which armor may have.
fn trim_end(line: &[u8]) -> &[u8] {
    let blanks = line.iter().rev().take_while(|byte| b" \t\r".contains(byte)).count();
    &line[..line.len() - blanks]
}

/// Takes a packet's tag and body off the front; section 4.2.
///
/// Returns `None` for indeterminate and partial lengths, which only data packets may have.
fn packet<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let header = take(rest, 1)?[0];
    let (tag, length) = if header & 0xC0 == 0xC0 {
        let length = match take(rest, 1)?[0] {
            short @ 0..192 => usize::from(short),
            long @ 192..224 => ((usize::from(long) - 192) << 8) + number(take(rest, 1)?) + 192,
            255 => number(take(rest, 4)?),
            _ => return None,
        };
        (header & 0x3F, length)
    } else if header & 0x80 != 0 {
        let length = match header & 3 {
            0 => number(take(rest, 1)?),
            1 => number(take(rest, 2)?),
            2 => number(take(rest, 4)?),
            _ => return None,
        };
        (header >> 2 & 0x0F, length)
    } else {
        return None;
    };
    Some((tag, take(rest, length)?))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(length)?;
    *rest = back;
    Some(front)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Returns the SHA-1 of 0x99, the length in two bytes and the body; section 12.2.
fn fingerprint(body: &[u8]) -> Result<Fingerprint> {
    let version = body.first().context("the OpenPGP key is empty")?;
    ensure!(*version == 4, "the OpenPGP key has version {version}, but only version 4 is supported");
    let length = u16::try_from(body.len()).context("the OpenPGP key is too long")?;
    let digest = sha1::Sha1::new().chain_update([0x99]).chain_update(length.to_be_bytes()).chain_update(body);
    Ok(Fingerprint(digest.finalize().into()))
}

/// Checks that the packets of a keyring are read again as the same keyring: alone, twice and in armor.
///
/// Text outside the armor must be refused.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let read = |file: &[u8]| Keyring::read(file).ok();
    let Ok(keyring) = Keyring::read(input) else { return };
    assert!(!keyring.primary_keys.is_empty());
    assert_eq!(read(keyring.packets()).as_ref(), Some(&keyring));
    let twice = read(&keyring.packets().repeat(2)).map(|twice| twice.primary_keys);
    assert_eq!(twice, Some(keyring.primary_keys.repeat(2)));
    let armor = format!("{BEGIN}\n\n{}\n{END}\n", BASE64.encode(keyring.packets()));
    assert_eq!(read(armor.as_bytes()).as_ref(), Some(&keyring));
    assert_eq!(read(keyring.armored().as_bytes()).as_ref(), Some(&keyring));
    _ = keyring.expiry();
    for outside in ["BEGIN PGP PUBLIC KEY BLOCK", "x", "-----", "\u{2014}"] {
        assert_eq!(read(format!("{outside}\n{armor}").as_bytes()), None);
        assert_eq!(read(format!("{armor}{outside}\n").as_bytes()), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that gpg 2.2 made for this test.
    const KEY: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawM6YBYJKwYBBAHaRw8BAQdAzOb7Gz5fYO4Xc1tXP1uZBz27Z4kEKa0M3sva
NQwyrNu0KGEgdGVzdCBvZiBnbG92by1ib290c3RyYXAgPHRlc3RAaW52YWxpZD6I
kAQTFggAOBYhBC7kJdgbSaU4a4UG3ZqcWnNQ402yBQJrAzpgAhsDBQsJCAcCBhUK
CQgLAgQWAgMBAh4BAheAAAoJEJqcWnNQ402yYYkA/iSIrgg8V5JyP40Hd62JmraT
AqzGY+SPI7QKNDruAP4HAP9i1FpU1MeW1oiUr8hPRXGHijFGyu+yYn7VSM3gKy1y
Aw==
=KR5f
-----END PGP PUBLIC KEY BLOCK-----
";
    /// As gpg prints it.
    const FINGERPRINT: &str = "2EE4 25D8 1B49 A538 6B85  06DD 9A9C 5A73 50E3 4DB2";

    fn refused(file: &[u8]) -> String {
        format!("{:#}", Keyring::read(file).unwrap_err())
    }

    fn primary_keys(file: &[u8]) -> Vec<Fingerprint> {
        Keyring::read(file).unwrap().primary_keys
    }

    #[test]
    fn a_key_has_the_fingerprint_that_gpg_prints() {
        let expected = [FINGERPRINT.parse().unwrap()];
        assert_eq!(primary_keys(KEY.as_bytes()), expected);
        let binary = dearmor(KEY.as_bytes()).unwrap();
        assert_eq!(primary_keys(&binary), expected);
        assert_eq!(Keyring::read(KEY.as_bytes()).unwrap().packets(), binary, "what apt is given");
        assert_eq!(expected[0].to_string(), FINGERPRINT.replace(' ', ""));
        let windows =
            KEY.replace('\n', "\r\n").replace("BLOCK-----\r\n\r\n", "BLOCK-----\r\nVersion: GnuPG v2\r\n\r\n");
        assert_eq!(Keyring::read(windows.as_bytes()).unwrap().packets(), binary);
        // The same packet with a header of the new format, lengths of two and of five bytes.
        let body = &binary[2..2 + usize::from(binary[1])];
        let length = u8::try_from(body.len()).unwrap();
        assert_eq!(primary_keys(&[&[0xC6, 255, 0, 0, 0, length], body].concat()), expected);
    }

    /// A key that gpg 2.2 made for this test on 2020-01-01, for one year.
    const EXPIRED: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEXgvhABYJKwYBBAHaRw8BAQdAXtBo/LprsHZPqRGw78Vfu7+EKICSLkVb1PZE
9WG+p4e0JnRlc3Qgb2YgZ2xvdm8tYm9vdHN0cmFwIDx0ZXN0QGludmFsaWQ+iJYE
ExYIAD4WIQT0EnhQDGIDNHQ242KfdlAyuCdcGQUCXgvhAAIbAwUJAeEzgAULCQgH
AgYVCgkICwIEFgIDAQIeAQIXgAAKCRCfdlAyuCdcGWImAQC2Zqxu6+JQMJyV4zcG
PSeD6yNZJSLVqqL1GqzkgIwlJQD+IJEBl1GX3TbucqfoH6PL2TasoAB3CAlFXm5b
dScHyAQ=
=vbfc
-----END PGP PUBLIC KEY BLOCK-----
";

    #[test]
    fn a_keyring_expires_with_its_last_key() {
        let expiry = |file: &str| Keyring::read(file.as_bytes()).unwrap().expiry();
        assert_eq!(expiry(EXPIRED), Some(1_609_372_800), "as gpg --with-colons prints it");
        assert_eq!(expiry(KEY), None);
        assert_eq!(expiry(&format!("{EXPIRED}{KEY}")), None);
    }

    #[test]
    fn armor_is_written_as_gpg_writes_it() {
        for file in [KEY.to_owned(), EXPIRED.into(), format!("{EXPIRED}{KEY}")] {
            assert_eq!(Keyring::read(file.as_bytes()).unwrap().armored(), file);
        }
    }

    #[test]
    fn every_key_of_a_keyring_counts() {
        let packets = dearmor(KEY.as_bytes()).unwrap();
        assert_eq!(primary_keys(&packets.repeat(2)).len(), 2);
        assert_eq!(primary_keys(KEY.repeat(2).as_bytes()).len(), 2, "in a second block of armor");
    }

    #[test]
    fn files_that_are_no_public_keys_are_refused() {
        assert_eq!(refused(b"<html>404</html>"), "line 1 of the key is outside a public key block: `<html>404</html>`");
        assert_eq!(refused(b"\n \n"), format!("there is no line `{BEGIN}`"));
        assert_eq!(refused(b""), "the file has no public key");
        assert_eq!(refused(&KEY.as_bytes()[..200]), format!("the armored key has no line `{END}`"));
        assert!(refused(KEY.replace("PUBLIC", "PRIVATE").as_bytes()).contains("outside a public key block"));
        assert!(refused(KEY.replace("-----\n\n", "-----\n").as_bytes()).contains("empty line"));
        let packets = dearmor(KEY.as_bytes()).unwrap();
        for length in 1..packets.len() {
            let whole = Keyring::read(&packets[..length]);
            assert!(whole.is_err() || whole.is_ok_and(|keyring| keyring.primary_keys.len() == 1), "{length}");
        }
        let mut secret = packets.clone();
        secret[0] = 0x80 | SECRET_KEY << 2;
        assert!(refused(&secret).contains("secret key"));
        assert!(refused(&[&packets[..], &[0xCB, 1, 0]].concat()).contains("packet of type 11"), "data behind a key");
        assert!(refused(&[0xCE, 1, 4]).contains("packet of type 14"), "a subkey without its key");
        let mut version = packets;
        version[2] = 6;
        assert!(refused(&version).contains("version 6"));
        assert!(refused(&[0xC6, 224, 4]).contains("incomplete"), "a partial length");
    }

    #[test]
    fn text_outside_a_block_is_refused() {
        for odd in [
            KEY.replace("-----", ""),
            KEY.replace("-----", "\u{2014}"),
            KEY.replace("-----BEGIN", "----BEGIN"),
            KEY.replace("-----BEGIN", "- -----BEGIN"),
            KEY.replace('\n', "\r"),
            "a key".into(),
            "\u{feff}".into(),
            "\u{a0}".into(),
            "\0".into(),
        ] {
            for file in [format!("{odd}\n{KEY}"), format!("{KEY}{odd}"), odd] {
                // A first byte outside ASCII is read as a packet, and the packet is refused.
                assert!(!file.is_ascii() || refused(file.as_bytes()).starts_with("line "), "{file:?}");
                assert!(Keyring::read(file.as_bytes()).is_err(), "{file:?}");
            }
        }
        let packets = dearmor(KEY.as_bytes()).unwrap();
        let blank = format!("\r\n \t\n{}\n\n", KEY.replace("=KR5f\n", ""));
        assert_eq!(Keyring::read(blank.as_bytes()).unwrap().packets, packets, "blank lines, and no checksum");
        assert_eq!(dearmor(KEY.replace("=KR5f", "=AAAA").as_bytes()).unwrap(), packets, "a wrong checksum");
        for (good, bad, message) in [
            ("\n\nmDME", "\n\n=AAAA\nmDME", "the armored key continues after its checksum"),
            ("\n\nmDME", "\n\n!mDME", "the armored key is not valid Base64"),
            ("=KR5f", "=KR5f=", "the armored key is not valid Base64"),
            ("\nNQwy", "\n\u{2028}NQwy", "the armored key is not valid Base64"),
        ] {
            assert!(refused(KEY.replacen(good, bad, 1).as_bytes()).starts_with(message), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_has_40_digits() {
        assert!("2EE425D81B49A5386B8506DD9A9C5A7350E34DB2".parse::<Fingerprint>().is_ok());
        for bad in ["", "9A9C5A7350E34DB2", "2EE425D81B49A5386B8506DD9A9C5A7350E34DBX"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
