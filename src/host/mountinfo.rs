//! The table of mounted file systems, `proc_pid_mountinfo(5)`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use anyhow::{Context, Result};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedFileSystem {
    /// The number of its device, such as `259:3`.
    pub number: String,
    /// The directory of the file system that is mounted: `/` is all of it.
    pub directory: String,
    /// The path at which it is mounted.
    pub path: OsString,
    /// The options of this mount, such as `rw` and `noatime`.
    pub options: Vec<String>,
    /// Its type, such as `ext4`.
    pub file_system: String,
    /// Its source, such as `/dev/nvme1n1` or `server:/export`.
    pub source: String,
    /// The options of the file system itself, for all its mounts.
    pub super_options: Vec<String>,
}

impl MountedFileSystem {
    /// Reads a line: `36 35 98:0 /root /path rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let words = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
        let list = |field: &[u8]| String::from_utf8_lossy(field).split(',').map(str::to_owned).collect();
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (number, directory) = (fields.next()?, fields.next()?);
        let (path, options) = (fields.next()?, fields.next()?);
        // Before the separator, there may be any number of optional fields.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (file_system, source, super_options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            number: words(number),
            directory: words(directory),
            path: OsString::from_vec(unescaped(path)),
            options: list(options),
            file_system: words(file_system),
            source: words(source),
            super_options: list(super_options),
        })
    }
}

/// Returns the mounted file systems, in the order of their mounts.
pub fn mounts() -> Result<Vec<MountedFileSystem>> {
    let text = std::fs::read(MOUNTINFO).with_context(|| format!("reading {MOUNTINFO}"))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(MountedFileSystem::parse).collect())
}

/// Returns a field without its escapes: the kernel writes a space, a tab, a newline and a backslash as `\040`.
pub(super) fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_octal() {
        for (field, bytes) in [
            (&br"/srv"[..], &b"/srv"[..]),
            (br"/a\040b\134c", br"/a b\c"),
            (br"/a\012", b"/a\n"),
            (br"/a\04", br"/a\04"),
            (br"/a\999", br"/a\999"),
        ] {
            assert_eq!(unescaped(field), bytes);
        }
    }

    #[test]
    fn a_line_of_mountinfo_is_a_mounted_file_system() {
        let line = br"36 35 98:0 /sub /srv/a\040b rw,noatime master:1 shared:2 - ext4 /dev/root rw,errors=continue";
        let mounted = MountedFileSystem::parse(line).unwrap();
        assert_eq!(
            (&*mounted.number, &*mounted.directory, mounted.path.to_str().unwrap()),
            ("98:0", "/sub", "/srv/a b")
        );
        assert_eq!((&*mounted.options, &*mounted.super_options[0]), (&["rw".to_owned(), "noatime".into()][..], "rw"));
        assert_eq!((&*mounted.file_system, &*mounted.source), ("ext4", "/dev/root"));
        for broken in [&b""[..], b"36 35 98:0 /", b"36 35 98:0 / / rw - ext4 /dev/root"] {
            assert_eq!(MountedFileSystem::parse(broken), None);
        }
    }
}
