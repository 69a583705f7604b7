//! The file that a download's bytes go to, digested while they are written.

use std::{
    fs::File,
    io::{self, Seek, Write},
};

use nix::{errno::Errno, sys::statvfs::fstatvfs};
use sha2::Digest;

use super::Fetched;
use crate::{
    error::Fault,
    value::{AbsPath, ByteSize, Sha256},
};

/// A file on its way to become a [`Fetched`].
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    directory: AbsPath,
    digest: sha2::Sha256,
    size: u64,
}

impl Spool {
    /// Bytes go to an empty file; its directory is for messages.
    pub(super) fn new(file: File, directory: AbsPath) -> Self {
        Self { file, directory, digest: sha2::Sha256::new(), size: 0 }
    }

    /// How many bytes have arrived.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Forgets what has arrived.
    pub(super) fn restart(&mut self) -> Result<(), Fault> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| self.explain(error, None))?;
        self.digest = sha2::Sha256::new();
        self.size = 0;
        Ok(())
    }

    /// Appends bytes, of `total` if that is known.
    pub(super) fn write(&mut self, bytes: &[u8], total: Option<u64>) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(|error| self.explain(error, total))?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Fails if the bytes are not the ones expected.
    pub(super) fn verify(&self, expected: Option<Sha256>) -> Result<(), Fault> {
        let actual = self.sha256();
        match expected {
            Some(expected) if expected != actual => {
                let message = format!("the sha256 of the {} bytes is {actual}, not {expected}", self.size);
                Err(Fault::new(message).hint("the source holds other bytes than were declared: correct one of them"))
            }
            _ => Ok(()),
        }
    }

    /// The whole file, to be read from its start.
    pub(super) fn finish(mut self, etag: Option<String>) -> Result<Fetched, Fault> {
        self.file.rewind().map_err(|error| self.explain(error, None))?;
        Ok(Fetched { sha256: self.sha256(), file: self.file, size: self.size, etag })
    }

    fn sha256(&self) -> Sha256 {
        Sha256(self.digest.clone().finalize().into())
    }

    fn explain(&self, error: io::Error, total: Option<u64>) -> Fault {
        let directory = &self.directory;
        let errno = error.raw_os_error().map(Errno::from_raw);
        let fault = Fault::new(format!("writing a download to {directory}")).caused_by(error);
        match errno {
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                let free = fstatvfs(&self.file).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
                let needed = total.map_or(String::new(), |total| format!(" of {}", ByteSize(total)));
                fault.hint(format!(
                    "the file system of {directory} is full: {} free after {}{needed} were written (df -h, df -i)",
                    ByteSize(free),
                    ByteSize(self.size)
                ))
            }
            Some(Errno::EFBIG) => fault.hint("larger than the file system or a limit (ulimit -f) allows"),
            _ => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_6_a_full_file_system_is_named_with_what_was_needed() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let error = Spool::new(file, "/var/lib/x".into()).write(b"jar", Some(3 << 20)).unwrap_err();
        let told = crate::error::render(&error.into());
        assert!(told.contains("No space left on device"), "{told}");
        assert!(told.contains("the file system of /var/lib/x is full") && told.contains("of 3 MiB"), "{told}");
    }
}
