//! Calls of services other than S3: whose credentials, region and clock they have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use aws_config::{Region, SdkConfig};
use aws_smithy_types::date_time::{DateTime, Format};

use super::{
    Bench, UNUSED, metadata, s3,
    server::{Reply, Request, Server},
    told,
};
use crate::{
    aws::{answer::Element, query::Call, service::SSM},
    net::retry::Patience,
    secrets::path::ParameterPath,
};

const PARAMETER: &str = r#"{"Parameter": {"Name": "/app/db", "Value": "v", "Version": 1}}"#;

fn read(bench: &Bench) -> anyhow::Result<Element> {
    bench.system.aws.call(&bench.system.host, Call::new(&SSM, "GetParameter").with("Name", "/app/db"))
}

fn refusal(code: &str, message: &str, date: &str) -> Reply {
    let date: &[(&str, &str)] = if date.is_empty() { &[] } else { &[("date", date)] };
    Reply::new(400, date, format!(r#"{{"__type": "{code}", "message": "{message}"}}"#))
}

fn without_region(config: SdkConfig) -> SdkConfig {
    let mut config = config.into_builder();
    _ = config.set_region(None);
    config.build()
}

fn in_an_hour() -> String {
    DateTime::from(SystemTime::now() + Duration::from_hours(1)).fmt(Format::HttpDate).unwrap()
}

#[test]
fn a_late_metadata_service_delays_a_call_that_needs_it() {
    let ready = metadata::service(|path| match path {
        "/latest/meta-data/placement/region" => Some("eu-west-1".into()),
        path => s3::role(path),
    });
    let ready_at = ready.url("");
    let front = Server::start(move |number, request: &Request| match number {
        0..20 => Reply::raw(""),
        _ => s3::pass_on(&ready_at, request),
    });
    let server = Server::start(|_, _| Reply::ok(PARAMETER));
    let mut bench = s3::instance(&server, &front);
    bench.rewire(|settings| {
        settings.aws = settings.aws.take().map(without_region);
        settings.metadata_patience = Duration::from_mins(5);
    });
    assert_eq!(read(&bench).unwrap().text("Parameter/Value"), "v");
    assert_eq!(server.requests().iter().map(s3::region).collect::<Vec<_>>(), ["eu-west-1"]);
}

#[test]
fn a_metadata_service_that_is_not_there_is_no_refusal() {
    let server = Server::start(|_, _| Reply::ok(PARAMETER));
    let gone = metadata::service(|_| None);
    let silent = Server::replies(vec![Reply::raw("")]);
    for (endpoint, words) in [
        (silent.url(""), "the instance metadata service does not answer"),
        (UNUSED.to_owned(), "this machine does not let this program reach the instance metadata service"),
    ] {
        for has_region in [true, false] {
            let mut bench = s3::instance(&server, &gone);
            bench.rewire(|settings| {
                endpoint.clone_into(&mut settings.metadata_endpoint);
                if !has_region {
                    settings.aws = settings.aws.take().map(without_region);
                }
            });
            let (code, told) = told(read(&bench));
            assert_eq!((code, server.requests().len()), (75, 0), "{told}");
            assert!(told.contains(words), "{told}");
        }
    }
}

#[test]
fn an_instance_without_a_role_is_told_what_the_role_must_allow() {
    let server = Server::start(|_, _| Reply::ok(PARAMETER));
    let (code, told) = told(read(&s3::instance(&server, &metadata::service(|_| None))));
    assert_eq!((code, server.requests().len()), (1, 0), "{told}");
    assert!(told.contains("this instance has no instance profile") && told.contains("ssm:GetParameter"), "{told}");
}

#[test]
fn a_wrong_clock_is_corrected_in_every_call() {
    for (code, message) in [
        ("InvalidSignatureException", "Signature expired: 20261129T050000Z is now earlier than 20261129T055500Z"),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20261129T070000Z is still later than 20261129T060500Z",
        ),
        ("SignatureDoesNotMatch", "Signature expired: 20261129T050000Z is now earlier than 20261129T055500Z"),
        ("RequestTimeTooSkewed", "no"),
        ("RequestExpired", "Request has expired."),
        // Such a refusal has another cause, too. The clock alone tells.
        ("AuthFailure", "AWS was not able to validate the provided access credentials"),
    ] {
        let date = in_an_hour();
        let server = Server::start(move |number, _| match number {
            0 => refusal(code, message, &date),
            _ => Reply::ok(PARAMETER),
        });
        let bench = s3::bench(&server);
        assert_eq!(read(&bench).unwrap().text("Parameter/Value"), "v", "{code}");
        let dates: Vec<DateTime> = server.requests().iter().map(s3::signed_at).collect();
        assert!((3590..3660).contains(&(dates[1].secs() - dates[0].secs())), "{code}: {dates:?}");
        // S3 has the same clock.
        let object = s3::OBJECT.parse().unwrap();
        _ = bench.system.fetcher.etag(&bench.system.host, &object).unwrap();
        let dates: Vec<DateTime> = server.requests().iter().map(s3::signed_at).collect();
        assert!((3590..3660).contains(&(dates[2].secs() - dates[0].secs())), "{code}: {dates:?}");
    }
}

#[test]
fn a_clock_that_stays_wrong_is_told_with_the_service_s_words() {
    let date = in_an_hour();
    let server = Server::start(move |_, _| refusal("InvalidSignatureException", "Signature expired: no", &date));
    let (code, told) = told(read(&s3::bench(&server)));
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    assert!(told.contains("this machine's clock is ") && told.contains(" s behind AWS's"), "{told}");
    assert!(told.contains("Signature expired: no") && told.contains("timedatectl"), "{told}");
}

#[test]
fn a_wrong_key_is_no_wrong_clock() {
    let server = Server::start(|_, _| refusal("SignatureDoesNotMatch", "The signature we calculated", ""));
    let (code, told) = told(read(&s3::bench(&server)));
    assert_eq!((code, server.requests().len()), (1, 1), "{told}");
    assert!(told.contains("check the credentials"), "{told}");

    // The clock is wrong, too. Once it is corrected, it is no longer the reason.
    let date = in_an_hour();
    let server = Server::start(move |_, _| refusal("SignatureDoesNotMatch", "The signature we calculated", &date));
    let (code, told) = super::told(read(&s3::bench(&server)));
    assert_eq!((code, server.requests().len()), (1, 2), "{told}");
    assert!(told.contains("check the credentials"), "{told}");
}

#[test]
fn a_store_that_answers_again_is_asked_again() {
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let server =
        Server::start(move |_, _| if away.load(Relaxed) { Reply::new(503, &[], "") } else { Reply::ok(PARAMETER) });
    let bench = s3::bench(&server);
    let read = |name: &str, patience| {
        let source = format!("ssm:///app/{name}").parse().unwrap();
        bench.system.secret(&source, patience).map(|read| read.version)
    };
    assert_eq!(read("known", Patience::Full).unwrap(), "1");
    is_away.store(true, Relaxed);
    assert!(read("other", Patience::Short).is_err());
    let asked = server.requests().len();
    assert!(read("third", Patience::Short).is_err());
    assert_eq!(server.requests().len(), asked, "it is not waited for again");
    // A secret that was read needs no store.
    assert_eq!(read("known", Patience::Short).unwrap(), "1");
    is_away.store(false, Relaxed);
    assert!(read("third", Patience::Short).is_err());
    assert_eq!(read("other", Patience::Full).unwrap(), "1");
    assert_eq!(read("third", Patience::Short).unwrap(), "1");
}

#[test]
fn a_refused_secret_is_named_by_its_partition() {
    let server = Server::start(|_, _| refusal("AccessDeniedException", "no", ""));
    let mut bench = s3::bench(&server);
    bench.rewire(|settings| {
        let config = settings.aws.take().unwrap().into_builder();
        settings.aws = Some(config.region(Region::new("us-gov-west-1")).build());
    });
    for (source, arn) in [
        ("ssm:///app/db", "arn:aws-us-gov:ssm:*:*:parameter/app/db"),
        ("secretsmanager://db", "arn:aws-us-gov:secretsmanager:*:*:secret:db-??????"),
    ] {
        let (_, told) = told(bench.system.secret(&source.parse().unwrap(), Patience::Full).map(drop));
        assert!(told.contains(arn), "{told}");
    }
    let path = ParameterPath::named("ssm:///app/").unwrap().unwrap();
    let (_, told) = told(bench.system.parameters_below(&path, false));
    assert!(told.contains("arn:aws-us-gov:ssm:*:*:parameter/app/*"), "{told}");
}
