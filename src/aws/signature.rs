//! Signatures of requests, by the AWS SDK's own signer.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>

use std::time::SystemTime;

use anyhow::{Context, Result};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::{
    Request,
    header::{HeaderName, HeaderValue},
};

/// What a signature is made of, besides the request.
pub(super) struct Signer<'a> {
    /// The name of the service in signatures.
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    pub(super) credentials: Credentials,
    pub(super) settings: SigningSettings,
    /// The time that the signature names. A service refuses one that is some minutes off.
    pub(super) time: SystemTime,
}

impl Signer<'_> {
    /// Signs the method, the URL, all headers and the body of a request, and adds the headers of the signature.
    pub(super) fn sign(self, request: &mut Request, body: &[u8]) -> Result<()> {
        let identity = self.credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(self.settings)
            .build()
            .context("signing")?
            .into();
        let headers = request.headers().iter();
        let headers = headers
            .map(|(name, value)| Ok((name.as_str(), value.to_str().context("a header of the request")?)))
            .collect::<Result<Vec<_>>>()?;
        let (method, url) = (request.method().as_str(), request.url().as_str());
        let signable = SignableRequest::new(method, url, headers.into_iter(), SignableBody::Bytes(body));
        let (instructions, _) = sign(signable.context("signing")?, &parameters).context("signing")?.into_parts();
        for header in instructions.into_parts().0 {
            let mut value: HeaderValue = header.value().parse().context("a header of the signature")?;
            value.set_sensitive(true);
            _ = request.headers_mut().insert(HeaderName::from_static(header.name()), value);
        }
        Ok(())
    }
}
