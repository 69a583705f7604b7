//! The system bus of a sandbox. A run that gets no proper answer there asks systemctl.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use crate::{
    service::{RUNNING, app, unit},
    standin::Machine,
};

/// Runs again with a bus that serves its first client so. It must learn from systemctl that nothing is to do.
#[track_caller]
fn converges_by_systemctl(serve: impl FnOnce(&mut UnixStream) + Send + 'static) {
    let machine = Machine::new();
    let declared = app(&unit("true", ""), RUNNING);
    let _ = machine.run(&declared).expect(0).says("service app.service: start");
    fs::remove_file(machine.at("run/standin/log")).unwrap();
    fs::create_dir_all(machine.at("run/dbus")).unwrap();
    let listener = UnixListener::bind(machine.at("run/dbus/system_bus_socket")).unwrap();
    let bus = std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        serve(&mut client);
    });
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    bus.join().unwrap();
    let log = machine.read("run/standin/log");
    assert!(log.contains("systemctl show"), "{log}");
}

fn read(client: &mut UnixStream) -> usize {
    client.read(&mut [0; 4096]).unwrap()
}

#[test]
fn a_bus_that_hangs_up_is_not_asked_again() {
    converges_by_systemctl(|_| {});
}

#[test]
fn a_bus_that_refuses_the_user_is_not_asked_again() {
    converges_by_systemctl(|client| {
        let _ = read(client);
        client.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        assert_eq!(read(client), 0, "it goes");
    });
}

#[test]
fn a_bus_that_breaks_the_protocol_is_not_asked_again() {
    for nonsense in [
        b"l\x02\x01\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff".as_slice(),
        b"l\x02\x01\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01v\0\x01v\0\x01",
        &[0; 64],
    ] {
        converges_by_systemctl(|client| {
            let _ = read(client);
            client.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
            client.write_all(nonsense).unwrap();
            while client.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
        });
    }
}
