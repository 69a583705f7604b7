//! A journald that keeps what it gets by its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.

use std::{fs, os::unix::net::UnixDatagram, path::Path};

use crate::sandbox::Sandbox;

/// The socket of a sandbox whose `/run` is its own.
pub struct Journald(UnixDatagram);

impl Journald {
    pub fn listen(sandbox: &Sandbox) -> Self {
        let path = sandbox.at("machine/run/systemd/journal/socket");
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// Returns the records since the last call, each as lines of `NAME=VALUE`.
    pub fn records(&self) -> Vec<String> {
        let mut buffer = vec![0; 64 << 10];
        std::iter::from_fn(|| self.0.recv(&mut buffer).ok().map(|length| fields(&buffer[..length]))).collect()
    }
}

/// Returns a record's fields: each has its name, a newline, the length of its value, its value, and a newline.
fn fields(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap());
        let value = &bytes[end + 9..][..usize::try_from(length).unwrap()];
        text += &format!("{}={}\n", String::from_utf8_lossy(&bytes[..end]), String::from_utf8_lossy(value));
        bytes = &bytes[end + 10 + value.len()..];
    }
    text
}
