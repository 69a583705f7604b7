//! The formats of archives, known by their first bytes.

use anyhow::Result;

use crate::error::Fault;

/// The position of the magic of a tar.
const TAR_MAGIC_AT: usize = 257;
/// The bytes at the beginning of an archive that show its format.
pub(super) const HEAD_BYTES: u64 = 512;

/// A format of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArchiveFormat {
    Tar,
    TarGz,
    TarXz,
    TarZst,
    Zip,
}

/// Formats that are known, but not read.
const OTHERS: [(&[u8], &str); 4] =
    [(b"BZh", "bzip2"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!", "RAR"), (b"!<arch>\n", "ar")];

impl ArchiveFormat {
    /// Returns the format of an archive with these first bytes.
    ///
    /// # Errors
    /// If it is none of them.
    pub(super) fn of(head: &[u8]) -> Result<Self> {
        match head {
            [0x1f, 0x8b, ..] => return Ok(Self::TarGz),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Ok(Self::TarXz),
            // A frame, or a frame to skip, with which parallel compressors begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return Ok(Self::TarZst),
            // A first member, or the end of an archive without members.
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => return Ok(Self::Zip),
            _ if head.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar") => return Ok(Self::Tar),
            _ => {}
        }
        let other = OTHERS.iter().find(|(magic, _)| head.starts_with(magic));
        let what = other.map_or("of an unknown format".to_owned(), |(_, name)| format!("of the format {name}"));
        let fault = Fault::new(format!("the archive is {what}"));
        Err(fault
            .hint("use a tar, a tar.gz, a tar.xz, a tar.zst or a zip; its first bytes decide, not its name")
            .into())
    }
}
