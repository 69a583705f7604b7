//! Signals to CloudFormation, sent as cfn-signal does on an instance without a role. The identity document, which EC2
//! has signed, identifies the instance.
//!
//! The request is aws-cfn-bootstrap's: `cfn_client.py`, `CloudFormationClient.signal_resource`, a GET; and `aws_client.py`,
//! `CFNSigner.sign`, the header `Authorization: CFN_V1 base64(document):signature`. The signature, base64 itself, comes
//! without its line breaks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::utf8_percent_encode;
use reqwest::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue},
};

use super::verdict::{SignalTarget, Verdict};
use crate::{
    aws::{
        Aws,
        account::Account,
        answer::text,
        metadata::{IDENTITY_DOCUMENT, IdentityDocument},
        query::RESERVED,
        refusal::Refusal,
    },
    environment,
    error::Fault,
    host::Host,
    net::retry::{Attempts, Budget, Failure, Limit, Pace},
};

const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
/// The partition's domain: `amazonaws.com`, in China `amazonaws.com.cn`.
const DOMAIN: &str = "/latest/meta-data/services/domain";

/// CloudFormation's answer to a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// CloudFormation accepted it, with this `UniqueId`.
    Taken(String),
    /// No resource waits for it, or no longer: CloudFormation's own words.
    NotAwaited(String),
}

/// Sends the outcome of this instance's run to CloudFormation. Retries until acknowledged or `patience` is over.
///
/// # Errors
/// If it is not acknowledged, or this process receives a signal.
pub fn signal_resource(
    aws: &Aws,
    host: &Host,
    target: &SignalTarget,
    verdict: &Verdict,
    patience: Duration,
) -> Result<Acknowledged> {
    let context = format!("signalling {} to {target}", verdict.status());
    let (target, verdict) = (target.clone(), verdict.clone());
    let tell = |account: Arc<Account>| async move {
        // No other request competes with a signal for its retries.
        let (pace, budget) =
            (Pace { limit: Limit::Patience(patience), ..account.network.settings.pace.clone() }, Budget::default());
        let attempt = || send(&account, &target, &verdict);
        Attempts::new(&pace, &budget).run(&format!("the signal to {target}"), attempt).await
    };
    aws.run(host, tell).context(context)
}

async fn send(account: &Account, target: &SignalTarget, verdict: &Verdict) -> Result<Acknowledged, Failure> {
    let missing = |what| {
        Failure::Permanent(Fault::new(format!("the signal needs {what}, which the metadata service does not have")))
    };
    let document = account.metadata.get(IDENTITY_DOCUMENT).await?.ok_or_else(|| missing(IDENTITY_DOCUMENT))?;
    let signature = account.metadata.get(SIGNATURE).await?.ok_or_else(|| missing(SIGNATURE))?;
    let identity = IdentityDocument::read(&document)?;
    let named = environment::endpoint_of("CLOUDFORMATION").or_else(|| environment::value(environment::ENDPOINT_URL));
    let endpoint = if let Some(endpoint) = named {
        endpoint
    } else {
        let domain = account.metadata.get(DOMAIN).await?.ok_or_else(|| missing(DOMAIN))?;
        format!("https://cloudformation.{}.{domain}", identity.fact("region")?)
    };
    let unique_id = verdict.unique_id(identity.fact("instanceId")?);
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
        .map_err(|_| Failure::Permanent(Fault::new("the identity document's signature is invalid")))?;
    identity.set_sensitive(true);
    let client = account.network.clients.service().map_err(Failure::Permanent)?;
    let request = client.get(format!("{}/?{query}", endpoint.trim_end_matches('/')));
    let sent = request.header(AUTHORIZATION, identity).header(ACCEPT, "application/json").send().await;
    let response = sent.map_err(|error| account.network.clients.explain(&error))?;
    match response.status() {
        status if status.is_success() => Ok(Acknowledged::Taken(unique_id)),
        status => {
            let headers = response.headers().clone();
            let body = text(response, |error| account.network.clients.explain(&error)).await.unwrap_or_default();
            refused(status, &headers, &body)
        }
    }
}

/// Returns the meaning of an answer other than 200.
fn refused(status: StatusCode, headers: &HeaderMap, body: &str) -> Result<Acknowledged, Failure> {
    let refusal = Refusal::read(status.as_u16(), headers, body, SystemTime::now());
    // At a scale-out months later, no resource waits: the stack is complete or deleted.
    if status == StatusCode::BAD_REQUEST && refusal.code == "ValidationError" {
        return Ok(Acknowledged::NotAwaited(refusal.message));
    }
    let fault = Fault::new(format!("CloudFormation did not accept the signal: {refusal}"));
    Err(match status {
        _ if refusal.is_temporary() => refusal.temporary(fault),
        StatusCode::FORBIDDEN => Failure::Permanent(
            fault
                .hint("check STACK/RESOURCE: an instance may signal only its own stack, in its own account and region"),
        ),
        _ => Failure::Permanent(fault),
    })
}
