//! `s3` sources against a server that answers S3's errors. Numbers are rows of the fault matrix.

use std::time::{Duration, SystemTime};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    imds::{self, credentials::ImdsCredentialsProvider},
    provider_config::ProviderConfig,
};
use aws_sdk_s3::{
    config::{Credentials, SharedCredentialsProvider},
    primitives::{DateTime, DateTimeFormat},
};

use super::{
    Bench, NOBODY, hasty, metadata,
    server::{Reply, Request, Server},
    settings, text,
};
use crate::system::fetch::{Settings, client::Clients, sdk::Sender};

const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMIEXAMPLEKEY";
const OBJECT: &str = "s3://artifacts/app/app.jar";

fn config(server: &Server, credentials: SharedCredentialsProvider) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url(""))
        .credentials_provider(credentials)
        .build()
}

fn bench(server: &Server) -> Bench {
    bench_with(server, settings())
}

fn bench_with(server: &Server, settings: Settings) -> Bench {
    let credentials = Credentials::new(KEY_ID, SECRET, None, None, "test");
    Bench::new(Settings { aws: Some(config(server, SharedCredentialsProvider::new(credentials))), ..settings })
}

/// On an instance, with the credentials that its metadata service gives.
fn instance(server: &Server, service: &Server) -> Bench {
    let settings = metadata::at(service);
    let provider = ProviderConfig::without_region().with_http_client(Sender::new(Clients::new(&settings)));
    let client = imds::Client::builder().configure(&provider).endpoint(service.url("")).unwrap().build();
    let credentials = ImdsCredentialsProvider::builder().configure(&provider).imds_client(client).build();
    Bench::new(Settings { aws: Some(config(server, SharedCredentialsProvider::new(credentials))), ..settings })
}

/// With another endpoint of S3.
fn elsewhere(mut bench: Bench, endpoint: &str) -> Bench {
    let config = bench.system.fetcher.settings.aws.take().unwrap();
    bench.system.fetcher.settings.aws = Some(config.into_builder().endpoint_url(endpoint).build());
    bench
}

fn error(status: u16, code: &str, headers: &[(&str, &str)]) -> Reply {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let id = [("x-amz-request-id", "4442587FB7D0A2F9"), ("content-type", "application/xml")];
    Reply::new(status, &[&id, headers].concat(), body)
}

/// The region that a request was signed for.
fn region(request: &Request) -> String {
    let scope = request.header("authorization").and_then(|value| value.split('/').nth(2));
    scope.unwrap_or_default().to_owned()
}

#[test]
fn an_object_arrives_with_its_version_and_etag() {
    let headers = [("etag", "\"e\""), ("x-amz-version-id", "v1")];
    let server = Server::start(move |_, _| Reply::new(200, &headers, "jar"));
    let bench = bench(&server);
    let fetched = bench.fetch(OBJECT).unwrap();
    assert_eq!(fetched.etag.as_deref(), Some("v1 \"e\""));
    assert_eq!(text(fetched), "jar");
    assert_eq!(bench.system.etag(&OBJECT.parse().unwrap()).unwrap().as_deref(), Some("v1 \"e\""));
    assert_eq!(text(bench.fetch("s3://my.bucket/a b/ü.jar?versionId=v1").unwrap()), "jar");
    let targets: Vec<String> = server.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets[0], "/artifacts/app/app.jar?x-id=GetObject");
    assert_eq!(targets[2], "/my.bucket/a%20b/%C3%BC.jar?x-id=GetObject&versionId=v1");
}

#[test]
fn a_bucket_at_an_endpoint_of_its_own_is_in_the_path() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = elsewhere(bench(&server), &server.url("").replace("127.0.0.1", "localhost"));
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert!(server.requests()[0].target().starts_with("/artifacts/app/app.jar"));
}

#[test]
fn row_45_a_bucket_in_another_region_is_found_there_and_remembered() {
    let server = Server::start(|_, request| match region(request).as_str() {
        "eu-west-1" => Reply::ok("jar"),
        _ => error(301, "PermanentRedirect", &[("x-amz-bucket-region", "eu-west-1")]),
    });
    let bench = bench(&server);
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    let regions: Vec<String> = server.requests().iter().map(region).collect();
    assert_eq!(regions, ["us-east-1", "eu-west-1", "eu-west-1"]);
}

#[test]
fn row_45_a_region_is_followed_once() {
    let server = Server::start(|number, _| {
        let region = format!("eu-west-{number}");
        error(400, "AuthorizationHeaderMalformed", &[("x-amz-bucket-region", &region)])
    });
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
}

#[test]
fn row_46_a_missing_object_and_a_missing_bucket_are_told_apart() {
    for (code, words) in [("NoSuchKey", "has no object app/app.jar"), ("NoSuchBucket", "no bucket artifacts")] {
        let server = Server::start(move |_, _| error(404, code, &[]));
        let (exit, told) = bench(&server).refused(OBJECT);
        assert_eq!((exit, server.requests().len()), (1, 1), "{told}");
        assert!(told.contains(words) && told.contains("4442587FB7D0A2F9"), "{told}");
    }
}

#[test]
fn row_46_a_denial_names_who_may_not_do_what() {
    let server = Server::start(|_, _| error(403, "AccessDenied", &[]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 1), "{told}");
    for words in [
        "the access key AKIDEXAMPLE is not allowed s3:GetObject on arn:aws:s3:::artifacts/app/app.jar",
        "s3:ListBucket",
        "4442587FB7D0A2F9",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn row_46_a_denial_names_the_instance_s_role() {
    let service = metadata::service(|path| match path {
        "/latest/meta-data/iam/security-credentials/" => Some("app-server".into()),
        "/latest/meta-data/iam/security-credentials/app-server" => Some(format!(
            r#"{{"Code": "Success", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "{SECRET}", "Token": "token",
                "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}}"#
        )),
        _ => None,
    });
    let server = Server::start(|_, _| error(403, "AccessDenied", &[]));
    let (code, told) = instance(&server, &service).refused(OBJECT);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("the instance's role app-server is not allowed s3:GetObject"), "{told}");
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn row_47_a_wrong_clock_is_corrected_once() {
    let date = DateTime::from(SystemTime::now() + Duration::from_hours(1)).fmt(DateTimeFormat::HttpDate).unwrap();
    let server = Server::start(move |number, _| match number {
        0 => error(403, "RequestTimeTooSkewed", &[("date", &date)]),
        _ => Reply::ok("jar"),
    });
    assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar");
    let dates: Vec<DateTime> = server.requests().iter().map(signed_at).collect();
    assert!((3590..3660).contains(&(dates[1].secs() - dates[0].secs())), "{dates:?}");
}

/// The time in `x-amz-date`, `20260101T000000Z`.
fn signed_at(request: &Request) -> DateTime {
    let date = request.header("x-amz-date").unwrap();
    let (day, time) = date.trim_end_matches('Z').split_once('T').unwrap();
    let date = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..]);
    DateTime::from_str(&date, DateTimeFormat::DateTime).unwrap()
}

#[test]
fn row_47_a_clock_that_stays_wrong_is_told_in_seconds() {
    let date = DateTime::from(SystemTime::now() + Duration::from_hours(1)).fmt(DateTimeFormat::HttpDate).unwrap();
    let server = Server::start(move |_, _| error(403, "RequestTimeTooSkewed", &[("date", &date)]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    let skew = told.split("clock is ").nth(1).and_then(|rest| rest.split(" s behind S3's").next()).unwrap();
    assert!((3590..=3600).contains(&skew.parse::<u32>().unwrap()), "{told}");
    assert!(told.contains("timedatectl"), "{told}");
}

#[test]
fn row_49_a_busy_s3_is_asked_again() {
    let server = Server::start(|_, _| error(503, "SlowDown", &[("retry-after", "1000000000")]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (75, 3), "{told}");
    assert!(told.contains("SlowDown") && told.contains("4442587FB7D0A2F9"), "{told}");
    let server =
        Server::start(|number, _| if number == 0 { error(500, "InternalError", &[]) } else { Reply::ok("jar") });
    assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar");
}

#[test]
fn rows_28_and_30_a_body_that_stalls_or_ends_early_is_fetched_again() {
    let cut = Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
    for (cut, settings) in [(cut.clone(), settings()), (cut.then_stall(), hasty())] {
        let server = Server::replies(vec![cut.clone(), Reply::ok("whole")]);
        assert_eq!(text(bench_with(&server, settings.clone()).fetch(OBJECT).unwrap()), "whole");
        let server = Server::replies(vec![cut]);
        let (code, told) = bench_with(&server, settings).refused(OBJECT);
        assert!(code == 75 && told.contains("gave up after 3 attempts"), "{told}");
    }
}

#[test]
fn row_49_an_instance_without_a_role_is_told_to_get_one() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let (code, told) = instance(&server, &metadata::service(|_| None)).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 0), "{told}");
    assert!(told.contains("no instance profile"), "{told}");
    assert!(told.contains("s3:GetObject on arn:aws:s3:::artifacts/*"), "{told}");
}

#[test]
fn row_49_credentials_of_a_service_that_is_not_there_are_transient() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let gone = metadata::service(|_| None);
    let mut bench = instance(&server, &gone);
    bench.system.fetcher.settings.metadata_endpoint = settings().metadata_endpoint;
    let (code, told) = bench.refused(OBJECT);
    assert_eq!((code, server.requests().len()), (75, 0), "{told}");
    assert!(told.contains("the instance metadata service does not answer"), "{told}");
}

#[test]
fn an_unreachable_s3_says_so_in_few_words() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = elsewhere(bench(&server), NOBODY);
    let (code, told) = bench.refused(OBJECT);
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("caused by: connecting to 127.0.0.1: connection refused"), "{told}");
}
