//! Whom TLS trusts: the machine's own root certificates, or Mozilla's where it has none.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::error::Fault;

/// The certificates of the machine (`/etc/ssl/certs`, `SSL_CERT_FILE`, `SSL_CERT_DIR`), so that a
/// company's own authority counts; without any, those built in, so that a minimal image can still
/// download the package that brings them.
pub(super) fn roots() -> RootCertStore {
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

/// A client's configuration. The provider is named here and nowhere else, so that there is one.
pub(super) fn config(roots: Arc<RootCertStore>) -> Result<ClientConfig, Fault> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new("configuring TLS").caused_by(error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_certificate_can_be_a_root() {
        let mut roots = RootCertStore::empty();
        let (added, ignored) =
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        assert!(added > 100, "{added} certificates");
        assert_eq!(ignored, 0);
    }
}
