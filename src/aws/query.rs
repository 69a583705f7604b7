//! Calls of AWS services other than S3, such as CloudFormation and EC2. The SDK's signer signs them with the
//! credentials of the SDK's chain.
//!
//! Most of these services speak the query protocol: the request is a form, the answer is XML. The SDK's crates for them
//! would make the binary many times as large. The one for EC2 has over seven hundred calls, of which a deploy needs
//! six.
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>

use std::{fmt, time::SystemTime};

use anyhow::{Context, Result};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Request, Url, header::HeaderName};

use super::{
    account::Account,
    answer::{Element, text},
    refusal::Refusal,
    sender::Sender,
    service::{AwsService, Protocol},
};
use crate::{error::Fault, net::retry::Failure};

/// The characters to encode in a signed path or query: all but the unreserved ones of RFC 3986.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A call of a service.
#[derive(Debug, Clone)]
pub struct Call {
    service: &'static AwsService,
    /// The operation's name; the path if the service is a REST service.
    operation: String,
    parameters: Vec<(String, String)>,
}

impl Call {
    /// Returns a call of an operation without parameters; for Route 53, of a path.
    pub fn new(service: &'static AwsService, operation: impl Into<String>) -> Self {
        Self { service, operation: operation.into(), parameters: vec![] }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds a list: `name.1`, `name.2` ….
    #[must_use]
    pub fn with_list<T: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let numbered = values.into_iter().zip(1..).map(|(value, n)| (format!("{name}.{n}"), value.into()));
        self.parameters.extend(numbered);
        self
    }
}

impl Call {
    /// Returns the URL, the headers and the body of its request.
    fn parts(&self, endpoint: Url) -> (Method, Url, Vec<(&'static str, String)>, String) {
        let pairs = |pairs: &[(String, String)]| {
            let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
            let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
            pairs.collect::<Vec<_>>().join("&")
        };
        let mut url = endpoint;
        match &self.service.protocol {
            Protocol::Query(version) => {
                let mut form = vec![("Action".into(), self.operation.clone()), ("Version".into(), (*version).into())];
                form.extend(self.parameters.iter().cloned());
                let kind = "application/x-www-form-urlencoded; charset=utf-8".to_owned();
                (Method::POST, url, vec![("content-type", kind)], pairs(&form))
            }
            Protocol::Rest => {
                url.set_path(&self.operation);
                url.set_query(Some(&pairs(&self.parameters)).filter(|query| !query.is_empty()).map(String::as_str));
                (Method::GET, url, vec![], String::new())
            }
            Protocol::Json(prefix) => {
                let fields = self.parameters.iter().map(|(name, value)| (name.clone(), value.clone().into()));
                let body = serde_json::Value::Object(fields.collect()).to_string();
                let headers = vec![
                    ("content-type", "application/x-amz-json-1.1".to_owned()),
                    ("x-amz-target", format!("{prefix}{}", self.operation)),
                ];
                (Method::POST, url, headers, body)
            }
        }
    }

    fn sign(&self, endpoint: Url, region: &str, credentials: Credentials) -> Result<Request> {
        let (method, url, headers, body) = self.parts(endpoint);
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(self.service.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .context("signing")?
            .into();
        let signed_headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable =
            SignableRequest::new(method.as_str(), url.as_str(), signed_headers, SignableBody::Bytes(body.as_bytes()))
                .context("signing")?;
        let (instructions, _) = sign(signable, &parameters).context("signing")?.into_parts();
        let (signature, _) = instructions.into_parts();
        let signature = signature.iter().map(|header| (header.name(), header.value()));
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).chain(signature);
        let mut request = Request::new(method, url);
        for (name, value) in headers {
            let value = value.parse().context("a header of the request")?;
            _ = request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        *request.body_mut() = Some(body.into());
        Ok(request)
    }

    async fn attempt(&self, account: &Account) -> Result<Element, Failure> {
        let region = account.region().await.map_err(Failure::Permanent)?;
        let (endpoint, region) = self.service.endpoint(region, account.config().await).map_err(Failure::Permanent)?;
        let credentials = account.credentials().await?;
        let request = self.sign(endpoint, &region, credentials);
        let request = request.map_err(|error| {
            Failure::Permanent(Fault::new("the request to AWS cannot be built; nothing was sent").caused_by(error))
        })?;
        let clients = &account.network.clients;
        let client = Sender::new(clients.clone()).client(request.url());
        let client = client.map_err(|error| Failure::Permanent(Fault::new("no client").caused_by(error)))?;
        let explain = |error: reqwest::Error| clients.explain(&error);
        let response = client.execute(request).await.map_err(explain)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = text(response, explain).await;
        tracing::debug!(target: "glovo_bootstrap::aws", "{} {} {}", self.service.name, self.operation, status.as_u16());
        if status.is_success() {
            let body = body?;
            let answer = match self.service.protocol {
                Protocol::Json(_) => Element::of_json(&body),
                _ => Element::of_xml(&body),
            };
            return answer.map_err(|error| Failure::transient(Fault::new("the answer can't be read").caused_by(error)));
        }
        // The status alone is enough for a refusal.
        let refusal = Refusal::read(status.as_u16(), &headers, &body.unwrap_or_default());
        let fault = self.refused(&refusal);
        Err(if refusal.is_expiry() {
            account.forget_credentials();
            Failure::Unsigned(fault)
        } else if refusal.is_temporary() {
            refusal.temporary(fault)
        } else {
            Failure::Permanent(fault)
        })
    }

    /// Makes the call, with the usual attempts.
    ///
    /// # Errors
    /// A [`Refusal`] of the service is among the causes.
    pub(super) async fn run(&self, account: &Account) -> Result<Element, Fault> {
        account.network.attempts().run(&self, || self.attempt(account)).await
    }

    /// Returns the name of the operation in IAM policies.
    fn action(&self) -> &str {
        // This program requests only one path.
        if self.service.protocol == Protocol::Rest { "ListHostedZonesByName" } else { &self.operation }
    }

    fn refused(&self, refusal: &Refusal) -> Fault {
        let hint = match refusal.code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                Some(format!("allow {}:{} in the caller's IAM policy", self.service.name, self.action()))
            }
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" | "SignatureDoesNotMatch" => {
                Some("check the credentials, and this machine's clock".to_owned())
            }
            _ => None,
        };
        let fault = Fault::new(format!("{} refused {}", self.service.name, self.action())).caused_by(refusal.clone());
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

/// `cloudformation DescribeStacks`
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service.name, self.operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::service::{CLOUDFORMATION, ROUTE_53};

    #[test]
    fn a_form_is_encoded_as_the_signature_expects() {
        let call = Call::new(&CLOUDFORMATION, "CreateStack").with("StackName", "a b").with_list("Tags", ["ü", "~"]);
        let (_, _, _, body) = call.parts("https://example.test".parse().unwrap());
        assert_eq!(body, "Action=CreateStack&Version=2010-05-15&StackName=a%20b&Tags.1=%C3%BC&Tags.2=~");
        let call = Call::new(&ROUTE_53, "/2013-04-01/hostedzonesbyname").with("dnsname", "a.example");
        let (_, url, _, _) = call.parts("https://example.test".parse().unwrap());
        assert_eq!(url.as_str(), "https://example.test/2013-04-01/hostedzonesbyname?dnsname=a.example");
    }
}
