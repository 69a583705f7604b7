//! The machine's root certificates, in two stages: the bundle in one file, and all files of the directory beside it only
//! where the bundle does not suffice.
//!
//! The directory usually holds the certificates of the bundle, each in a file. To read both takes three times as long.

use std::{
    fmt::{self, Debug, Formatter},
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::environment;

/// The bundles of distributions; a machine has one of them.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Returns the certificates of the machine's bundle; `None` if it has none, or if the environment names other files.
pub(super) fn bundle() -> Option<RootCertStore> {
    if [environment::SSL_CERT_FILE, environment::SSL_CERT_DIR]
        .into_iter()
        .any(|name| environment::value(name).is_some())
    {
        return None;
    }
    let read = |path: &&str| {
        let mut roots = RootCertStore::empty();
        let read = rustls_native_certs::load_certs_from_paths(Some(Path::new(path)), None);
        _ = roots.add_parsable_certificates(read.certs);
        (!roots.is_empty()).then_some(roots)
    };
    BUNDLES.iter().find_map(read)
}

/// Verifies a server by the bundle. If the bundle refuses it, all root certificates decide.
pub(super) struct MachineVerifier {
    bundle: Arc<WebPkiServerVerifier>,
    read_all: fn() -> RootCertStore,
    all: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

impl MachineVerifier {
    /// Returns a verifier; `None` if no server could be verified by the bundle.
    pub(super) fn new(bundle: RootCertStore, read_all: fn() -> RootCertStore) -> Option<Self> {
        Some(Self { bundle: verifier(bundle)?, read_all, all: OnceLock::new() })
    }
}

fn verifier(roots: RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
}

impl Debug for MachineVerifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineVerifier").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for MachineVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let refused = match by(&self.bundle) {
            Err(refused @ Error::InvalidCertificate(_)) => refused,
            verified => return verified,
        };
        match self.all.get_or_init(|| verifier((self.read_all)())) {
            Some(all) => by(all),
            None => Err(refused),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.bundle.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.bundle.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.bundle.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, pki_types::pem::PemObject};

    use super::*;

    fn certificate(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    fn authority() -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(include_bytes!("../../fetch/tests/certificates/authority.pem"))).unwrap();
        roots
    }

    fn of_others() -> RootCertStore {
        let mut roots = RootCertStore::empty();
        _ = roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().take(3).cloned());
        roots
    }

    fn verify(verifier: &MachineVerifier, server: &[u8]) -> Result<(), Error> {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_700_000_000));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        verifier.verify_server_cert(&certificate(server), &[], &name, &[], now).map(drop)
    }

    const VALID: &[u8] = include_bytes!("../../fetch/tests/certificates/valid.pem");
    const EXPIRED: &[u8] = include_bytes!("../../fetch/tests/certificates/expired.pem");

    #[test]
    fn what_the_bundle_vouches_for_needs_no_other_file() {
        let verifier = MachineVerifier::new(authority(), || panic!("all are read")).unwrap();
        verify(&verifier, VALID).unwrap();
    }

    #[test]
    fn an_authority_that_is_only_in_the_directory_is_trusted() {
        let verifier = MachineVerifier::new(of_others(), authority).unwrap();
        verify(&verifier, VALID).unwrap();
        let refused = verify(&verifier, EXPIRED).unwrap_err();
        let is_expired = matches!(refused, Error::InvalidCertificate(CertificateError::ExpiredContext { .. }));
        assert!(is_expired, "{refused:?}");
    }

    #[test]
    fn what_no_certificate_vouches_for_is_refused() {
        for all in [of_others, RootCertStore::empty] {
            let verifier = MachineVerifier::new(of_others(), all).unwrap();
            let refused = verify(&verifier, VALID).unwrap_err();
            assert!(matches!(refused, Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{refused:?}");
        }
    }
}
