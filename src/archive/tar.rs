//! The tar format: ustar, GNU and pax headers, as tar(5) of libarchive describes them.
//!
//! The blocks are read here, so that no length in the archive decides how much is read into memory. The crate `tar` decodes
//! the fields of a header.

use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use tar::Header;

use super::{
    fill,
    gate::{Gate, MAX_PATH_BYTES, RawKind, RawMember, refused},
    shown,
};

const BLOCK_BYTES: usize = 512;
/// The position of a header's checksum. Its own bytes count as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// The largest set of pax records. They may hold extended attributes, which are not used.
const MAX_PAX_BYTES: u64 = 1 << 20;

/// What the entries before a member say about it.
#[derive(Debug, Default)]
struct About {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<i64>,
}

/// The bytes of an entry.
struct EntryBody<'a> {
    input: &'a mut dyn Read,
    left: u64,
}

impl Read for EntryBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buffer[..most])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a member")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

impl EntryBody<'_> {
    /// Reads all of it into memory.
    fn whole(&mut self, limit: u64, what: &str) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(refused(format!("the archive has {what} of {} bytes; the most is {limit}", self.left)));
        }
        let mut bytes = vec![];
        _ = self.read_to_end(&mut bytes).context("reading the archive")?;
        Ok(bytes)
    }

    /// Reads a name that is too long for a header. It ends with a NUL.
    fn name(&mut self) -> Result<Vec<u8>> {
        let mut name = self.whole(MAX_PATH_BYTES as u64 + 1, "a name")?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }
}

/// Passes all members of a tar to the gate.
pub(super) fn read(input: &mut dyn Read, gate: &mut Gate<'_>) -> Result<()> {
    let mut block = [0; BLOCK_BYTES];
    let mut about = About::default();
    // A tar ends with two zero blocks. As for GNU tar, one of them or the end of the file is enough.
    while fill(input, &mut block).context("reading the archive")? && block.iter().any(|byte| *byte != 0) {
        let header = Header::from_byte_slice(&block);
        check(header)?;
        let size = header.entry_size().ok().context("the archive is damaged: the size of a member")?;
        gate.count(size)?;
        let mut body = EntryBody { input: &mut *input, left: size };
        match header.as_old().linkflag[0] {
            b'L' => about.name = Some(body.name()?),
            b'K' => about.link = Some(body.name()?),
            b'x' | b'X' => about.add(&body.whole(MAX_PAX_BYTES, "pax records")?)?,
            b'g' => check_global(&body.whole(MAX_PAX_BYTES, "pax records")?)?,
            _ => member(header, &std::mem::take(&mut about), gate, &mut body)?,
        }
        _ = io::copy(&mut body, &mut io::sink()).context("reading the archive")?;
        let padding = usize::try_from(size.next_multiple_of(BLOCK_BYTES as u64) - size)?;
        if !fill(input, &mut block[..padding]).context("reading the archive")? && padding > 0 {
            break;
        }
    }
    Ok(())
}

/// Fails if a header is damaged. Old programs added signed bytes.
fn check(header: &Header) -> Result<()> {
    let bytes = header.as_bytes().iter().enumerate();
    let bytes = bytes.map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
    let (unsigned, signed) =
        bytes.fold((0u32, 0i32), |(u, s), byte| (u + u32::from(byte), s + i32::from(byte.cast_signed())));
    let is_right = header.cksum().is_ok_and(|sum| sum == unsigned || i32::try_from(sum) == Ok(signed));
    ensure!(is_right, "the archive is damaged: a checksum is wrong");
    Ok(())
}

/// Passes one member to the gate.
fn member(header: &Header, about: &About, gate: &mut Gate<'_>, body: &mut EntryBody<'_>) -> Result<()> {
    let (of_header, link) = (header.path_bytes(), header.link_name_bytes());
    let name = about.name.as_deref().unwrap_or(&of_header);
    let link = about.link.as_deref().or(link.as_deref()).unwrap_or_default();
    if about.size.is_some_and(|size| size != body.left) {
        return Err(refused(format!("the member {} has two sizes", shown(name))));
    }
    let flag = header.as_old().linkflag[0];
    let kind = match flag {
        // Before ustar, a directory was a file whose name ends with a slash.
        0 | b'0' if name.ends_with(b"/") => RawKind::Directory,
        0 | b'0' | b'7' => RawKind::File,
        b'1' => RawKind::HardLink(link),
        b'2' => RawKind::Link(link),
        b'5' => RawKind::Directory,
        _ => {
            let what = match flag {
                b'3' | b'4' => "a device",
                b'6' => "a FIFO",
                b'S' => "a sparse file",
                _ => "of an unknown type",
            };
            return Err(refused(format!("the member {} is {what}", shown(name))));
        }
    };
    if body.left > 0 && !matches!(kind, RawKind::File) {
        return Err(refused(format!("the member {} is no file, but has bytes", shown(name))));
    }
    let mode = header.mode().ok().context("the archive is damaged: the mode of a member")?;
    let modified = about.modified.or_else(|| i64::try_from(header.mtime().ok()?).ok()).unwrap_or_default();
    gate.pass(&RawMember { name, kind, mode, modified }, body)
}

impl About {
    /// Adds the pax records that matter.
    fn add(&mut self, records: &[u8]) -> Result<()> {
        for record in Records(records) {
            let (key, value) = record?;
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value).context("the pax record `size` is no number")?),
                // Fractions of a second are left out.
                b"mtime" => {
                    let seconds = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                    self.modified = Some(number(seconds).context("the pax record `mtime` is no number")?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(refused("a member is a sparse file".into())),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Fails if records about all members say what only a member's own records may say.
fn check_global(records: &[u8]) -> Result<()> {
    for record in Records(records) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(refused(format!("a pax header gives all members the same {}", shown(key))));
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Pax records: the length of the record, a space, a key, `=`, a value and a newline.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<(&'a [u8], &'a [u8])> {
        let damaged = "the archive is damaged: a pax record";
        let space = self.0.iter().position(|byte| *byte == b' ').context(damaged)?;
        let length: usize = number(&self.0[..space]).context(damaged)?;
        let Some((record, rest)) = self.0.split_at_checked(length) else { bail!(damaged) };
        let (b'\n', fields) = record.get(space + 1..).and_then(<[u8]>::split_last).context(damaged)? else {
            bail!(damaged)
        };
        let equals = fields.iter().position(|byte| *byte == b'=').context(damaged)?;
        self.0 = rest;
        Ok((&fields[..equals], &fields[equals + 1..]))
    }
}
