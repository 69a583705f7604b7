//! Refusals of HEAD requests, whose answers have no body and so no code. The same request by GET has the code.

use std::time::{Duration, SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};

use super::{OBJECT, bench, error, instance, rotating, signed_at, signer};
use crate::{
    aws::s3::upload::Upload,
    fetch::tests::{
        Bench,
        server::{Reply, Request, Server},
        told,
    },
};

fn is_head(request: &Request) -> bool {
    request.line.starts_with("HEAD ")
}

/// Returns a refusal as S3 gives it: without a body if the request is a HEAD.
fn refused(request: &Request, status: u16, code: &str, headers: &[(&str, &str)]) -> Reply {
    if is_head(request) { Reply::new(status, headers, "") } else { error(status, code, headers) }
}

fn etag(bench: &Bench) -> anyhow::Result<Option<String>> {
    bench.system.fetcher.etag(&bench.system.host, &OBJECT.parse().unwrap())
}

#[test]
fn an_expired_token_is_renewed_after_a_head_too() {
    let service = rotating(36_000);
    let server = Server::start(|_, request| match signer(request).as_deref() {
        Some("ASIA1") => refused(request, 400, "ExpiredToken", &[]),
        _ => Reply::new(200, &[("etag", "\"e\"")], ""),
    });
    let bench = instance(&server, &service);
    assert_eq!(etag(&bench).unwrap().as_deref(), Some("\"e\""));
    let requests = server.requests();
    let asked: Vec<_> = requests.iter().map(|request| (is_head(request), signer(request).unwrap())).collect();
    assert_eq!(asked, [(true, "ASIA1".into()), (false, "ASIA1".into()), (true, "ASIA2".into())]);
    // The repetition asks for one byte, not for the object.
    assert_eq!(requests[1].header("range"), Some("bytes=0-0"));

    let service = rotating(36_000);
    let bench = instance(&server, &service);
    assert!(bench.system.aws.has_bucket(&bench.system.host, "artifacts").unwrap());
    let bench = instance(&server, &rotating(36_000));
    let upload = Upload { bucket: "artifacts".into(), key: "k".into(), body: b"abc".into() };
    assert!(bench.system.aws.upload(&bench.system.host, upload).unwrap());
}

#[test]
fn a_wrong_clock_is_corrected_after_a_head_too() {
    let date = DateTime::from(SystemTime::now() + Duration::from_mins(20)).fmt(Format::HttpDate).unwrap();
    let server = Server::start(move |number, request| match number {
        0 | 1 => refused(request, 403, "RequestTimeTooSkewed", &[("date", &date)]),
        _ => Reply::new(200, &[("etag", "\"e\"")], ""),
    });
    assert_eq!(etag(&bench(&server)).unwrap().as_deref(), Some("\"e\""));
    let requests = server.requests();
    let dates: Vec<DateTime> = requests.iter().map(signed_at).collect();
    assert!((1190..1260).contains(&(dates[2].secs() - dates[0].secs())), "{dates:?}");
}

#[test]
fn a_denied_head_is_told_with_its_code() {
    let server = Server::start(|_, request| refused(request, 403, "AccessDenied", &[]));
    let (code, told) = told(etag(&bench(&server)));
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    assert!(told.contains("is not allowed s3:GetObject") && told.contains("S3: AccessDenied"), "{told}");
    // A bucket's is learned without a list of its objects.
    assert!(bench(&server).system.aws.has_bucket(&bench(&server).system.host, "artifacts").unwrap());
    let targets: Vec<_> = server.requests()[2..].iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/artifacts/", "/artifacts/?max-keys=0"]);
}
