//! The tables of a SQLite 3 database, read without SQLite.
//!
//! A scan reads each row of a table once, and of a long row only the part that is asked for. Indexes are not read: a scan
//! of all that this program needs takes about a millisecond. Facts: <https://www.sqlite.org/fileformat2.html>.

use std::ops::Range;

use anyhow::{Context, Result, bail};

use super::pages::{HEADER_BYTES, Pages, ReadAt, number};

/// Limits the depth of a table's tree, as SQLite does (`BTCURSOR_MAX_DEPTH`).
const MAX_DEPTH: u32 = 20;

/// A database, opened for reading.
pub struct Sqlite<'a> {
    pages: Option<Pages<'a>>,
    tables: Vec<Table>,
}

/// A table of a database.
struct Table {
    name: String,
    root: u32,
    columns: Vec<String>,
}

impl<'a> Sqlite<'a> {
    /// Opens a database, with its write-ahead log if it has one.
    ///
    /// # Errors
    /// If it is not a database of SQLite 3 whose texts are UTF-8.
    pub fn open(database: &'a dyn ReadAt, wal: Option<&'a dyn ReadAt>) -> Result<Self> {
        let pages = Pages::open(database, wal)?;
        let mut sqlite = Self { pages, tables: vec![] };
        let schema = Table {
            name: "sqlite_schema".into(),
            root: 1,
            columns: ["type", "name", "tbl_name", "rootpage", "sql"].map(str::to_owned).into(),
        };
        let mut tables = vec![];
        sqlite.scan(&schema, |row| {
            if row.text("type")? == "table" {
                let root = row.integer("rootpage")?.try_into().context("a table begins on no page")?;
                tables.push(Table { name: row.text("name")?, root, columns: columns(&row.text("sql")?) });
            }
            Ok(())
        })?;
        sqlite.tables = tables;
        Ok(sqlite)
    }

    /// Returns whether it has a table.
    pub fn has_table(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.name == name)
    }

    /// Passes each row of a table to a function, in the order of their ids.
    ///
    /// # Errors
    /// If the table does not exist or is damaged, or if the function fails.
    pub fn rows(&self, table: &str, visit: impl FnMut(&mut TableRow) -> Result<()>) -> Result<()> {
        let found = self.tables.iter().find(|known| known.name == table);
        self.scan(found.with_context(|| format!("it has no table {table}"))?, visit)
            .with_context(|| format!("reading its table {table}"))
    }

    fn scan(&self, table: &Table, mut visit: impl FnMut(&mut TableRow) -> Result<()>) -> Result<()> {
        let Some(pages) = &self.pages else { return Ok(()) };
        pages.begin();
        Scan { pages, table }.tree(table.root, 0, &mut visit)
    }
}

/// A walk over the tree of a table.
struct Scan<'a> {
    pages: &'a Pages<'a>,
    table: &'a Table,
}

impl Scan<'_> {
    /// Walks over the tree below a page; "B-tree Pages".
    fn tree(&self, page_number: u32, depth: u32, visit: &mut impl FnMut(&mut TableRow) -> Result<()>) -> Result<()> {
        if depth == MAX_DEPTH {
            bail!("its tree has more than {MAX_DEPTH} levels");
        }
        let page = self.pages.page(page_number)?;
        let start = if page_number == 1 { HEADER_BYTES } else { 0 };
        let cut_off = || format!("page {page_number} is cut off");
        let (kind, head_bytes) = match page.get(start) {
            Some(5) => (PageKind::Interior, 12),
            Some(13) => (PageKind::Leaf, 8),
            _ => bail!("page {page_number} is not a page of a table"),
        };
        let head = page.get(start..start + head_bytes).with_context(cut_off)?;
        let cells = number(&head[3..5]) as usize;
        let pointers = page.get(start + head_bytes..start + head_bytes + 2 * cells).with_context(cut_off)?;
        for pointer in pointers.chunks_exact(2) {
            let cell = page.get(number(pointer) as usize..).with_context(cut_off)?;
            match kind {
                PageKind::Interior => self.tree(number(cell.get(..4).with_context(cut_off)?), depth + 1, visit)?,
                PageKind::Leaf => {
                    let mut row = self.row(cell).with_context(|| format!("reading a row on page {page_number}"))?;
                    visit(&mut row)?;
                }
            }
        }
        if kind == PageKind::Interior { self.tree(number(&head[8..12]), depth + 1, visit) } else { Ok(()) }
    }

    /// Reads the start of a row; "B-tree Cell Format" and "Record Format".
    fn row(&self, cell: &[u8]) -> Result<TableRow<'_>> {
        let mut at = 0;
        let bytes = usize::try_from(varint(cell, &mut at)?).ok().filter(|bytes| *bytes <= self.pages.most_bytes());
        let bytes = bytes.context("it is longer than the database")?;
        let id = varint(cell, &mut at)?.cast_signed();
        let local = local_bytes(bytes, self.pages.usable);
        let part = cell.get(at..at + local).context("it is cut off")?;
        let next =
            if local == bytes { &[][..] } else { cell.get(at + local..at + local + 4).context("it is cut off")? };
        let mut payload = Payload { bytes: part.to_vec(), size: bytes, next: number(next), pages: Some(self.pages) };
        let fields = fields(&mut payload)?;
        Ok(TableRow { id, payload, columns: &self.table.columns, fields })
    }
}

/// A page of a table's tree: one with pages below it, or one with rows.
#[derive(Clone, Copy, PartialEq)]
enum PageKind {
    Interior,
    Leaf,
}

/// Returns how many bytes of a row are on the page of the tree; the others are on pages of their own.
fn local_bytes(bytes: usize, usable: usize) -> usize {
    if bytes <= usable - 35 {
        return bytes;
    }
    let least = (usable - 12) * 32 / 255 - 23;
    let filled = least + (bytes - least) % (usable - 4);
    if filled <= usable - 35 { filled } else { least }
}

/// Reads the types of a record's values, and finds where they are.
fn fields(payload: &mut Payload) -> Result<Vec<StoredValue>> {
    let start = payload.up_to(payload.size.min(9))?;
    let mut at = 0;
    let header_bytes = usize::try_from(varint(start, &mut at)?).context("its header is too long")?;
    let size = payload.size;
    let header = payload.up_to(header_bytes)?;
    let (mut fields, mut offset) = (vec![], header_bytes);
    while at < header.len() {
        let serial = varint(header, &mut at)?;
        let bytes = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => bail!("a value has the reserved type {serial}"),
            _ => (serial - 12) / 2,
        };
        let end = usize::try_from(bytes).ok().and_then(|bytes| offset.checked_add(bytes));
        let end = end.filter(|end| *end <= size).context("a value is longer than its row")?;
        fields.push(StoredValue { serial, place: offset..end });
        offset = end;
    }
    Ok(fields)
}

/// A value of a record: its type and its place.
struct StoredValue {
    serial: u64,
    place: Range<usize>,
}

/// The value of a row that is older than its column.
const ABSENT: &StoredValue = &StoredValue { serial: 0, place: 0..0 };

/// A row of a table.
pub struct TableRow<'a> {
    /// Its id, which is also the value of its `INTEGER PRIMARY KEY`.
    pub id: i64,
    payload: Payload<'a>,
    columns: &'a [String],
    fields: Vec<StoredValue>,
}

impl<'a> TableRow<'a> {
    /// Returns a number.
    pub fn integer(&mut self, column: &str) -> Result<i64> {
        let (serial, bytes) = self.value(column)?;
        match serial {
            8 | 9 => Ok(i64::from(serial == 9)),
            1..=6 => {
                let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
                Ok(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
            }
            _ => bail!("{column} is not a number"),
        }
    }

    /// Returns a text; an empty one if there is none. Bytes that are not UTF-8 become replacement characters.
    pub fn text(&mut self, column: &str) -> Result<String> {
        let (serial, bytes) = self.value(column)?;
        match serial {
            0 => Ok(String::new()),
            13.. if serial % 2 == 1 => Ok(String::from_utf8_lossy(bytes).into_owned()),
            _ => bail!("{column} is not a text"),
        }
    }

    /// Returns a value of bytes, of which the end is not read yet.
    pub fn blob(&mut self, column: &str) -> Result<Blob<'_, 'a>> {
        let field = self.field(column)?;
        let (serial, place) = (field.serial, field.place.clone());
        if serial < 12 || serial % 2 == 1 {
            bail!("{column} is not a value of bytes");
        }
        Ok(Blob { payload: &mut self.payload, place })
    }

    fn value(&mut self, column: &str) -> Result<(u64, &[u8])> {
        let field = self.field(column)?;
        let (serial, place) = (field.serial, field.place.clone());
        Ok((serial, &self.payload.up_to(place.end)?[place]))
    }

    fn field(&self, column: &str) -> Result<&StoredValue> {
        let index = self.columns.iter().position(|name| name == column);
        Ok(self.fields.get(index.with_context(|| format!("it has no column {column}"))?).unwrap_or(ABSENT))
    }
}

/// A value of bytes, which may continue on further pages.
pub struct Blob<'r, 'a> {
    payload: &'r mut Payload<'a>,
    place: Range<usize>,
}

impl Blob<'_, '_> {
    /// Returns the number of bytes.
    pub fn size(&self) -> usize {
        self.place.len()
    }

    /// Returns the first bytes, and reads the pages that they are on.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn up_to(&mut self, bytes: usize) -> Result<&[u8]> {
        if bytes > self.size() {
            bail!("it ends after {} bytes", self.size());
        }
        Ok(&self.payload.up_to(self.place.start + bytes)?[self.place.start..])
    }
}

/// The bytes of a row, as far as they are read.
pub struct Payload<'a> {
    bytes: Vec<u8>,
    size: usize,
    next: u32,
    pages: Option<&'a Pages<'a>>,
}

impl<'a> Payload<'a> {
    /// Returns a payload in memory.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len(), bytes, next: 0, pages: None }
    }

    /// Returns all of it as one value.
    pub fn whole(&mut self) -> Blob<'_, 'a> {
        Blob { place: 0..self.size, payload: self }
    }

    /// Returns the first bytes; "Cell Payload Overflow Pages".
    fn up_to(&mut self, bytes: usize) -> Result<&[u8]> {
        if bytes > self.size {
            bail!("it ends after {} bytes", self.size);
        }
        while let Some(pages) = self.pages.filter(|_| self.bytes.len() < bytes) {
            let page = pages.page(self.next)?;
            let (next, content) = page.split_at(4);
            self.next = number(next);
            let left = self.size - self.bytes.len();
            self.bytes.extend_from_slice(&content[..left.min(content.len())]);
        }
        Ok(&self.bytes[..bytes])
    }
}

/// Reads a number of one to nine bytes; "Varint".
fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0;
    for count in 0..9 {
        let byte = *bytes.get(*at).context("a number is cut off")?;
        *at += 1;
        if count == 8 {
            return Ok(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

/// Returns the names of the columns of a `CREATE TABLE`.
fn columns(sql: &str) -> Vec<String> {
    let sql = without_comments(sql);
    let Some((_, definitions)) = sql.split_once('(') else { return vec![] };
    let (mut depth, mut columns) = (0, vec![String::new()]);
    for c in definitions.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => columns.push(String::new()),
            _ => {}
        }
        if let Some(column) = columns.last_mut().filter(|_| c != ',' || depth > 0) {
            column.push(c);
        }
    }
    let name = |column: String| {
        column.split_whitespace().next().map(|word| word.trim_matches(['"', '\'', '`', '[', ']']).to_owned())
    };
    columns.into_iter().filter_map(name).collect()
}

/// Returns a statement without its comments.
fn without_comments(sql: &str) -> String {
    let (mut kept, mut rest) = (String::new(), sql);
    while let Some((before, comment)) = rest.split_once("/*") {
        kept += before;
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    kept + rest
}
