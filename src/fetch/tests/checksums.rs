//! Checksums that S3 stores with its objects: `s3` sources are verified by them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    parts::{self, PART_BYTES, asked},
    s3::{OBJECT, bench, error, object, wholes},
    server::{Reply, Server},
    text, told,
};
use crate::value::Sha256;

/// Returns the CRC-64/NVME as S3 writes it.
fn crc64(bytes: &[u8]) -> String {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    STANDARD.encode(digest.sum64().to_be_bytes())
}

#[test]
fn a_checksum_of_s3_s_is_believed_more_than_the_bytes() {
    // By `printf jar | openssl dgst -sha256 -binary | base64` and -sha1; the others bit by bit from their polynomials.
    for (algorithm, right) in [
        ("sha256", "AWPx7qeJQ1AGBiTTFSNNQMUIqyUboSFxTiNFAwRfqt0="),
        ("sha1", "+S53f0NBkwutmyQiKDxGgNANvAY="),
        ("crc64nvme", "/z9vrDirCYs="),
        ("crc32c", "MuYt9A=="),
        ("crc32", "eOzdEg=="),
    ] {
        let header = format!("x-amz-checksum-{algorithm}");
        let right = right.to_owned();
        let value = right.clone();
        let sent = header.clone();
        let server = Server::start(move |_, request| object(b"jar", &[(&sent, &value)], request));
        assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar", "{algorithm}");
        assert_eq!(server.requests()[0].header("x-amz-checksum-mode"), Some("ENABLED"));

        // A flipped byte causes one more download.
        let (value, sent) = (right.clone(), header.clone());
        let server = Server::start(move |number, request| {
            object(if number == 0 { b"jaR" } else { b"jar" }, &[(&sent, &value)], request)
        });
        assert_eq!(text(bench(&server).fetch(OBJECT).unwrap()), "jar", "{algorithm}");
        assert_eq!(server.requests().len(), 2);

        let value = right.clone();
        let server = Server::start(move |_, request| object(b"jaR", &[(&header, &value)], request));
        let (code, told) = bench(&server).refused(OBJECT);
        assert_eq!((code, server.requests().len()), (1, 2), "{told}");
        assert!(told.contains(&format!("the {algorithm} of the bytes is")) && told.contains(&right), "{told}");
    }
}

#[test]
fn a_checksum_is_also_of_a_body_that_was_resumed_or_shared() {
    for (length, damaged) in [(3 << 20, false), (3 << 20, true), (3 * PART_BYTES, false), (3 * PART_BYTES, true)] {
        let body = Arc::new(parts::body(length));
        let mut wrong = body.to_vec();
        wrong[length - 1] ^= 1;
        let (of, value) = (body.clone(), crc64(&body));
        let hit = AtomicBool::new(!damaged);
        let server = Server::start(move |number, request| {
            let headers = [("x-amz-checksum-crc64nvme", value.as_str())];
            let of_the_end = asked(request).is_some_and(|(_, last)| last.is_none_or(|last| last == length - 1));
            let bytes = if of_the_end && !hit.swap(true, Ordering::Relaxed) { &wrong } else { &*of };
            let reply = object(bytes, &headers, request);
            match number {
                0 if length > PART_BYTES => reply.slow(),
                0 => reply.cut(1_500_000),
                _ => reply,
            }
        });
        assert!(parts::is(&bench(&server).fetch(OBJECT).unwrap(), &body), "{length} {damaged}");
        // Damaged bytes are noticed, and the whole body is downloaded again. Otherwise it is downloaded once.
        assert_eq!(wholes(&server), if damaged { 2 } else { 1 }, "{length}: {:?}", server.requests());
        let resumed = &server.requests()[1];
        assert_eq!(resumed.header("x-amz-checksum-mode"), None);
    }
}

#[test]
fn a_composite_checksum_is_checked_if_s3_says_how_long_the_parts_are() {
    let part = 1 << 20;
    let body = Arc::new(parts::body(5 * part / 2));
    let digests: Vec<u8> = body.chunks(part).flat_map(|part| Sha256::of(part).0).collect();
    let right = format!("{}-3", STANDARD.encode(Sha256::of(&digests).0));
    let head = |length: usize| Reply::raw(format!("HTTP/1.1 206 Status\r\ncontent-length: {length}\r\n\r\n"));
    for (value, first, believed) in [
        (right.clone(), head(part), true),
        (right.replace(&right[..4], "AAAA"), head(part), false),
        // Without the lengths of the parts, the checksum cannot be checked.
        (right.replace(&right[..4], "AAAA"), head(2 * part), true),
        (right.replace(&right[..4], "AAAA"), error(403, "AccessDenied", &[]), true),
    ] {
        let of = body.clone();
        let server = Server::start(move |_, request| match request.line.starts_with("HEAD ") {
            true if request.target().contains("partNumber=1") => first.clone(),
            true => Reply::new(404, &[], ""),
            false => object(&of, &[("x-amz-checksum-sha256", &value)], request),
        });
        let result = bench(&server).fetch(OBJECT);
        if believed {
            assert!(parts::is(&result.unwrap(), &body));
        } else {
            let (code, told) = told(result);
            assert!(code == 1 && told.contains("sha256") && told.contains("-3"), "{told}");
            assert_eq!(server.requests().iter().filter(|request| request.line.starts_with("GET ")).count(), 2);
        }
    }
}
