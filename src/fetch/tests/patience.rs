//! Downloads of a run that wait for an origin that fails for a while. The time is simulated.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;

use super::{
    Bench, BenchSettings, Download, download, eventually,
    server::{Reply, Server},
    settings_with, text, told,
};
use crate::{
    fetch::{
        batch::{Delivery, DeliveryEvent, Order},
        source::{Source, Sources},
    },
    net::{
        clock::Clock,
        retry::{Limit, Pace},
        settings::ORIGIN_PATIENCE,
    },
};

/// Returns the settings of a run, with this clock.
fn patient(clock: &Arc<AtomicU64>) -> BenchSettings {
    let pace =
        Pace { limit: Limit::Patience(ORIGIN_PATIENCE), clock: Clock::Simulated(clock.clone()), ..Pace::default() };
    settings_with(|network| network.pace = pace)
}

fn seconds(clock: &AtomicU64) -> u64 {
    clock.load(Ordering::Relaxed) / 1000
}

/// A hundred machines that begin at one time, and an origin that refuses for so many seconds. Returns when each request
/// came, in seconds.
fn fleet(outage: u64, refusal: &[(&str, &str)]) -> Vec<u64> {
    let clocks: Arc<Vec<Arc<AtomicU64>>> = Arc::new((0..100).map(|_| Arc::default()).collect());
    let asked = Arc::new(Mutex::new(vec![]));
    let refusal = Reply::new(503, refusal, "");
    let server = Server::start({
        let (clocks, asked) = (clocks.clone(), asked.clone());
        move |_, request| {
            let agent: usize = request.target().trim_start_matches('/').parse().unwrap();
            let now = seconds(&clocks[agent]);
            asked.lock().unwrap().push(now);
            if now < outage { refusal.clone() } else { Reply::ok("jar") }
        }
    });
    for (agent, clock) in clocks.iter().enumerate() {
        let bench = Bench::new(patient(clock));
        assert_eq!(text(bench.fetch(&server.url(&format!("/{agent}"))).unwrap()), "jar", "agent {agent}");
    }
    let asked = asked.lock().unwrap().clone();
    let last = clocks.iter().map(|clock| seconds(clock)).max().unwrap_or_default();
    assert!(last <= outage + 30, "the last of 100 machines converged after {last} s");
    asked
}

/// Returns the most requests in one second, from this second on.
fn peak(asked: &[u64], from: u64) -> usize {
    (from..=300).map(|second| asked.iter().filter(|at| **at == second).count()).max().unwrap_or_default()
}

#[test]
fn a_fleet_outlasts_an_origin_that_refuses_for_20_s() {
    let peak = peak(&fleet(20, &[]), 20);
    assert!(peak <= 30, "{peak} requests in one second");
}

#[test]
fn a_fleet_outlasts_an_origin_that_refuses_for_120_s() {
    let peak = peak(&fleet(120, &[]), 120);
    assert!(peak <= 30, "{peak} requests in one second");
}

#[test]
fn a_fleet_that_was_told_when_to_come_back_does_not_come_at_once() {
    // Without jitter, all would send the next request after exactly 22 s.
    let asked = fleet(20, &[("retry-after", "22")]);
    assert_eq!(asked.len(), 200);
    assert!(asked.iter().all(|at| *at == 0 || (22..=33).contains(at)), "{asked:?}");
    let peak = peak(&asked, 1);
    assert!(peak <= 30, "{peak} requests in one second");
}

#[test]
fn patience_ends_after_five_minutes_and_says_so() {
    let server = Server::replies(vec![Reply::new(503, &[], "")]);
    let clock = Arc::default();
    let (code, told) = Bench::new(patient(&clock)).refused(&server.url("/"));
    assert_eq!((code, seconds(&clock)), (75, 300), "{told}");
    assert!(told.contains("attempts in 5 min 00 s\ncaused by: the server answered 503"), "{told}");
}

#[test]
fn an_origin_is_not_waited_for_where_there_is_another_way() {
    let server = Server::replies(vec![Reply::new(503, &[], "")]);
    let clock = Arc::default();
    let wanted = Download { has_fallback: true, ..download(&server.url("/x.deb")) };
    let (code, told) = told(Bench::new(patient(&clock)).system.fetch(&wanted));
    assert_eq!((code, server.requests().len()), (75, 5), "{told}");
}

#[test]
fn a_download_that_failed_before_it_was_wanted_is_tried_again() {
    let is_up = Arc::new(AtomicBool::new(false));
    let of_server = is_up.clone();
    let server =
        Server::start(
            move |_, _| {
                if of_server.load(Ordering::Relaxed) { Reply::ok("jar") } else { Reply::new(503, &[], "") }
            },
        );
    let clock = Arc::default();
    let bench = Bench::new(patient(&clock));
    let wanted = download(&server.url("/"));
    bench.system.prefetch(vec![wanted.clone()]);
    assert!(eventually(&bench.system, || bench.system.fetcher.started.borrow()[0].1.task.has_ended()));
    assert_eq!(seconds(&clock), 300);
    is_up.store(true, Ordering::Relaxed);
    assert_eq!(text(bench.system.fetch(&wanted).unwrap()), "jar");
}

#[test]
fn mirrors_are_asked_in_turn_until_one_is_back() {
    let clock: Arc<AtomicU64> = Arc::default();
    let of_server = clock.clone();
    let late =
        Server::start(move |_, _| if seconds(&of_server) < 60 { Reply::new(503, &[], "") } else { Reply::ok("jar") });
    let gone = Server::replies(vec![Reply::new(404, &[], "")]);
    let sources: Vec<Source> = [late.url("/"), gone.url("/")].iter().map(|url| url.parse().unwrap()).collect();
    let any = Download::new(Sources::try_from(sources.clone()).unwrap(), None);
    assert_eq!(text(Bench::new(patient(&clock)).system.fetch(&any).unwrap()), "jar");
    assert!((60..90).contains(&seconds(&clock)));

    // A source that will never deliver is not waited for.
    let clock = Arc::default();
    let none = Download::new(Sources::try_from(vec![sources[1].clone(), sources[1].clone()]).unwrap(), None);
    assert_eq!(told(Bench::new(patient(&clock)).system.fetch(&none)).0, 1);
    assert_eq!(seconds(&clock), 0);
}

#[test]
fn the_etag_of_an_origin_is_waited_for_too() {
    let clock: Arc<AtomicU64> = Arc::default();
    let of_server = clock.clone();
    let server = Server::start(move |_, _| {
        if seconds(&of_server) < 60 { Reply::new(503, &[], "") } else { Reply::new(200, &[("etag", "\"v1\"")], "") }
    });
    let bench = Bench::new(patient(&clock));
    let etag = bench.system.fetcher.etag(&bench.system.host, &server.url("/").parse().unwrap()).unwrap();
    assert_eq!(etag.as_deref(), Some("\"v1\""));
}

#[test]
fn what_is_waited_for_is_shown_and_a_deadline_ends_it_and_says_why() {
    let server = Server::replies(vec![Reply::new(503, &[("retry-after", "40")], "")]);
    let pace = Pace { limit: Limit::Patience(ORIGIN_PATIENCE), ..Pace::default() };
    let bench = Bench::new(settings_with(|network| network.pace = pace));
    let lines = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
    let shown = lines.clone();
    bench.system.host.on_progress(move |line| shown.borrow_mut().push(line.to_owned()));
    let url = server.url("/app.jar");
    let wanted = download(&format!("{url}?signature=secret"));
    bench.system.prefetch(vec![wanted.clone()]);
    let started = &bench.system.fetcher.started;
    assert!(eventually(&bench.system, || started.borrow()[0].1.progress.last_failure().is_some()));
    let limit = Some(Duration::ZERO);
    let (code, told) = bench.system.host.stop.deadlines.within(limit, "step a", || told(bench.system.fetch(&wanted)));
    let line = lines.borrow()[0].clone();
    let pause = line.strip_prefix("waiting ").and_then(|line| line.split_once(" s for "));
    let (pause, rest) = pause.unwrap_or_else(|| panic!("{line}"));
    assert!((40.0..60.0).contains(&pause.parse::<f64>().unwrap()), "{line}");
    assert_eq!(rest, format!("{url} (attempt 1: the server answered 503 Service Unavailable)"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("attempt 1 failed: the server answered 503 Service Unavailable\n"), "{told}");
    assert!(told.contains("step a timed out"), "{told}");
}

#[test]
fn a_mirror_that_asks_for_an_hour_is_asked_once() {
    let clock: Arc<AtomicU64> = Arc::default();
    let of_server = clock.clone();
    let busy = Server::replies(vec![Reply::new(503, &[("retry-after", "3600")], "")]);
    let late =
        Server::start(move |_, _| if seconds(&of_server) < 60 { Reply::new(503, &[], "") } else { Reply::ok("jar") });
    let both = |sources: [&Server; 2]| {
        let sources: Vec<Source> = sources.iter().map(|server| server.url("/").parse().unwrap()).collect();
        Download::new(Sources::try_from(sources).unwrap(), None)
    };
    assert_eq!(text(Bench::new(patient(&clock)).system.fetch(&both([&busy, &late])).unwrap()), "jar");
    assert_eq!(busy.requests().len(), 1);

    let clock = Arc::default();
    let also = Server::replies(vec![Reply::new(429, &[("retry-after", "7200")], "")]);
    let (code, told) = told(Bench::new(patient(&clock)).system.fetch(&both([&busy, &also])));
    assert_eq!((code, seconds(&clock), also.requests().len()), (75, 0, 1), "{told}");
    assert!(told.contains("asks to wait 120 min 00 s"), "{told}");
}

#[test]
fn a_pause_that_outlasts_the_deadline_ends_the_download() {
    let server = Server::replies(vec![Reply::new(503, &[("retry-after", "80")], "")]);
    let bench = Bench::new(settings_with(|network| network.pace = Pace::default()));
    let within = |limit| {
        let limit = Some(Duration::from_secs(limit));
        bench
            .system
            .host
            .stop
            .deadlines
            .within(limit, "step a", || told(bench.system.fetch(&download(&server.url("/")))))
    };
    let (code, told) = within(60);
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("step a has ") && told.contains(" left, but the next attempt is due in "), "{told}");
    assert!(told.contains("attempt 1 failed: the server answered 503"), "{told}");
}

/// Downloads from an origin whose backoff outlasts every deadline, while ever less time is left. Returns the result
/// and how often the origin was asked.
fn deliver_at_the_deadline(replies: Vec<Reply>) -> (Result<Delivery>, usize) {
    let server = Server::replies(replies);
    // However short the jitter makes it.
    let pause = Duration::from_hours(1_000_000);
    let pace = Pace { first: pause, longest: pause, ..Pace::default() };
    let bench = Bench::new(settings_with(|network| network.pace = pace));
    let order = Order {
        source: server.url("/jar").parse().unwrap(),
        sha256: None,
        destination: "/jar".parse().unwrap(),
        ownership: None,
    };
    let deadlines = &bench.system.host.stop.deadlines;
    let left = Cell::new(0);
    let observe = &mut |_: DeliveryEvent<'_>| {
        // Enough to wait, then just enough for an attempt; then that takes its time.
        deadlines.leave([Duration::from_mins(9), Duration::from_secs(9), Duration::from_mins(9)][left.get().min(2)]);
        left.set(left.get() + usize::from(!server.requests().is_empty()));
    };
    let mut delivered = deadlines.within(Some(Duration::from_mins(10)), "fetch", || {
        bench.system.fetcher.deliver(&bench.system.host, vec![order], None, observe).unwrap()
    });
    (delivered.remove(0), server.requests().len())
}

#[test]
fn a_pause_that_outlasts_the_deadline_is_shortened_once() {
    let (delivered, asked) = deliver_at_the_deadline(vec![Reply::new(503, &[], ""), Reply::ok("jar")]);
    assert_eq!((delivered.unwrap().size, asked), (3, 2));
    let (delivered, asked) = deliver_at_the_deadline(vec![Reply::new(503, &[], "")]);
    let (code, told) = told(delivered);
    assert_eq!((code, asked), (75, 2), "{told}");
    assert!(told.contains("attempt 2 failed: the server answered 503"), "{told}");
    assert!(told.contains("fetch has ") && told.contains(" left, but the next attempt is due in "), "{told}");
}
