//! The write-ahead log of a SQLite database: the pages that were committed, but are not in the database file yet.
//!
//! Facts: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. rpm moves the pages to the database file when
//! it closes the database (lib/backend/sqlite.cc). After a crash they are in the log alone.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::pages::{ReadAt, checked_page_bytes, number};

/// The bytes of the log's header.
pub const HEADER_BYTES: usize = 32;
/// The bytes of a frame before its page.
const FRAME_BYTES: usize = 24;
/// The start of a log whose checksums read its bytes as little-endian numbers. With big-endian ones the last bit is set.
const MAGIC: u32 = 0x377f_0682;
/// The only version of the format.
const VERSION: u32 = 3_007_000;

/// The committed pages of a log.
#[derive(Debug)]
pub struct CommittedPages {
    /// The size of a page.
    pub page_bytes: usize,
    /// The number of pages of the database after the last commit.
    pub count: u32,
    /// The offset of the last committed content of each page.
    pub places: HashMap<u32, u64>,
}

/// Finds the committed pages; `None` if nothing is committed in this log.
///
/// Like SQLite, it ends at the first frame that is not valid: a torn one, or one of the log's previous use.
pub fn committed(wal: &dyn ReadAt) -> Result<Option<CommittedPages>> {
    let mut header = [0; HEADER_BYTES];
    if wal.size() < HEADER_BYTES as u64 {
        return Ok(None);
    }
    wal.read_at(&mut header, 0)?;
    let magic = number(&header[..4]);
    let page_bytes = usize::try_from(number(&header[8..12])).ok().and_then(checked_page_bytes);
    let mut checksum = LogChecksum { is_big_endian: magic & 1 == 1, sums: (0, 0) };
    checksum.add(&header[..24]);
    let Some(page_bytes) = page_bytes.filter(|_| magic & !1 == MAGIC && checksum.is(&header[24..])) else {
        return Ok(None);
    };
    if number(&header[4..8]) != VERSION {
        bail!("its write-ahead log has the unknown format {}", number(&header[4..8]));
    }
    let mut frames = CommittedPages { page_bytes, count: 0, places: HashMap::new() };
    let (mut frame, mut uncommitted) = (vec![0; FRAME_BYTES + page_bytes], vec![]);
    let mut at = HEADER_BYTES as u64;
    while at + frame.len() as u64 <= wal.size() {
        wal.read_at(&mut frame, at).context("reading its write-ahead log")?;
        let (head, page) = frame.split_at(FRAME_BYTES);
        checksum.add(&head[..8]);
        checksum.add(page);
        let (page_number, count) = (number(&head[..4]), number(&head[4..8]));
        if page_number == 0 || head[8..16] != header[16..24] || !checksum.is(&head[16..]) {
            break;
        }
        uncommitted.push((page_number, at + FRAME_BYTES as u64));
        if count > 0 {
            frames.count = count;
            frames.places.extend(uncommitted.drain(..));
        }
        at += frame.len() as u64;
    }
    Ok((frames.count > 0).then_some(frames))
}

/// The checksum over a header and the frames after it.
struct LogChecksum {
    is_big_endian: bool,
    sums: (u32, u32),
}

impl LogChecksum {
    /// Adds bytes, whose number is a multiple of eight.
    fn add(&mut self, bytes: &[u8]) {
        let read =
            |bytes: &[u8; 4]| if self.is_big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
        let (mut first, mut second) = self.sums;
        for pair in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
            first = first.wrapping_add(read(&pair[0])).wrapping_add(second);
            second = second.wrapping_add(read(&pair[1])).wrapping_add(first);
        }
        self.sums = (first, second);
    }

    /// Returns whether the sums are those of a log. They are big-endian in every log.
    fn is(&self, stored: &[u8]) -> bool {
        (number(&stored[..4]), number(&stored[4..8])) == self.sums
    }
}
