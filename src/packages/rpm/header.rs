//! The header of a package, as rpm keeps it in its database: numbered tags with values.
//!
//! Facts: <https://rpm-software-management.github.io/rpm/manual/format_header.html>, and lib/header.cc of rpm. Only the
//! parts of a header that are asked for are read. The names of its files, most of it, are not.

use anyhow::{Context, Result, bail};

use super::{pages::number, sqlite::Blob};

/// The tags that this program reads; include/rpm/rpmtag.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// The name.
    Name = 1000,
    /// The version of the software.
    Version = 1001,
    /// The release of the package.
    Release = 1002,
    /// The number before the version.
    Epoch = 1003,
    /// When it was installed, in seconds since 1970.
    InstallTime = 1008,
    /// The architecture. The public keys that rpm keeps as packages have none.
    Architecture = 1022,
}

/// The bytes of an entry of the index.
const ENTRY_BYTES: usize = 16;
/// The most entries that rpm accepts (`HEADER_TAGS_MAX`).
const MAX_ENTRIES: usize = 0xffff;
/// The most bytes of values that rpm accepts (`HEADER_DATA_MAX`).
const MAX_DATA_BYTES: usize = 0x0fff_ffff;
/// The bytes that a text is looked for at first. Names and versions are shorter.
const TEXT_BYTES: usize = 64;

/// The type of a number of 32 bits (`RPM_INT32_TYPE`).
const INT32: u32 = 4;
/// The types of a text: one, several, and one in several languages (`RPM_STRING_CLASS`). The first text counts.
const TEXTS: [u32; 3] = [6, 8, 9];

/// A header whose index is read.
pub struct Header<'h, 'r, 'a> {
    blob: &'h mut Blob<'r, 'a>,
    entries: Vec<IndexEntry>,
    /// The offset of the values.
    data: usize,
}

/// An entry of the index.
struct IndexEntry {
    tag: u32,
    kind: u32,
    offset: usize,
}

impl<'h, 'r, 'a> Header<'h, 'r, 'a> {
    /// Reads the index of a header.
    ///
    /// The first entry can be a region's: the part of the header that the package's signature covers. Its value says
    /// where the region ends. rpm adds entries after it, and they replace those of the region with the same tags.
    pub fn read(blob: &'h mut Blob<'r, 'a>) -> Result<Self> {
        let start = blob.up_to(8).context("its index is cut off")?;
        let (count, data_bytes) = (number(&start[..4]) as usize, number(&start[4..8]) as usize);
        if count == 0 || count > MAX_ENTRIES || data_bytes > MAX_DATA_BYTES {
            bail!("its index has {count} entries for {data_bytes} bytes");
        }
        let data = 8 + count * ENTRY_BYTES;
        if blob.size() < data + data_bytes {
            bail!("it has {} bytes, but its index says {}", blob.size(), data + data_bytes);
        }
        let entry = |bytes: &[u8]| IndexEntry {
            tag: number(&bytes[..4]),
            kind: number(&bytes[4..8]),
            offset: number(&bytes[8..12]) as usize,
        };
        let entries = blob.up_to(data)?[8..data].chunks_exact(ENTRY_BYTES).map(entry).collect();
        Ok(Self { blob, entries, data })
    }

    /// Returns a text; `None` if the header does not have the tag.
    pub fn text(&mut self, tag: Tag) -> Result<Option<String>> {
        let Some((kind, start)) = self.find(tag) else { return Ok(None) };
        if !TEXTS.contains(&kind) {
            bail!("its tag {} has the type {kind}", tag as u32);
        }
        let mut bytes = TEXT_BYTES;
        loop {
            let end = start.saturating_add(bytes).min(self.blob.size());
            let read = self.blob.up_to(end)?.get(start..end).unwrap_or_default();
            if let Some(length) = read.iter().position(|byte| *byte == 0) {
                return Ok(Some(String::from_utf8_lossy(&read[..length]).into_owned()));
            }
            if end == self.blob.size() {
                bail!("its tag {} has no end", tag as u32);
            }
            bytes *= 4;
        }
    }

    /// Returns a number; `None` if the header does not have the tag.
    pub fn number(&mut self, tag: Tag) -> Result<Option<u32>> {
        let Some((kind, start)) = self.find(tag) else { return Ok(None) };
        if kind != INT32 {
            bail!("its tag {} has the type {kind}", tag as u32);
        }
        let bytes = self.blob.up_to(start + 4).with_context(|| format!("its tag {} is cut off", tag as u32))?;
        Ok(Some(number(&bytes[start..start + 4])))
    }

    /// Returns the type of a tag's value, and its offset.
    fn find(&self, tag: Tag) -> Option<(u32, usize)> {
        let entry = self.entries.iter().rev().find(|entry| entry.tag == tag as u32)?;
        Some((entry.kind, self.data + entry.offset))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::sqlite::Payload, *};

    /// A value of a header that a test makes.
    pub enum TagValue<'a> {
        Text(&'a str),
        Number(u32),
    }

    /// Makes a header with a region and an entry after it, as rpm does.
    pub fn header(values: &[(u32, TagValue)], added: &[(u32, TagValue)]) -> Vec<u8> {
        let (mut index, mut data) = (vec![], vec![]);
        let mut add = |tag: u32, value: &TagValue, data: &mut Vec<u8>| {
            let kind = match value {
                TagValue::Text(_) => 6,
                TagValue::Number(_) => {
                    data.resize(data.len().next_multiple_of(4), 0);
                    4
                }
            };
            index.extend([tag, kind, u32::try_from(data.len()).unwrap(), 1]);
            match value {
                TagValue::Text(text) => data.extend([text.as_bytes(), b"\0"].concat()),
                TagValue::Number(number) => data.extend(number.to_be_bytes()),
            }
        };
        for (tag, value) in values {
            add(*tag, value, &mut data);
        }
        let trailer = data.len();
        let region = u32::try_from(values.len() + 1).unwrap();
        data.extend([63, 7, (region * 16).wrapping_neg(), 16].map(u32::to_be_bytes).concat());
        for (tag, value) in added {
            add(*tag, value, &mut data);
        }
        let entries = [&[63, 7, u32::try_from(trailer).unwrap(), 16], &*index].concat();
        let sizes = [u32::try_from(entries.len() / 4).unwrap(), u32::try_from(data.len()).unwrap()];
        let numbers = sizes.into_iter().chain(entries).flat_map(u32::to_be_bytes);
        numbers.chain(data).collect()
    }

    fn read(bytes: &[u8]) -> Result<(Option<String>, Option<u32>)> {
        let mut payload = Payload::of(bytes.to_vec());
        let mut blob = payload.whole();
        let mut header = Header::read(&mut blob)?;
        Ok((header.text(Tag::Name)?, header.number(Tag::Epoch)?))
    }

    #[test]
    fn an_entry_after_the_region_replaces_one_of_it() {
        let region = [(1000, TagValue::Text("bash")), (1003, TagValue::Number(7))];
        assert_eq!(read(&header(&region, &[])).unwrap(), (Some("bash".into()), Some(7)));
        let added = [(1008, TagValue::Number(1)), (1000, TagValue::Text("dash"))];
        assert_eq!(read(&header(&region, &added)).unwrap(), (Some("dash".into()), Some(7)));
        assert_eq!(read(&header(&[(1001, TagValue::Text("1"))], &[])).unwrap(), (None, None));
        let long = "n".repeat(1000);
        assert_eq!(read(&header(&[(1000, TagValue::Text(&long))], &[])).unwrap(), (Some(long), None));
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let sound = header(&[(1000, TagValue::Text("bash")), (1003, TagValue::Number(7))], &[]);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            format!("{:#}", read(&bytes).unwrap_err())
        };
        assert_eq!(refused(&|bytes| bytes.truncate(7)), "its index is cut off: it ends after 7 bytes");
        assert_eq!(refused(&|bytes| bytes[3] = 0), "its index has 0 entries for 28 bytes");
        assert_eq!(refused(&|bytes| bytes[0] = 1), "its index has 16777219 entries for 28 bytes");
        assert_eq!(refused(&|bytes| bytes[3] = 4), "it has 84 bytes, but its index says 100");
        assert_eq!(refused(&|bytes| _ = bytes.pop()), "it has 83 bytes, but its index says 84");
        assert_eq!(refused(&|bytes| bytes[31] = 4), "its tag 1000 has the type 4");
        assert_eq!(refused(&|bytes| bytes[47] = 6), "its tag 1003 has the type 6");
        assert_eq!(refused(&|bytes| bytes[48] = 0xff), "its tag 1003 is cut off: it ends after 84 bytes");
        assert_eq!(refused(&|bytes| bytes[32] = 0xff), "its tag 1000 has no end");
        assert_eq!(refused(&|bytes| bytes[56..].fill(1)), "its tag 1000 has no end");
    }
}
