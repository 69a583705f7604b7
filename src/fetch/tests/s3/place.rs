//! The region that S3 is asked in if none is chosen.

use std::time::Duration;

use aws_config::Region;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};

use super::{KEY_ID, OBJECT, SECRET, config, instance, pass_on, region, role};
use crate::fetch::tests::{
    Bench, BenchSettings, metadata,
    server::{Reply, Server},
    settings, text,
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
