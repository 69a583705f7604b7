//! A signed request that proves the identity of its caller to another service, such as Vault. That service sends it to STS.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>

use std::collections::BTreeMap;

use anyhow::Result;
use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};

use super::{account::Account, partition::Partition, query::Call, service::STS};
use crate::{error::Fault, net::retry::Failure};

/// The host that STS has for all regions, and the region that its signatures name.
const GLOBAL: (&str, &str) = ("sts.amazonaws.com", "us-east-1");

/// A signed request of `GetCallerIdentity`. It has no `Debug`: its holder can prove this identity for 15 minutes.
pub(crate) struct IdentityProof {
    pub(crate) url: String,
    /// The headers, with the signature; without the host, which the URL has.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Returns the signed request, which is sent by POST. It is for the STS of a region; without one, for the global STS.
///
/// The signature covers `header`. So a service that requires its own name there refuses the proof for another service.
/// `need` is that of [`Account::credentials`].
///
/// # Errors
/// If the account has no credentials.
pub(crate) async fn identity_proof(
    account: &Account,
    need: &str,
    region: Option<&str>,
    header: Option<(&'static str, String)>,
) -> Result<IdentityProof, Failure> {
    let credentials = account.credentials(need).await?;
    let (host, region) = match region {
        Some(region) => (format!("sts.{region}.{}", Partition::of(region).dns_suffix), region),
        None => (GLOBAL.0.to_owned(), GLOBAL.1),
    };
    let failed = |error: anyhow::Error| {
        Failure::Permanent(Fault::new("the request that proves the AWS identity cannot be built").caused_by(error))
    };
    let url: Url = format!("https://{host}/").parse().map_err(|error| failed(anyhow::Error::new(error)))?;
    let call = Call::new(&STS, "GetCallerIdentity");
    let request = call.sign(url, (region, account.clock.now()), credentials, header).map_err(failed)?;
    let header = |(name, value): (&HeaderName, &HeaderValue)| Ok((name.to_string(), value.to_str()?.to_owned()));
    let headers = request.headers().iter().map(header).collect::<Result<_>>().map_err(failed)?;
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    Ok(IdentityProof { url: request.url().to_string(), headers, body: String::from_utf8_lossy(body).into_owned() })
}
