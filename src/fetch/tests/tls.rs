//! `https` sources: certificates that are not trusted, and redirects from TLS to plaintext.
//!
//! The certificates beside this file were made by openssl 3.0 and are valid from 2020 to 2119, so that
//! the clock of the machine does not matter:
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=test authority" \
//!     -addext keyUsage=critical,keyCertSign -keyout authority.key -out authority.pem
//! openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=test server" \
//!     -keyout server.key -out server.csr
//! openssl ca -batch -config … -in server.csr -cert authority.pem -keyfile authority.key -out valid.pem \
//!     -startdate 20200101000000Z -enddate 21200101000000Z -extfile … # subjectAltName=IP:127.0.0.1
//! ```
//!
//! `other.pem` is for 192.0.2.1; `expired.pem` ended on 2 January 2020.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    Bench, BenchSettings,
    server::{Reply, Server},
    settings, text,
};
use crate::net::probe::ProbeRequest;

const AUTHORITY: &[u8] = include_bytes!("certificates/authority.pem");
const KEY: &[u8] = include_bytes!("certificates/server.key");

/// Starts a server that presents a certificate.
fn server(certificate: &[u8], reply: Reply) -> Server {
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(KEY).unwrap());
    let config = Arc::new(config.unwrap());
    Server::behind(
        "https",
        move |stream| StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream),
        move |_, _| reply.clone(),
    )
}

/// Returns settings that trust the test's authority.
fn trusting() -> BenchSettings {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY).unwrap()).unwrap();
    BenchSettings { roots: Some(roots), ..settings() }
}

/// Returns settings that trust the machine's authorities.
fn trusting_the_machine_s() -> BenchSettings {
    BenchSettings { roots: None, ..settings() }
}

#[test]
fn a_trusted_server_is_believed() {
    let server = server(include_bytes!("certificates/valid.pem"), Reply::ok("jar"));
    assert_eq!(text(Bench::new(trusting()).fetch(&server.url("/")).unwrap()), "jar");
    let bench = Bench::new(trusting());
    assert_eq!(
        bench
            .system
            .fetcher
            .probe(&bench.system.host, ProbeRequest::new(server.url("/")), Duration::MAX)
            .unwrap()
            .status,
        200
    );
}

#[test]
fn a_probe_may_trust_a_file_of_its_own_instead() {
    let server = server(include_bytes!("certificates/valid.pem"), Reply::ok("jar"));
    let bench = Bench::new(settings());
    let probe = |pem: &[u8]| {
        let request = ProbeRequest { ca: Some(pem.into()), ..ProbeRequest::new(server.url("/")) };
        bench.system.fetcher.probe(&bench.system.host, request, Duration::MAX).map(|answer| answer.body)
    };
    assert_eq!(probe(AUTHORITY).unwrap(), "jar");
    let other = probe(include_bytes!("certificates/other.pem")).unwrap_err().to_string();
    assert!(!other.is_empty());
    for wrong in [&b""[..], b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", KEY] {
        assert!(ProbeRequest { ca: Some(wrong.into()), ..ProbeRequest::new("https://a") }.check().is_err());
    }
}

#[test]
fn a_probe_verifies_the_name_of_the_url_wherever_it_connects() {
    let server = server(include_bytes!("certificates/valid.pem"), Reply::ok("jar"));
    let bench = Bench::new(trusting());
    // The certificate is for the address that the probe connects to, and not for the name.
    let url = server.url("/").replace("127.0.0.1", "app.invalid");
    let request = ProbeRequest { connect_to: Some("127.0.0.1".into()), ..ProbeRequest::new(url) };
    let refused = bench.system.fetcher.probe(&bench.system.host, request, Duration::MAX).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
}

#[test]
fn a_certificate_that_is_not_right_is_refused_at_once() {
    for (certificate, settings, words) in [
        (
            include_bytes!("certificates/valid.pem").as_slice(),
            trusting_the_machine_s(),
            "no root certificate of this machine",
        ),
        (include_bytes!("certificates/valid.pem"), settings(), "no root certificate of this machine"),
        (include_bytes!("certificates/other.pem"), trusting(), "not valid for name"),
    ] {
        let server = server(certificate, Reply::ok("jar"));
        let (code, told) = Bench::new(settings).refused(&server.url("/"));
        assert_eq!((code, server.connections(), server.requests().len()), (1, 1, 0), "{told}");
        assert!(told.contains(words) && told.contains("the certificate of 127.0.0.1"), "{told}");
        assert!(!told.contains("Other") && told.contains("hint: check this machine's root certificates"), "{told}");
    }
}

#[test]
fn a_certificate_that_another_clock_would_trust_is_transient() {
    let server = server(include_bytes!("certificates/expired.pem"), Reply::ok("jar"));
    let (code, told) = Bench::new(trusting()).refused(&server.url("/"));
    assert_eq!((code, server.connections(), server.requests().len()), (75, 3, 0), "{told}");
    assert!(told.contains("it was valid until 2020-01-02T00:00:00Z, and this machine's clock says 20"), "{told}");
    assert!(told.contains("hint: check this machine's clock (timedatectl)"), "{told}");
}

#[test]
fn a_server_that_speaks_no_tls_is_said_to() {
    let server = Server::replies(vec![Reply::ok("jar")]);
    let (code, told) = Bench::new(trusting()).refused(&server.url("/").replace("http:", "https:"));
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("TLS with 127.0.0.1 failed: ") && told.contains("openssl s_client"), "{told}");
}

#[test]
fn after_a_redirect_the_host_that_fails_is_named() {
    let expired = server(include_bytes!("certificates/expired.pem"), Reply::ok("jar"));
    let location = expired.url("/").replace("127.0.0.1", "localhost");
    let server = Server::replies(vec![Reply::new(302, &[("location", &location)], "")]);
    let (_, told) = Bench::new(trusting()).refused(&server.url("/"));
    assert!(told.contains("the certificate of localhost is not trusted"), "{told}");
}

#[test]
fn a_redirect_to_tls_and_back_to_plaintext_is_refused() {
    let plaintext = Server::replies(vec![Reply::ok("jar")]);
    let location = plaintext.url("/");
    let tls = server(include_bytes!("certificates/valid.pem"), Reply::new(302, &[("location", &location)], ""));
    let location = tls.url("/");
    let first = Server::replies(vec![Reply::new(302, &[("location", &location)], "")]);
    let (code, told) = Bench::new(trusting()).refused(&first.url("/"));
    assert_eq!((code, tls.requests().len(), plaintext.requests().len()), (1, 1, 0), "{told}");
    assert!(told.contains("refusing the redirect from https to http"), "{told}");
}

#[test]
fn a_redirect_from_tls_to_plaintext_is_refused() {
    let plaintext = Server::replies(vec![Reply::ok("jar")]);
    let location = plaintext.url("/");
    let server = server(include_bytes!("certificates/valid.pem"), Reply::new(302, &[("location", &location)], ""));
    let (code, told) = Bench::new(trusting()).refused(&server.url("/"));
    assert_eq!((code, server.requests().len(), plaintext.requests().len()), (1, 1, 0), "{told}");
    assert!(told.contains("refusing the redirect from https to http"), "{told}");
}
