//! Records for the journal, by its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.
//!
//! A journald that is stopped or too slow holds nothing up: what it does not take in time is dropped and counted.

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

use crate::redaction;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// How long a journald that is busy may take until it takes a record. Only the first record that it does not take
/// waits so long.
const BUSY: Duration = Duration::from_secs(1);
/// A longer value is cut: a whole record must fit into one datagram.
const MAX_VALUE_BYTES: usize = 32 << 10;

/// A layer that sends each event to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// How many records were dropped since the last one that was taken.
    dropped: AtomicU64,
}

impl Journal {
    /// Opens the way to the journal.
    ///
    /// # Errors
    /// If nothing listens there.
    pub fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(SOCKET)?;
        Ok(Self { socket, dropped: AtomicU64::new(0) })
    }

    fn send(&self, record: &[u8]) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            let mut note = Record::new(Level::WARN);
            note.put("MESSAGE", &format!("{dropped} records are missing here: the journal did not take them"));
            if self.try_send(&note.0).is_err() {
                _ = self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.dropped.store(0, Ordering::Relaxed);
        }
        let sent = self.try_send(record).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let busy = PollTimeout::try_from(BUSY).unwrap_or(PollTimeout::ZERO);
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
            // A journald that was started anew may listen on another socket of the same name.
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
        let mut record = Record::new(*metadata.level());
        record.put("TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            record.put("CODE_FILE", file);
            record.put("CODE_LINE", &line.to_string());
        }
        event.record(&mut record);
        self.send(&record.0);
    }
}

/// The fields of a record, as they are sent.
struct Record(Vec<u8>);

impl Record {
    fn new(level: Level) -> Self {
        // As syslog(3) counts.
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

    /// Adds a field: its name, the length of its value, its value, which may have lines.
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
        let value = &*redaction::shown(value);
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

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_field(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        _ = write!(text, "{value:?}");
        self.put_field(field, &text);
    }
}
