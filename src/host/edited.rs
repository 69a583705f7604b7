//! Text files of the distribution of which this program changes some lines: the others keep their bytes.

use anyhow::Result;

use super::root::{MAX_TEXT_BYTES, Root};
use crate::value::AbsPath;

/// A text file to be changed. Comments of administrators need not be UTF-8: then each byte is the character of Latin-1.
#[derive(Debug)]
pub struct EditedText {
    text: String,
    is_utf8: bool,
}

impl EditedText {
    /// Reads a file; empty if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read, or is too large for a text of the distribution.
    pub fn read(root: &Root, path: &AbsPath) -> Result<Self> {
        let bytes = root.read(path, MAX_TEXT_BYTES)?.unwrap_or_default();
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Self { text, is_utf8: true },
            Err(error) => Self { text: error.as_bytes().iter().copied().map(char::from).collect(), is_utf8: false },
        })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the bytes of a changed text, in the encoding of this one. In Latin-1, what is added must be ASCII.
    pub fn encode(&self, changed: &str) -> Vec<u8> {
        if self.is_utf8 {
            return changed.into();
        }
        changed
            .chars()
            .flat_map(|c| u8::try_from(c).map_or_else(|_| c.to_string().into_bytes(), |byte| vec![byte]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn lines_that_stay_keep_their_bytes() {
        for bytes in [&b"# M\xfcller \x80\xff\n"[..], "# Müller\n".as_bytes(), b"", b"\n"] {
            let tree = Scratch::new();
            tree.write("/hosts", bytes);
            let text = EditedText::read(&Root::open(tree.path()).unwrap(), &"/hosts".into()).unwrap();
            assert_eq!(text.encode(&format!("{}new\n", text.as_str())), [bytes, b"new\n"].concat());
        }
    }
}
