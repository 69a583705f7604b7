//! Bodies in parts: resumed, shared by several connections, and answered wrongly by servers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Bench, STAGING, download, eventually, hasty_and_persistent,
    server::{Reply, Request, Server},
    settings, told,
};
use crate::{
    fetch::{fetched::Fetched, pull::Download, spool::CHUNK_BYTES},
    host::root::Root,
    value::Sha256,
};

/// The length of a part of a body.
pub(crate) const PART_BYTES: usize = 8 << 20;

/// Returns a body in which no two blocks are alike.
pub(crate) fn body(length: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..=u8::MAX).cycle().take(4088).collect();
    let mut body = Vec::with_capacity(length + 4096);
    while body.len() < length {
        body.extend_from_slice(&body.len().to_le_bytes());
        body.extend_from_slice(&block);
    }
    body.truncate(length);
    body
}

/// Returns the first and the last requested byte.
pub(crate) fn asked(request: &Request) -> Option<(usize, Option<usize>)> {
    let (first, last) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().unwrap(), last.parse().ok()))
}

/// Returns the reply of a correct server.
pub(crate) fn serve(body: &[u8], etag: &str, request: &Request) -> Reply {
    let current = request.header("if-range").is_none_or(|known| known == etag);
    match asked(request).filter(|_| current) {
        None => Reply::new(200, &[("etag", etag)], body),
        Some((first, last)) => {
            let end = last.map_or(body.len(), |last| last + 1).min(body.len());
            part(body, (first, end), &format!("bytes {first}-{}/{}", end - 1, body.len()), etag)
        }
    }
}

pub(crate) fn part(body: &[u8], (first, end): (usize, usize), content_range: &str, etag: &str) -> Reply {
    Reply::new(206, &[("etag", etag), ("content-range", content_range)], &body[first..end])
}

pub(crate) fn is(fetched: &Fetched, body: &[u8]) -> bool {
    let mut bytes = vec![];
    _ = std::io::Read::read_to_end(&mut &*fetched.file, &mut bytes).unwrap();
    bytes == body && fetched.sha256 == Sha256::of(body) && fetched.size == body.len() as u64
}

/// Starts a server whose first answer ends in the middle of the body. `then` makes the other answers.
fn cut(body: &[u8], at: usize, then: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
    let body = body.to_vec();
    Server::start(move |number, request| match number {
        0 => serve(&body, "\"v1\"", request).cut(at),
        _ => then(number, request),
    })
}

#[test]
fn only_what_is_missing_is_asked_for_again() {
    let body = Arc::new(body(3 << 20));
    for stalls in [false, true] {
        let of = body.clone();
        let server = Server::start(move |number, request| {
            let reply = serve(&of, "\"v1\"", request);
            match number {
                0 => {
                    if stalls {
                        reply.cut(1_500_000).then_stall()
                    } else {
                        reply.cut(1_500_000)
                    }
                }
                _ => reply,
            }
        });
        let bench = Bench::new(if stalls { hasty_and_persistent() } else { settings() });
        assert!(is(&bench.fetch(&server.url("/")).unwrap(), &body));
        let requests = server.requests();
        let (first, last) = asked(&requests[1]).unwrap();
        // The client may have seen the end of the connection before it read the last bytes.
        assert!(first > 0 && first <= 1_500_000 && last.is_none(), "{requests:?}");
        // A busy machine may stall once more.
        assert!(requests[1..].iter().all(|request| asked(request).is_some()), "{requests:?}");
        assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
    }
}

#[test]
fn a_body_without_a_strong_validator_is_fetched_as_a_whole_again() {
    let body = body(2 << 20);
    let of = body.clone();
    let server = Server::start(move |number, _| {
        let reply = Reply::new(200, &[("etag", "W/\"v1\"")], &of);
        if number == 0 { reply.cut(1_000_000) } else { reply }
    });
    assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &body));
    assert_eq!(server.requests()[1].header("range"), None);
}

#[test]
fn a_server_that_ignores_ranges_is_heard_from_the_start() {
    let body = body(2 << 20);
    let of = body.clone();
    let server = cut(&body, 1_000_000, move |_, _| Reply::new(200, &[("etag", "\"v1\"")], &of));
    assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &body));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn what_changed_in_between_is_no_part_of_what_is_there_now() {
    let (old, new) = (body(2 << 20), body(2 << 20).into_iter().rev().collect::<Vec<_>>());
    let of = new.clone();
    let server = cut(&old, 1_000_000, move |_, request| serve(&of, "\"v2\"", request));
    let fetched = Bench::new(settings()).fetch(&server.url("/")).unwrap();
    assert!(is(&fetched, &new));
    assert_eq!(fetched.etag.as_deref(), Some("\"v2\""));

    // Only the part itself tells it.
    let of = new.clone();
    let server = cut(&old, 1_000_000, move |_, request| match asked(request) {
        Some((first, _)) => {
            part(&of, (first, of.len()), &format!("bytes {first}-{}/{}", of.len() - 1, of.len()), "\"v2\"")
        }
        None => serve(&of, "\"v2\"", request),
    });
    assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &new));
}

#[test]
fn a_part_that_was_not_asked_for_and_a_416_are_answered_by_a_fresh_start() {
    let body = body(2 << 20);
    let total = body.len();
    for wrong in
        ["bytes 0-9/10", "bytes 5-9/2097152", "bytes */2097152", "bytes 1000001-2097151/2097152", "nonsense", ""]
    {
        let of = body.clone();
        let server = cut(&body, 1_000_000, move |_, request| match asked(request) {
            Some((first, _)) => part(&of, (first, total), wrong, "\"v1\""),
            None => serve(&of, "\"v1\"", request),
        });
        assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &body), "{wrong}");
        assert_eq!(server.requests().len(), 3, "{wrong}");
    }
    let of = body.clone();
    let server = cut(&body, 1_000_000, move |_, request| match asked(request) {
        Some(_) => Reply::new(416, &[("content-range", "bytes */5")], ""),
        None => serve(&of, "\"v1\"", request),
    });
    assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &body));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_part_that_nobody_asked_for_is_refused() {
    let server = Server::replies(vec![part(b"abc", (0, 2), "bytes 0-1/3", "\"v1\"")]);
    let (code, told) = Bench::new(settings()).refused(&server.url("/"));
    assert_eq!((code, server.requests().len()), (1, 1), "{told}");
    assert!(told.contains("206"), "{told}");
}

#[test]
fn a_long_body_is_shared_by_connections_and_is_the_same() {
    assert_eq!(PART_BYTES as u64, CHUNK_BYTES);
    let body = Arc::new(body(3 * PART_BYTES + 12_345));
    let of = body.clone();
    // The first connection is slow: it waits for another one.
    let parts = Arc::new(AtomicUsize::new(0));
    let counted = parts.clone();
    let server = Server::start(move |number, request| {
        if number > 0 {
            _ = counted.fetch_add(1, Ordering::Relaxed);
        }
        let reply = serve(&of, "\"v1\"", request);
        if number == 0 { reply.slow() } else { reply }
    });
    let bench = Bench::new(settings());
    let pinned = Download { sha256: Some(Sha256::of(&body)), ..download(&server.url("/")) };
    assert!(is(&bench.system.fetch(&pinned).unwrap(), &body));
    assert!(parts.load(Ordering::Relaxed) >= 2, "{:?}", server.requests());
    // No part was downloaded twice, except the one of the first connection.
    let mut ranges: Vec<_> = server.requests().iter().filter_map(asked).collect();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), server.requests().len() - 1);
}

#[test]
fn a_part_that_is_answered_by_a_busy_server_is_asked_for_again_later() {
    let body = Arc::new(body(3 * PART_BYTES));
    for patience in ["1000000000", "0", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
        let of = body.clone();
        let server = Server::start(move |number, request| match number {
            0 => serve(&of, "\"v1\"", request).slow(),
            1 => Reply::new(503, &[("retry-after", patience)], ""),
            _ => serve(&of, "\"v1\"", request),
        });
        assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &body), "{patience}");
        // The bytes received before are kept.
        let wholes = server.requests().iter().filter(|request| request.header("range").is_none()).count();
        assert_eq!(wholes, 1, "{patience}: {:?}", server.requests());
    }
}

#[test]
fn a_long_body_that_changes_while_it_is_shared_is_fetched_again_alone() {
    let (old, new) = (body(3 * PART_BYTES), Arc::new(body(3 * PART_BYTES + 1)));
    let of = new.clone();
    let server = Server::start(move |number, request| match number {
        0 => serve(&old, "\"v1\"", request).slow(),
        _ => serve(&of, "\"v2\"", request),
    });
    assert!(is(&Bench::new(settings()).fetch(&server.url("/")).unwrap(), &new));
    // This is the first request, and the last one that was sent, though others may arrive later.
    assert_eq!(server.requests().iter().filter(|request| asked(request).is_none()).count(), 2);
}

#[test]
fn another_process_takes_up_what_a_killed_one_left() {
    let body = Arc::new(body(PART_BYTES + 3_000_000));
    let of = body.clone();
    let server = Server::start(move |number, request| {
        let reply = serve(&of, "\"v1\"", request);
        if number == 0 { reply.cut(PART_BYTES + 1_000_000).then_stall() } else { reply }
    });
    let bench = Bench::new(settings());
    let wanted = download(&server.url("/app.jar"));
    bench.system.prefetch(vec![wanted.clone()]);
    let staging = STAGING.into();
    let note = || bench.system.root().list(&staging).unwrap().into_iter().find(|name| name.ends_with(".map"));
    assert!(eventually(&bench.system, || {
        let Some(note) = note() else { return false };
        let bytes = bench.tree.read(&format!("{STAGING}/{note}"));
        let last = bytes.as_chunks::<8>().0.last();
        bytes.len() > 4096 + 8 && last.is_some_and(|there| u64::from_le_bytes(*there) >= 900_000)
    }));
    let bench = Bench::again(settings(), bench.tree.copy_of(STAGING));
    let fetched = bench.system.fetch(&wanted).unwrap();
    assert!(is(&fetched, &body) && fetched.resumed >= CHUNK_BYTES + 900_000, "{}", fetched.resumed);
    let (first, _) = asked(&server.requests()[1]).unwrap();
    assert_eq!(first as u64, fetched.resumed);
    drop(fetched);
    assert_eq!(bench.system.root().list(&staging).unwrap(), [""; 0]);
}

#[test]
fn what_a_killed_run_left_and_nobody_needs_is_swept() {
    let body = body(2 << 20);
    let server = Server::start(move |number, request| match number {
        0 => serve(&body, "\"v1\"", request).cut(1_200_000),
        _ => Reply::new(503, &[], ""),
    });
    let bench = Bench::new(settings());
    let wanted = download(&server.url("/app.jar"));
    assert_eq!(told(bench.system.fetch(&wanted)).0, 75);
    let left = || bench.system.root().list(&STAGING.into()).unwrap().len();
    bench.system.prefetch(vec![wanted.clone()]);
    assert_eq!(left(), 2);
    bench.system.fetcher.abandon(&[wanted]);
    bench.system.prefetch(vec![]);
    assert_eq!(left(), 0);
}

#[test]
fn what_was_left_of_other_bytes_or_by_another_boot_is_not_taken_up() {
    let (old, new) = (body(2 << 20), body(2 << 20).into_iter().rev().collect::<Vec<_>>());
    for other_boot in [false, true] {
        let (was, is_now) = (old.clone(), new.clone());
        let server = Server::start(move |number, request| match number {
            0 => serve(&was, "\"v1\"", request).cut(1_200_000),
            // The first attempt made progress, so it does not count.
            1..=3 => Reply::new(503, &[], ""),
            _ => serve(&is_now, if other_boot { "\"v1\"" } else { "\"v2\"" }, request),
        });
        let bench = Bench::new(settings());
        let wanted = download(&server.url("/app.jar"));
        assert_eq!(told(bench.system.fetch(&wanted)).0, 75);
        if other_boot {
            let note = bench.tree.names(STAGING).into_iter().find(|name| name.ends_with(".map")).unwrap();
            let note = format!("{STAGING}/{note}");
            let boot =
                Root::open(Path::new("/")).unwrap().read_text(&"/proc/sys/kernel/random/boot_id".into()).unwrap();
            let mut bytes = bench.tree.read(&note);
            let at = bytes.windows(36).position(|window| window == boot.trim().as_bytes()).unwrap();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            bench.tree.write(&note, bytes);
        }
        let fetched = bench.system.fetch(&wanted).unwrap();
        assert!(is(&fetched, &new) && fetched.resumed == 0);
    }
}
