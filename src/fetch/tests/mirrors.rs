//! Several sources of the same bytes.

use super::{
    Bench, Download, UNUSED,
    server::{Reply, Server},
    settings, text, told,
};
use crate::{
    fetch::source::{Source, Sources},
    value::Sha256,
};

/// Returns a download of the bytes `jar` from any of these URLs.
fn any_of(urls: &[&str]) -> Download {
    let sources: Vec<Source> = urls.iter().map(|url| url.parse().unwrap()).collect();
    Download::new(Sources::try_from(sources).unwrap(), Some(Sha256::of(b"jar")))
}

#[test]
fn the_next_source_is_asked_after_one_that_fails_in_any_way() {
    let good = Server::replies(vec![Reply::ok("jar")]);
    // The failing reply, and the number of requests.
    for (reply, asked) in [
        (Reply::new(404, &[], ""), 1),
        (Reply::new(503, &[], ""), 2),
        (Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), 2),
        (Reply::ok("another jar, and a longer one"), 2),
    ] {
        let bad = Server::replies(vec![reply]);
        let bench = Bench::new(settings());
        let download = any_of(&[&bad.url("/"), UNUSED, &good.url("/")]);
        assert_eq!(text(bench.system.fetch(&download).unwrap()), "jar");
        bench.system.prefetch(vec![download.clone()]);
        assert_eq!(text(bench.system.fetch(&download).unwrap()), "jar");
        assert_eq!(bad.requests().len(), 2 * asked);
        for arrival in bench.system.fetcher.arrivals() {
            assert_eq!((arrival.source, arrival.bytes), (good.url("/"), 3));
            assert!(arrival.began <= arrival.ended);
        }
    }
    assert_eq!(good.requests().len(), 8);
}

#[test]
fn sources_may_differ_in_their_queries_alone() {
    let server = Server::start(|_, request| match request.target() {
        "/app.jar?m=2" => Reply::ok("jar"),
        _ => Reply::new(404, &[], ""),
    });
    let url = |query: &str| server.url(&format!("/app.jar?{query}"));
    let download = any_of(&[&url("m=1"), &url("m=2")]);
    assert_eq!(text(Bench::new(settings()).system.fetch(&download).unwrap()), "jar");

    let id = |source: &str| source.parse::<Source>().unwrap().id();
    assert_eq!(id("https://a/x"), "https://a/x");
    assert!(!id("https://a/x?key=secret").contains("secret"));
    for [one, other] in [["https://a/x?m=1", "https://a/x?m=2"], ["s3://a/x?versionId=1", "s3://a/x?versionId=2"]] {
        assert_ne!(id(one), id(other));
    }
    assert_eq!(id("https://a/x?m=1#top"), id("https://a/x?m=1"));
}

#[test]
fn the_next_source_is_not_asked_before_one_has_failed() {
    let (good, spare) = (Server::replies(vec![Reply::ok("jar")]), Server::replies(vec![Reply::ok("jar")]));
    let fetched = Bench::new(settings()).system.fetch(&any_of(&[&good.url("/"), &spare.url("/")]));
    assert_eq!((text(fetched.unwrap()), spare.requests().len()), ("jar".into(), 0));
}

#[test]
fn when_none_delivers_each_is_named_with_its_reason() {
    let gone = Server::replies(vec![Reply::new(404, &[], "")]);
    let other = Server::replies(vec![Reply::ok("other")]);
    let (gone, other) = (gone.url("/app.jar"), other.url("/app.jar"));
    let bench = Bench::new(settings());
    let (code, said) = told(bench.system.fetch(&any_of(&[&format!("{gone}?signature=secret"), &other])));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("downloading {gone} or {other}\ncaused by: all 2 sources failed")), "{said}");
    assert!(said.contains(&format!("| {gone}: the server answered 404 Not Found\n")), "{said}");
    assert!(said.contains(&format!("| {other}: the sha256 of the 5 bytes is ")), "{said}");
    assert!(said.contains("hint: check the URL") && !said.contains("secret"), "{said}");
}

#[test]
fn what_may_pass_at_one_source_may_pass_in_all() {
    let gone = Server::replies(vec![Reply::new(404, &[], "")]);
    for (urls, attempts) in [([UNUSED, &gone.url("/")], 2), ([&gone.url("/"), UNUSED], 3)] {
        let (code, said) = told(Bench::new(settings()).system.fetch(&any_of(&urls)));
        assert_eq!(code, 75, "{said}");
        let reason =
            format!("| {UNUSED}: gave up after {attempts} attempts: connecting to 127.0.0.1: connection refused");
        assert!(said.contains(&reason), "{said}");
    }
}

#[test]
fn a_list_of_sources_is_of_places_on_the_network() {
    let sources = |text: &str| serde_json::from_str::<Sources>(text).map_err(|error| error.to_string());
    assert_eq!(sources("\"file:///a\"").unwrap().to_string(), "file:///a");
    assert_eq!(sources("[\"https://a/x?key=secret\", \"s3://b/x\"]").unwrap().to_string(), "https://a/x or s3://b/x");
    assert!(sources("[]").unwrap_err().contains("at least one"));
    assert!(sources("[\"https://a/x\", \"file:///a\"]").unwrap_err().contains("no mirrors"));
    assert!(sources("[\"https://a/x\", \"gopher://a/x\"]").unwrap_err().contains("`gopher`"));
    assert!(sources("7").unwrap_err().contains("a URL, or a list of URLs"));
}
