//! The instance metadata service: present, late, refused and missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Bench, BenchSettings, hasty,
    server::{Reply, Request, Server},
    settings, told,
};
use crate::net::{clock::Clock, retry::Pace};

/// Starts a metadata service that answers by `answer`, only to requests with the session token.
pub(crate) fn service(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Server {
    Server::start(move |_, request: &Request| {
        if request.line.starts_with("PUT /latest/api/token ") {
            return Reply::new(200, &[("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "session");
        }
        if request.header("x-aws-ec2-metadata-token") != Some("session") {
            return Reply::new(401, &[], "");
        }
        answer(request.target()).map_or_else(|| Reply::new(404, &[], ""), Reply::ok)
    })
}

pub(crate) fn at(service: &Server) -> BenchSettings {
    BenchSettings { metadata_endpoint: service.url(""), ..settings() }
}

fn instance(path: &str) -> Option<String> {
    let answer = match path {
        "/latest/meta-data/instance-id" => "i-0123456789abcdef0",
        "/latest/meta-data/placement/region" => "eu-west-1",
        "/latest/meta-data/placement/availability-zone" => "eu-west-1b",
        "/latest/meta-data/placement/availability-zone-id" => "euw1-az3",
        "/latest/meta-data/instance-type" => "t3.small",
        "/latest/meta-data/local-ipv4" => "172.31.5.6",
        "/latest/meta-data/public-ipv4" => "203.0.113.7",
        "/latest/meta-data/local-hostname" => "ip-172-31-5-6.eu-west-1.compute.internal",
        "/latest/meta-data/mac" => "02:00:00:00:00:01",
        "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-ipv4-cidr-block" => "172.31.0.0/16",
        "/latest/meta-data/autoscaling/target-lifecycle-state" => "InService",
        "/latest/meta-data/ami-id" => "ami-1",
        "/latest/dynamic/instance-identity/document" => r#"{"accountId": "123456789012", "region": "eu-west-1"}"#,
        "/latest/meta-data/tags/instance" => "Name\nrole",
        "/latest/meta-data/tags/instance/role" => "app",
        _ => return None,
    };
    Some(answer.into())
}

#[test]
fn every_fact_is_found() {
    let service = service(instance);
    let bench = Bench::new(at(&service));
    for (name, value) in [
        ("id", "i-0123456789abcdef0"),
        ("region", "eu-west-1"),
        ("availability_zone", "eu-west-1b"),
        ("type", "t3.small"),
        ("ami", "ami-1"),
        ("account", "123456789012"),
        ("availability_zone_id", "euw1-az3"),
        ("local_ipv4", "172.31.5.6"),
        ("public_ipv4", "203.0.113.7"),
        ("private_dns", "ip-172-31-5-6.eu-west-1.compute.internal"),
        ("mac", "02:00:00:00:00:01"),
        ("vpc_cidr", "172.31.0.0/16"),
        ("lifecycle_state", "InService"),
        ("tags.role", "app"),
    ] {
        assert_eq!(bench.system.instance(name).unwrap(), value);
    }
    let tokens = service.requests().iter().filter(|request| request.line.starts_with("PUT")).count();
    assert_eq!(tokens, 1, "one session for all");
}

#[test]
fn a_fact_that_an_instance_lacks_is_explained() {
    let without = service(|_| None);
    for (name, words) in [
        ("public_ipv4", "this instance has no public IPv4 address"),
        ("lifecycle_state", "this instance is in no Auto Scaling group"),
        ("vpc_cidr", "this instance is in no VPC with an IPv4 range"),
        ("ami", "the metadata service of this instance has no `ami`"),
    ] {
        let (code, told) = told(Bench::new(at(&without)).system.instance(name));
        assert!(code == 1 && told.contains(words), "{code}: {told}");
    }
}

#[test]
fn an_interface_whose_address_is_a_path_is_refused() {
    let service = service(|path| path.ends_with("/mac").then(|| "../../../user-data".into()));
    let (code, told) = told(Bench::new(at(&service)).system.instance("vpc_cidr"));
    assert!(code == 1 && told.contains("invalid MAC address"), "{code}: {told}");
    assert!(service.requests().iter().all(|request| !request.line.contains("..")), "asked for it");
}

#[test]
fn a_missing_tag_is_told_from_tags_that_are_not_in_the_metadata() {
    let with_tags = service(instance);
    let (code, told_missing) = told(Bench::new(at(&with_tags)).system.instance("tags.rolle"));
    assert_eq!(code, 1, "{told_missing}");
    assert!(told_missing.contains("no tag `rolle`") && told_missing.contains("it has Name, role"), "{told_missing}");
    let without = service(|_| None);
    let (code, told) = told(Bench::new(at(&without)).system.instance("tags.role"));
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("--instance-metadata-tags enabled"), "{told}");
}

#[test]
fn a_service_that_is_not_there_is_transient() {
    let silent = Server::replies(vec![Reply::raw("")]);
    let (code, told) = told(Bench::new(at(&silent)).system.instance("id"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("does not answer") && told.contains("is this an EC2 instance?"), "{told}");
}

#[test]
fn a_service_that_refuses_connections_is_transient_and_not_waited_for() {
    let patient = BenchSettings { metadata_patience: Duration::from_hours(1), ..settings() };
    let (code, told) = told(Bench::new(patient).system.instance("id"));
    assert!(code == 75 && told.contains("does not let this program reach"), "{told}");
}

#[test]
fn a_disabled_service_is_permanent_and_never_asked_without_a_token() {
    let service = Server::replies(vec![Reply::new(403, &[], "")]);
    let (code, told) = told(Bench::new(at(&service)).system.instance("id"));
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("is disabled") && told.contains("--http-endpoint enabled"), "{told}");
    assert!(service.requests().iter().all(|request| request.line.starts_with("PUT ")));
}

/// Starts a service that accepts only the last token that it gave.
fn renewing(answer: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Server {
    let tokens = AtomicUsize::new(0);
    Server::start(move |number, request| {
        if request.line.starts_with("PUT ") {
            let token = tokens.fetch_add(1, Ordering::Relaxed) + 1;
            return Reply::new(200, &[("x-aws-ec2-metadata-token-ttl-seconds", "21600")], token.to_string());
        }
        answer(number)
    })
}

#[test]
fn a_service_that_is_late_is_waited_for_but_not_forever() {
    // At first no request gets an answer, then the service has no tokens yet, then it works.
    let late = Server::start(|number, request| match number {
        0..4 => Reply::raw(""),
        4..8 => Reply::new(503, &[], ""),
        _ if request.line.starts_with("PUT ") => {
            Reply::new(200, &[("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "session")
        }
        _ => Reply::ok("i-1"),
    });
    let patient = |patience| BenchSettings { metadata_patience: patience, ..at(&late) };
    assert_eq!(Bench::new(patient(Duration::from_mins(5))).system.instance("id").unwrap(), "i-1");
    assert_eq!(late.requests().len(), 10);

    let silent = Server::replies(vec![Reply::raw("")]);
    let now = Arc::<AtomicU64>::default();
    let mut absent = BenchSettings { metadata_patience: Duration::from_mins(5), ..at(&silent) };
    absent.network.pace =
        Pace { first: Duration::from_secs(10), clock: Clock::Simulated(now.clone()), ..absent.network.pace };
    let bench = Bench::new(absent);
    let (code, told_first) = told(bench.system.instance("id"));
    assert_eq!(code, 75, "{told_first}");
    let seconds = || now.load(Ordering::Relaxed) / 1000;
    let waited = seconds();
    assert!((300..310).contains(&waited), "{waited} s: {told_first}");
    // The next request does not wait again: the wait is the machine's, not the request's.
    assert_eq!(told(bench.system.instance("region")).0, 75);
    assert!(seconds() < waited + 10, "{} s", seconds());
}

#[test]
fn a_token_that_is_no_longer_taken_is_replaced_once() {
    let service = renewing(|number| if number == 1 { Reply::new(401, &[], "") } else { Reply::ok("i-1") });
    assert_eq!(Bench::new(at(&service)).system.instance("id").unwrap(), "i-1");
    let requests = service.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("x-aws-ec2-metadata-token")).collect();
    assert_eq!(tokens, [None, Some("1"), None, Some("2")]);

    let service = renewing(|_| Reply::new(401, &[], ""));
    let (code, told) = told(Bench::new(at(&service)).system.instance("id"));
    assert_eq!((code, service.requests().len()), (1, 4), "{told}");
    assert!(told.contains("answered 401"), "{told}");
}

#[test]
fn a_token_that_does_not_arrive_hints_at_the_hop_limit() {
    // The connection is made, but the answer's packets expire one hop too early.
    let service = Server::replies(vec![Reply::raw("").then_stall()]);
    let settings = BenchSettings { metadata_endpoint: service.url(""), ..hasty() };
    let (code, told) = told(Bench::new(settings).system.instance("id"));
    assert_eq!((code, service.requests().len()), (75, 3), "{told}");
    assert!(told.contains("HttpPutResponseHopLimit=2"), "{told}");
}

#[test]
fn version_1_is_refused_even_if_it_would_answer() {
    for status in [404, 405] {
        let service = Server::start(move |_, request| {
            if request.line.starts_with("PUT ") { Reply::new(status, &[], "") } else { Reply::ok("i-1") }
        });
        let (code, told) = told(Bench::new(at(&service)).system.instance("id"));
        assert_eq!((code, service.requests().len()), (1, 1), "{told}");
        assert!(told.contains("gives no session token") && told.contains("version 1"), "{told}");
    }
}
