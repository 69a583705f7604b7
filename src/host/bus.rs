//! A client of D-Bus for questions to services of the machine, without a process.
//!
//! It knows what a question needs: <https://dbus.freedesktop.org/doc/dbus-specification.html>. It speaks to the system
//! bus, the public way to systemd (org.freedesktop.systemd1(5)). systemd's own socket, which systemctl(1) uses as root,
//! is private to systemd by systemd(1).

pub mod message;
#[cfg(test)]
pub(crate) mod stand_in;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use self::message::{BusCall, BusValue, PREFIX_BYTES, message_length, read_reply};
use crate::stop::{Stop, TICK};

/// The socket of the system bus.
pub const SOCKET: &str = "/run/dbus/system_bus_socket";
/// The most calls that wait for an answer. dbus-daemon refuses more than 128 (`max_replies_per_connection`).
const MAX_CALLS: usize = 100;
/// Limits the time for the answers to one batch of calls. systemd does not answer while it reads its unit files again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Limits a line of the bus before the messages begin.
const MAX_LINE_BYTES: usize = 512;
/// The size of one read.
const READ_BYTES: usize = 16 << 10;

/// A connection to a bus.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    /// Bytes that were read and belong to the next messages.
    read: Vec<u8>,
    /// The bytes that introduce this client, until they are sent.
    greeting: Vec<u8>,
    /// Whether the bus has let this client in.
    is_admitted: bool,
    /// The number of the last call.
    serial: u32,
    /// The calls without an answer, in their order: the number, and words for an error.
    pending: Vec<(u32, String)>,
}

impl Bus {
    /// Connects to a bus as the user of this process.
    ///
    /// # Errors
    /// If no bus listens.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting")?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        let mut bus = Self { stream, read: vec![], greeting: vec![], is_admitted: false, serial: 1, pending: vec![] };
        // The bus asks the kernel for the user of the socket, and compares it with this one: its number in decimal
        // digits, and each digit's byte in hexadecimal ones.
        let user: String = geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        // Its reply tells this connection's name, which no call needs.
        let hello = BusCall {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus",
            member: "Hello",
            arguments: vec![],
        };
        // As sd-bus does, this does not wait for the bus's consent before it goes on
        // (`bus_socket_start_auth_client` in systemd's src/libsystemd/sd-bus/bus-socket.c).
        bus.greeting = format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").into_bytes();
        bus.greeting.extend(hello.encode(bus.serial));
        Ok(bus)
    }

    /// Sends calls together, and returns what each of them returned, in their order.
    ///
    /// # Errors
    /// If the bus refuses the user, if one of them fails, if an answer breaks the rules of the protocol, or if one does
    /// not come in time. This connection is then of no more use. Also if a signal or a deadline asks to stop.
    pub fn call(&mut self, calls: &[BusCall], stop: &Stop) -> Result<Vec<Vec<BusValue>>> {
        let mut answers = vec![];
        for some in calls.chunks(MAX_CALLS) {
            self.send(some, stop)?;
            answers.extend(self.answers(stop)?);
        }
        Ok(answers)
    }

    /// Sends calls together, and waits for nothing.
    ///
    /// # Errors
    /// If there are more than a bus allows, or if they cannot be sent in time.
    pub fn send(&mut self, calls: &[BusCall], stop: &Stop) -> Result<()> {
        ensure!(self.pending.len() + calls.len() <= MAX_CALLS, "too many calls at once");
        let mut messages = std::mem::take(&mut self.greeting);
        for call in calls {
            let serial = self.next_serial();
            messages.extend(call.encode(serial));
            self.pending.push((serial, format!("{} of {}", call.member, call.path)));
        }
        self.write(&messages, stop, stop.now() + ANSWER_TIMEOUT)
    }

    /// Returns what each call that was sent returned, in their order.
    ///
    /// # Errors
    /// Those of [`Bus::call`].
    pub fn answers(&mut self, stop: &Stop) -> Result<Vec<Vec<BusValue>>> {
        let end = stop.now() + ANSWER_TIMEOUT;
        if !self.is_admitted {
            let line = self.line(stop, end)?;
            ensure!(line.starts_with(b"OK "), "the bus answers {:?}", String::from_utf8_lossy(&line));
            self.is_admitted = true;
        }
        let calls = std::mem::take(&mut self.pending);
        let mut answers = BTreeMap::new();
        while answers.len() < calls.len() {
            let Some(reply) = read_reply(&self.message(stop, end)?)? else {
                // A bus that never stops sending signals holds nothing up.
                check(stop, end)?;
                continue;
            };
            let Some((serial, call)) = calls.iter().find(|(serial, _)| *serial == reply.serial) else { continue };
            match reply.outcome {
                Ok(values) => _ = answers.insert(*serial, values),
                Err(name) => bail!("{call}: {name}"),
            }
        }
        Ok(answers.into_values().collect())
    }

    fn next_serial(&mut self) -> u32 {
        // A call's number is not 0.
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        self.serial
    }

    fn message(&mut self, stop: &Stop, end: Instant) -> Result<Vec<u8>> {
        while self.read.len() < PREFIX_BYTES {
            self.read_more(stop, end)?;
        }
        let length = message_length(self.read.first_chunk().context("no message")?)?;
        while self.read.len() < length {
            self.read_more(stop, end)?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    fn line(&mut self, stop: &Stop, end: Instant) -> Result<Vec<u8>> {
        loop {
            if let Some(length) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.read.split_off(length + 2);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            ensure!(self.read.len() <= MAX_LINE_BYTES, "a line without an end");
            self.read_more(stop, end)?;
        }
    }

    fn read_more(&mut self, stop: &Stop, end: Instant) -> Result<()> {
        let mut bytes = [0; READ_BYTES];
        let length = retry(stop, end, || (&self.stream).read(&mut bytes))?;
        ensure!(length > 0, "the bus has closed the connection");
        self.read.extend(&bytes[..length]);
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], stop: &Stop, end: Instant) -> Result<()> {
        while !bytes.is_empty() {
            let length = retry(stop, end, || (&self.stream).write(bytes))?;
            bytes = &bytes[length..];
        }
        Ok(())
    }
}

/// Fails if it is time to stop, or too late for an answer.
fn check(stop: &Stop, end: Instant) -> Result<()> {
    stop.check()?;
    ensure!(stop.now() < end, "no answer in time");
    Ok(())
}

/// Tries until the other side is ready, and looks at each tick whether to stop.
fn retry(stop: &Stop, end: Instant, mut attempt: impl FnMut() -> std::io::Result<usize>) -> Result<usize> {
    loop {
        match attempt() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => check(stop, end)?,
            done => return done.context("talking to the bus"),
        }
    }
}

#[cfg(test)]
mod tests;
