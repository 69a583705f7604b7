//! Probes: one GET, or one connection, that shows whether a service answers now.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;

use super::{Network, tls};
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
    /// The first 64 KiB of the body. Bytes that are not UTF-8 are replacement characters.
    pub body: String,
}

/// What to ask for.
#[derive(Debug, Clone)]
pub struct ProbeRequest {
    /// The URL.
    pub url: String,
    /// The certificates to trust instead of the machine's, as a PEM file.
    pub ca: Option<Vec<u8>>,
    /// The host to connect to in place of the URL's. The request, and TLS, have the URL's.
    pub connect_to: Option<String>,
    /// A further header: name and value.
    pub header: Option<(&'static str, String)>,
}

impl ProbeRequest {
    /// Returns a request that trusts the machine's certificates.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca: None, connect_to: None, header: None }
    }

    /// Fails if `ca` has no certificate.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), Fault> {
        self.ca.as_ref().map_or(Ok(()), |pem| tls::roots_of(pem).map(drop))
    }
}

/// Sends one request, without redirects, proxies and retries. Reads at most 64 KiB of the body.
///
/// # Errors
/// If no answer comes within `limit`, or within the settings' limit. An error is as short as `connection refused`.
pub(crate) async fn probe(network: Arc<Network>, request: ProbeRequest, limit: Duration) -> Result<ProbeAnswer, Fault> {
    let limit = network.settings.probe_timeout.min(limit);
    let answer = tokio::time::timeout(limit, ask(&network, &request)).await;
    answer.unwrap_or_else(|_| Err(too_late("answer", limit)))
}

/// Connects once to a server, and sends nothing.
///
/// # Errors
/// If it accepts no connection within `limit`, or within the settings' limit. An error is as short as `connection refused`.
pub(crate) async fn connect(network: Arc<Network>, host: String, port: u16, limit: Duration) -> Result<(), Fault> {
    let limit = network.settings.probe_timeout.min(limit);
    let connected = async {
        let addresses: Vec<_> =
            addresses(&host).await?.into_iter().map(|address| (address.ip(), port).into()).collect();
        let connected = TcpStream::connect::<&[SocketAddr]>(&addresses).await;
        let connected = connected.and_then(|stream| Ok((stream.local_addr()?, stream.peer_addr()?)));
        match connected {
            // If nothing listens there, the kernel may choose the very port for this end, and connects it to itself.
            Ok((own, peer)) if own == peer => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| Fault::new(error.kind().to_string()).transient())
    };
    tokio::time::timeout(limit, connected).await.unwrap_or_else(|_| Err(too_late("connection", limit)))
}

/// Returns the addresses of a host, with port 0.
async fn addresses(host: &str) -> Result<Vec<SocketAddr>, Fault> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(Fault::new(format!("the name {host} can't be resolved: {error}")).transient()),
    }
}

fn too_late(what: &str, limit: Duration) -> Fault {
    Fault::new(format!("no {what} within {}", spoken(limit))).transient()
}

async fn ask(network: &Network, request: &ProbeRequest) -> Result<ProbeAnswer, Fault> {
    let clients = &network.clients;
    let with_tls = request.url.starts_with("https:");
    let client = match (&request.ca, &request.connect_to) {
        (Some(pem), _) => clients.local_trusting(pem)?,
        (None, Some(host)) => clients.local_at(with_tls, &request.url, &addresses(host).await?)?,
        (None, None) => clients.local(with_tls)?,
    };
    let mut get = client.get(&request.url);
    if let Some((name, value)) = &request.header {
        get = get.header(*name, value);
    }
    let sent = get.send().await;
    let mut response = sent.map_err(|error| Fault::new(clients.reason(&error)).transient())?;
    let status = response.status().as_u16();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    let mut body = vec![];
    while body.len() < MAX_BODY_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
    }
    Ok(ProbeAnswer { status, headers, body: text(&body) })
}
