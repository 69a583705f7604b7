//! Uploads.

use super::{bench, error};
use crate::{
    aws::s3::upload::Upload,
    fetch::tests::server::{Reply, Server},
};

#[test]
fn an_upload_says_its_length_even_if_it_is_empty() {
    for body in [&b""[..], b"abc"] {
        let server = Server::start(|_, request| match request.header("content-length") {
            _ if request.line.starts_with("HEAD ") => Reply::new(404, &[], ""),
            None => error(411, "MissingContentLength", &[]),
            Some(_) => Reply::ok(""),
        });
        let bench = bench(&server);
        let upload = Upload { bucket: "artifacts".into(), key: "k".into(), body: body.into() };
        assert!(bench.system.aws.upload(&bench.system.host, upload).unwrap());
        assert_eq!(server.requests()[1].header("content-length"), Some(&*body.len().to_string()));
    }
}
