//! Calls of AWS services other than S3, such as CloudFormation and EC2. The SDK's signer signs them with the
//! credentials of the SDK's chain.
//!
//! Most of these services speak the query protocol: the request is a form, the answer is XML. The SDK's crates for them
//! would make the binary many times as large. The one for EC2 has over seven hundred calls, of which a deploy needs
//! six.
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>

use std::{fmt, time::SystemTime};

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::SigningSettings;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Request, Url, header::HeaderName};
use serde_json::Value;

use super::{
    account::Account,
    answer::{Element, text},
    clock::AwsClock,
    refusal::{NotDone, Refusal},
    sender::Sender,
    service::{AwsService, Protocol},
    signature::Signer,
};
use crate::{
    error::Fault,
    net::{
        Network,
        retry::{Failure, Pace},
    },
};

/// The characters to encode in a signed path or query: all but the unreserved ones of RFC 3986.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path with slashes.
pub(super) const UNRESERVED_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Who makes a call, and where.
pub(super) struct Caller<'a> {
    pub(super) network: &'a Network,
    pub(super) clock: &'a AwsClock,
    pub(super) config: &'a SdkConfig,
    pub(super) region: &'a str,
    /// The credentials that sign the request; `None` if it needs none.
    pub(super) credentials: Option<Credentials>,
}

/// A call of a service.
#[derive(Debug, Clone)]
pub struct Call {
    service: &'static AwsService,
    /// The operation's name; the path if the service is a REST service.
    operation: String,
    parameters: Vec<(String, Value)>,
}

impl Call {
    /// Returns a call of an operation without parameters; for Route 53, of a path.
    pub fn new(service: &'static AwsService, operation: impl Into<String>) -> Self {
        Self { service, operation: operation.into(), parameters: vec![] }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), Value::String(value.into())));
        self
    }

    /// Adds a parameter of a JSON service that is no text.
    #[must_use]
    pub fn with_json(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds a list: `name.1`, `name.2` ….
    #[must_use]
    pub fn with_list<T: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let numbered =
            values.into_iter().zip(1..).map(|(value, n)| (format!("{name}.{n}"), Value::String(value.into())));
        self.parameters.extend(numbered);
        self
    }
}

impl Call {
    /// Returns the URL, the headers and the body of its request.
    fn parts(&self, endpoint: Url) -> (Method, Url, Vec<(&'static str, String)>, String) {
        let pairs = |pairs: &[(String, Value)]| {
            let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
            let text = |value: &Value| encoded(value.as_str().unwrap_or_default());
            let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), text(value)));
            pairs.collect::<Vec<_>>().join("&")
        };
        let mut url = endpoint;
        match &self.service.protocol {
            Protocol::Query(version) => {
                let action = [("Action", &*self.operation), ("Version", version)];
                let mut form: Vec<_> = action.map(|(name, value)| (name.to_owned(), value.into())).into();
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
                let body = Value::Object(self.parameters.iter().cloned().collect()).to_string();
                let headers = vec![
                    ("content-type", "application/x-amz-json-1.1".to_owned()),
                    ("x-amz-target", format!("{prefix}{}", self.operation)),
                ];
                (Method::POST, url, headers, body)
            }
        }
    }

    /// Returns the request, signed for a region and this time. The signature covers one more header, if there is one.
    pub(super) fn sign(
        &self,
        endpoint: Url,
        (region, time): (&str, SystemTime),
        credentials: Credentials,
        header: Option<(&'static str, String)>,
    ) -> Result<Request> {
        let (mut request, body) = self.unsigned(endpoint)?;
        if let Some((name, value)) = header {
            let value = value.parse().context("a header of the request")?;
            _ = request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let (service, settings) = (self.service.name(), SigningSettings::default());
        let signer = Signer { service, region, credentials, settings, time };
        signer.sign(&mut request, body.as_bytes())?;
        Ok(request)
    }

    /// Returns the request without a signature, and its body.
    fn unsigned(&self, endpoint: Url) -> Result<(Request, String)> {
        let (method, url, headers, body) = self.parts(endpoint);
        let mut request = Request::new(method, url);
        for (name, value) in headers {
            _ = request.headers_mut().insert(HeaderName::from_static(name), value.parse().context("a header")?);
        }
        *request.body_mut() = Some(body.clone().into());
        Ok((request, body))
    }

    /// Sends the call once.
    pub(super) async fn send(&self, caller: Caller<'_>) -> Result<Element, NotDone> {
        let Caller { network, clock, config, region, credentials } = caller;
        let (endpoint, region) = self.service.endpoint.find(region, config).map_err(Failure::Permanent)?;
        let now = clock.now();
        let request = match credentials {
            Some(credentials) => self.sign(endpoint, (&region, now), credentials, None),
            None => self.unsigned(endpoint).map(|(request, _)| request),
        };
        let request = request.map_err(|error| {
            Failure::Permanent(Fault::new("the request to AWS cannot be built; nothing was sent").caused_by(error))
        })?;
        let sent = Sender::new(network.clients.clone()).send_once(request, self, now).await;
        let response = sent.map_err(|error| error.in_region(&region))?;
        let body = text(response, |error| network.clients.explain(&error)).await?;
        let answer = match self.service.protocol {
            Protocol::Json(_) => Element::of_json(&body),
            _ => Element::of_xml(&body),
        };
        let unreadable =
            |error: anyhow::Error| Failure::transient(Fault::new("the answer can't be read").caused_by(error));
        Ok(answer.map_err(unreadable)?)
    }

    async fn attempt(&self, account: &Account) -> Result<Element, Failure> {
        let region = account.region().await?;
        let credentials = Some(account.credentials(&format!("allows {}", self.permission())).await?);
        let (network, clock, config) = (&*account.network, &*account.clock, account.config().await);
        match self.send(Caller { network, clock, config, region, credentials }).await {
            Ok(answer) => Ok(answer),
            Err(NotDone::Failed(failure)) => Err(failure),
            Err(NotDone::Refused(refusal)) => Err(account.refused(&refusal, self.refused(&refusal)).await),
        }
    }

    /// Makes the call, with attempts at this pace.
    ///
    /// # Errors
    /// A [`Refusal`] of the service is among the causes.
    pub(super) async fn run(&self, account: &Account, pace: &Pace) -> Result<Element, Fault> {
        account.network.attempts_at(pace).run(&self, || self.attempt(account)).await
    }

    /// Returns the name of the operation in IAM policies.
    fn action(&self) -> &str {
        // This program requests only one path.
        if self.service.protocol == Protocol::Rest { "ListHostedZonesByName" } else { &self.operation }
    }

    /// Returns the permission that it needs, such as `cloudwatch:DescribeAlarms`.
    fn permission(&self) -> String {
        let service = match self.service.name() {
            "monitoring" => "cloudwatch",
            name => name,
        };
        format!("{service}:{}", self.action())
    }

    fn refused(&self, refusal: &Refusal) -> Fault {
        let hint = match refusal.code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                Some(format!("allow {} in the caller's IAM policy", self.permission()))
            }
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" | "SignatureDoesNotMatch" => {
                Some("check the credentials, and this machine's clock".to_owned())
            }
            _ => None,
        };
        let fault = Fault::new(format!("{} refused {}", self.service.name(), self.action())).caused_by(refusal.clone());
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

/// `cloudformation DescribeStacks`
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service.name(), self.operation)
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
