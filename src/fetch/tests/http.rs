//! `http` sources, prefetching and probes.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Bench, UNUSED, download, eventually, hasty,
    server::{Reply, Server},
    settings, settings_with, text, told,
};
use crate::{
    fetch::{pull::Download, window::INITIAL_PLACES},
    net::probe::ProbeRequest,
    value::Sha256,
};

fn pinned(url: &str, content: &str) -> Download {
    Download { sha256: Some(Sha256::of(content.as_bytes())), ..download(url) }
}

#[test]
fn bytes_and_their_validator_arrive_and_leave_nothing_behind() {
    let server = Server::replies(vec![Reply::new(200, &[("etag", "\"v1\"")], "jar")]);
    let bench = Bench::new(settings());
    let fetched = bench.system.fetch(&pinned(&server.url("/app.jar"), "jar")).unwrap();
    assert_eq!((fetched.size, fetched.etag.as_deref()), (3, Some("\"v1\"")));
    assert_eq!(fetched.sha256, Sha256::of(b"jar"));
    assert_eq!(text(fetched), "jar");
    let staging = "/var/lib/glovo-bootstrap/staging".into();
    assert_eq!(bench.system.root().list(&staging).unwrap(), [""; 0]);
}

#[test]
fn a_stalled_body_is_tried_again_and_then_transient() {
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").then_stall()]);
    let (code, told) = Bench::new(hasty()).refused(&server.url("/"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("gave up after 3 attempts") && told.contains("no bytes for 400 ms"), "{told}");
}

#[test]
fn a_server_that_never_answers_is_transient() {
    let server = Server::replies(vec![Reply::raw("").then_stall()]);
    let (code, told) = Bench::new(hasty()).refused(&server.url("/"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("gave up after 3 attempts") && told.contains("no bytes for 400 ms"), "{told}");
}

#[test]
fn a_dripping_body_ends_at_the_deadline_and_is_abandoned() {
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n").then_drip()]);
    let bench = Bench::new(settings());
    bench.system.prefetch(vec![download(&server.url("/"))]);
    assert!(eventually(&bench.system, || server.requests().len() == 1));
    let limit = Some(Duration::from_millis(200));
    let (code, told) = bench.system.host.stop.deadlines.within(limit, "step a", || bench.refused(&server.url("/")));
    assert_eq!((code, server.requests().len()), (75, 1), "{told}");
    assert!(told.contains("step a timed out"), "{told}");
    assert!(eventually(&bench.system, || server.abandoned() == 1));
}

#[test]
fn a_body_that_is_cut_short_is_fetched_again() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let server = Server::replies(vec![Reply::raw(cut), Reply::ok("whole")]);
        assert_eq!(text(Bench::new(settings()).fetch(&server.url("/")).unwrap()), "whole");

        let server = Server::replies(vec![Reply::raw(cut)]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/"));
        assert_eq!((code, server.requests().len()), (75, 3), "{told}");
    }
}

#[test]
fn bytes_beyond_the_announced_length_are_no_part_of_the_body() {
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef")]);
    assert_eq!(text(Bench::new(settings()).fetch(&server.url("/")).unwrap()), "abc");
}

#[test]
fn other_bytes_than_declared_are_fetched_once_more_and_refused() {
    let server = Server::replies(vec![Reply::ok("<html>please log in</html>")]);
    let (code, told) = told(Bench::new(settings()).system.fetch(&pinned(&server.url("/"), "jar")));
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    assert!(told.contains(&Sha256::of(b"jar").to_string()), "{told}");
    assert!(told.contains(&Sha256::of(b"<html>please log in</html>").to_string()), "{told}");
}

#[test]
fn another_length_than_is_known_is_asked_for_once_more_and_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\njars\r\n0\r\n\r\n";
    for (reply, words) in [
        (Reply::ok("jars"), "the server announces 4 bytes, not 3"),
        (Reply::ok("ja"), "the server announces 2 bytes, not 3"),
        (Reply::raw(chunked), "the server sends more than 3 bytes"),
    ] {
        let server = Server::replies(vec![reply]);
        let wanted = Download { size: Some(3), ..download(&server.url("/x.deb")) };
        let (code, told) = told(Bench::new(settings()).system.fetch(&wanted));
        assert_eq!((code, server.requests().len()), (1, 2), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_byte_that_flipped_on_its_way_is_forgiven() {
    let server = Server::replies(vec![Reply::ok("jaR"), Reply::ok("jar")]);
    let fetched = Bench::new(settings()).system.fetch(&pinned(&server.url("/"), "jar")).unwrap();
    assert_eq!(text(fetched), "jar");
}

#[test]
fn a_redirect_loop_ends() {
    let server = Server::replies(vec![Reply::new(302, &[("location", "/again")], "")]);
    let (code, told) = Bench::new(settings()).refused(&server.url("/"));
    assert_eq!((code, server.requests().len()), (1, 11), "{told}");
    assert!(told.contains("more than 10 redirects"), "{told}");
}

#[test]
fn after_a_redirect_the_host_that_fails_is_named() {
    for (target, words) in [
        ("http://localhost:1/", "connecting to localhost: connection refused"),
        ("http://nowhere.invalid/", "the name nowhere.invalid can't be resolved"),
    ] {
        let server = Server::replies(vec![Reply::new(302, &[("location", target)], "")]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/"));
        assert_eq!(code, 75, "{told}");
        assert!(told.contains(words), "{told}");
    }
    let gone = Server::replies(vec![Reply::new(404, &[], "")]);
    let target = gone.url("/").replace("127.0.0.1", "localhost");
    let server = Server::replies(vec![Reply::new(302, &[("location", &target)], "")]);
    let (_, told) = Bench::new(settings()).refused(&server.url("/"));
    assert!(told.contains("after a redirect, localhost answered 404 Not Found"), "{told}");
}

#[test]
fn a_redirect_to_what_is_no_place_for_files_is_refused() {
    for (location, words) in [
        ("ftp://127.0.0.1/x", "refusing the redirect to ftp"),
        ("http://[", "the server redirects to something that is not a URL"),
    ] {
        let server = Server::replies(vec![Reply::new(302, &[("location", location)], "")]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/"));
        assert_eq!((code, server.requests().len()), (1, 1), "{told}");
        assert!(told.contains(words), "{told}");
    }
    // The client does not send a password that the origin made up.
    let target = Server::replies(vec![Reply::ok("jar")]);
    let location = target.url("/").replace("://", "://user:password@");
    let server = Server::replies(vec![Reply::new(302, &[("location", &location)], "")]);
    assert_eq!(text(Bench::new(settings()).fetch(&server.url("/")).unwrap()), "jar");
    assert_eq!(target.requests()[0].header("authorization"), None);
}

#[test]
fn a_redirect_to_the_metadata_service_is_refused() {
    let location = "http://169.254.169.254/latest/meta-data/";
    let server = Server::replies(vec![Reply::new(302, &[("location", location)], "")]);
    let (code, told) = Bench::new(settings()).refused(&server.url("/"));
    assert_eq!((code, server.requests().len()), (1, 1), "{told}");
    assert!(told.contains("refusing the redirect to the link-local address 169.254.169.254"), "{told}");
}

#[test]
fn a_redirect_does_not_pass_on_the_query_it_came_from() {
    let target = Server::replies(vec![Reply::ok("jar")]);
    let location = target.url("/elsewhere");
    let server = Server::replies(vec![Reply::new(307, &[("location", &location)], "")]);
    assert_eq!(text(Bench::new(settings()).fetch(&server.url("/?token=secret")).unwrap()), "jar");
    let request = target.requests().remove(0);
    assert_eq!((request.target(), request.header("referer")), ("/elsewhere", None));
}

#[test]
fn a_compressed_file_arrives_as_it_is_stored() {
    let server = Server::replies(vec![Reply::new(200, &[("content-encoding", "gzip")], "\x1f not unpacked")]);
    assert_eq!(text(Bench::new(settings()).fetch(&server.url("/")).unwrap()), "\x1f not unpacked");
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn an_origin_that_asks_for_more_patience_than_ours_is_given_up() {
    for status in [429, 503] {
        let server = Server::replies(vec![Reply::new(status, &[("retry-after", "1000000000")], ""), Reply::ok("jar")]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/"));
        assert_eq!((code, server.requests().len()), (75, 1), "{told}");
        assert!(told.contains("the server asks to wait 16666666 min 40 s, longer than 5 ms"), "{told}");
    }
}

#[test]
fn a_thousand_downloads_do_not_ask_a_server_that_has_gone_thousands_of_times() {
    let server = Server::replies(vec![Reply::new(503, &[], "")]);
    let bench = Bench::new(settings());
    let downloads: Vec<Download> = (0..1000).map(|number| download(&server.url(&format!("/{number}")))).collect();
    bench.system.prefetch(downloads.clone());
    let (codes, told): (Vec<u8>, Vec<String>) = downloads.iter().map(|one| told(bench.system.fetch(one))).unzip();
    assert!(codes.iter().all(|code| *code == 75));
    assert!(told.iter().filter(|told| told.contains("this process's retry budget is used up")).count() >= 900);
    // All together make a hundred retries, not two thousand.
    assert_eq!(server.requests().len(), 1100);
}

#[test]
fn what_is_not_there_is_not_asked_for_again() {
    for status in [400, 401, 403, 404, 410] {
        let server = Server::replies(vec![Reply::new(status, &[], "")]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/app.jar?signature=secret"));
        assert_eq!((code, server.requests().len()), (1, 1), "{told}");
        assert!(told.contains(&format!("the server answered {status}")), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn a_server_error_is_transient() {
    for status in [500, 502, 503, 504] {
        let server = Server::replies(vec![Reply::new(status, &[], "")]);
        let (code, told) = Bench::new(settings()).refused(&server.url("/?signature=secret"));
        assert_eq!((code, server.requests().len()), (75, 3), "{told}");
        assert!(told.contains("gave up after 3 attempts") && !told.contains("secret"), "{told}");
    }
}

#[test]
fn nobody_at_the_other_end_is_transient() {
    let (code, told) = Bench::new(settings()).refused(&format!("{UNUSED}?signature=secret"));
    assert_eq!(code, 75, "{told}");
    assert!(
        told.contains("caused by: connecting to 127.0.0.1: connection refused") && !told.contains("secret"),
        "{told}"
    );
}

#[test]
fn a_name_that_does_not_resolve_is_transient_and_says_where_to_look() {
    // RFC 6761 section 6.4: never a real name.
    let (code, told) = Bench::new(settings()).refused("http://origin.invalid/");
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("/etc/resolv.conf"), "{told}");
}

#[test]
fn a_prefetched_download_is_joined_and_its_failure_shows_at_the_fetch() {
    let server = Server::start(|_, request| match request.target() {
        "/jar" => Reply::ok("jar"),
        _ => Reply::new(404, &[], ""),
    });
    let bench = Bench::new(settings());
    let (jar, gone) = (download(&server.url("/jar")), download(&server.url("/gone")));
    bench.system.prefetch(vec![jar.clone(), gone.clone(), jar.clone()]);
    assert!(eventually(&bench.system, || server.requests().len() == 2));
    assert_eq!(told(bench.system.fetch(&gone)).0, 1);
    assert_eq!(text(bench.system.fetch(&jar).unwrap()), "jar");
    assert_eq!(server.requests().len(), 2);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a server that is slow")]
fn downloads_overlap_but_not_all_at_once() {
    let together = Arc::new((Mutex::new(0), Condvar::new()));
    let first = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let (together, first) = (together.clone(), first.clone());
        move |_, _| {
            let (count, changed) = &*together;
            let mut count = count.lock().unwrap();
            *count += 1;
            changed.notify_all();
            // The server answers after the first window of requests has arrived, and one more would have come.
            drop(changed.wait_while(count, |count| *count < INITIAL_PLACES).unwrap());
            std::thread::sleep(Duration::from_millis(100));
            let count = together.0.lock().unwrap();
            _ = first.compare_exchange(0, *count, Ordering::Relaxed, Ordering::Relaxed);
            Reply::ok("jar")
        }
    });
    let bench = Bench::new(settings());
    let all = (0..3 * INITIAL_PLACES).map(|number| download(&server.url(&format!("/{number}"))));
    let downloads: Vec<Download> = all.collect();
    bench.system.prefetch(downloads.clone());
    for download in &downloads {
        assert_eq!(text(bench.system.fetch(download).unwrap()), "jar");
    }
    assert_eq!(first.load(Ordering::Relaxed), INITIAL_PLACES);
}

#[test]
fn what_is_dropped_is_abandoned() {
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n").then_drip()]);
    let bench = Bench::new(settings());
    bench.system.prefetch(vec![download(&server.url("/"))]);
    assert!(eventually(&bench.system, || server.requests().len() == 1));
    let other = Bench::new(settings());
    drop(bench);
    assert!(eventually(&other.system, || server.abandoned() == 1));
}

#[test]
fn progress_is_told_while_a_download_goes_on() {
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 2048\r\n\r\n").then_drip()]);
    let bench = Bench::new(settings());
    let lines = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
    bench.system.host.on_progress({
        let lines = lines.clone();
        move |line| lines.borrow_mut().push(line.to_owned())
    });
    let url = server.url("/app.jar");
    let download = download(&format!("{url}?signature=secret"));
    bench.system.prefetch(vec![download.clone()]);
    let started = &bench.system.fetcher.started;
    assert!(eventually(&bench.system, || started.borrow()[0].1.progress.line(&"").ends_with("of 2 KiB")));
    _ = bench.system.host.stop.deadlines.within(Some(Duration::ZERO), "step a", || told(bench.system.fetch(&download)));
    let line = lines.borrow().last().cloned().unwrap_or_default();
    let done = line.strip_prefix(&format!("{url}: ")).and_then(|rest| rest.strip_suffix(" bytes of 2 KiB"));
    assert!(done.is_some(), "{line}");
}

#[test]
fn only_a_strong_etag_is_an_etag() {
    let etag = |headers: &[(&str, &str)]| {
        let server = Server::replies(vec![Reply::new(200, headers, "")]);
        let bench = Bench::new(settings());
        let etag = bench.system.fetcher.etag(&bench.system.host, &server.url("/").parse().unwrap()).unwrap();
        assert!(server.requests()[0].line.starts_with("HEAD "));
        etag
    };
    assert_eq!(etag(&[("etag", "\"v1\"")]).as_deref(), Some("\"v1\""));
    assert_eq!(etag(&[("etag", "W/\"v1\"")]), None);
    assert_eq!(etag(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), None);
}

#[test]
fn a_file_is_read_below_the_root() {
    let bench = Bench::new(settings());
    bench.tree.write("/app.jar", "jar");
    assert_eq!(text(bench.fetch("file:///app.jar").unwrap()), "jar");
    assert_eq!(told(bench.system.fetch(&pinned("file:///app.jar", "other"))).0, 1);
    assert!(bench.refused("file:///gone").1.contains("/gone does not exist"));
}

#[test]
fn a_probe_tells_what_was_answered_and_follows_nothing() {
    let server = Server::replies(vec![Reply::new(301, &[("Location", "/there"), ("X-App", "1.0")], "moved")]);
    let bench = Bench::new(settings());
    let answer =
        bench.system.fetcher.probe(&bench.system.host, ProbeRequest::new(server.url("/")), Duration::MAX).unwrap();
    assert_eq!((answer.status, server.requests().len()), (301, 1));
    assert!(answer.headers.contains(&("x-app".into(), "1.0".into())), "{:?}", answer.headers);
}

#[test]
fn a_probe_fails_in_few_words_and_is_not_repeated() {
    let probe = |settings, url: &str| {
        let system = &Bench::new(settings).system;
        system.fetcher.probe(&system.host, ProbeRequest::new(url), Duration::MAX).unwrap_err().to_string()
    };
    assert_eq!(probe(settings(), UNUSED), "connection refused");
    let server = Server::replies(vec![Reply::raw("").then_stall()]);
    let stall = settings_with(|network| network.stall_timeout = Duration::from_millis(400));
    assert_eq!(probe(stall, &server.url("/")), "no bytes for 400 ms");
    assert!(server.requests().len() < 2);
    let server = Server::replies(vec![Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").then_drip()]);
    let whole = settings_with(|network| network.probe_timeout = Duration::from_millis(600));
    assert_eq!(probe(whole, &server.url("/")), "no answer within 600 ms");
    let server = Server::replies(vec![Reply::raw("SSH-2.0-OpenSSH_9.2\r\n")]);
    assert!(probe(settings(), &server.url("/")).len() < 60);
}

#[test]
fn short_bodies_widen_the_window_and_long_ones_do_not() {
    let width_after = |body: Vec<u8>| {
        let server = Server::replies(vec![Reply::ok(body)]);
        let bench = Bench::new(settings());
        for number in 0..3 {
            _ = bench.fetch(&server.url(&format!("/{number}"))).unwrap();
        }
        bench.system.fetcher.engine.window.width()
    };
    assert_eq!(width_after(vec![b'x'; 1000]), INITIAL_PLACES + 3);
    assert_eq!(width_after(vec![b'x'; (1 << 20) + 1]), INITIAL_PLACES);
}
