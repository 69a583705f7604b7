//! The instance metadata service, and one that isn't there.

use super::{
    Bench,
    server::{Reply, Request, Server},
    settings, told,
};
use crate::system::fetch::Settings;

/// The metadata service's session token, then what `answer` says; only for who brings the token.
pub(super) fn service(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Server {
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

pub(super) fn at(service: &Server) -> Settings {
    Settings { metadata_endpoint: Some(service.url("")), ..settings() }
}

fn instance(path: &str) -> Option<String> {
    let answer = match path {
        "/latest/meta-data/instance-id" => "i-0123456789abcdef0",
        "/latest/meta-data/placement/region" => "eu-west-1",
        "/latest/meta-data/placement/availability-zone" => "eu-west-1b",
        "/latest/meta-data/instance-type" => "t3.small",
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
        ("tags.role", "app"),
    ] {
        assert_eq!(bench.system.instance(name).unwrap(), value);
    }
    let tokens = service.requests().iter().filter(|request| request.line.starts_with("PUT")).count();
    assert_eq!(tokens, 1, "one session for all");
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
fn row_49_a_service_that_is_not_there_is_transient() {
    let (code, told) = told(Bench::new(settings()).system.instance("id"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("does not answer") && told.contains("is this an EC2 instance?"), "{told}");
}

#[test]
fn row_49_a_disabled_service_is_permanent_and_never_asked_without_a_token() {
    let service = Server::replies(vec![Reply::new(403, &[], "")]);
    let (code, told) = told(Bench::new(at(&service)).system.instance("id"));
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("--http-endpoint enabled"), "{told}");
    assert!(service.requests().iter().all(|request| request.line.starts_with("PUT ")));
}
