//! Archives of other people: their members, one after the other, each checked before it is handed out.
//!
//! A reader of a format ([`tar`], [`zip`]) finds the members. One [`gate`] checks all of them: a name cannot leave the directory, no
//! member can be written through a link, and sizes and numbers are limited. Nothing here writes to the machine.

mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gate;
mod tar;
mod zip;
mod zstd;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
};

use anyhow::{Context, Result, bail};
use lzma_rust2::XzReader;

use self::{
    format::{ArchiveFormat, HEAD_BYTES},
    gate::Gate,
};
use crate::{error::Fault, host::calls};

/// The buffer of a reader of an archive's bytes.
const BUFFER_BYTES: usize = 128 << 10;
/// The most memory for what an archive refers back to. `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB.
const MAX_WINDOW_KIB: u32 = 128 << 10;

/// The limits of an archive, which its maker does not choose.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveLimits {
    /// The most members.
    pub members: u64,
    /// The most bytes of all members together.
    pub bytes: u64,
}

impl Default for ArchiveLimits {
    /// Returns limits that few archives exceed.
    fn default() -> Self {
        Self { members: 100_000, bytes: 4 << 30 }
    }
}

/// A member of an archive, with a path that is safe below any directory.
#[derive(Debug)]
pub struct ArchiveMember<'a> {
    /// Its path: components of UTF-8 without control characters, separated by `/`. All directories above were handed out before.
    pub path: &'a str,
    /// What it is.
    pub kind: MemberKind<'a>,
    /// Permission bits, without set-id bits and without write for group and others.
    pub mode: u32,
    /// The time of its last modification, in seconds since 1970.
    pub modified: i64,
}

/// What a member of an archive is.
#[derive(Debug, Clone, Copy)]
pub enum MemberKind<'a> {
    /// A directory. It may be handed out again, with other permission bits.
    Directory,
    /// A regular file, whose bytes come with it.
    File,
    /// A symbolic link. Its target is relative and in the archive's directory.
    Link(&'a str),
    /// Another name for the regular file at this path, which was handed out before.
    SameAs(&'a str),
}

/// A function that takes a member and, for a regular file, its bytes.
pub type TakeMember<'a> = &'a mut dyn FnMut(&ArchiveMember<'_>, &mut dyn Read) -> Result<()>;

/// Reads an archive's members in their order. The format is that of the content, not of a name.
///
/// The first `strip` components of each path are removed. Members without any other component are left out, as GNU tar
/// does.
///
/// # Errors
/// If the archive is damaged, larger than the limits, or has a member that could leave its directory. Those of `take`.
pub fn read(mut file: &File, strip: usize, limits: ArchiveLimits, take: TakeMember<'_>) -> Result<()> {
    let mut head = vec![];
    file.rewind().context("reading the archive from its start")?;
    _ = ArchiveBytes(file).take(HEAD_BYTES).read_to_end(&mut head).context("reading the archive")?;
    file.rewind().context("reading the archive from its start")?;
    let format = ArchiveFormat::of(&head)?;
    let mut gate = Gate::new(strip, limits, take);
    let mut input = BufReader::with_capacity(BUFFER_BYTES, ArchiveBytes(file));
    match format {
        ArchiveFormat::Tar => tar::read(&mut input, &mut gate),
        ArchiveFormat::TarGz => tar::read(&mut unpacked(flate2::bufread::MultiGzDecoder::new(input)), &mut gate),
        ArchiveFormat::TarXz => {
            tar::read(&mut unpacked(XzReader::new_mem_limit(input, true, MAX_WINDOW_KIB)), &mut gate)
        }
        ArchiveFormat::TarZst => tar::read(&mut unpacked(zstd::Frames::new(input)), &mut gate),
        ArchiveFormat::Zip => zip::read(file, &mut gate),
    }
}

/// Passes the bytes of one regular file of an archive to `take`. Reads no further than needed.
///
/// # Errors
/// If the archive has no such file before it ends or is damaged. Those of `take`.
pub fn read_file(file: &File, path: &str, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
    let mut original = None;
    if find(file, path, &mut original, take)? {
        return Ok(());
    }
    // Another name of a file that came before.
    if let Some(original) = original {
        return find(file, &original, &mut None, take).map(drop);
    }
    let fault = Fault::new(format!("the archive has no member {path}"));
    Err(fault.hint("correct `member`; to list the members: tar -tf ARCHIVE, or unzip -l ARCHIVE").into())
}

/// Passes the bytes of a file to `take`. Returns whether it was found; if it is another name of a file, sets `original`.
fn find(
    file: &File,
    path: &str,
    original: &mut Option<String>,
    take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
) -> Result<bool> {
    let mut taken = None;
    let read = read(file, 0, ArchiveLimits::default(), &mut |member, body| {
        if member.path != path {
            return Ok(());
        }
        match member.kind {
            MemberKind::File => taken = Some(take(body)),
            MemberKind::SameAs(first) => *original = Some(first.to_owned()),
            MemberKind::Directory => return Ok(()),
            MemberKind::Link(target) => {
                let fault = Fault::new(format!("the member {path} is a symbolic link to {target}"));
                return Err(fault.hint("name the member that the link leads to").into());
            }
        }
        // The rest need not be read.
        bail!("found")
    });
    match (taken, &original) {
        (Some(taken), _) => taken.map(|()| true),
        (None, Some(_)) => Ok(false),
        (None, None) => read.map(|()| false),
    }
}

/// The bytes of an archive. A signal interrupts no read.
struct ArchiveBytes<'a>(&'a File);

impl Read for ArchiveBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        calls::read(self.0, buffer)
    }
}

/// Buffers what a decoder unpacks: a tar is read in blocks of 512 bytes.
fn unpacked(decoder: impl Read) -> impl Read {
    BufReader::with_capacity(BUFFER_BYTES, decoder)
}

/// Returns bytes of an archive for a message: as text, and not too long.
fn shown(bytes: &[u8]) -> String {
    const MAX_SHOWN_CHARS: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Fills a buffer. Returns false if nothing was left to read.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
