//! Requests to Vault's API, and what the answers that are not about a secret mean.
//! <https://developer.hashicorp.com/vault/api-docs>

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use percent_encoding::utf8_percent_encode;
use reqwest::{
    Client, Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use rustls::{AlertDescription, CertificateError};
use serde_json::Value;

use super::settings::{VaultAddress, VaultNamespace, VaultSettings, is_private};
use crate::{
    aws::{answer::text, query::RESERVED},
    error::Fault,
    net::{
        Network,
        client::{TlsMaterial, causes},
        redirect,
        retry::{Failure, retry_after},
    },
    redaction,
};

/// The longest part of an answer's own words that an error shows, in characters.
const MAX_WORDS: usize = 300;

/// A token, a secret id or another value that must not be shown. The redaction knows it from its making on.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden(String);

impl Hidden {
    pub(super) fn new(name: &str, value: String) -> Self {
        redaction::learn(name, &value);
        Self(value)
    }

    pub(super) fn shown_to_vault(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Encodes a path of Vault for a URL. Its slashes stay.
pub(super) fn encoded(path: &str) -> String {
    let parts = path.split('/').map(|part| utf8_percent_encode(part, RESERVED).to_string());
    parts.collect::<Vec<_>>().join("/")
}

/// A request.
pub(super) struct VaultCall<'a> {
    pub(super) method: Method,
    /// The encoded path below `/v1/`, with the query.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a Hidden>,
    pub(super) body: Option<Value>,
}

impl<'a> VaultCall<'a> {
    /// Returns a read.
    pub(super) fn get(path: &'a str, token: &'a Hidden) -> Self {
        Self { method: Method::GET, path, token: Some(token), body: None }
    }

    /// Returns a request without a token.
    pub(super) fn post(path: &'a str, body: Value) -> Self {
        Self { method: Method::POST, path, token: None, body: Some(body) }
    }
}

/// An answer. It may have secrets, so it has no `Debug`.
pub(super) struct VaultReply {
    pub(super) status: u16,
    /// The JSON of the body; null if there is none.
    pub(super) body: Value,
    retry_after: Option<Duration>,
}

impl VaultReply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the fault of an answer 404 for a path that each Vault has in each namespace.
    pub(super) fn no_namespace(&self) -> Fault {
        Fault::new("Vault does not have this namespace, or it is another server")
            .caused_by(Fault::new(self.words()))
            .hint("check `namespace` and `address`")
    }

    /// Returns the errors of the answer in one line.
    pub(super) fn words(&self) -> String {
        let errors = self.body["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let errors = errors.map(|error| error.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        let errors = errors.join("; ").replace("1 error occurred: * ", "");
        if errors.is_empty() {
            return format!("it answered {}", self.status);
        }
        format!("it answered {}: {}", self.status, errors.chars().take(MAX_WORDS).collect::<String>())
    }
}

/// A connection to Vault.
pub(super) struct VaultClient {
    http: Client,
    pub(super) network: Arc<Network>,
    pub(super) address: VaultAddress,
    namespace: Option<HeaderValue>,
    /// Whether Vault is trusted by the settings' own file.
    has_ca: bool,
}

impl VaultClient {
    /// Returns a connection with these files; nothing is sent.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub(super) fn new(settings: &VaultSettings, files: &TlsMaterial, network: Arc<Network>) -> Result<Self, Fault> {
        let http = network.clients.own_service(files, settings.address.is_on_this_machine())?;
        let namespace = settings.namespace.as_ref().and_then(VaultNamespace::header);
        Ok(Self { http, network, address: settings.address.clone(), namespace, has_ca: files.ca.is_some() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If Vault does not answer, or its answer says that it cannot serve any request now.
    pub(super) async fn ask(&self, call: VaultCall<'_>) -> Result<VaultReply, Failure> {
        let reply = self.send(call).await?;
        match reply.status {
            429 => {
                let fault = Fault::new("Vault's rate limit is used up").caused_by(Fault::new(reply.words()));
                let hint = "raise the limit in Vault (sys/quotas/rate-limit), or start fewer machines at once";
                Err(Failure::Transient(fault.hint(hint), reply.retry_after))
            }
            412 => Err(Failure::transient(Fault::new("this node of Vault has not received the newest state yet"))),
            500.. => Err(Failure::transient(self.health(&reply).await)),
            _ => Ok(reply),
        }
    }

    /// Asks Vault why it serves no request now.
    /// <https://developer.hashicorp.com/vault/api-docs/system/health>
    async fn health(&self, reply: &VaultReply) -> Fault {
        let call = VaultCall { method: Method::GET, path: "sys/health", token: None, body: None };
        let health = self.send(call).await.map_or(reply.status, |health| health.status);
        let address = &self.address;
        let cause = Fault::new(reply.words());
        let (state, hint) = match health {
            501 => ("is not initialized", format!("initialize it: vault operator init -address={address}")),
            503 => ("is sealed", format!("unseal it: vault operator unseal -address={address}")),
            472 => (
                "is a secondary for disaster recovery, which serves no requests",
                "set `address` to the primary cluster".into(),
            ),
            429 | 473 => (
                "is a standby node and reaches no active node",
                format!("check the active node: vault status -address={address}"),
            ),
            _ => {
                return Fault::new(format!("Vault at {address} failed"))
                    .caused_by(cause)
                    .hint(format!("check its log, and its state: vault status -address={address}"));
            }
        };
        Fault::new(format!("Vault at {address} {state}")).caused_by(cause).hint(hint)
    }

    async fn send(&self, call: VaultCall<'_>) -> Result<VaultReply, Failure> {
        let invalid = |error: anyhow::Error| {
            Failure::Permanent(Fault::new("the request to Vault cannot be built").caused_by(error))
        };
        let mut urls = vec![self.address.url(call.path).map_err(invalid)?];
        let explain = |error: reqwest::Error| self.explain(&error);
        let response = loop {
            let request = self.request(&call, &urls).map_err(invalid)?;
            let response = self.http.execute(request).await.map_err(explain)?;
            // A standby node may send its clients to the active one.
            match redirect::next(&urls, &response)? {
                None => break response,
                Some(next) if is_private(&next) => urls.push(next),
                Some(next) => {
                    let host = next.host_str().unwrap_or_default();
                    let fault = Fault::new(format!("refusing the redirect to {host}: the token would go in plaintext"));
                    return Err(Failure::Permanent(fault.hint("set `api_addr` of that node of Vault to an https URL")));
                }
            }
        };
        let status = response.status().as_u16();
        // Names only: neither the body nor a header goes into the log.
        tracing::debug!(target: "glovo_bootstrap::vault", "{} {} {status}", call.method, call.path);
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|value| retry_after(value, SystemTime::now()));
        let is_success = response.status().is_success();
        let body = text(response, explain).await;
        let body = if is_success { body? } else { body.unwrap_or_default() };
        let body = if body.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(&body) };
        match body {
            Ok(body) => Ok(VaultReply { status, body, retry_after }),
            Err(_) if !is_success => Ok(VaultReply { status, body: Value::Null, retry_after }),
            // The parser's words could quote the answer.
            Err(_) => Err(Failure::Permanent(
                Fault::new(format!("the answer of {} is not JSON: it is not Vault's", self.address))
                    .hint("check `address`"),
            )),
        }
    }

    fn request(&self, call: &VaultCall<'_>, urls: &[Url]) -> anyhow::Result<Request> {
        let url = urls.last().cloned().unwrap_or(self.address.url(call.path)?);
        let mut request = Request::new(call.method.clone(), url);
        let headers: &mut HeaderMap = request.headers_mut();
        // Vault can be told to require it, against requests that a browser or a proxy was made to send.
        _ = headers.insert("x-vault-request", HeaderValue::from_static("true"));
        // The state of the server itself belongs to no namespace.
        if let Some(namespace) = self.namespace.clone().filter(|_| call.path != "sys/health") {
            _ = headers.insert("x-vault-namespace", namespace);
        }
        if let Some(token) = call.token {
            let mut value = HeaderValue::from_str(token.shown_to_vault())
                .map_err(|_| Fault::new("the token has characters that a token does not have"))?;
            value.set_sensitive(true);
            _ = headers.insert("x-vault-token", value);
        }
        if let Some(body) = &call.body {
            _ = headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }

    /// Returns the failure of a connection. For certificates, the hint names the settings of Vault.
    fn explain(&self, error: &reqwest::Error) -> Failure {
        let failure = self.network.clients.explain(error);
        let hint = match causes(error).find_map(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_) | CertificateError::BadSignature,
            )) if self.has_ca => "check that `ca` has the certificate of the authority that signed Vault's",
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_) | CertificateError::BadSignature,
            )) => "set `ca` to the PEM file of the authority that signed Vault's certificate",
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            )) => "set `client_certificate` and `client_key` to a pair that Vault's listener accepts",
            _ => return failure,
        };
        let fault = Fault::new(format!("no TLS connection to Vault at {}", self.address));
        Failure::Permanent(fault.caused_by(failure.into_fault()).hint(hint))
    }
}
