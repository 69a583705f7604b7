//! Probes: one GET that shows how a service answers now.

use std::sync::Arc;

use super::Network;
use crate::{error::Fault, value::spoken};

/// The bytes of a probe's body that are read, so that the server can send a short one to its end.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The answer to a probe.
#[derive(Debug, Clone)]
pub struct ProbeAnswer {
    /// HTTP status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Sends one request, without redirects, proxies and retries. Reads at most 64 KiB of the body.
///
/// # Errors
/// If no answer comes in time. An error is as short as `connection refused`.
pub(crate) async fn probe(network: Arc<Network>, url: String) -> Result<ProbeAnswer, Fault> {
    let limit = network.settings.probe_timeout;
    let answer = tokio::time::timeout(limit, ask(&network, &url)).await;
    answer.unwrap_or_else(|_| Err(Fault::new(format!("no answer within {}", spoken(limit))).transient()))
}

async fn ask(network: &Network, url: &str) -> Result<ProbeAnswer, Fault> {
    let clients = &network.clients;
    let client = clients.local(url.starts_with("https:"))?;
    let sent = client.get(url).send().await;
    let mut response = sent.map_err(|error| Fault::new(clients.reason(&error)).transient())?;
    let status = response.status().as_u16();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    let mut read = 0;
    while read < MAX_BODY_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
    }
    Ok(ProbeAnswer { status, headers })
}
