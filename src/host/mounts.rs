//! The mounted file systems, `proc_pid_mountinfo(5)`.

use anyhow::{Context, Result};

use super::Host;
use crate::value::AbsPath;

const MOUNTINFO: &str = "/proc/self/mountinfo";

impl Host {
    /// Returns whether a file system is mounted at a path.
    pub fn is_mount_point(&self, path: &AbsPath) -> Result<bool> {
        let (at, points) = self.mount_points(path)?;
        Ok(points.contains(&at))
    }

    /// Returns the first mount point at a path or below it.
    pub fn mount_point_in(&self, path: &AbsPath) -> Result<Option<String>> {
        let (at, points) = self.mount_points(path)?;
        let is_in = |point: &&Vec<u8>| {
            point.strip_prefix(at.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        Ok(points.iter().find(is_in).map(|point| String::from_utf8_lossy(point).into_owned()))
    }

    /// Returns a path as the kernel names it, and all mount points.
    fn mount_points(&self, path: &AbsPath) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let resolved = self.root().resolve(path)?;
        let at = self.root().path().join(resolved.as_str().trim_start_matches('/'));
        let text = std::fs::read(MOUNTINFO).with_context(|| format!("reading {MOUNTINFO}"))?;
        // The fifth field is the mount point.
        let points = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        Ok((at.into_os_string().into_encoded_bytes(), points.map(unescaped).collect()))
    }
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
}
