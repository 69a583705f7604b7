//! The sender of the AWS SDK's requests. It uses the HTTP clients of this program, with their TLS configuration,
//! timeouts and limits.

use std::{
    error::Error,
    fmt, io,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use nix::errno::Errno;
use reqwest::{Body, Client, Request, Response, Url};

use super::{
    answer::{MAX_ANSWER_BYTES, text},
    refusal::{NotDone, Refusal},
};
use crate::{
    error::Fault,
    host::ec2,
    net::{
        client::{Clients, causes},
        redirect::is_link_local,
        retry::Failure,
    },
    value::ByteSize,
};

/// The longest answer of the metadata service that is read. Its longest one, user-data, has 16 KiB.
const MAX_METADATA_BYTES: usize = 1 << 20;

/// The error that this machine refuses a connection to the metadata service.
#[derive(Debug)]
pub(crate) struct Forbidden {
    /// The kernel's reason.
    pub(crate) reason: io::Error,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to the instance metadata service: {}", self.reason)
    }
}

impl Error for Forbidden {}

impl Forbidden {
    /// Returns the refusal in an error's causes. Packets that are lost on the way are no refusal.
    fn of(error: &reqwest::Error) -> Option<Self> {
        let number = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())?;
        let is_local = [Errno::EACCES, Errno::EPERM, Errno::ECONNREFUSED].contains(&Errno::from_raw(number));
        is_local.then(|| Self { reason: io::Error::from_raw_os_error(number) })
    }
}

/// The error that an answer is longer than its limit.
#[derive(Debug)]
pub(crate) struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is longer than {}", ByteSize(self.0 as u64))
    }
}

impl Error for TooLong {}

/// The SDK's HTTP client.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    clients: Clients,
    limit: Option<Duration>,
    /// Whether it sends requests to the metadata service only.
    is_for_metadata: bool,
}

impl Sender {
    /// Returns a sender with these clients.
    pub(crate) fn new(clients: Clients) -> Self {
        Self { clients, limit: None, is_for_metadata: false }
    }

    /// Returns a sender for the metadata service, at any address.
    pub(crate) fn for_metadata(clients: Clients) -> Self {
        Self { is_for_metadata: true, ..Self::new(clients) }
    }

    fn asks_metadata(&self, url: &Url) -> bool {
        self.is_for_metadata || address(url).is_some_and(is_link_local)
    }

    /// Returns the most bytes to read of an answer.
    fn longest(&self, url: &Url) -> usize {
        if self.asks_metadata(url) { MAX_METADATA_BYTES } else { MAX_ANSWER_BYTES }
    }

    /// Returns the client for a URL. The metadata service and a container's credentials are on this link, never behind
    /// a proxy.
    ///
    /// If this machine is not an EC2 instance, the metadata service is not asked for credentials, region and facts.
    pub(crate) fn client(&self, url: &Url) -> Result<Client, ConnectorError> {
        let address = address(url);
        if address.is_some_and(ec2::is_untrusted) {
            return Err(ConnectorError::user(ec2::untrusted().into()));
        }
        let local = url.scheme() == "http" && address.is_some_and(|ip| is_link_local(ip) || ip.is_loopback());
        let client = if local { self.clients.local(false) } else { self.clients.service() };
        client.map_err(|fault| ConnectorError::user(fault.into()))
    }

    /// Sends a request of this program once. It was made at this time.
    pub(super) async fn send_once(
        &self,
        request: Request,
        what: &impl fmt::Display,
        now: SystemTime,
    ) -> Result<Response, NotDone> {
        let client = self.client(request.url());
        let client = client.map_err(|error| Failure::Permanent(Fault::new("no client").caused_by(error)))?;
        let explain = |error: reqwest::Error| self.clients.explain(&error);
        let response = client.execute(request).await.map_err(explain)?;
        let status = response.status();
        tracing::debug!(target: "glovo_bootstrap::aws", "{what} {}", status.as_u16());
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        // The status alone is enough for a refusal.
        let body = text(response, explain).await.unwrap_or_default();
        Err(NotDone::Refused(Refusal::read(status.as_u16(), &headers, &body, now)))
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let request = Request::try_from(request.map(Body::wrap)).map_err(|error| ConnectorError::user(error.into()))?;
        let url = request.url().clone();
        let sent = self.client(&url)?.execute(request);
        let response = match self.limit {
            None => sent.await,
            Some(limit) => {
                tokio::time::timeout(limit, sent).await.map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?
            }
        };
        let response = response.map_err(|error| {
            // Another attempt would fail in the same way. The SDK makes none after an error of this kind.
            if let Some(forbidden) = Forbidden::of(&error).filter(|_| self.asks_metadata(&url)) {
                return ConnectorError::user(forbidden.into());
            }
            let timeout = error.is_timeout();
            let error = error.into();
            if timeout { ConnectorError::timeout(error) } else { ConnectorError::io(error) }
        })?;
        let status =
            response.status().as_u16().try_into().map_err(|error: _| ConnectorError::other(Box::new(error), None))?;
        let headers = response.headers().clone();
        let longest = self.longest(&url);
        let body = SdkBody::from_body_1_x(
            Limited::new(Body::from(response), longest)
                .map_err(move |error| if error.is::<LengthLimitError>() { Box::new(TooLong(longest)) } else { error }),
        );
        let mut answer = HttpResponse::new(status, body);
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                _ = answer.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }
}

/// Returns the IP address in a URL; `None` if it has a host name.
fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

impl HttpConnector for Sender {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for Sender {
    /// Returns the time limit of a call. The SDK's metadata client gives one second to connect and one to answer.
    /// Without such a service its packets are lost, so the sum of both limits the call.
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings.connect_timeout().zip(settings.read_timeout()).map(|(connect, read)| connect + read);
        SharedHttpConnector::new(Self { limit, ..self.clone() })
    }
}
