//! Conversations with a bus, as they should be and as they should not.

use super::{
    stand_in::{Client, SentValue, error, listen, reply},
    *,
};
use crate::{host::scratch::Scratch, stop::Interrupt};

fn get(member: &'static str) -> BusCall {
    BusCall { destination: "a.b", path: "/c".into(), interface: "d.e", member, arguments: vec![] }
}

/// Opens a bus that serves so, and makes these calls.
fn calls(
    members: &[&'static str],
    stop: &Stop,
    serve: impl FnOnce(&mut Client) + Send + 'static,
) -> Result<Vec<Vec<BusValue>>> {
    let tree = Scratch::new();
    let bus = listen(&tree, serve);
    let calls: Vec<BusCall> = members.iter().copied().map(get).collect();
    let answers = Bus::open(&tree.at(SOCKET)).and_then(|mut bus| bus.call(&calls, stop));
    bus.join().unwrap();
    answers
}

fn fails(serve: impl FnOnce(&mut Client) + Send + 'static) -> String {
    format!("{:#}", calls(&["Get"], &Stop::default(), serve).unwrap_err())
}

#[test]
fn answers_are_matched_by_number_also_with_other_messages_between() {
    let answers = calls(&["First", "Second"], &Stop::default(), |client| {
        client.admit();
        let ((first, ..), (second, ..)) = (client.call().unwrap(), client.call().unwrap());
        let of = |serial: u32, text: &str| reply(serial, "v", &SentValue::text(text).variant());
        let mut signal = of(first, "a signal");
        signal[1] = 4;
        let all = [signal, of(second, "two"), of(99, "no question"), of(first, "one")].concat();
        all.chunks(1).for_each(|byte| client.send(byte));
    });
    let text = |text: &str| vec![BusValue::Text(text.into())];
    assert_eq!(answers.unwrap(), [text("one"), text("two")]);
}

#[test]
fn a_connection_serves_all_questions_of_a_run() {
    let tree = Scratch::new();
    let bus = listen(&tree, |client| {
        client.admit();
        while let Some((serial, ..)) = client.call() {
            client.send(&reply(serial, "v", &SentValue::text("").variant()));
        }
    });
    let stop = Stop::default();
    let mut open = Bus::open(&tree.at(SOCKET)).unwrap();
    for _ in 0..3 {
        assert_eq!(open.call(&[get("Get")], &stop).unwrap(), [[BusValue::Text(String::new())]]);
    }
    drop(open);
    bus.join().unwrap();
}

#[test]
fn a_bus_that_refuses_or_leaves_is_an_error() {
    let refused = fails(|client| {
        _ = client.line();
        client.send(b"REJECTED EXTERNAL\r\n");
    });
    assert_eq!(refused, r#"the bus answers "REJECTED EXTERNAL\r\n""#);
    let endless = fails(|client| {
        _ = client.line();
        client.send(&[b'x'; 600]);
    });
    assert_eq!(endless, "a line without an end");
    let left = fails(|client| {
        client.admit();
        _ = client.call();
    });
    assert_eq!(left, "the bus has closed the connection");
    let failed = fails(|client| {
        client.admit();
        let serial = client.call().unwrap().0;
        client.send(&error(serial, "org.freedesktop.DBus.Error.NoReply"));
    });
    assert_eq!(failed, "Get of /c: org.freedesktop.DBus.Error.NoReply");
    let nonsense = fails(|client| {
        client.admit();
        _ = client.call();
        client.send(b"HTTP/1.1 400 Bad Request\r\n");
    });
    assert_eq!(nonsense, "version 80 of the protocol");
    let absent = Bus::open(Scratch::new().at(SOCKET).as_path()).unwrap_err();
    assert!(format!("{absent:#}").starts_with("connecting: No such file"), "{absent:#}");
}

#[test]
fn a_silent_bus_holds_up_neither_a_signal_nor_a_deadline() {
    let interrupt = Interrupt::default();
    interrupt.raise(15);
    let silent = |client: &mut Client| {
        client.admit();
        while client.call().is_some() {}
    };
    let stopped = calls(&["Get"], &Stop::new(interrupt), silent).unwrap_err();
    assert_eq!(stopped.to_string(), "stopped by SIGTERM");
    let stop = Stop::default();
    let late = stop.deadlines.within(Some(Duration::ZERO), "the step", || calls(&["Get"], &stop, silent).unwrap_err());
    assert!(late.to_string().starts_with("the step timed out"), "{late}");
}

#[test]
fn a_silent_bus_is_given_up() {
    let stop = Stop::default();
    let end = stop.now() + ANSWER_TIMEOUT;
    let mut attempts = 0;
    let given_up = retry(&stop, end, || {
        attempts += 1;
        stop.advance(ANSWER_TIMEOUT / 3);
        Err(ErrorKind::WouldBlock.into())
    });
    assert_eq!((given_up.unwrap_err().to_string().as_str(), attempts), ("no answer in time", 3));
}
