//! Calls of AWS services beside S3: CloudFormation, EC2 and their like, signed by the SDK's own signer with the SDK's
//! own chain of credentials.
//!
//! Most of them speak one protocol, the query protocol: a form out, XML back. A crate of the SDK for each would make
//! the binary many times as large (that of EC2 alone knows over seven hundred calls, of which a deploy needs six).
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use aws_config::{Region, SdkConfig};
use aws_credential_types::{Credentials, provider::ProvideCredentials};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Request, Url, header::HeaderName};

pub use super::answer::{Element, Refusal};
pub(crate) use super::answer::{MAX_ANSWER_BYTES, text};
use super::sdk::Sender;
use crate::{
    environment,
    error::Fault,
    fetch::{Origins, http::now},
    net::retry::{Failure, retry_after},
    system::System,
};

/// What is encoded in a signed path or query: all but the unreserved characters of RFC 3986.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// So long before they expire credentials are fetched anew.
const MARGIN: Duration = Duration::from_mins(5);
/// Codes of refusals that a pause helps against, as the SDKs have them.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>
pub(crate) const THROTTLED: [&str; 9] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "PriorRequestNotComplete",
    "SlowDown",
];

/// A service of AWS.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// What its host names begin with; also what it is called in errors.
    name: &'static str,
    /// What a signature is for.
    signed_as: &'static str,
    /// Its name in `AWS_ENDPOINT_URL_…`.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>
    variable: &'static str,
    protocol: Protocol,
}

#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    /// A form out, XML back; with the version of the API.
    Query(&'static str),
    /// GET of a path with a query, XML back. The one such service is the same in all regions.
    Rest,
    /// JSON 1.1, with the prefix of its operations' names.
    Json(&'static str),
}

/// Stacks.
pub const CLOUDFORMATION: Service = query("cloudformation", "cloudformation", "CLOUDFORMATION", "2010-05-15");
/// Auto Scaling groups.
pub const AUTO_SCALING: Service = query("autoscaling", "autoscaling", "AUTO_SCALING", "2011-01-01");
/// Application load balancers.
pub const BALANCING: Service =
    query("elasticloadbalancing", "elasticloadbalancing", "ELASTIC_LOAD_BALANCING_V2", "2015-12-01");
/// Machines, images, networks.
pub const EC2: Service = query("ec2", "ec2", "EC2", "2016-11-15");
/// Who asks.
pub const STS: Service = query("sts", "sts", "STS", "2011-06-15");
/// Hosted zones.
pub const ROUTE_53: Service =
    Service { name: "route53", signed_as: "route53", variable: "ROUTE_53", protocol: Protocol::Rest };
/// Certificates.
pub const ACM: Service =
    Service { name: "acm", signed_as: "acm", variable: "ACM", protocol: Protocol::Json("CertificateManager.") };

/// How much of what an account may have.
pub const QUOTAS: Service = Service {
    name: "servicequotas",
    signed_as: "servicequotas",
    variable: "SERVICE_QUOTAS",
    protocol: Protocol::Json("ServiceQuotasV20190624."),
};

const fn query(name: &'static str, signed_as: &'static str, variable: &'static str, version: &'static str) -> Service {
    Service { name, signed_as, variable, protocol: Protocol::Query(version) }
}

/// A call that is to be made.
#[derive(Debug, Clone)]
pub struct Call {
    service: &'static Service,
    /// The operation's name; of a REST service the path.
    operation: String,
    parameters: Vec<(String, String)>,
}

impl Call {
    /// An operation without parameters; of Route 53 a path.
    pub fn new(service: &'static Service, operation: impl Into<String>) -> Self {
        Self { service, operation: operation.into(), parameters: vec![] }
    }

    /// With a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// With a list: `name.1`, `name.2` ….
    #[must_use]
    pub fn with_list<T: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let numbered = values.into_iter().zip(1..).map(|(value, n)| (format!("{name}.{n}"), value.into()));
        self.parameters.extend(numbered);
        self
    }
}

/// Who asks, and where: loaded with the first call.
#[derive(Debug)]
pub(crate) struct Account {
    config: SdkConfig,
    credentials: Mutex<Option<Credentials>>,
}

impl Account {
    async fn of(origins: &Origins) -> &Self {
        let load = async || Self { config: super::s3::configuration(origins).await, credentials: Mutex::default() };
        origins.account.get_or_init(load).await
    }

    async fn credentials(&self, origins: &Origins) -> Result<Credentials, Failure> {
        let held = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(held) = held
            && held.expiry().is_none_or(|expiry| expiry > SystemTime::now() + MARGIN)
        {
            return Ok(held);
        }
        let profile = origins.settings.profile.as_deref();
        let hint = match profile {
            Some(profile) => {
                format!("see ~/.aws/config and ~/.aws/credentials; aws configure --profile {profile} writes them")
            }
            None => "give them in the environment (AWS_ACCESS_KEY_ID …), by aws configure, aws sso login, or --profile"
                .into(),
        };
        let missing = || Fault::new("there are no AWS credentials").hint(hint.clone());
        let provider = self.config.credentials_provider().ok_or_else(|| Failure::Permanent(missing()))?;
        let fresh =
            provider.provide_credentials().await.map_err(|error| Failure::Permanent(missing().caused_by(error)))?;
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh.clone());
        Ok(fresh)
    }

    fn region(&self) -> Result<&Region, Fault> {
        let hint = "--region REGION, AWS_REGION, or `region` in ~/.aws/config";
        // The SDK takes an empty AWS_REGION for the name of one.
        let chosen = self.config.region().filter(|region| !region.as_ref().is_empty());
        chosen.ok_or_else(|| Fault::new("no AWS region is chosen").hint(hint).invalid())
    }

    /// Where a service is, and which region a signature for it names.
    fn endpoint(&self, service: &Service) -> Result<(Url, String), Fault> {
        let region = self.region()?.as_ref();
        let named = environment::endpoint_of(service.variable);
        let named = named.or_else(|| self.config.endpoint_url().map(str::to_owned));
        let domain = dns_suffix(region);
        // Route 53 is one for all regions of a partition, and signed for its first.
        let (host, signed_for) = match (&service.protocol, domain) {
            (Protocol::Rest, "amazonaws.com.cn") => (format!("route53.{domain}"), "cn-northwest-1"),
            (Protocol::Rest, _) if region.starts_with("us-gov-") => {
                ("route53.us-gov.amazonaws.com".into(), "us-gov-west-1")
            }
            (Protocol::Rest, _) => (format!("route53.{domain}"), "us-east-1"),
            _ => (format!("{}.{region}.{domain}", service.name), region),
        };
        let url = named.unwrap_or_else(|| format!("https://{host}"));
        let url =
            url.parse().map_err(|error| Fault::new(format!("the endpoint {url} is no URL: {error}")).invalid())?;
        Ok((url, signed_for.to_owned()))
    }
}

/// The domain of a region's services.
/// <https://docs.aws.amazon.com/general/latest/gr/rande.html>
pub fn dns_suffix(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

impl Call {
    /// The URL, the headers and the body of its request.
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
            .name(self.service.signed_as)
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

    async fn attempt(&self, origins: &Origins) -> Result<Element, Failure> {
        let account = Account::of(origins).await;
        let (endpoint, region) = account.endpoint(self.service).map_err(Failure::Permanent)?;
        let credentials = account.credentials(origins).await?;
        let request = self.sign(endpoint, &region, credentials);
        let request =
            request.map_err(|error| Failure::Permanent(Fault::new("the request can't be made").caused_by(error)))?;
        let client = Sender::new(origins.clients.clone()).client(request.url());
        let client = client.map_err(|error| Failure::Permanent(Fault::new("no client").caused_by(error)))?;
        let explain = |error: reqwest::Error| origins.clients.explain(&error);
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
        // The status alone is an answer.
        let body = body.unwrap_or_default();
        let refusal = Refusal::read(status.as_u16(), &headers, &body);
        let expired = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"].contains(&refusal.code.as_str());
        let is_throttled = THROTTLED.contains(&refusal.code.as_str());
        let fault = self.refused(refusal);
        Err(if expired {
            *account.credentials.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Failure::Unsigned(fault)
        } else if is_throttled || status.is_server_error() || status.as_u16() == 429 {
            let after = headers.get("retry-after").and_then(|value| retry_after(value.to_str().ok()?, now()));
            Failure::Transient(fault, after)
        } else {
            Failure::Permanent(fault)
        })
    }

    /// What a policy calls it.
    fn action(&self) -> &str {
        // The one path that is asked for.
        if self.service.protocol == Protocol::Rest { "ListHostedZonesByName" } else { &self.operation }
    }

    fn refused(&self, refusal: Refusal) -> Fault {
        let hint = match refusal.code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                Some(format!("allow {}:{} in the policy of who asks", self.service.name, self.action()))
            }
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" | "SignatureDoesNotMatch" => {
                Some("check the credentials, and this machine's clock".to_owned())
            }
            _ => None,
        };
        let fault = Fault::new(format!("{} refused {}", self.service.name, self.action())).caused_by(refusal);
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

async fn call(origins: Arc<Origins>, call: Call) -> Result<Element, Fault> {
    let what = format!("{} {}", call.service.name, call.operation);
    origins.attempts().run(&what, || call.attempt(&origins)).await
}

impl System {
    /// Makes a call of an AWS service, with the retries that every request has; none begins after an interruption.
    ///
    /// # Errors
    /// What the service says no with is a [`Refusal`] in the error's chain.
    pub fn aws(&self, call_: Call) -> Result<Element> {
        self.host.stop.check()?;
        let worker = self.fetcher.worker()?;
        let what = format!("{} {}", call_.service.name, call_.operation);
        self.await_task(&worker.run(call(worker.origins(), call_)), || {}).with_context(|| format!("asking for {what}"))
    }

    /// The region that calls go to.
    pub fn aws_region(&self) -> Result<String> {
        let worker = self.fetcher.worker()?;
        let origins = worker.origins();
        let region = async move { Account::of(&origins).await.region().map(ToString::to_string) };
        self.await_task(&worker.run(region), || {})
    }

    /// Sends AWS calls to this region, whatever environment and profile say.
    pub fn use_region(&mut self, name: String) {
        self.fetcher.settings.region = Some(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
