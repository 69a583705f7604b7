//! The AWS SDK's requests, sent by our own HTTP clients: one TLS configuration, one set of trusted
//! roots, one way of timing out.

use std::time::Duration;

use aws_sdk_s3::{
    config::{
        HttpClient, RuntimeComponents,
        http::{HttpRequest, HttpResponse},
    },
    error::ConnectorError,
    primitives::SdkBody,
};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use reqwest::{Body, Client, Request, Url};

use super::{client::Clients, redirect::is_link_local};
use crate::system::ec2;

/// What the SDK sends its requests with.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    clients: Clients,
    limit: Option<Duration>,
}

impl Sender {
    /// Sends with these clients.
    pub(super) fn new(clients: Clients) -> Self {
        Self { clients, limit: None }
    }

    /// The metadata service and a container's credentials are on this link, never behind a proxy. Where EC2 can't be
    /// behind that service, nobody asks it: neither the SDK for credentials and region, nor we for facts.
    pub(super) fn client(&self, url: &Url) -> Result<Client, ConnectorError> {
        let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        if address.is_some_and(ec2::is_untrusted) {
            return Err(ConnectorError::user(ec2::untrusted().into()));
        }
        let local = url.scheme() == "http" && address.is_some_and(|ip| is_link_local(ip) || ip.is_loopback());
        let client = if local { self.clients.local(false) } else { self.clients.service() };
        client.map_err(|fault| ConnectorError::user(fault.into()))
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let request = Request::try_from(request.map(Body::wrap)).map_err(|error| ConnectorError::user(error.into()))?;
        let sent = self.client(request.url())?.execute(request);
        let response = match self.limit {
            None => sent.await,
            Some(limit) => {
                tokio::time::timeout(limit, sent).await.map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?
            }
        };
        let response = response.map_err(|error| {
            let timeout = error.is_timeout();
            let error = error.into();
            if timeout { ConnectorError::timeout(error) } else { ConnectorError::io(error) }
        })?;
        let status =
            response.status().as_u16().try_into().map_err(|error: _| ConnectorError::other(Box::new(error), None))?;
        let headers = response.headers().clone();
        let mut answer = HttpResponse::new(status, SdkBody::from_body_1_x(Body::from(response)));
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                _ = answer.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }
}

impl HttpConnector for Sender {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for Sender {
    /// The metadata client asks for one second to connect and one to answer; where there is no such
    /// service its packets are simply lost, so both together limit a call.
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings.connect_timeout().zip(settings.read_timeout()).map(|(connect, read)| connect + read);
        SharedHttpConnector::new(Self { limit, ..self.clone() })
    }
}
