//! `s3` sources against a server that answers with errors of S3.

mod heads;
mod lists;
mod place;
mod uploads;

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    imds::{self, credentials::ImdsCredentialsProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_smithy_types::date_time::{DateTime, Format};

use super::{
    Bench, BenchSettings, UNUSED, download, hasty, hasty_and_persistent, metadata,
    parts::{self, PART_BYTES, asked},
    server::{Reply, Request, Server},
    settings, text,
};
use crate::aws::sender::Sender;

const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMIEXAMPLEKEY";
const ETAG: &str = "\"v1\"";
pub(super) const OBJECT: &str = "s3://artifacts/app/app.jar";

fn config(server: &Server, credentials: SharedCredentialsProvider) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url(""))
        .credentials_provider(credentials)
        .build()
}

pub(super) fn bench(server: &Server) -> Bench {
    bench_with(server, settings())
}

fn bench_with(server: &Server, settings: BenchSettings) -> Bench {
    let credentials = Credentials::new(KEY_ID, SECRET, None, None, "test");
    Bench::new(BenchSettings { aws: Some(config(server, SharedCredentialsProvider::new(credentials))), ..settings })
}

/// Returns a bench on an instance, with the credentials of its metadata service.
pub(super) fn instance(server: &Server, service: &Server) -> Bench {
    let settings = metadata::at(service);
    let provider = ProviderConfig::without_region().with_http_client(Sender::new(settings.clients()));
    let client = imds::Client::builder().configure(&provider).endpoint(service.url("")).unwrap().build();
    let credentials = ImdsCredentialsProvider::builder().configure(&provider).imds_client(client).build();
    Bench::new(BenchSettings { aws: Some(config(server, SharedCredentialsProvider::new(credentials))), ..settings })
}

/// Returns a bench with another endpoint of S3.
fn elsewhere(mut bench: Bench, endpoint: &str) -> Bench {
    bench.rewire(|settings| {
        let config = settings.aws.take().unwrap();
        settings.aws = Some(config.into_builder().endpoint_url(endpoint).build());
    });
    bench
}

pub(super) fn error(status: u16, code: &str, headers: &[(&str, &str)]) -> Reply {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let id = [("x-amz-request-id", "4442587FB7D0A2F9"), ("content-type", "application/xml")];
    Reply::new(status, &[&id, headers].concat(), body)
}

/// Returns the region that a request was signed for.
pub(super) fn region(request: &Request) -> String {
    let scope = request.header("authorization").and_then(|value| value.split('/').nth(2));
    scope.unwrap_or_default().to_owned()
}

#[test]
fn an_object_arrives_with_its_version_and_etag() {
    let headers = [("etag", "\"e\""), ("x-amz-version-id", "v1")];
    let server = Server::start(move |_, _| Reply::new(200, &headers, "jar"));
    let bench = bench(&server);
    assert_eq!(
        bench.system.fetcher.etag(&bench.system.host, &OBJECT.parse().unwrap()).unwrap().as_deref(),
        Some("v1 \"e\"")
    );
    let fetched = bench.fetch(OBJECT).unwrap();
    assert_eq!(fetched.etag.as_deref(), Some("v1 \"e\""));
    assert_eq!(text(fetched), "jar");
    assert_eq!(text(bench.fetch("s3://my.bucket/a b/ü.jar?versionId=v1").unwrap()), "jar");
    let targets: Vec<String> = server.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets[0], "/artifacts/app/app.jar");
    assert_eq!(targets[2], "/my.bucket/a%20b/%C3%BC.jar?versionId=v1");
}

#[test]
fn a_bucket_at_an_endpoint_of_its_own_is_in_the_path() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = elsewhere(bench(&server), &server.url("").replace("127.0.0.1", "localhost"));
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert!(server.requests()[0].target().starts_with("/artifacts/app/app.jar"));
}

#[test]
fn a_bucket_in_another_region_is_found_there_and_remembered() {
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
fn a_region_is_followed_once() {
    let server = Server::start(|number, _| {
        let region = format!("eu-west-{number}");
        error(400, "AuthorizationHeaderMalformed", &[("x-amz-bucket-region", &region)])
    });
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
}

#[test]
fn a_missing_object_and_a_missing_bucket_are_told_apart() {
    for (code, words) in [("NoSuchKey", "has no object app/app.jar"), ("NoSuchBucket", "no bucket artifacts")] {
        let server = Server::start(move |_, _| error(404, code, &[]));
        let (exit, told) = bench(&server).refused(OBJECT);
        assert_eq!((exit, server.requests().len()), (1, 1), "{told}");
        assert!(told.contains(words) && told.contains("4442587FB7D0A2F9"), "{told}");
    }
}

#[test]
fn a_denial_names_who_may_not_do_what() {
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

/// Returns the answer of a metadata service of an instance with a role.
pub(super) fn role(path: &str) -> Option<String> {
    match path {
        "/latest/meta-data/iam/security-credentials/" => Some("app-server".into()),
        "/latest/meta-data/iam/security-credentials/app-server" => Some(format!(
            r#"{{"Code": "Success", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "{SECRET}", "Token": "SESSIONTOKENEXAMPLE",
                "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}}"#
        )),
        _ => None,
    }
}

#[test]
fn a_denial_names_the_instance_s_role() {
    let service = metadata::service(role);
    let server = Server::start(|_, _| error(403, "AccessDenied", &[]));
    let (code, told) = instance(&server, &service).refused(OBJECT);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("the instance's role app-server is not allowed s3:GetObject"), "{told}");
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn a_wrong_clock_is_corrected_once() {
    let date = DateTime::from(SystemTime::now() + Duration::from_hours(1)).fmt(Format::HttpDate).unwrap();
    let server = Server::start(move |number, _| match number {
        0 => error(403, "RequestTimeTooSkewed", &[("date", &date)]),
        _ => Reply::ok("jar"),
    });
    assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar");
    let dates: Vec<DateTime> = server.requests().iter().map(signed_at).collect();
    assert!((3590..3660).contains(&(dates[1].secs() - dates[0].secs())), "{dates:?}");
}

/// Returns the time in `x-amz-date`, such as `20260101T000000Z`.
pub(super) fn signed_at(request: &Request) -> DateTime {
    let date = request.header("x-amz-date").unwrap();
    let (day, time) = date.trim_end_matches('Z').split_once('T').unwrap();
    let date = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..]);
    DateTime::from_str(&date, Format::DateTime).unwrap()
}

#[test]
fn a_clock_that_stays_wrong_is_told_in_seconds() {
    let date = DateTime::from(SystemTime::now() + Duration::from_hours(1)).fmt(Format::HttpDate).unwrap();
    let server = Server::start(move |_, _| error(403, "RequestTimeTooSkewed", &[("date", &date)]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    let skew = told.split("clock is ").nth(1).and_then(|rest| rest.split(" s behind AWS's").next()).unwrap();
    assert!((3590..=3600).contains(&skew.parse::<u32>().unwrap()), "{told}");
    assert!(told.contains("timedatectl"), "{told}");
}

#[test]
fn a_busy_s3_is_asked_again() {
    let server = Server::start(|_, _| error(503, "SlowDown", &[("retry-after", "0")]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (75, 3), "{told}");
    assert!(told.contains("SlowDown") && told.contains("4442587FB7D0A2F9"), "{told}");
    let server =
        Server::start(|number, _| if number == 0 { error(500, "InternalError", &[]) } else { Reply::ok("jar") });
    assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar");
}

#[test]
fn a_body_that_stalls_or_ends_early_is_fetched_again() {
    let cut = Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
    for (cut, settings, patient) in
        [(cut.clone(), settings(), settings()), (cut.then_stall(), hasty(), hasty_and_persistent())]
    {
        let server = Server::replies(vec![cut.clone(), Reply::ok("whole")]);
        assert_eq!(text(bench_with(&server, patient).fetch(OBJECT).unwrap()), "whole");
        let server = Server::replies(vec![cut]);
        let (code, told) = bench_with(&server, settings).refused(OBJECT);
        assert!(code == 75 && told.contains("gave up after 3 attempts"), "{told}");
    }
}

#[test]
fn an_instance_without_a_role_is_told_to_get_one() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let (code, told) = instance(&server, &metadata::service(|_| None)).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 0), "{told}");
    assert!(told.contains("no instance profile"), "{told}");
    assert!(told.contains("s3:GetObject on arn:aws:s3:::artifacts/*"), "{told}");
}

#[test]
fn credentials_of_a_service_that_is_not_there_are_transient() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let gone = metadata::service(|_| None);
    let silent = Server::replies(vec![Reply::raw("")]);
    for (endpoint, words) in [
        (silent.url(""), "the instance metadata service does not answer"),
        (UNUSED.to_owned(), "this machine does not let this program reach the instance metadata service"),
    ] {
        let mut bench = instance(&server, &gone);
        bench.rewire(|settings| settings.metadata_endpoint = endpoint);
        let (code, told) = bench.refused(OBJECT);
        assert_eq!((code, server.requests().len()), (75, 0), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn an_unreachable_s3_says_so_in_few_words() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = elsewhere(bench(&server), UNUSED);
    let (code, told) = bench.refused(OBJECT);
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("caused by: connecting to 127.0.0.1: connection refused"), "{told}");
}

/// Returns the reply of an object with these bytes: all of it with these headers, or the requested part if the `ETag`
/// matches.
pub(super) fn object(body: &[u8], headers: &[(&str, &str)], request: &Request) -> Reply {
    match (request.header("if-match"), asked(request)) {
        (Some(known), _) if known != ETAG => error(412, "PreconditionFailed", &[]),
        (_, Some(_)) => parts::serve(body, ETAG, request),
        (_, None) => Reply::new(200, &[&[("etag", ETAG)], headers].concat(), body),
    }
}

/// Returns the number of requests for the whole object.
pub(super) fn wholes(server: &Server) -> usize {
    server.requests().iter().filter(|request| request.header("range").is_none()).count()
}

/// Returns the access key that a request was signed with.
fn signer(request: &Request) -> Option<String> {
    let (_, credential) = request.header("authorization")?.split_once("Credential=")?;
    Some(credential.split('/').next()?.to_owned())
}

/// Starts a metadata service that gives the access keys `ASIA1`, `ASIA2` and so on. The first one is valid for
/// `seconds`.
fn rotating(seconds: u64) -> Server {
    let given = AtomicUsize::new(0);
    metadata::service(move |path| {
        if path.ends_with("/security-credentials/") {
            return Some("app-server".into());
        }
        let number = given.fetch_add(1, Ordering::Relaxed) + 1;
        let lifetime = Duration::from_secs(if number == 1 { seconds } else { 36_000 });
        let expiration = DateTime::from(SystemTime::now() + lifetime).fmt(Format::DateTime).unwrap();
        Some(format!(
            r#"{{"Code": "Success", "AccessKeyId": "ASIA{number}", "SecretAccessKey": "{SECRET}", "Token": "SESSIONTOKENEXAMPLE",
                "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "{expiration}"}}"#
        ))
    })
}

#[test]
fn credentials_that_expire_in_mid_body_are_renewed_and_the_body_is_resumed() {
    let body = Arc::new(parts::body(3 << 20));
    let (of, service) = (body.clone(), rotating(36_000));
    let server = Server::start(move |number, request| match signer(request).as_deref() {
        Some("ASIA1") if number == 0 => object(&of, &[], request).cut(1_500_000),
        Some("ASIA1") => error(400, "ExpiredToken", &[]),
        _ => object(&of, &[], request),
    });
    let fetched = instance(&server, &service).fetch(OBJECT).unwrap();
    assert!(parts::is(&fetched, &body));
    let requests = server.requests();
    let signers: Vec<String> = requests.iter().filter_map(signer).collect();
    assert_eq!(signers, ["ASIA1", "ASIA1", "ASIA2"]);
    for resumed in &requests[1..] {
        assert_eq!(resumed.header("if-match"), Some(ETAG));
        assert!(asked(resumed).is_some_and(|(first, last)| first > 0 && last.is_none()), "{resumed:?}");
    }
}

#[test]
fn credentials_that_expire_while_a_body_is_shared_cost_none_of_its_bytes() {
    let body = Arc::new(parts::body(3 * PART_BYTES));
    let (of, service) = (body.clone(), rotating(36_000));
    let server = Server::start(move |number, request| match signer(request).as_deref() {
        Some("ASIA1") if number == 0 => object(&of, &[], request).slow(),
        Some("ASIA1") => error(400, "ExpiredToken", &[]),
        _ => object(&of, &[], request),
    });
    assert!(parts::is(&instance(&server, &service).fetch(OBJECT).unwrap(), &body));
    assert_eq!(wholes(&server), 1, "{:?}", server.requests());
    assert!(server.requests().iter().filter_map(signer).any(|signer| signer == "ASIA2"));
}

#[test]
fn credentials_that_stay_expired_are_named_after_one_more_attempt() {
    let server = Server::start(|_, _| error(400, "ExpiredToken", &[]));
    let (code, told) = bench(&server).refused(OBJECT);
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    assert!(told.contains("have expired") && told.contains("4442587FB7D0A2F9"), "{told}");
}

#[test]
fn credentials_that_rotate_leave_no_gap() {
    // The first credentials end within the SDK's margin. They are used at once, and replaced before they are refused.
    let service = rotating(5);
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = instance(&server, &service);
    for _ in 0..3 {
        assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    }
    let signers: Vec<String> = server.requests().iter().filter_map(signer).collect();
    assert_eq!(signers, ["ASIA1", "ASIA2", "ASIA2"]);

    // The first credentials are refused before their end, while several downloads run.
    let service = rotating(36_000);
    let server = Server::start(|number, request| match signer(request).as_deref() {
        Some("ASIA1") if number > 0 => error(400, "ExpiredToken", &[]),
        _ => Reply::ok("jar"),
    });
    let bench = instance(&server, &service);
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    let downloads: Vec<_> = (0..4).map(|number| download(&format!("{OBJECT}.{number}"))).collect();
    bench.system.prefetch(downloads.clone());
    for download in &downloads {
        assert_eq!(text(bench.system.fetch(download).unwrap()), "jar");
    }
}

#[test]
fn many_downloads_ask_for_the_credentials_once() {
    let service = rotating(36_000);
    let server = Server::start(|_, _| Reply::ok("jar"));
    let bench = instance(&server, &service);
    let downloads: Vec<_> = (0..8).map(|number| download(&format!("{OBJECT}.{number}"))).collect();
    bench.system.prefetch(downloads.clone());
    for download in &downloads {
        assert_eq!(text(bench.system.fetch(download).unwrap()), "jar");
    }
    let asked = service.requests().iter().filter(|request| request.target().ends_with("/app-server")).count();
    assert_eq!((asked, server.requests().len()), (1, 8));
}

/// A source of credentials that answers once.
#[derive(Debug, Default)]
struct OnceProvider(AtomicBool);

impl ProvideCredentials for OnceProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        if self.0.swap(true, Ordering::Relaxed) {
            return future::ProvideCredentials::ready(Err(CredentialsError::provider_error("it is away")));
        }
        // They are so near their end that newer ones are asked for.
        let end = SystemTime::now() + Duration::from_mins(2);
        future::ProvideCredentials::ready(Ok(Credentials::new(KEY_ID, SECRET, None, Some(end), "test")))
    }
}

#[test]
fn credentials_serve_until_their_end_if_no_newer_ones_come() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let provider = SharedCredentialsProvider::new(OnceProvider::default());
    let bench = Bench::new(BenchSettings { aws: Some(config(&server, provider)), ..settings() });
    for _ in 0..3 {
        assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    }
}

#[test]
fn a_late_metadata_service_delays_what_needs_its_credentials() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let ready = rotating(36_000);
    let ready_at = ready.url("");
    // At first, the server in front of the service passes nothing on.
    let front =
        Server::start(move |number, request| if number < 20 { Reply::raw("") } else { pass_on(&ready_at, request) });
    let mut bench = instance(&server, &front);
    bench.rewire(|settings| settings.metadata_patience = Duration::from_mins(5));
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert!(front.requests().len() > 20);
    assert_eq!(server.requests().len(), 1);
}

/// Sends a request to another server. Returns its answer.
pub(super) fn pass_on(to: &str, request: &Request) -> Reply {
    let mut stream = std::net::TcpStream::connect(to.trim_start_matches("http://")).unwrap();
    let token = request
        .header("x-aws-ec2-metadata-token")
        .map_or(String::new(), |token| format!("x-aws-ec2-metadata-token: {token}\r\n"));
    write!(stream, "{}\r\n{token}\r\n", request.line).unwrap();
    let mut answer = vec![];
    _ = stream.read_to_end(&mut answer).unwrap();
    Reply::raw(answer)
}

#[test]
fn an_object_that_is_another_one_now_is_fetched_from_the_start() {
    let body = Arc::new(parts::body(2 << 20));
    let last = body.len() - 1;
    for wrong in [
        error(412, "PreconditionFailed", &[]),
        error(416, "InvalidRange", &[]),
        Reply::new(206, &[("etag", ETAG), ("content-range", "bytes 0-9/10")], "0123456789"),
        Reply::new(206, &[("etag", ETAG), ("content-range", &format!("bytes 1-{last}/{}", last + 1))], &body[1..]),
        Reply::new(206, &[("etag", ETAG)], &body[1_000_000..]),
        Reply::new(200, &[("etag", ETAG)], &body[..]),
    ] {
        let (of, answer) = (body.clone(), wrong.clone());
        let server = Server::start(move |number, request| match number {
            0 => object(&of, &[], request).cut(1_000_000),
            1 => answer.clone(),
            _ => object(&of, &[], request),
        });
        assert!(parts::is(&bench(&server).fetch(OBJECT).unwrap(), &body), "{wrong:?}");
        assert_eq!((server.requests().len(), wholes(&server)), (3, 2));
    }
}

#[test]
fn a_version_is_resumed_as_that_version() {
    let body = Arc::new(parts::body(2 << 20));
    let of = body.clone();
    let server = Server::start(move |number, request| {
        let reply = object(&of, &[("x-amz-version-id", "v1")], request);
        if number == 0 { reply.cut(1_000_000) } else { reply }
    });
    let fetched = bench(&server).fetch(&format!("{OBJECT}?versionId=v1")).unwrap();
    assert!(parts::is(&fetched, &body));
    assert_eq!(fetched.etag, Some(format!("v1 {ETAG}")));
    let requests = server.requests();
    assert!(requests.len() == 2 && requests.iter().all(|request| request.target().ends_with("?versionId=v1")));
}

#[test]
fn a_signed_request_is_redirected_nowhere() {
    let other = Server::replies(vec![Reply::ok("jar")]);
    let location = other.url("/");
    let server = Server::start(move |_, _| error(307, "TemporaryRedirect", &[("location", &location)]));
    let bench = elsewhere(bench(&server), &server.url("").replace("127.0.0.1", "localhost"));
    let (code, told) = bench.refused(OBJECT);
    assert_eq!((code, other.requests().len()), (1, 0), "{told}");
    assert!(told.contains("307"), "{told}");
}
