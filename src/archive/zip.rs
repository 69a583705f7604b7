//! The zip format, by the records of APPNOTE.TXT of PKWARE: <https://support.pkware.com/pkzip/appnote>.
//!
//! The list at the end of the file (the central directory) says what the members are. The header before a member's bytes
//! must say the same name, so that no two readers see two archives.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Crc, bufread::DeflateDecoder};
use time::{Date, Month};

use super::{
    BUFFER_BYTES,
    gate::{Gate, MAX_PATH_BYTES, RawKind, RawMember, refused},
    shown,
};
use crate::{error::Fault, host::calls::read_at};

/// The record at the end: its mark, its length without the comment, and the longest comment.
const END: [u8; 4] = [b'P', b'K', 5, 6];
const END_BYTES: usize = 22;
const MAX_COMMENT_BYTES: usize = 65_535;
/// The records of the members: mark and length without name, extra fields and comment.
const ENTRY: [u8; 4] = [b'P', b'K', 1, 2];
const ENTRY_BYTES: usize = 46;
/// The headers before the members' bytes: mark and length without name and extra fields.
const HEADER: [u8; 4] = [b'P', b'K', 3, 4];
const HEADER_BYTES: usize = 30;
/// The longest list of members. One of 65,535 members with long names is shorter.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// The extra field with the time of the last modification in seconds.
const EXTENDED_TIME: u16 = 0x5455;

/// The record of a member.
struct ZipEntry<'a> {
    name: &'a [u8],
    extra: &'a [u8],
    /// The operating system, and by it the meaning of the attributes.
    system: u8,
    attributes: u32,
    flags: u16,
    method: u16,
    time: u16,
    date: u16,
    checksum: u32,
    packed: u64,
    size: u64,
    header_at: u64,
}

/// Passes all members of a zip to the gate.
pub(super) fn read(file: &File, gate: &mut Gate<'_>) -> Result<()> {
    let (list, list_at) = list(file)?;
    let mut rest = &list[..];
    while !rest.is_empty() {
        let (entry, after) = ZipEntry::parse(rest).context("the archive is damaged: its list of members")?;
        rest = after;
        gate.count(entry.size)?;
        entry.pass(file, list_at, gate)?;
    }
    Ok(())
}

/// Returns the list of the members and its position.
fn list(mut file: &File) -> Result<(Vec<u8>, u64)> {
    let length = file.seek(SeekFrom::End(0)).context("reading the end of the archive")?;
    let tail_at = length.saturating_sub((END_BYTES + MAX_COMMENT_BYTES) as u64);
    let tail = bytes_at(file, tail_at, usize::try_from(length - tail_at)?)?;
    let is_end = |at: &usize| {
        let end = &tail[*at..];
        end.starts_with(&END) && end.len() >= END_BYTES && end.len() == END_BYTES + usize::from(short(end, 20))
    };
    let at = (0..tail.len()).rev().find(is_end).context("the archive is damaged: its end is missing")?;
    let end = &tail[at..];
    let (members, list_bytes, list_at) = (short(end, 10), long(end, 12), long(end, 16));
    if members == u16::MAX || list_bytes == u32::MAX || list_at == u32::MAX {
        let fault = Fault::new("the archive is a zip64: it has more than 65,534 members or 4 GiB");
        return Err(fault.hint("pack it as a tar.gz, tar.xz or tar.zst").into());
    }
    ensure!(
        short(end, 4) == 0 && short(end, 6) == 0 && short(end, 8) == members,
        "the archive is a part of a split zip"
    );
    let (list_bytes, list_at) = (u64::from(list_bytes), u64::from(list_at));
    let is_right = list_at + list_bytes == tail_at + at as u64 && list_bytes <= MAX_LIST_BYTES;
    ensure!(is_right, "the archive is damaged: its list of members is not where its end says");
    Ok((bytes_at(file, list_at, usize::try_from(list_bytes)?)?, list_at))
}

impl<'a> ZipEntry<'a> {
    /// Reads the first record of a list. Returns it and the rest of the list.
    fn parse(list: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (record, rest) = list.split_at_checked(ENTRY_BYTES).filter(|(record, _)| record.starts_with(&ENTRY))?;
        let (name, rest) = rest.split_at_checked(short(record, 28).into())?;
        let (extra, rest) = rest.split_at_checked(short(record, 30).into())?;
        let (_, rest) = rest.split_at_checked(short(record, 32).into())?;
        let entry = Self {
            name,
            extra,
            system: record[5],
            attributes: long(record, 38),
            flags: short(record, 8),
            method: short(record, 10),
            time: short(record, 12),
            date: short(record, 14),
            checksum: long(record, 16),
            packed: long(record, 20).into(),
            size: long(record, 24).into(),
            header_at: long(record, 42).into(),
        };
        Some((entry, rest))
    }

    fn pass(&self, file: &File, list_at: u64, gate: &mut Gate<'_>) -> Result<()> {
        let name = || shown(self.name);
        // Encrypted, or with a name that only a key shows.
        if self.flags & 0x2041 != 0 {
            return Err(refused(format!("the member {} is encrypted", name())));
        }
        if self.name.contains(&b'\\') {
            return Err(refused(format!("the member {} has a backslash in its name", name())));
        }
        let mode = if matches!(self.system, 3 | 19) { self.attributes >> 16 } else { 0 };
        let is_directory = self.name.ends_with(b"/");
        let permissions = match mode & 0o7777 {
            0 if is_directory => 0o755,
            0 => 0o644,
            permissions => permissions,
        };
        let mut bytes = self.bytes(file, list_at)?;
        let target;
        let kind = match mode & 0o170_000 {
            0o040_000 => RawKind::Directory,
            0 | 0o100_000 if is_directory => RawKind::Directory,
            0 | 0o100_000 => RawKind::File,
            0o120_000 if self.size <= MAX_PATH_BYTES as u64 => {
                target = bytes.whole().with_context(|| format!("reading the target of the link {}", name()))?;
                RawKind::Link(&target)
            }
            _ => return Err(refused(format!("the member {} is a device, a FIFO, or of an unknown type", name()))),
        };
        if self.size > 0 && matches!(kind, RawKind::Directory) {
            return Err(refused(format!("the member {} is a directory, but has bytes", name())));
        }
        let member = RawMember { name: self.name, kind, mode: permissions, modified: self.modified() };
        gate.pass(&member, &mut bytes)
    }

    /// Returns the bytes of the member, which are checked while they are read.
    fn bytes<'f>(&self, file: &'f File, list_at: u64) -> Result<EntryBytes<'f>> {
        let name = shown(self.name);
        let header = bytes_at(file, self.header_at, HEADER_BYTES)?;
        let (name_bytes, extra_bytes) = (short(&header, 26), short(&header, 28));
        let is_same = header.starts_with(&HEADER)
            && bytes_at(file, self.header_at + HEADER_BYTES as u64, name_bytes.into())? == self.name
            && short(&header, 8) == self.method;
        ensure!(is_same, "the archive is damaged: the header of the member {name} is not that of its list");
        let at = self.header_at + HEADER_BYTES as u64 + u64::from(name_bytes) + u64::from(extra_bytes);
        ensure!(at + self.packed <= list_at, "the archive is damaged: the member {name} is not in it");
        let packed = Section { file, at, left: self.packed };
        let unpacked: Box<dyn Read + 'f> = match self.method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(BufReader::with_capacity(BUFFER_BYTES, packed))),
            other => bail!("the member {name} is compressed by the method {other}; only deflate is read"),
        };
        Ok(EntryBytes { unpacked, left: self.size, sum: Crc::new(), checksum: self.checksum })
    }

    /// Returns the time of the last modification. A time without a zone counts as UTC.
    fn modified(&self) -> i64 {
        let mut extra = self.extra;
        while let Some((head, rest)) = extra.split_at_checked(4) {
            let Some((field, rest)) = rest.split_at_checked(short(head, 2).into()) else { break };
            if short(head, 0) == EXTENDED_TIME && field.len() >= 5 && field[0] & 1 != 0 {
                return i64::from(long(field, 1).cast_signed());
            }
            extra = rest;
        }
        let part = |of: u16, at: u32, bits: u32| u8::try_from((of >> at) & ((1 << bits) - 1)).unwrap_or_default();
        let date = Month::try_from(part(self.date, 5, 4))
            .and_then(|month| Date::from_calendar_date(1980 + i32::from(self.date >> 9), month, part(self.date, 0, 5)));
        let time = date.and_then(|date| {
            date.with_hms(part(self.time, 11, 5), part(self.time, 5, 6), part(self.time, 0, 5).saturating_mul(2))
        });
        time.map_or(0, |time| time.assume_utc().unix_timestamp())
    }
}

/// The unpacked bytes of a member. They have the length and the checksum of its record, or reading them fails.
struct EntryBytes<'f> {
    unpacked: Box<dyn Read + 'f>,
    left: u64,
    sum: Crc,
    checksum: u32,
}

impl EntryBytes<'_> {
    fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        self.read_to_end(&mut bytes).map(|_| bytes)
    }
}

impl Read for EntryBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let damaged = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.unpacked.read(buffer)?;
        if read as u64 > self.left {
            return damaged("a member is longer than its record says");
        }
        self.left -= read as u64;
        self.sum.update(&buffer[..read]);
        match read {
            0 if self.left > 0 => damaged("a member is shorter than its record says"),
            0 if self.sum.sum() != self.checksum => damaged("the checksum of a member is wrong"),
            read => Ok(read),
        }
    }
}

/// A part of a file.
struct Section<'f> {
    file: &'f File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = read_at(self.file, &mut buffer[..most], self.at)?;
        (self.at, self.left) = (self.at + read as u64, self.left - read as u64);
        Ok(read)
    }
}

/// Reads so many bytes of a file.
fn bytes_at(file: &File, at: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let section = Section { file, at, left: length as u64 };
    let read = { section }.read_to_end(&mut bytes).context("reading the archive")?;
    ensure!(read == length, "the archive is damaged: it ends too early");
    Ok(bytes)
}

/// Returns a number of two bytes, the lower one first.
fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Returns a number of four bytes, the lowest one first.
fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
