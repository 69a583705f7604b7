//! Entries for the journal, by its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.
//!
//! A journald that is stopped or slow does not delay a run. Entries that it does not accept in time are dropped and
//! counted.

use std::{
    fmt::{Debug, Write},
    io,
    os::{fd::AsFd, unix::net::UnixDatagram},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{redaction, visible};

/// The socket of journald.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Limits the wait for a busy journald. Only the first entry that it does not accept waits this long.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer values are cut, so that a whole entry fits into one datagram.
const MAX_VALUE_BYTES: usize = 32 << 10;

/// A layer that sends each event to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// The number of entries that were dropped since the last accepted one.
    dropped: AtomicU64,
}

impl Journal {
    /// Connects to journald.
    ///
    /// # Errors
    /// If journald does not listen.
    pub fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(SOCKET)?;
        Ok(Self { socket, dropped: AtomicU64::new(0) })
    }

    fn send(&self, record: &[u8]) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            let mut note = JournalEntry::new(Level::WARN);
            note.put(
                "MESSAGE",
                &format!("{dropped} entries are missing here: the journal did not accept them in time"),
            );
            if self.try_send(&note.0).is_err() {
                _ = self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.dropped.store(0, Ordering::Relaxed);
        }
        let sent = self.try_send(record).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let busy = PollTimeout::try_from(SEND_TIMEOUT).unwrap_or(PollTimeout::ZERO);
                _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)], busy);
                self.try_send(record)
            }
            _ => Err(error),
        });
        if sent.is_err() {
            _ = self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_send(&self, record: &[u8]) -> io::Result<usize> {
        self.socket.send(record).or_else(|error| match error.kind() {
            // A restarted journald listens on a new socket with the same name.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected | io::ErrorKind::ConnectionReset => {
                self.socket.connect(SOCKET).and_then(|()| self.socket.send(record))
            }
            _ => Err(error),
        })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = JournalEntry::new(*metadata.level());
        record.put("TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            record.put("CODE_FILE", file);
            record.put("CODE_LINE", &line.to_string());
        }
        event.record(&mut record);
        self.send(&record.0);
    }
}

/// The fields of an entry in the form of the protocol.
struct JournalEntry(Vec<u8>);

impl JournalEntry {
    fn new(level: Level) -> Self {
        // The priorities of syslog(3).
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let mut record = Self(Vec::with_capacity(512));
        record.put("PRIORITY", priority);
        record.put("SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        record
    }

    /// Adds a field: its name, the length of its value, its value. The value may have several lines.
    fn put(&mut self, name: &str, value: &str) {
        let value = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
        self.0.extend(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend((value.len() as u64).to_le_bytes());
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }

    /// Adds a field of an event. The names of the program's own fields begin with `GLOVO_`.
    fn put_field(&mut self, field: &Field, value: &str) {
        // A reader of the journal may show it raw, and `journalctl` would hide a message that has control characters.
        let value = &*visible::lines(&redaction::shown(value)).into_owned();
        match field.name() {
            "message" => self.put("MESSAGE", value),
            name => {
                let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
                let name: String = name.chars().map(allowed).collect();
                self.put(&format!("GLOVO_{name}"), value);
            }
        }
    }
}

impl Visit for JournalEntry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_field(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        _ = write!(text, "{value:?}");
        self.put_field(field, &text);
    }
}
