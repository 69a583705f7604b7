//! A bus of a test: it answers as the test says, in a thread of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread::JoinHandle,
};

use super::{
    SOCKET,
    message::{BusValue, PREFIX_BYTES, message_length, read_call},
};
use crate::host::scratch::Scratch;

/// A value of a reply, with the signature that a variant of it has.
#[derive(Debug, Clone)]
pub(crate) struct SentValue {
    signature: &'static str,
    bytes: Vec<u8>,
}

impl SentValue {
    /// Writes a value whose bytes begin at a multiple of 8.
    pub(crate) fn of(signature: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = vec![];
        write(&mut bytes);
        Self { signature, bytes }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::of("s", |bytes| put_text(bytes, text))
    }

    pub(crate) fn number(number: u64) -> Self {
        Self::of("t", |bytes| bytes.extend(number.to_le_bytes()))
    }

    pub(crate) fn count(number: u32) -> Self {
        Self::of("u", |bytes| bytes.extend(number.to_le_bytes()))
    }

    pub(crate) fn flag(flag: bool) -> Self {
        Self::of("b", |bytes| bytes.extend(u32::from(flag).to_le_bytes()))
    }

    pub(crate) fn bytes(of: &[u8]) -> Self {
        Self::of("ay", |bytes| {
            bytes.extend(u32::try_from(of.len()).unwrap().to_le_bytes());
            bytes.extend(of);
        })
    }

    pub(crate) fn job(number: u32) -> Self {
        Self::of("(uo)", |bytes| {
            bytes.extend(number.to_le_bytes());
            put_text(bytes, "/j");
        })
    }

    pub(crate) fn error(name: &str, message: &str) -> Self {
        Self::of("(ss)", |bytes| {
            put_text(bytes, name);
            put_text(bytes, message);
        })
    }

    /// Returns the body of a reply with one variant.
    pub(crate) fn variant(&self) -> Vec<u8> {
        let mut bytes = vec![];
        self.put(&mut bytes);
        bytes
    }

    /// Returns the body of a reply with a dictionary.
    pub(crate) fn dictionary(properties: &[(&str, Self)]) -> Vec<u8> {
        // The length, and the padding before the first entry.
        let mut bytes = vec![0; 8];
        for (name, value) in properties {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            put_text(&mut bytes, name);
            value.put(&mut bytes);
        }
        let length = u32::try_from(bytes.len() - 8).unwrap();
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::try_from(self.signature.len()).unwrap());
        bytes.extend(self.signature.as_bytes());
        bytes.push(0);
        let alignment = if matches!(self.signature, "t" | "(uo)" | "(ss)") { 8 } else { 4 };
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        bytes.extend(&self.bytes);
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// Returns the message of a reply to the call of this number.
pub(crate) fn reply(serial: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    answer(2, serial, &[(8, "g", signature)], body)
}

/// Returns the message of an error.
pub(crate) fn error(serial: u32, name: &str) -> Vec<u8> {
    answer(3, serial, &[(4, "s", name)], &[])
}

fn answer(kind: u8, serial: u32, fields: &[(u8, &str, &str)], body: &[u8]) -> Vec<u8> {
    let mut message = vec![b'l', kind, 0, 1];
    for number in [u32::try_from(body.len()).unwrap(), 1, 0] {
        message.extend(number.to_le_bytes());
    }
    message.extend([5, 1, b'u', 0]);
    message.extend(serial.to_le_bytes());
    for (code, signature, value) in fields {
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend([*code, 1, signature.as_bytes()[0], 0]);
        if *signature == "g" {
            message.push(u8::try_from(value.len()).unwrap());
            message.extend(value.as_bytes());
            message.push(0);
        } else {
            put_text(&mut message, value);
        }
    }
    let length = u32::try_from(message.len() - PREFIX_BYTES).unwrap();
    message[12..16].copy_from_slice(&length.to_le_bytes());
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

/// The client's side of a connection, as the bus sees it.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    /// Reads a line of the client, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        _ = self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends bytes, unless the client has gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        _ = self.0.get_mut().write_all(bytes);
    }

    /// Lets the client in, up to its name on the bus.
    pub(crate) fn admit(&mut self) {
        assert!(self.line().starts_with("\0AUTH EXTERNAL "));
        self.send(b"OK 0123456789abcdef0123456789abcdef\r\n");
        assert_eq!(self.line(), "BEGIN");
        let (serial, _, member, _) = self.call().unwrap();
        assert_eq!(member, "Hello");
        self.send(&reply(serial, "s", &SentValue::text(":1.7").bytes));
    }

    /// Returns the next call: its number, path, member and arguments; `None` if the client has gone.
    pub(crate) fn call(&mut self) -> Option<(u32, String, String, Vec<BusValue>)> {
        let mut message = vec![0; PREFIX_BYTES];
        self.0.read_exact(&mut message).ok()?;
        let length = message_length(message.first_chunk().unwrap()).unwrap();
        message.resize(length, 0);
        self.0.read_exact(&mut message[PREFIX_BYTES..]).unwrap();
        Some(read_call(&message).unwrap())
    }
}

/// Starts a bus in a tree. It serves one client as `serve` does, and ends.
pub(crate) fn listen<T: Send + 'static>(
    tree: &Scratch,
    serve: impl FnOnce(&mut Client) -> T + Send + 'static,
) -> JoinHandle<T> {
    tree.make_directory("/run/dbus");
    let listener = UnixListener::bind(tree.at(SOCKET)).unwrap();
    std::thread::spawn(move || serve(&mut Client(BufReader::new(listener.accept().unwrap().0))))
}

/// A bus that serves one client after another, until it is asked to end.
pub(crate) struct StandInBus<T> {
    socket: PathBuf,
    served: JoinHandle<Vec<T>>,
}

impl<T> StandInBus<T> {
    /// Ends the bus; returns what it has of each client.
    pub(crate) fn end(self) -> Vec<T> {
        // A client that says nothing is the last one.
        drop(UnixStream::connect(&self.socket).unwrap());
        self.served.join().unwrap()
    }
}

/// Starts a bus in a tree that serves each client as `serve` does.
pub(crate) fn listen_again<T: Send + 'static>(
    tree: &Scratch,
    serve: impl Fn(&mut Client) -> T + Send + 'static,
) -> StandInBus<T> {
    tree.make_directory("/run/dbus");
    let socket = tree.at(SOCKET);
    let listener = UnixListener::bind(&socket).unwrap();
    let served = std::thread::spawn(move || {
        let clients = listener.incoming().map(|stream| Client(BufReader::new(stream.unwrap())));
        let speaks = |client: &mut Client| !client.0.fill_buf().unwrap().is_empty();
        clients.map_while(|mut client| speaks(&mut client).then(|| serve(&mut client))).collect()
    });
    StandInBus { socket, served }
}
