//! The validators of sources: all at once, and each once.

use std::sync::{Condvar, Mutex};

use super::{server::*, *};

fn lines(server: &Server) -> Vec<String> {
    server.requests().iter().map(|request| request.line.replace(" HTTP/1.1", "")).collect()
}

fn source(server: &Server, path: &str) -> Source {
    server.url(path).parse().unwrap()
}

#[test]
fn all_are_asked_before_the_first_one_is_needed() {
    let arrived = Arc::new((Mutex::new(0), Condvar::new()));
    let server = Server::start(move |_, request| {
        // No answer before both questions are there.
        let (count, changed) = &*arrived;
        *count.lock().unwrap() += 1;
        changed.notify_all();
        drop(changed.wait_while(count.lock().unwrap(), |count| *count < 2).unwrap());
        Reply::new(200, &[("etag", &format!("\"{}\"", request.target()))], "")
    });
    let bench = Bench::new(settings());
    let sources = ["/a", "/b", "/a"].map(|path| source(&server, path));
    bench.system.fetcher.ask_for_etags(sources.clone());
    for (source, etag) in sources.iter().zip(["\"/a\"", "\"/b\"", "\"/a\""]) {
        assert_eq!(bench.system.fetcher.etag(&bench.system.host, source).unwrap().as_deref(), Some(etag));
    }
    let mut lines = lines(&server);
    lines.sort();
    assert_eq!(lines, ["HEAD /a", "HEAD /b"]);
}

#[test]
fn an_etag_that_came_with_a_download_is_not_asked_for() {
    let server = Server::start(|_, _| Reply::new(200, &[("etag", "\"v1\"")], "jar"));
    let bench = Bench::new(settings());
    let source = source(&server, "/app.jar");
    let etag = || bench.system.fetcher.etag(&bench.system.host, &source).unwrap();
    assert_eq!(etag().as_deref(), Some("\"v1\""));
    assert_eq!(text(bench.fetch(&server.url("/app.jar")).unwrap()), "jar");
    assert_eq!(etag().as_deref(), Some("\"v1\""));
    assert_eq!(lines(&server), ["HEAD /app.jar", "GET /app.jar"]);
}

#[test]
fn an_early_question_that_failed_is_asked_again() {
    let server = Server::start(|index, _| {
        let status = if index == 0 { 503 } else { 200 };
        Reply::new(status, &[("etag", "\"v1\"")], "")
    });
    let pace = Pace { limit: Limit::Attempts(1), ..Pace::default() };
    let bench = Bench::new(settings_with(|network| network.pace = pace));
    let source = source(&server, "/");
    bench.system.fetcher.ask_for_etags([source.clone()]);
    assert!(eventually(&bench.system, || bench.system.fetcher.has_answers()));
    let etag = bench.system.fetcher.etag(&bench.system.host, &source).unwrap();
    assert_eq!((etag.as_deref(), server.requests().len()), (Some("\"v1\""), 2));
}
