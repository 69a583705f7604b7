//! What a bus sends, right and wrong.

use super::*;
use crate::host::bus::stand_in::{SentValue, reply};

/// A reply with a value of each kind that systemd sends.
fn properties() -> Vec<u8> {
    let values = [
        ("Id", SentValue::text("a.service")),
        ("Job", SentValue::job(7)),
        ("InvocationID", SentValue::bytes(&[0xab, 1])),
        ("Time", SentValue::number(1 << 40)),
        ("Is", SentValue::flag(true)),
    ];
    reply(9, "a{sv}", &SentValue::dictionary(&values))
}

fn text(text: &str) -> BusValue {
    BusValue::Text(text.into())
}

fn pair(name: &str, value: BusValue) -> BusValue {
    BusValue::List(vec![text(name), value])
}

#[test]
fn a_call_is_written_by_the_rules_of_the_specification() {
    let call =
        BusCall { destination: "a.b", path: "/c".into(), interface: "d.e", member: "Get", arguments: vec!["x", "yz"] };
    let message = call.encode(7);
    // Byte order, type, flags, version; the lengths of body and fields; the first field: 1, "o", "/c".
    let begin = b"l\x01\x02\x01\x0f\0\0\0\x07\0\0\0\x48\0\0\0\x01\x01o\0\x02\0\0\0/c\0\0\0\0\0\0";
    assert_eq!(message[..begin.len()], *begin);
    // The last field: 8, "g", "ss". Then the arguments.
    assert_eq!(message[message.len() - 23..], *b"\x08\x01g\0\x02ss\0\x01\0\0\0x\0\0\0\x02\0\0\0yz\0");
    let read = read_call(&message).unwrap();
    assert_eq!(read, (7, "/c".into(), "Get".into(), vec![text("x"), text("yz")]));
    assert_eq!(message_length(message.first_chunk().unwrap()).unwrap(), message.len());
}

#[test]
fn a_reply_has_its_number_and_its_values() {
    let message = properties();
    let values = BusValue::List(vec![
        pair("Id", text("a.service")),
        pair("Job", BusValue::List(vec![BusValue::Number(7), text("/j")])),
        pair("InvocationID", BusValue::List(vec![BusValue::Number(0xab), BusValue::Number(1)])),
        pair("Time", BusValue::Number(1 << 40)),
        pair("Is", BusValue::Flag(true)),
    ]);
    assert_eq!(read_reply(&message).unwrap(), Some(BusReply { serial: 9, outcome: Ok(vec![values]) }));
    assert_eq!(message_length(message.first_chunk().unwrap()).unwrap(), message.len());
    let signal = [&[b'l', 4], &message[2..]].concat();
    assert_eq!(read_reply(&signal).unwrap(), None);
}

#[test]
fn numbers_are_read_in_the_byte_order_of_the_message() {
    for (is_big, bytes) in [(false, [1, 2, 0, 0]), (true, [0, 0, 2, 1])] {
        assert_eq!(BusReader { bytes: &bytes, at: 0, is_big }.number(4).unwrap(), 0x201);
    }
}

#[test]
fn a_message_that_ends_anywhere_is_an_error() {
    let message = properties();
    for end in 0..message.len() {
        assert!(read_reply(&message[..end]).is_err(), "{end} bytes");
    }
    assert!(read_reply(&[message.as_slice(), b"\0"].concat()).is_err());
}

#[test]
fn no_change_of_a_byte_panics() {
    let message = properties();
    for at in 0..message.len() {
        for byte in [0, 1, 2, 0x7f, 0x80, 0xff, b'a', b'v', b'(', b')', b'{', b'}', b's'] {
            let mut changed = message.clone();
            changed[at] = byte;
            fuzz(&changed);
        }
    }
}

#[test]
fn lengths_are_compared_with_the_bytes_that_are_there() {
    for length in [17, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1, 0x7fff_ffff, 0xffff_ffff] {
        let length = u32::try_from(length).unwrap().to_le_bytes();
        let with = |at: usize| {
            let mut message = properties();
            message[at..at + 4].copy_from_slice(&length);
            message
        };
        assert!(read_reply(&with(12)).is_err(), "the fields");
        assert!(read_reply(&reply(1, "as", &length)).is_err(), "an array");
        assert!(read_reply(&reply(1, "s", &length)).is_err(), "a text");
    }
    let too_long = [b'l', 2, 0, 1, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(message_length(&too_long).unwrap_err().to_string(), "a message of 1048592 bytes");
    assert!(message_length(&[b'l', 2, 0, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "another version");
    assert!(message_length(&[b'x', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "another byte order");
}

#[test]
fn values_that_never_end_are_refused() {
    let said = |signature: &str, body: &[u8]| format!("{:#}", read_reply(&reply(1, signature, body)).unwrap_err());
    // A variant in a variant, in a variant.
    assert_eq!(said("v", &b"\x01v\0".repeat(1000)), "values are nested too deep");
    assert_eq!(said(&"a".repeat(200), &[0; 4]), "an array without a type");
    let arrays = format!("{}s", "a".repeat(200));
    assert_eq!(said(&arrays, &[4, 0, 0, 0].repeat(200)), "values are nested too deep");
    assert_eq!(said("aau", &[2, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]), "an element that ends too late");
    // Elements of no bytes.
    assert_eq!(said("a()", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "an empty structure");
    for signature in ["(", ")", "a", "{", "a{", "(s", "z", "a(s"] {
        assert!(read_reply(&reply(1, signature, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).is_err(), "{signature}");
    }
    assert_eq!(said("b", &[2, 0, 0, 0]), "the truth value 2");
    assert_eq!(said("s", b"\x01\0\0\0xx"), "a text without its end");
    assert_eq!(
        said("s", b"\x01\0\0\0\xff\0"),
        "a text that is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"
    );
}
