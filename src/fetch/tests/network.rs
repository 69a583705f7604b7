//! What fails below HTTP: packets that vanish, name servers, a disk that is too small. Each in a network and a mount
//! namespace of its own, which needs root.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{
    Bench, STAGING, download, eventually, hasty, hasty_and_persistent, parts,
    server::{Reply, Server},
    settings, settings_with, text, told,
};
use crate::{
    host::{Host, command::Program, scratch::Scratch},
    net::{retry::Limit, settings::ORIGIN_PATIENCE},
    stop::Interrupt,
};

/// Runs a test on a thread of its own, in namespaces that end with it.
fn apart(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces, as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        run("ip", "link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, arguments: &str) {
    let host = Host::open(Path::new("/"), Interrupt::default()).unwrap();
    _ = host.run_checked(&Program::new([program]).args(arguments.split(' '))).unwrap();
}

#[test]
fn a_connection_of_which_the_other_end_is_gone_is_transient() {
    apart(|| {
        // The server would keep sending bytes.
        let server = Server::start(|_, _| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n").then_drip());
        let limits = settings_with(|network| {
            network.connect_timeout = Duration::from_millis(400);
            network.stall_timeout = Duration::from_secs(1);
        });
        let bench = Bench::new(limits);
        let wanted = download(&server.url("/"));
        bench.system.prefetch(vec![wanted.clone()]);
        let started = &bench.system.fetcher.started;
        assert!(eventually(&bench.system, || started.borrow()[0].1.progress.now().0 > 0));
        run("iptables", "-A INPUT -i lo -j DROP");
        let (code, told) = told(bench.system.fetch(&wanted));
        assert_eq!(code, 75, "{told}");
        assert!(told.contains("gave up after 3 attempts"), "{told}");
        assert!(told.contains("connecting to 127.0.0.1: timed out"), "{told}");
    });
}

#[test]
fn a_download_goes_on_when_the_packets_come_again() {
    apart(|| {
        let body = parts::body(2 << 20);
        let of = body.clone();
        // On a busy machine the download may be tried again before the packets vanish.
        let have_come_again = Arc::new(AtomicBool::new(false));
        let is_whole = have_come_again.clone();
        let server = Server::start(move |number, request| {
            let reply = parts::serve(&of, "\"v1\"", request);
            match number {
                0 => reply.cut(1_500_000).then_stall(),
                _ if is_whole.load(Ordering::Relaxed) => reply,
                _ => reply.cut(0).then_stall(),
            }
        });
        let mut settings = hasty_and_persistent();
        settings.network.connect_timeout = Duration::from_millis(400);
        let bench = Bench::new(settings);
        let wanted = download(&server.url("/"));
        bench.system.prefetch(vec![wanted.clone()]);
        let started = &bench.system.fetcher.started;
        assert!(eventually(&bench.system, || started.borrow()[0].1.progress.now().0 >= 1_400_000));
        run("iptables", "-A INPUT -i lo -j DROP");
        // This is long enough to see the stall and to try new connections.
        bench.system.host.stop.wait(Duration::from_secs(2)).unwrap();
        have_come_again.store(true, Ordering::Relaxed);
        run("iptables", "-F INPUT");
        assert!(parts::is(&bench.system.fetch(&wanted).unwrap(), &body));
        assert!(server.requests().last().unwrap().header("range").is_some());
    });
}

/// The fault of a name server.
#[derive(Clone, Copy, PartialEq)]
enum NameServerFault {
    ServerFailure,
    Silence,
    /// The answer is too long for a datagram. The server answers by TCP.
    Truncated,
    /// The answer is too long for a datagram, and the server does not answer by TCP.
    OnlyTruncated,
}

/// Starts a name server on port 53 of this namespace, and makes it the resolver's only one.
fn name_server(names: NameServerFault, tree: &Scratch) {
    let datagrams = UdpSocket::bind("127.0.0.1:53").unwrap();
    _ = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let answer = match names {
                NameServerFault::Silence => continue,
                NameServerFault::ServerFailure => reply(&buffer[..length], 0x02, &[]),
                NameServerFault::Truncated | NameServerFault::OnlyTruncated => {
                    let mut answer = reply(&buffer[..length], 0, &[]);
                    answer[2] |= 0x02;
                    answer
                }
            };
            _ = datagrams.send_to(&answer, from).unwrap();
        }
    });
    if names == NameServerFault::Truncated {
        let streams = TcpListener::bind("127.0.0.1:53").unwrap();
        _ = std::thread::spawn(move || {
            for mut stream in streams.incoming().flatten() {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question).unwrap();
                    let of_ipv4 = question[question.len() - 4..] == [0, 1, 0, 1];
                    let answer = reply(&question, 0, if of_ipv4 { &[127, 0, 0, 1] } else { &[] });
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length, answer.as_slice()].concat()).unwrap();
                }
            }
        });
    }
    let configuration = tree.at("/resolv.conf");
    tree.write("/resolv.conf", b"# B\xfcro\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    mount(Some(&configuration), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// Returns an answer to a DNS question without extensions: RFC 1035 section 4.1.
fn reply(question: &[u8], code: u8, address: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut reply = question[..end].to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(!address.is_empty()), 0, 0, 0, 0]);
    if !address.is_empty() {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address);
    }
    reply
}

fn resolving_fails(names: NameServerFault, words: &'static str) {
    apart(move || {
        let bench = Bench::new(settings_with(|network| network.connect_timeout = Duration::from_secs(1)));
        name_server(names, &bench.tree);
        let (code, told) = bench.refused("http://origin.example/");
        assert_eq!(code, 75, "{told}");
        assert!(told.contains("the name origin.example can't be resolved"), "{told}");
        assert!(told.contains("the name servers in /etc/resolv.conf (127.0.0.1)"), "{told}");
        assert!(told.contains(words), "{told}");
    });
}

#[test]
fn a_name_server_that_fails_is_named() {
    resolving_fails(NameServerFault::ServerFailure, "gave up after 3 attempts");
}

#[test]
fn a_name_server_that_does_not_answer_is_named() {
    resolving_fails(NameServerFault::Silence, "no answer within 500 ms");
}

#[test]
fn an_answer_that_is_cut_and_can_not_be_had_whole_is_none() {
    resolving_fails(NameServerFault::OnlyTruncated, "gave up after 3 attempts");
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_is_had_by_tcp() {
    apart(|| {
        let server = Server::replies(vec![Reply::ok("jar")]);
        let bench = Bench::new(settings());
        name_server(NameServerFault::Truncated, &bench.tree);
        let url = server.url("/").replace("127.0.0.1", "origin.example");
        assert_eq!(text(bench.fetch(&url).unwrap()), "jar");
    });
}

#[test]
fn a_body_without_a_length_ends_at_the_disk_s_and_leaves_it_free() {
    apart(|| {
        let bench = Bench::new(settings());
        bench.tree.make_directory(STAGING);
        let staging = bench.tree.at(STAGING);
        mount(Some("tmpfs"), &staging, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
        let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40000000\r\n".to_vec();
        endless.resize(16 << 20, b'x');
        let server = Server::replies(vec![Reply::raw(endless)]);
        let (code, told) = bench.refused(&server.url("/"));
        assert_eq!((code, server.requests().len()), (1, 1), "{told}");
        assert!(told.contains("is full"), "{told}");
        assert_eq!(bench.tree.names(STAGING), [""; 0]);
        assert_eq!(text(bench.fetch(&Server::replies(vec![Reply::ok("jar")]).url("/")).unwrap()), "jar");
        // The thread of the last download closes its file a moment after it has handed it over.
        let all = format!("{STAGING}/all of it");
        assert!(eventually(&bench.system, || bench.tree.try_write(&all, vec![0; 4 << 20]).is_ok()));
        // The tree can be removed then.
        umount2(&staging, MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_disk_that_fills_up_meanwhile_gets_its_room_back() {
    apart(|| {
        let mut settings = hasty();
        settings.network.pace.limit = Limit::Patience(ORIGIN_PATIENCE);
        let bench = Bench::new(settings);
        bench.tree.make_directory(STAGING);
        let staging = bench.tree.at(STAGING);
        mount(Some("tmpfs"), &staging, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        let (body, seen) = (parts::body(3 << 20), is_full.clone());
        let server = Server::start(move |number, request| match number {
            0 => parts::serve(&body, "\"v1\"", request).cut(1_500_000).then_stall(),
            _ if seen.load(Ordering::Relaxed) => parts::serve(&body, "\"v1\"", request),
            _ => Reply::new(503, &[], ""),
        });
        let wanted = download(&server.url("/"));
        bench.system.prefetch(vec![wanted.clone()]);
        let started = &bench.system.fetcher.started;
        assert!(eventually(&bench.system, || started.borrow()[0].1.progress.now().0 >= 1_400_000));
        assert!(bench.tree.try_write(&format!("{STAGING}/others"), vec![0; 4 << 20]).is_err());
        is_full.store(true, Ordering::Relaxed);
        let (code, told) = told(bench.system.fetch(&wanted));
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("is full"), "{told}");
        assert_eq!(bench.tree.names(STAGING), ["others"], "only what others have written is left");
        bench.tree.write(&format!("{STAGING}/report"), vec![0; 1 << 20]);
        umount2(&staging, MntFlags::MNT_DETACH).unwrap();
    });
}
