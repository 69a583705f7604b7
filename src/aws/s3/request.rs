//! Requests to S3: signed, sent, and repeated in the region that the bucket is in.

use std::sync::PoisonError;

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, PercentEncodingMode, SigningSettings, UriPathNormalizationMode};
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Method, Request, Response,
    header::{CONTENT_LENGTH, HeaderName},
};

use super::{
    S3,
    address::{Address, address},
};
use crate::{
    aws::{
        partition::Partition,
        query::RESERVED,
        refusal::{NotDone, Refusal},
        sender::Sender,
        signature::Signer,
    },
    error::Fault,
    net::retry::Failure,
};

/// The region for a bucket if none is chosen. S3 answers from every region with the region of the bucket.
const FALLBACK_REGION: Region = Region::from_static("us-east-1");
/// The header with the account that the bucket must belong to.
pub(super) const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";

/// A request about an object, or about a bucket if its key is empty.
#[derive(Debug, Clone)]
pub(super) struct S3Request<'a> {
    method: Method,
    bucket: &'a str,
    key: &'a str,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl<'a> S3Request<'a> {
    /// Returns a request without query, headers and body.
    pub(super) fn new(method: Method, bucket: &'a str, key: &'a str) -> Self {
        Self { method, bucket, key, query: vec![], headers: vec![], body: vec![] }
    }

    /// Adds a parameter of the query, if it has a value.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        self.query.extend(value.map(|value| (name, value.into())));
        self
    }

    /// Adds a header, if it has a value.
    pub(super) fn header(mut self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        self.headers.extend(value.map(|value| (name, value.into())));
        self
    }

    /// Adds a body.
    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// Returns the request by GET that S3 refuses for the same reason. It asks for a byte, or for no object of a bucket.
    fn by_get(&self) -> Self {
        let request = Self { method: Method::GET, ..self.clone() };
        if self.key.is_empty() {
            request.query("max-keys", Some("0"))
        } else {
            request.header("range", Some("bytes=0-0"))
        }
    }

    /// Returns the request to an address, without a signature.
    fn unsigned(&self, Address { mut url, .. }: Address) -> Result<Request, Fault> {
        let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let query: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
        let mut request = Request::new(self.method.clone(), url);
        for (name, value) in &self.headers {
            let value = value.parse().map_err(|error| Fault::new(format!("the header {name}: {error}")))?;
            _ = request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        if !self.body.is_empty() {
            *request.body_mut() = Some(self.body.clone().into());
        } else if self.method == Method::PUT {
            // The client sends no length of an empty body, and S3 requires one.
            _ = request.headers_mut().insert(CONTENT_LENGTH, 0.into());
        }
        Ok(request)
    }
}

impl S3 {
    /// Sends a request, and once more if S3 says that the bucket is in another region.
    pub(super) async fn send(&self, request: &S3Request<'_>) -> Result<Response, NotDone> {
        // The same metadata service gives both. While it is away, the fallback would be a wrong region.
        let credentials = self.credentials(request.bucket).await?;
        let region = self.region(request.bucket).await;
        let mut answer = self.send_to(request, &region, credentials.clone()).await;
        if let Err(NotDone::Refused(refusal)) = &answer
            && let Some(other) = self.other_region(request.bucket, &region, refusal)
        {
            answer = self.send_to(request, &other, credentials).await;
        }
        match answer {
            // Its answer has no body. Boto3 has the same trouble: <https://github.com/boto/boto3/issues/2598>.
            Err(NotDone::Refused(refusal)) if request.method == Method::HEAD && matches!(refusal.status, 400 | 403) => {
                let explained = match Box::pin(self.send(&request.by_get())).await {
                    Err(NotDone::Refused(explained)) if explained.status == refusal.status => explained,
                    _ => refusal,
                };
                Err(NotDone::Refused(explained))
            }
            answer => answer,
        }
    }

    async fn send_to(
        &self,
        request: &S3Request<'_>,
        region: &Region,
        credentials: Credentials,
    ) -> Result<Response, NotDone> {
        let cannot = |error: anyhow::Error| {
            Failure::Permanent(Fault::new("the request to S3 cannot be built; nothing was sent").caused_by(error))
        };
        let config = self.account.config().await;
        let address = address(request.bucket, request.key, region.as_ref(), config).map_err(Failure::Permanent)?;
        let service = address.service;
        let mut signed = request.unsigned(address).map_err(Failure::Permanent)?;
        let mut settings = SigningSettings::default();
        // S3 takes paths as they are.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let time = self.account.clock.now();
        let signature = Signer { service, region: region.as_ref(), credentials, settings, time };
        signature.sign(&mut signed, &request.body).map_err(cannot)?;
        let sender = Sender::new(self.account.network.clients.clone());
        let sent = sender.send_once(signed, &format!("s3 {}", request.method), time).await;
        sent.map_err(|error| error.in_region(region.as_ref()))
    }

    /// Returns the credentials for a request.
    pub(super) async fn credentials(&self, bucket: &str) -> Result<Credentials, Failure> {
        let region = self.account.config().await.region().map_or("", AsRef::as_ref);
        let partition = Partition::of(region).id;
        self.account.credentials(&format!("allows s3:GetObject on arn:{partition}:s3:::{bucket}/*")).await
    }

    async fn region(&self, bucket: &str) -> Region {
        let known = self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned();
        match known {
            Some(region) => region,
            None => self.account.region().await.map_or(FALLBACK_REGION, |region| Region::new(region.to_owned())),
        }
    }

    /// Returns the region that a refusal names for the bucket, if it is another one, and remembers it.
    fn other_region(&self, bucket: &str, asked: &Region, refusal: &Refusal) -> Option<Region> {
        let region = refusal.region.as_ref().filter(|region| *region != asked.as_ref())?;
        tracing::debug!(bucket, region, "the bucket is in another region");
        let region = Region::new(region.clone());
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        _ = regions.insert(bucket.to_owned(), region.clone());
        Some(region)
    }
}
