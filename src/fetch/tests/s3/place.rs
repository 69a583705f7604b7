//! The region that S3 is asked in if none is chosen.

use std::time::Duration;

use aws_config::Region;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};

use super::{KEY_ID, OBJECT, SECRET, config, instance, pass_on, region, role};
use crate::{
    aws::s3::upload::Upload,
    fetch::tests::{
        Bench, BenchSettings, metadata,
        server::{Reply, Server},
        settings, text,
    },
};

/// Starts a metadata service of an instance with a role, in a region of China.
fn service() -> Server {
    metadata::service(|path| match path {
        "/latest/meta-data/placement/region" => Some("cn-north-1".into()),
        path => role(path),
    })
}

/// Sets the region of the SDK's configuration.
fn in_region(settings: &mut BenchSettings, region: Option<&'static str>) {
    let mut config = settings.aws.take().unwrap().into_builder();
    _ = config.set_region(region.map(Region::from_static));
    settings.aws = Some(config.build());
}

#[test]
fn a_late_metadata_service_tells_the_region_in_the_end() {
    let ready = service();
    let ready_at = ready.url("");
    let front =
        Server::start(move |number, request| if number < 20 { Reply::raw("") } else { pass_on(&ready_at, request) });
    let server = Server::start(|_, _| Reply::ok("jar"));
    let mut bench = instance(&server, &front);
    bench.rewire(|settings| {
        in_region(settings, None);
        settings.metadata_patience = Duration::from_mins(5);
    });
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert_eq!(server.requests().iter().map(region).collect::<Vec<_>>(), ["cn-north-1"; 2]);
    let asked = |path: &str| ready.requests().iter().filter(|request| request.target().ends_with(path)).count();
    assert_eq!(asked("/placement/region"), 1);
}

#[test]
fn an_empty_region_is_none() {
    let server = Server::start(|_, _| Reply::ok("jar"));
    let mut bench = instance(&server, &service());
    bench.rewire(|settings| in_region(settings, Some("")));
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    // Without an instance, S3 is asked in the region that knows the regions of all buckets.
    let keys = SharedCredentialsProvider::new(Credentials::new(KEY_ID, SECRET, None, None, "test"));
    let mut bench = Bench::new(BenchSettings { aws: Some(config(&server, keys)), ..settings() });
    bench.rewire(|settings| in_region(settings, Some("")));
    assert_eq!(text(bench.fetch(OBJECT).unwrap()), "jar");
    assert_eq!(server.requests().iter().map(region).collect::<Vec<_>>(), ["cn-north-1", "us-east-1"]);
}

#[test]
fn a_refusal_is_told_in_s3_s_words_and_the_partition_s_arns() {
    let answer = |status: u16, code: &str, message: &str| {
        Reply::new(status, &[], format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
    };
    let in_china = |reply: Reply| {
        let server = Server::replies(vec![reply]);
        let mut bench = instance(&server, &service());
        bench.rewire(|settings| in_region(settings, Some("cn-north-1")));
        bench
    };
    let words = "User: arn:aws-cn:sts::1:assumed-role/app is not authorized to perform: s3:GetObject";
    let (_, told) = in_china(answer(403, "AccessDenied", words)).refused(OBJECT);
    assert!(told.contains(&format!("on arn:aws-cn:s3:::artifacts/app/app.jar (S3: AccessDenied: {words}, ")), "{told}");
    assert!(told.contains("without s3:ListBucket on arn:aws-cn:s3:::artifacts "), "{told}");
    let words = "arn:aws-cn:kms:cn-north-1:1:key/k is disabled.";
    let (_, told) = in_china(answer(400, "KMS.DisabledException", words)).refused(OBJECT);
    assert!(told.contains(words), "{told}");
    // A message may have anything in it.
    let (_, told) = in_china(answer(400, "InvalidRequest", "\u{9b}31m wJalrXUtnFEMIEXAMPLEKEY")).refused(OBJECT);
    assert!(!told.contains(SECRET) && !told.contains('\u{9b}'), "{told}");

    let bench = in_china(answer(403, "AccessDenied", "no"));
    let told_of = |result| crate::fetch::tests::told(result).1;
    let told = told_of(bench.system.aws.list(&bench.system.host, &"s3://artifacts/".parse().unwrap()).map(drop));
    assert!(told.contains("s3:ListBucket on arn:aws-cn:s3:::artifacts (S3: AccessDenied: no, "), "{told}");
    let upload = Upload { bucket: "artifacts".into(), key: "k".into(), body: vec![1] };
    let told = told_of(bench.system.aws.upload(&bench.system.host, upload).map(drop));
    assert!(told.contains("s3:PutObject on arn:aws-cn:s3:::artifacts/k (S3: AccessDenied: no, "), "{told}");

    let gone = metadata::service(|_| None);
    let mut bench = instance(&Server::replies(vec![Reply::ok("")]), &gone);
    bench.rewire(|settings| in_region(settings, Some("cn-north-1")));
    let (_, told) = bench.refused(OBJECT);
    assert!(told.contains("allows s3:GetObject on arn:aws-cn:s3:::artifacts/*"), "{told}");
}
