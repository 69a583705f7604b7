//! The pages of a SQLite database, as the last commit left them in the database file and its write-ahead log.

use std::{cell::Cell, fs::File};

use anyhow::{Context, Result, bail};

use super::wal::{self, CommittedPages};
use crate::host::calls::read_exact_at;

/// The text at the start of a database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The bytes of a database's header, at the start of page 1.
pub const HEADER_BYTES: usize = 100;
/// The smallest and the largest page.
pub const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65536;
/// The fewest bytes of a page that are not reserved for extensions.
const MIN_USABLE_BYTES: usize = 480;

/// Bytes that are read at an offset.
pub trait ReadAt {
    /// Returns the number of bytes.
    fn size(&self) -> u64;

    /// Fills a buffer with the bytes at an offset.
    ///
    /// # Errors
    /// If there are fewer bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).context("reading beyond the end")?;
        let bytes = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.context("reading beyond the end")?);
        Ok(())
    }
}

/// An open file with the size that it had when it was opened.
#[derive(Debug)]
pub struct SizedFile {
    /// The file.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
}

impl ReadAt for SizedFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        Ok(read_exact_at(&self.file, buffer, offset)?)
    }
}

/// The pages of a database after its last commit.
pub struct Pages<'a> {
    database: &'a dyn ReadAt,
    wal: Option<(&'a dyn ReadAt, CommittedPages)>,
    page_bytes: usize,
    /// The bytes of a page without those that are reserved for extensions.
    pub usable: usize,
    count: u32,
    /// The number of pages that a scan may still read.
    left: Cell<u32>,
}

impl<'a> Pages<'a> {
    /// Opens a database; `None` if it is empty.
    ///
    /// Facts: <https://www.sqlite.org/fileformat2.html#the_database_header>.
    pub fn open(database: &'a dyn ReadAt, wal: Option<&'a dyn ReadAt>) -> Result<Option<Self>> {
        let frames = wal.map(wal::committed).transpose()?.flatten();
        let wal = wal.zip(frames);
        let page_bytes = match &wal {
            Some((_, frames)) => frames.page_bytes,
            None if database.size() == 0 => return Ok(None),
            None => page_bytes(database)?,
        };
        // A scan reads no page twice. So the pages that exist limit it, whatever the numbers of a damaged file say.
        let in_file = database.size() / page_bytes as u64;
        let in_wal = wal.as_ref().map_or(0, |(_, frames)| frames.places.len() as u64);
        let existing = u32::try_from(in_file + in_wal).context("the database has more than 4294967295 pages")?;
        let mut pages = Self { database, wal, page_bytes, usable: page_bytes, count: existing, left: Cell::new(1) };
        let first = pages.page(1)?;
        let header = first.get(..HEADER_BYTES).context("its header is cut off")?;
        if !header.starts_with(MAGIC) {
            bail!("it is not a SQLite database");
        }
        if header[19] > 2 {
            bail!("its file format {} is newer than those of SQLite 3", header[19]);
        }
        match number(&header[56..60]) {
            0 | 1 => {}
            2 | 3 => bail!("its texts are UTF-16"),
            encoding => bail!("its texts have the unknown encoding {encoding}"),
        }
        pages.usable = page_bytes - usize::from(header[20]);
        if pages.usable < MIN_USABLE_BYTES {
            bail!("{} bytes of each page are reserved", header[20]);
        }
        let (recorded, is_recorded) = (number(&header[28..32]), header[24..28] == header[92..96]);
        pages.count = match &pages.wal {
            Some((_, frames)) => frames.count.min(existing),
            None if is_recorded && recorded > 0 => recorded.min(existing),
            None => existing,
        };
        Ok(Some(pages))
    }

    /// Begins a scan. It may read as many pages as there are.
    pub fn begin(&self) {
        self.left.set(self.count);
    }

    /// Returns the number of bytes that the database can have.
    pub fn most_bytes(&self) -> usize {
        self.page_bytes.saturating_mul(self.count as usize)
    }

    /// Reads a page without the bytes that are reserved for extensions.
    pub fn page(&self, number: u32) -> Result<Vec<u8>> {
        if number == 0 || number > self.count {
            bail!("page {number} does not exist");
        }
        let left = self.left.get().checked_sub(1).context("its pages are linked in a circle")?;
        self.left.set(left);
        let mut page = vec![0; self.page_bytes];
        match &self.wal {
            Some((wal, frames)) if frames.places.contains_key(&number) => {
                wal.read_at(&mut page, frames.places[&number])
            }
            _ => self.database.read_at(&mut page, u64::from(number - 1) * self.page_bytes as u64),
        }
        .with_context(|| format!("reading page {number}"))?;
        page.truncate(self.usable);
        Ok(page)
    }
}

/// Returns the size of a page as the header of a database says it.
fn page_bytes(database: &dyn ReadAt) -> Result<usize> {
    let mut header = [0; 18];
    database.read_at(&mut header, 0).context("its header is cut off")?;
    if !header.starts_with(MAGIC) {
        bail!("it is not a SQLite database");
    }
    let bytes = usize::from(u16::from_be_bytes([header[16], header[17]]));
    checked_page_bytes(if bytes == 1 { 65536 } else { bytes }).with_context(|| format!("its pages have {bytes} bytes"))
}

/// Returns the size of a page, if it is a possible one.
pub fn checked_page_bytes(bytes: usize) -> Option<usize> {
    (PAGE_BYTES.contains(&bytes) && bytes.is_power_of_two()).then_some(bytes)
}

/// Returns the big-endian number of at most four bytes.
pub fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
