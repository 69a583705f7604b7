//! Signals to CloudFormation, as cfn-signal sends them from an instance that has no role: the identity document, which
//! EC2 has signed, says who it is.
//!
//! The request is aws-cfn-bootstrap's: `cfn_client.py`, `CloudFormationClient.signal_resource`, a GET; and `aws_client.py`,
//! `CFNSigner.sign`, the header `Authorization: CFN_V1 base64(document):signature`. The signature, base64 itself, comes
//! without its line breaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER},
};

use super::{
    Origins,
    http::now,
    metadata::IDENTITY,
    retry::{Attempts, Budget, Failure, Pace, retry_after},
};
use crate::{
    error::Fault,
    signal::{Target, Verdict},
    system::System,
    value::spoken,
};

const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
/// The partition's domain: `amazonaws.com`, in China `amazonaws.com.cn`.
const DOMAIN: &str = "/latest/meta-data/services/domain";
/// Where CloudFormation is instead, as all SDKs read it.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_CLOUDFORMATION", "AWS_ENDPOINT_URL"];
/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// More attempts than fit into any patience; no other download competes with a signal for its retries.
const ATTEMPTS: u32 = 100;
/// More than any answer has.
const ANSWER: usize = 64 << 10;

/// What CloudFormation makes of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// It was taken, with this `UniqueId`.
    Taken(String),
    /// Nobody waits for it, or any more: CloudFormation's own words.
    NobodyWaits(String),
}

impl System {
    /// Tells CloudFormation what became of this instance's run; tries until it is acknowledged or patience is at its end.
    ///
    /// # Errors
    /// If it isn't acknowledged, or a signal ends the waiting.
    pub fn signal_resource(&self, target: &Target, verdict: &Verdict, patience: Duration) -> Result<Acknowledged> {
        let worker = self.fetcher.worker()?;
        let task = worker.run(tell(worker.origins(), target.clone(), verdict.clone(), patience));
        self.await_task(&task, || {}).with_context(|| format!("signalling {} to {target}", verdict.status()))
    }
}

async fn tell(
    origins: Arc<Origins>,
    target: Target,
    verdict: Verdict,
    patience: Duration,
) -> Result<Acknowledged, Fault> {
    let end = Instant::now() + patience;
    let (pace, budget) = (Pace { attempts: ATTEMPTS, ..origins.settings.pace.clone() }, Budget::default());
    let mut attempts = Attempts::new(&pace, &budget);
    loop {
        match send(&origins, &target, &verdict).await {
            Ok(acknowledged) => return Ok(acknowledged),
            Err(Failure::Transient(fault, _)) if Instant::now() >= end => {
                let gave_up = Fault::new(format!("not acknowledged within {}", spoken(patience)));
                return Err(gave_up.caused_by(fault).transient());
            }
            Err(failure) => attempts.after(&format!("the signal to {target}"), failure).await?,
        }
    }
}

async fn send(origins: &Origins, target: &Target, verdict: &Verdict) -> Result<Acknowledged, Failure> {
    let missing = |what| Failure::Permanent(Fault::new(format!("the instance metadata has no {what}")));
    let document = origins.metadata.get(IDENTITY).await?.ok_or_else(|| missing(IDENTITY))?;
    let signature = origins.metadata.get(SIGNATURE).await?.ok_or_else(|| missing(SIGNATURE))?;
    let identity: serde_json::Value = serde_json::from_str(&document)
        .map_err(|error| Failure::Permanent(Fault::new("the identity document is no JSON").caused_by(error)))?;
    let fact = |name| identity[name].as_str().ok_or_else(|| missing(name));
    let named = ENDPOINTS.iter().find_map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()));
    let endpoint = if let Some(endpoint) = named {
        endpoint
    } else {
        let domain = origins.metadata.get(DOMAIN).await?.ok_or_else(|| missing(DOMAIN))?;
        format!("https://cloudformation.{}.{domain}", fact("region")?)
    };
    let unique_id = verdict.unique_id(fact("instanceId")?);
    let query = [
        ("Action", "SignalResource"),
        ("ContentType", "JSON"),
        ("LogicalResourceId", &target.resource),
        ("StackName", &target.stack),
        ("Status", verdict.status()),
        ("UniqueId", &unique_id),
        ("Version", "2010-05-15"),
    ]
    .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)))
    .join("&");
    let signature: String = signature.split_whitespace().collect();
    let identity = format!("CFN_V1 {}:{signature}", BASE64_STANDARD.encode(document));
    let mut identity = HeaderValue::try_from(identity)
        .map_err(|_| Failure::Permanent(Fault::new("the identity document's signature is none")))?;
    identity.set_sensitive(true);
    let client = origins.clients.service().map_err(Failure::Permanent)?;
    let request = client.get(format!("{}/?{query}", endpoint.trim_end_matches('/')));
    let sent = request.header(AUTHORIZATION, identity).header(ACCEPT, "application/json").send().await;
    let response = sent.map_err(|error| origins.clients.explain(&error))?;
    match response.status() {
        status if status.is_success() => Ok(Acknowledged::Taken(unique_id)),
        status => refused(status, response).await,
    }
}

/// What an answer other than 200 means.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/CommonErrors.html>
async fn refused(status: StatusCode, mut response: Response) -> Result<Acknowledged, Failure> {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.into());
    let after = after.and_then(|value: &str| retry_after(value, now()));
    let mut body = vec![];
    while body.len() < ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend(chunk);
    }
    let (code, message) = reason(&String::from_utf8_lossy(&body));
    let words = [code.as_str(), message.as_str()].map(str::trim).join(": ");
    let fault = Fault::new(format!("CloudFormation answered {} {}", status.as_u16(), words.trim_matches([':', ' '])));
    let is_throttled = code.starts_with("Throttl") || code.starts_with("RequestLimit") || code.starts_with("TooMany");
    match status {
        _ if is_throttled => Err(Failure::Transient(fault, after)),
        // On a scale-out months later nobody waits: the stack is complete, or gone.
        StatusCode::BAD_REQUEST if code == "ValidationError" => Ok(Acknowledged::NobodyWaits(message)),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Transient(fault, after)),
        status if status.is_server_error() => Err(Failure::Transient(fault, after)),
        StatusCode::FORBIDDEN => Err(Failure::Permanent(fault.hint(
            "signals are sent with the instance's identity document, which only instances of the stack itself, or of its \
             group, are allowed to do: is --signal STACK/RESOURCE of another stack, account or region?",
        ))),
        _ => Err(Failure::Permanent(fault)),
    }
}

/// Code and message of an error, in JSON as asked for, or in XML as others answer.
fn reason(body: &str) -> (String, String) {
    if let Ok(answer) = serde_json::from_str::<serde_json::Value>(body) {
        let field = |name| answer["Error"][name].as_str().unwrap_or_default().to_owned();
        return (field("Code"), field("Message"));
    }
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split('<').next()?.to_owned())
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_from_json_and_xml() {
        let expected = ("ValidationError".to_owned(), "Stack x does not exist".to_owned());
        let json = r#"{"Error":{"Code":"ValidationError","Message":"Stack x does not exist","Type":"Sender"}}"#;
        let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code>\
                   <Message>Stack x does not exist</Message></Error></ErrorResponse>";
        assert_eq!((reason(json), reason(xml)), (expected.clone(), expected));
        assert_eq!(reason("<html>Bad Gateway"), Default::default());
    }
}
