//! Messages in the wire form of D-Bus, <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol>.
//!
//! What another process sends is checked: each length against the bytes that are there, each nesting against a limit.

use anyhow::{Context, Result, bail, ensure};

/// Limits the size of a message. A unit's properties take some KiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Limits how deep values may contain other values. The specification allows 64 levels.
const MAX_DEPTH: usize = 64;
/// The size of the first part of each message, which has the lengths of the others.
pub(super) const PREFIX_BYTES: usize = 16;
/// The flag that keeps the bus from starting the service that a message is for.
const NO_AUTO_START: u8 = 2;

/// The types of messages that are told apart.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call of a method whose arguments are strings.
#[derive(Debug, Clone)]
pub struct BusCall {
    /// The name of the service on the bus.
    pub destination: &'static str,
    /// The path of the object.
    pub path: String,
    /// The interface of the method.
    pub interface: &'static str,
    /// The name of the method.
    pub member: &'static str,
    /// The arguments.
    pub arguments: Vec<&'static str>,
}

impl BusCall {
    /// Returns the message of this call, with this number for its reply.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = vec![];
        self.arguments.iter().for_each(|argument| put_text(&mut body, argument));
        let signature = "s".repeat(self.arguments.len());
        let mut message = vec![b'l', METHOD_CALL, NO_AUTO_START, 1];
        for number in [length(body.len()), serial, 0] {
            message.extend(number.to_le_bytes());
        }
        let fields = [
            (PATH, b'o', self.path.as_str()),
            (INTERFACE, b's', self.interface),
            (MEMBER, b's', self.member),
            (DESTINATION, b's', self.destination),
            (SIGNATURE, b'g', &signature),
        ];
        for (code, kind, value) in fields {
            pad(&mut message, 8);
            message.extend([code, 1, kind, 0]);
            if kind == b'g' {
                message.push(u8::try_from(value.len()).unwrap_or_default());
                message.extend(value.as_bytes());
                message.push(0);
            } else {
                put_text(&mut message, value);
            }
        }
        let fields = length(message.len() - PREFIX_BYTES);
        message[PREFIX_BYTES - 4..PREFIX_BYTES].copy_from_slice(&fields.to_le_bytes());
        pad(&mut message, 8);
        message.extend(body);
        message
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend(length(text.len()).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A value in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusValue {
    /// A string, an object path or a signature.
    Text(String),
    /// A number: its bits, as an unsigned one. Also a byte, a floating point number and the index of a descriptor.
    Number(u64),
    /// A truth value.
    Flag(bool),
    /// The values of an array, a structure or an entry of a dictionary.
    List(Vec<BusValue>),
}

/// What the bus says about a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BusReply {
    /// The number of the call.
    pub(super) serial: u32,
    /// The values that the method returned, or the name of an error.
    pub(super) outcome: Result<Vec<BusValue>, String>,
}

/// Returns the length of the message that begins with these bytes.
///
/// # Errors
/// If no message begins so, or if it is too long.
pub(super) fn message_length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize> {
    ensure!(prefix[3] == 1, "version {} of the protocol", prefix[3]);
    let mut reader = BusReader { bytes: prefix, at: 4, is_big: is_big(prefix[0])? };
    let body = reader.length()?;
    _ = reader.number(4)?;
    let fields = reader.length()?;
    let length = PREFIX_BYTES + fields.next_multiple_of(8) + body;
    ensure!(length <= MAX_MESSAGE_BYTES, "a message of {length} bytes");
    Ok(length)
}

/// Returns what a whole message says about a call; `None` if it is another message, such as a signal.
///
/// # Errors
/// If it breaks the rules of the protocol.
pub(super) fn read_reply(message: &[u8]) -> Result<Option<BusReply>> {
    let (Some(&order), Some(&kind)) = (message.first(), message.get(1)) else { bail!("an empty message") };
    if !matches!(kind, METHOD_RETURN | ERROR) {
        return Ok(None);
    }
    let mut reader = BusReader { bytes: message, at: PREFIX_BYTES - 4, is_big: is_big(order)? };
    let header = reader.header()?;
    let field = |code: u8| header.iter().find(|field| field.0 == u64::from(code)).map(|field| &field.1);
    let Some(BusValue::Number(serial)) = field(REPLY_SERIAL) else { bail!("a reply without its number") };
    let serial = u32::try_from(*serial)?;
    if kind == ERROR {
        let Some(BusValue::Text(name)) = field(ERROR_NAME) else { bail!("an error without a name") };
        return Ok(Some(BusReply { serial, outcome: Err(name.clone()) }));
    }
    Ok(Some(BusReply { serial, outcome: Ok(reader.body(field(SIGNATURE))?) }))
}

fn is_big(order: u8) -> Result<bool> {
    match order {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => bail!("the byte order {order:#04x}"),
    }
}

/// Reads values from the bytes of a message.
struct BusReader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big: bool,
}

impl<'a> BusReader<'a> {
    fn align(&mut self, alignment: usize) -> Result<()> {
        let padding = self.at.next_multiple_of(alignment) - self.at;
        ensure!(self.take(padding)?.iter().all(|byte| *byte == 0), "padding that is not zero");
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        taken.context("it ends too early")
    }

    /// Reads a number of 1, 2, 4 or 8 bytes.
    fn number(&mut self, length: usize) -> Result<u64> {
        self.align(length)?;
        let bytes = self.take(length)?.iter();
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Ok(if self.is_big { bytes.fold(0, add) } else { bytes.rev().fold(0, add) })
    }

    fn length(&mut self) -> Result<usize> {
        let length = usize::try_from(self.number(4)?)?;
        ensure!(length <= MAX_MESSAGE_BYTES, "a length of {length} bytes");
        Ok(length)
    }

    /// Reads a text of this length and the zero behind it.
    fn text(&mut self, length: usize) -> Result<String> {
        let text = str::from_utf8(self.take(length)?).context("a text that is not UTF-8")?;
        ensure!(self.take(1)? == [0] && !text.contains('\0'), "a text without its end");
        Ok(text.to_owned())
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::try_from(self.number(1)?)?;
        self.text(length)
    }

    /// Reads the fields of a message's header: their codes and values.
    fn header(&mut self) -> Result<Vec<(u64, BusValue)>> {
        let BusValue::List(fields) = self.value(&mut b"a(yv)".as_slice(), 0)? else { bail!("no header") };
        self.align(8)?;
        let pair = |field| match field {
            BusValue::List(pair) => match <[BusValue; 2]>::try_from(pair) {
                Ok([BusValue::Number(code), value]) => Some((code, value)),
                _ => None,
            },
            _ => None,
        };
        fields.into_iter().map(|field| pair(field).context("a header of other fields")).collect()
    }

    /// Reads the values behind a header, up to the end of the message.
    fn body(&mut self, signature: Option<&BusValue>) -> Result<Vec<BusValue>> {
        let mut types = match signature {
            Some(BusValue::Text(signature)) => signature.as_bytes(),
            _ => &[],
        };
        let mut values = vec![];
        while !types.is_empty() {
            values.push(self.value(&mut types, 0)?);
        }
        ensure!(self.at == self.bytes.len(), "bytes behind the last value");
        Ok(values)
    }

    /// Reads a value of the first of these types, and removes that one.
    fn value(&mut self, types: &mut &[u8], depth: usize) -> Result<BusValue> {
        ensure!(depth < MAX_DEPTH, "values are nested too deep");
        let (&kind, rest) = types.split_first().context("a type is missing")?;
        *types = rest;
        Ok(match kind {
            b'y' => BusValue::Number(self.number(1)?),
            b'n' | b'q' => BusValue::Number(self.number(2)?),
            b'i' | b'u' | b'h' => BusValue::Number(self.number(4)?),
            b'x' | b't' | b'd' => BusValue::Number(self.number(8)?),
            b'b' => match self.number(4)? {
                truth @ (0 | 1) => BusValue::Flag(truth == 1),
                other => bail!("the truth value {other}"),
            },
            b's' | b'o' => {
                let length = self.length()?;
                BusValue::Text(self.text(length)?)
            }
            b'g' => BusValue::Text(self.signature()?),
            b'v' => {
                let signature = self.signature()?;
                let mut types = signature.as_bytes();
                let value = self.value(&mut types, depth + 1)?;
                ensure!(types.is_empty(), "a variant of several types");
                value
            }
            b'a' => self.array(types, depth)?,
            b'(' | b'{' => {
                self.align(8)?;
                let end = if kind == b'(' { b')' } else { b'}' };
                let mut values = vec![];
                while types.first() != Some(&end) {
                    values.push(self.value(types, depth + 1)?);
                }
                *types = &types[1..];
                // Without this, an array of them could have any number of elements in no bytes.
                ensure!(!values.is_empty(), "an empty structure");
                BusValue::List(values)
            }
            _ => bail!("the type {kind:#04x}"),
        })
    }

    fn array(&mut self, types: &mut &[u8], depth: usize) -> Result<BusValue> {
        let length = self.length()?;
        let (element, rest) = types.split_at(first_type(types).context("an array without a type")?);
        *types = rest;
        if matches!(element[0], b'x' | b't' | b'd' | b'(' | b'{') {
            self.align(8)?;
        }
        let end = self.at + length;
        ensure!(end <= self.bytes.len(), "an array that ends too late");
        let mut values = vec![];
        while self.at < end {
            values.push(self.value(&mut &*element, depth + 1)?);
        }
        ensure!(self.at == end, "an element that ends too late");
        Ok(BusValue::List(values))
    }
}

/// Returns the length of the first complete type of a signature.
fn first_type(types: &[u8]) -> Option<usize> {
    let mut open = 0_usize;
    for (index, kind) in types.iter().enumerate() {
        match kind {
            b'a' => continue,
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1)?,
            _ => {}
        }
        if open == 0 {
            return Some(index + 1);
        }
    }
    None
}

/// Fuzz target: a message that another process sent.
#[cfg(any(test, fuzzing))]
pub fn fuzz(message: &[u8]) {
    if let Some(prefix) = message.first_chunk() {
        _ = message_length(prefix);
    }
    _ = read_reply(message);
}

/// Returns a call's number, path, member and arguments.
#[cfg(test)]
pub(super) fn read_call(message: &[u8]) -> Result<(u32, String, String, Vec<BusValue>)> {
    let mut reader = BusReader { bytes: message, at: 8, is_big: is_big(message[0])? };
    let serial = u32::try_from(reader.number(4)?)?;
    let header = reader.header()?;
    let field = |code: u8| header.iter().find(|field| field.0 == u64::from(code)).map(|field| &field.1);
    let (Some(BusValue::Text(path)), Some(BusValue::Text(member))) = (field(PATH), field(MEMBER)) else {
        bail!("no call");
    };
    Ok((serial, path.clone(), member.clone(), reader.body(field(SIGNATURE))?))
}

#[cfg(test)]
mod tests;
