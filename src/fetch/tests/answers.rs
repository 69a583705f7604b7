//! Answers of AWS and of the metadata service that are too long, too deep or too many.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};

use super::{
    Bench, BenchSettings, metadata,
    server::{Reply, Server},
    settings, told,
};
use crate::aws::{
    query::Call,
    service::{ACM, CLOUDFORMATION},
};

const MIB: usize = 1 << 20;

/// Returns a bench with this server in place of AWS.
fn bench(server: &Server) -> Bench {
    let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMIEXAMPLEKEY", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url(""))
        .credentials_provider(SharedCredentialsProvider::new(credentials));
    Bench::new(BenchSettings { aws: Some(config.build()), ..settings() })
}

/// Makes a call that gets this answer. Returns its exit code, its error, and the number of requests.
fn answered(call: Call, status: u16, body: &str) -> (u8, String, usize) {
    let server = Server::replies(vec![Reply::new(status, &[], body)]);
    let (code, told) = told(bench(&server).system.aws(call));
    (code, told, server.requests().len())
}

fn query() -> Call {
    Call::new(&CLOUDFORMATION, "DescribeStacks")
}

fn json() -> Call {
    Call::new(&ACM, "DescribeCertificate")
}

#[test]
fn an_answer_of_aws_is_read_up_to_16_mib() {
    let long = |kind: &str| format!("{kind}{}", " ".repeat(16 * MIB));
    for (call, body) in [(query(), long("<a></a>")), (json(), long("{}"))] {
        let (code, told, calls) = answered(call, 200, &body);
        assert!(told.contains("the answer is longer than 16 MiB"), "{}", &told[..told.len().min(500)]);
        assert_eq!((code, calls), (1, 1), "{told}");
    }
    let (code, told, _) = answered(query(), 400, &long("<Error><Code>Odd</Code></Error>"));
    assert!(code == 1 && told.contains("HTTP 400"), "{told}");
}

#[test]
fn an_answer_of_aws_that_is_nested_deeply_is_refused() {
    let (xml, nested) = ("<a>".repeat(100_000), "[".repeat(100_000));
    let xml = xml.clone() + &xml.replace('<', "</");
    for (call, body) in [(query(), &xml), (json(), &nested)] {
        let (code, told, _) = answered(call, 200, body);
        assert!(code == 75 && told.contains("the answer can't be read"), "{told}");
    }
    let (_, told, _) = answered(query(), 400, &xml);
    assert!(told.contains("HTTP 400"), "{told}");
}

#[test]
fn an_answer_of_the_metadata_service_is_read_up_to_1_mib() {
    let long = |length: usize| metadata::service(move |_| Some("x".repeat(length)));
    let (service, longest) = (long(MIB + 1), long(MIB));
    let (code, told) = told(Bench::new(metadata::at(&service)).system.instance("id"));
    assert!(code == 1 && told.contains("longer than 1 MiB"), "{code} {}", &told[..told.len().min(500)]);
    assert_eq!(Bench::new(metadata::at(&longest)).system.instance("id").unwrap().len(), MIB);
    // The service is up, so the call does not wait for it.
    let patient = BenchSettings { metadata_patience: Duration::from_mins(5), ..metadata::at(&service) };
    assert_eq!(super::told(Bench::new(patient).system.instance("id")).0, 1);
}
