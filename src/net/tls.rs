//! The root certificates that TLS trusts: the machine's, or Mozilla's if the machine has none.

mod machine;

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::machine::MachineVerifier;
use crate::error::Fault;

/// Returns the root certificates of the machine (`/etc/ssl/certs`, `SSL_CERT_FILE`, `SSL_CERT_DIR`), which may include
/// a company's own authority.
///
/// A minimal image has none. The built-in ones let it download the package ca-certificates.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!("reading the root certificates: {error}");
    }
    let (added, ignored) = roots.add_parsable_certificates(native.certs);
    tracing::debug!(added, ignored, "root certificates of the machine");
    if roots.is_empty() {
        tracing::warn!("this machine has no root certificates (ca-certificates): trusting the built-in ones");
        _ = roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    roots
}

/// Returns the certificates of a PEM file as the only roots.
///
/// # Errors
/// If the file has none, or a damaged one.
pub(crate) fn roots_of(pem: &[u8]) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| {
            Fault::new(format!("a certificate of the file cannot be read: {error}"))
                .hint("replace the file by one in PEM form")
        })?;
    }
    if roots.is_empty() {
        return Err(Fault::new("there is no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(roots)
}

/// Returns the configuration of a client that trusts the machine's root certificates, and may show a certificate.
pub(crate) fn config_of_machine(identity: Option<&Identity>) -> Result<ClientConfig, Fault> {
    let by_bundle = machine::bundle().and_then(|bundle| MachineVerifier::new(bundle, roots));
    let Some(verifier) = by_bundle else { return config_with(Arc::new(roots()), identity) };
    let mut config = config_with(Arc::new(RootCertStore::empty()), identity)?;
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(config)
}

/// Returns the configuration of a client.
pub(crate) fn config(roots: Arc<RootCertStore>) -> Result<ClientConfig, Fault> {
    config_with(roots, None)
}

/// A client's certificate with its chain, and its private key, both in PEM form.
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Returns the configuration of a client that shows a certificate.
///
/// # Errors
/// If the certificate or the key cannot be read, or if they do not belong together.
pub(crate) fn config_with(roots: Arc<RootCertStore>, identity: Option<&Identity>) -> Result<ClientConfig, Fault> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new("configuring TLS").caused_by(error))?;
    let config = config.with_root_certificates(roots);
    let Some(Identity { certificate, key }) = identity else { return Ok(config.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| Fault::new(format!("the client's certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(Fault::new("the client's certificate is not in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        Fault::new("the client's key is not in PEM form, or it is encrypted (-----BEGIN PRIVATE KEY-----)")
    })?;
    config.with_client_auth_cert(chain, key).map_err(|error| {
        Fault::new(format!("the client's certificate and its key cannot be used: {error}"))
            .hint("check that the key belongs to the first certificate of the file")
    })
}

/// Returns the fault of a certificate, and whether it may be valid by a correct clock.
pub(crate) fn refusal(error: &CertificateError) -> (String, bool) {
    let words = match error {
        CertificateError::NotValidYetContext { time, not_before } => {
            let (clock, from) = (date(*time), date(*not_before));
            return (format!("it is valid from {from} on, and this machine's clock says {clock}"), true);
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let (clock, until) = (date(*time), date(*not_after));
            return (format!("it was valid until {until}, and this machine's clock says {clock}"), true);
        }
        CertificateError::NotValidYet => return ("it is not valid yet".into(), true),
        CertificateError::Expired => return ("it has expired".into(), true),
        CertificateError::UnknownIssuer => "no root certificate of this machine vouches for its issuer".into(),
        CertificateError::Other(other) => match other.0.to_string() {
            error if error == "CaUsedAsEndEntity" => {
                "it is the certificate of an authority and not of a server; many self-signed ones are".into()
            }
            error => error,
        },
        other => other.to_string(),
    };
    (words, false)
}

fn date(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "an impossible time".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::OtherError;

    use super::*;

    #[test]
    fn a_certificate_is_refused_in_words() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (words, may_pass) =
            refusal(&CertificateError::NotValidYetContext { time: at(86_400), not_before: at(1_600_000_000) });
        let clock = "this machine's clock says 1970-01-02T00:00:00Z";
        assert_eq!(words, format!("it is valid from 2020-09-13T12:26:40Z on, and {clock}"));
        assert!(may_pass);
        let other = |error: &'static str| CertificateError::Other(OtherError(Arc::new(std::io::Error::other(error))));
        let (words, may_pass) = refusal(&other("CaUsedAsEndEntity"));
        assert!(words.contains("self-signed") && !may_pass);
        assert_eq!(refusal(&other("UnsupportedCertVersion")), ("UnsupportedCertVersion".into(), false));
    }

    #[test]
    fn every_built_in_certificate_can_be_a_root() {
        let mut roots = RootCertStore::empty();
        let (added, ignored) =
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        assert!(added > 100, "{added} certificates");
        assert_eq!(ignored, 0);
    }
}
