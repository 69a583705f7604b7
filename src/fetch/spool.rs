//! The spool: the file that a download's bytes are written to, in any order. The bytes before the first gap are
//! digested meanwhile. If this process ends, another one resumes the download.

mod chunks;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use nix::{errno::Errno, fcntl::FallocateFlags, sys::statfs::TMPFS_MAGIC, unistd::geteuid};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use self::chunks::Chunks;
pub(super) use self::chunks::{CHUNK_BYTES, Lane};
use super::{fetched::Fetched, pull::Pull};
use crate::{
    aws::s3::{Checksum, Promise, RunningChecksum},
    error::Fault,
    host::{
        calls::{fallocate, fstatfs, fstatvfs, read_at},
        root::Staged,
    },
    net::retry::Failure,
    value::{AbsPath, ByteSize, Sha256, quoted},
};

/// A body shorter than this is not resumed by another process, but downloaded again.
const MIN_NOTED_BYTES: u64 = if cfg!(fuzzing) { 1 } else { 1 << 20 };
/// A body that is not longer needs no permit, and no thread digests it.
pub(super) const SHORT_BODY_BYTES: u64 = 1 << 20;
/// The bytes that are digested at a time, which fit the processor's cache.
const DIGEST_STEP_BYTES: usize = 256 << 10;
/// The length of a note's head. The numbers follow it.
const HEAD: u64 = HEAD_BYTES as u64;
const HEAD_BYTES: usize = 4096;
/// The largest body: a file of ext4 has at most 16 TiB, an object of S3 at most 50 TB.
const MAX_BODY_BYTES: u64 = 64 << 40;

/// The head of a note: the source and version of the bytes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    source: String,
    sha256: Option<Sha256>,
    /// The boot. A crash of the machine may have lost bytes, so a note of an earlier boot does not count.
    boot: String,
    promise: Promise,
}

/// The file that the bytes are written to.
#[derive(Debug)]
pub(super) enum SpoolFile {
    /// A file without a name.
    Anonymous(Arc<File>),
    /// A file that another process can resume.
    Part(Staged),
}

/// A file that becomes a [`Fetched`].
pub(super) struct Spool {
    file: Arc<File>,
    part: Option<Staged>,
    /// The name in messages.
    directory: AbsPath,
    source: String,
    expected: Option<Sha256>,
    /// The length in bytes, if it is known before the origin tells it.
    size: Option<u64>,
    promise: Promise,
    chunks: Chunks,
    /// Bytes that an earlier process had received.
    resumed: u64,
    /// The note for another process.
    note: Option<File>,
    /// The digest of the bytes from the start; `None` while another thread has it.
    digest: Option<Digest>,
}

impl Spool {
    /// Returns the spool for a download's bytes, with the bytes that a note says are there. `directory` is for
    /// messages.
    pub(super) fn new(file: SpoolFile, directory: AbsPath, pull: &Pull) -> Result<Self, Fault> {
        let (file, part) = match file {
            SpoolFile::Anonymous(file) => (file, None),
            SpoolFile::Part(part) => (part.file().clone(), Some(part)),
        };
        let mut spool = Self {
            file,
            part,
            directory,
            source: pull.source.to_string(),
            expected: pull.sha256,
            size: pull.size,
            promise: Promise::default(),
            chunks: Chunks::default(),
            resumed: 0,
            note: None,
            digest: Some(Digest::new(None)),
        };
        if spool.part.as_ref().is_some_and(Staged::has_note) && !spool.read_note() {
            spool.forget()?;
        }
        Ok(spool)
    }

    /// Returns the promise that the present bytes belong to.
    pub(super) fn promise(&self) -> &Promise {
        &self.promise
    }

    /// Returns the number of present bytes.
    pub(super) fn done(&self) -> u64 {
        self.chunks.done()
    }

    /// Returns whether enough bytes are present to request only the rest.
    pub(super) fn is_resumable(&self) -> bool {
        self.done() > 0 && self.promise.etag.is_some() && self.promise.total.is_some()
    }

    /// Forgets the received bytes and their promise.
    pub(super) fn forget(&mut self) -> Result<(), Fault> {
        self.note = None;
        if let Some(part) = &mut self.part {
            part.drop_note();
        }
        (self.promise, self.chunks, self.resumed) = (Promise::default(), Chunks::default(), 0);
        self.digest = Some(Digest::new(None));
        self.file.set_len(0).map_err(|error| self.explain(error))
    }

    /// Expects the bytes of a promise, from the first one on.
    ///
    /// # Errors
    /// If their number differs from the known one, or if the file system has no room for them.
    pub(super) fn begin(&mut self, promise: Promise) -> Result<(), Failure> {
        if self.done() > 0 {
            self.forget().map_err(Failure::Permanent)?;
        }
        if let (Some(size), Some(total)) = (self.size, promise.total)
            && size != total
        {
            return Err(Failure::Suspect(Fault::new(format!("the server announces {total} bytes, not {size}"))));
        }
        self.chunks = Chunks::new(promise.total);
        self.digest = Some(Digest::new(promise.checksum.as_ref()));
        self.promise = promise;
        let Some(total) = self.promise.total.filter(|total| *total >= MIN_NOTED_BYTES) else { return Ok(()) };
        self.admit(total).and_then(|()| self.allocate(total)).map_err(Failure::Permanent)?;
        if self.promise.etag.is_some()
            && let Some(part) = &mut self.part
        {
            // Without a note, the next process starts from the beginning. This is no reason to fail.
            self.note = part.note().ok().and_then(|note| self.write_note(&note).ok().map(|()| note));
        }
        Ok(())
    }

    /// Fails if the file system has no room for the bytes, before any of them is sent.
    fn admit(&self, total: u64) -> Result<(), Fault> {
        let announced = ByteSize(total);
        if total > MAX_BODY_BYTES {
            return Err(Fault::new(format!("the server announces {announced}, more than a file can hold"))
                .hint("check the URL, and what answers for it"));
        }
        // A file system that does not tell its size has 0 blocks.
        let Some(stat) = fstatvfs(&*self.file).ok().filter(|stat| stat.blocks() > 0) else { return Ok(()) };
        let blocks = if geteuid().is_root() { stat.blocks_free() } else { stat.blocks_available() };
        let free = blocks.saturating_mul(stat.fragment_size());
        if total <= free {
            return Ok(());
        }
        let (directory, free) = (&self.directory, ByteSize(free));
        let message = format!("the server announces {announced}, but the file system of {directory} has {free} free");
        let directory = quoted(directory.as_str());
        Err(Fault::new(message).hint(format!("free space on it (df -h {directory}), or check the URL")))
    }

    /// Allocates the space in one piece, so that a lack of it shows before any byte is sent.
    fn allocate(&self, total: u64) -> Result<(), Fault> {
        let length = total.try_into().unwrap_or(i64::MAX);
        // On tmpfs this would only clear pages that are about to be written.
        if fstatfs(&*self.file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC) {
            return Ok(());
        }
        match fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => Err(self.explain(errno.into())),
            // Not every file system supports it.
            _ => Ok(()),
        }
    }

    /// Adds a connection that will claim chunks.
    pub(super) fn lane(&mut self) -> Lane {
        self.chunks.lane()
    }

    /// See [`Chunks::has_more`].
    pub(super) fn has_more(&self) -> bool {
        self.chunks.has_more()
    }

    /// See [`Chunks::claim`].
    pub(super) fn claim(&mut self, lane: Lane) -> Option<(u64, u64)> {
        self.chunks.claim(lane)
    }

    /// See [`Chunks::claim_at`].
    pub(super) fn claim_at(&mut self, lane: Lane, start: u64) -> Option<u64> {
        self.chunks.claim_at(lane, start)
    }

    /// See [`Chunks::gap_end`].
    pub(super) fn gap_end(&self, start: u64) -> Option<u64> {
        self.chunks.gap_end(start)
    }

    /// See [`Chunks::release`].
    pub(super) fn release(&mut self) {
        self.chunks.release();
    }

    /// Writes the next bytes of a claimed chunk. Returns whether the claim still holds.
    pub(super) fn write(&mut self, lane: Lane, offset: u64, bytes: &[u8]) -> Result<bool, Failure> {
        if !self.chunks.is_claimed(lane, offset) {
            return Ok(false);
        }
        if let Some(size) = self.size
            && offset.saturating_add(bytes.len() as u64) > size
        {
            return Err(Failure::Suspect(Fault::new(format!("the server sends more than {size} bytes"))));
        }
        if let Err(error) = self.file.write_all_at(bytes, offset) {
            let fault = self.explain(error);
            // A full disk would stop other programs, and these bytes could not be used.
            _ = self.forget();
            return Err(Failure::Permanent(fault));
        }
        // A short body is digested as it arrives, and not read again.
        if self.promise.total.is_some_and(|total| total <= SHORT_BODY_BYTES)
            && let Some(digest) = self.digest.as_mut().filter(|digest| digest.done == offset)
        {
            digest.update(bytes);
        }
        let (chunk, there) = self.chunks.add(offset, bytes.len() as u64);
        if let Some(note) = &self.note {
            // The note is written after the bytes, so that it never claims too many. It needs no flush: see
            // `Head::boot`.
            let noted = note.write_all_at(&there.to_le_bytes(), HEAD + 8 * chunk);
            if noted.is_err() {
                self.note = None;
            }
        }
        Ok(true)
    }

    /// Notes the end of a body of unknown length.
    pub(super) fn end(&mut self) {
        self.chunks.end();
        self.promise.total = Some(self.done());
    }

    /// Returns the number of bytes to digest; 0 while another thread digests.
    pub(super) fn undigested(&self) -> u64 {
        let frontier = self.chunks.frontier();
        self.digest.as_ref().map_or(0, |digest| frontier - digest.done)
    }

    /// Lends the digest to a thread, with the end of the bytes that it can digest.
    pub(super) fn lend_digest(&mut self) -> Option<Lent> {
        let until = self.chunks.frontier();
        Some(Lent { digest: self.digest.take()?, file: self.file.clone(), until })
    }

    /// Takes the digest back.
    pub(super) fn return_digest(&mut self, lent: Lent) {
        self.digest = Some(lent.digest);
    }

    /// Digests the present bytes on this thread.
    pub(super) fn digest(&mut self) -> io::Result<()> {
        let Some(mut lent) = self.lend_digest() else { return Ok(()) };
        let advanced = lent.advance();
        self.return_digest(lent);
        advanced
    }

    /// Fails if the bytes are not the expected ones.
    ///
    /// # Errors
    /// Also if some bytes are missing or not digested.
    pub(super) fn verify(&mut self) -> Result<(), Fault> {
        let (done, total) = (self.done(), self.promise.total);
        let is_whole = |digest: &&mut Digest| digest.done == done && total == Some(done);
        let Some(digest) = self.digest.as_mut().filter(is_whole) else {
            return Err(Fault::new("the bytes of a download are not all there"));
        };
        let actual = digest.sha256();
        if let Some(expected) = self.expected.filter(|expected| *expected != actual) {
            return Err(other_bytes(done, actual, expected));
        }
        digest.checksum.take().map_or(Ok(()), RunningChecksum::verify)
    }

    /// Hands over the verified file, to be read from its start.
    pub(super) fn finish(&mut self) -> Result<Fetched, Fault> {
        let digest = self.digest.take().ok_or_else(|| Fault::new("the bytes of a download were not digested"))?;
        let promise = std::mem::take(&mut self.promise);
        Ok(Fetched {
            // Its position is still 0: bytes are written by offset.
            file: self.file.clone(),
            sha256: digest.sha256(),
            size: self.done(),
            resumed: self.resumed,
            etag: promise.validator(),
            part: self.part.take(),
        })
    }

    fn explain(&self, error: io::Error) -> Fault {
        let directory = &self.directory;
        let errno = error.raw_os_error().map(Errno::from_raw);
        let fault = Fault::new(format!("writing a download to {directory}")).caused_by(error);
        match errno {
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                let free = fstatvfs(&*self.file).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
                let needed = self.promise.total.map_or(String::new(), |total| format!(" of {}", ByteSize(total)));
                fault.hint(format!(
                    "the file system of {directory} is full: {} free after {}{needed} were written (df -h, df -i)",
                    ByteSize(free),
                    ByteSize(self.done())
                ))
            }
            Some(Errno::EFBIG) => fault.hint("larger than the file system or a limit (ulimit -f) allows"),
            _ => fault,
        }
    }

    fn head(&self) -> Head {
        Head {
            source: self.source.clone(),
            sha256: self.expected,
            boot: crate::host::facts::boot_id(),
            promise: self.promise.clone(),
        }
    }

    fn write_note(&self, note: &File) -> io::Result<()> {
        let mut head = serde_json::to_vec(&self.head())?;
        if head.len() as u64 > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.resize(HEAD_BYTES, b' ');
        note.set_len(0)?;
        note.write_all_at(&head, 0)
    }

    /// Resumes the download that an earlier process noted. Returns whether that is possible.
    fn read_note(&mut self) -> bool {
        let Some(mut note) = self.part.as_mut().and_then(|part| part.note().ok()) else { return false };
        let mut head = [0; HEAD_BYTES];
        if note.read_exact(&mut head).is_err() {
            return false;
        }
        let Ok(head) = serde_json::from_slice::<Head>(&head) else { return false };
        self.promise = head.promise.clone();
        let (Some(total), true) = (self.promise.total, head == self.head()) else { return false };
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let Some(chunks) = Chunks::read(total, length, &note) else { return false };
        self.chunks = chunks;
        self.resumed = self.done();
        self.digest = Some(Digest::new(self.promise.checksum.as_ref()));
        self.note = Some(note);
        true
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.note.is_some()
            && self.done() > 0
            && let Some(part) = &mut self.part
        {
            part.keep();
        }
    }
}

/// A digest that is lent to a thread.
pub(super) struct Lent {
    digest: Digest,
    file: Arc<File>,
    until: u64,
}

impl Lent {
    /// Digests the present bytes.
    pub(super) fn advance(&mut self) -> io::Result<()> {
        let mut buffer =
            vec![0; DIGEST_STEP_BYTES.min(usize::try_from(self.until - self.digest.done).unwrap_or(DIGEST_STEP_BYTES))];
        while self.digest.done < self.until {
            let left = usize::try_from(self.until - self.digest.done).unwrap_or(DIGEST_STEP_BYTES).min(buffer.len());
            let read = read_at(&*self.file, &mut buffer[..left], self.digest.done)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.digest.update(&buffer[..read]);
        }
        Ok(())
    }
}

/// Returns the digest of the bytes so far.
struct Digest {
    sha256: sha2::Sha256,
    checksum: Option<RunningChecksum>,
    done: u64,
}

impl Digest {
    fn new(checksum: Option<&Checksum>) -> Self {
        Self { sha256: sha2::Sha256::new(), checksum: checksum.and_then(RunningChecksum::new), done: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.done += bytes.len() as u64;
    }

    fn sha256(&self) -> Sha256 {
        Sha256(self.sha256.clone().finalize().into())
    }
}

/// Returns the fault that a source has other bytes than declared.
pub fn other_bytes(size: u64, actual: Sha256, expected: Sha256) -> Fault {
    Fault::new(format!("the sha256 of the {size} bytes is {actual}, not {expected}"))
        .hint("the source holds other bytes than were declared: correct one of them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::retry::Limit;

    /// Receives the first bytes of a body of this length.
    fn received(total: u64, bytes: &[u8]) -> Spool {
        let file = nix::sys::memfd::memfd_create("spool", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let pull = Pull { source: "http://a/b".parse().unwrap(), sha256: None, size: None, limit: Limit::Attempts(1) };
        let mut spool = Spool::new(SpoolFile::Anonymous(Arc::new(file.into())), "/x".into(), &pull).unwrap();
        spool.begin(Promise { total: Some(total), ..Promise::default() }).unwrap();
        let lane = spool.lane();
        _ = spool.claim(lane).unwrap();
        for (offset, piece) in (0..).step_by(2).zip(bytes.chunks(2)) {
            assert!(spool.write(lane, offset, piece).unwrap());
        }
        spool
    }

    #[test]
    fn a_short_body_is_digested_without_reading_it_again() {
        let mut spool = received(5, b"bytes");
        assert_eq!(spool.undigested(), 0);
        spool.verify().unwrap();
        assert_eq!(spool.finish().unwrap().sha256, Sha256::of(b"bytes"));
        assert_eq!(received(SHORT_BODY_BYTES + 1, b"bytes").undigested(), 5, "a long body is read by another thread");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "opens a device that is always full")]
    fn a_full_file_system_is_named_with_what_was_needed() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let pull = Pull { source: "http://a/b".parse().unwrap(), sha256: None, size: None, limit: Limit::Attempts(1) };
        let mut spool = Spool::new(SpoolFile::Anonymous(Arc::new(file)), "/var/lib/x".into(), &pull).unwrap();
        spool.begin(Promise { total: Some(3 << 20), ..Promise::default() }).unwrap();
        let lane = spool.lane();
        _ = spool.claim(lane).unwrap();
        let error = spool.write(lane, 0, b"jar").unwrap_err();
        let told = crate::error::render(&error.into_fault().into());
        assert!(told.contains("No space left on device"), "{told}");
        assert!(told.contains("the file system of /var/lib/x is full") && told.contains("of 3 MiB"), "{told}");
    }
}
