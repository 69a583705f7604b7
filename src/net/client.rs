//! The HTTP clients, each made at its first use, and the meaning of their errors.

use std::{
    error::Error,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, OnceLock},
    time::Duration,
};

use nix::errno::Errno;
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use rustls::{ClientConfig, RootCertStore};

use super::{
    proxy::proxies,
    redirect::is_link_local,
    retry::Failure,
    settings::NetworkSettings,
    tls,
    worker::{NoThread, blocking},
};
use crate::{error::Fault, value::spoken};

/// The files in PEM form that a TLS connection needs.
#[derive(Default)]
pub(crate) struct TlsMaterial {
    /// The certificates to trust instead of the machine's.
    pub(crate) ca: Option<Vec<u8>>,
    /// The certificate that the client shows.
    pub(crate) identity: Option<tls::Identity>,
}

/// The clients.
#[derive(Debug, Clone)]
pub(crate) struct Clients(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connect_timeout: Duration,
    probe_connect_timeout: Duration,
    stall_timeout: Duration,
    tls: OnceLock<ClientConfig>,
    download: OnceLock<Client>,
    parts: OnceLock<Client>,
    service: OnceLock<Client>,
    local: OnceLock<Client>,
    local_tls: OnceLock<Client>,
}

impl Clients {
    /// Returns clients that trust the machine's root certificates. Each is made at its first use.
    pub(crate) fn new(settings: &NetworkSettings) -> Self {
        Self::with(settings, OnceLock::new())
    }

    /// Returns clients that trust these root certificates alone.
    ///
    /// # Errors
    /// If TLS cannot be configured.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn trusting(settings: &NetworkSettings, roots: RootCertStore) -> Result<Self, Fault> {
        Ok(Self::with(settings, OnceLock::from(tls::config(Arc::new(roots))?)))
    }

    fn with(settings: &NetworkSettings, tls: OnceLock<ClientConfig>) -> Self {
        Self(Arc::new(Inner {
            connect_timeout: settings.connect_timeout,
            probe_connect_timeout: settings.probe_connect_timeout,
            stall_timeout: settings.stall_timeout,
            tls,
            download: OnceLock::new(),
            parts: OnceLock::new(),
            service: OnceLock::new(),
            local: OnceLock::new(),
            local_tls: OnceLock::new(),
        }))
    }

    /// Returns the client for downloads. It uses the proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`), and does
    /// not connect to a link-local address that a name resolves to.
    pub(crate) fn download(&self) -> Result<Client, Fault> {
        cached(&self.0.download, || self.public())
    }

    /// Returns the client for the parts of a large body. It speaks HTTP/1.1: HTTP/2 would send all parts on one
    /// connection.
    pub(crate) fn parts(&self) -> Result<Client, Fault> {
        cached(&self.0.parts, || Ok(self.public()?.http1_only()))
    }

    fn public(&self) -> Result<ClientBuilder, Fault> {
        Ok(self.builder(self.tls()?).redirect(Policy::none()).dns_resolver(self.resolver(true)))
    }

    /// Returns the client of the AWS SDK. It follows no redirects: a redirected request would have the wrong signature.
    pub(crate) fn service(&self) -> Result<Client, Fault> {
        cached(&self.0.service, || Ok(self.builder(self.tls()?).redirect(Policy::none())))
    }

    /// Returns a resolver that gives up after half of the connect timeout. So the error is about the name servers, not
    /// the server.
    fn resolver(&self, public: bool) -> Arc<SystemResolver> {
        Arc::new(SystemResolver { public, limit: self.0.connect_timeout / 2 })
    }

    /// Returns the client for the metadata service and for probes. It uses no proxies, and reads no certificates for
    /// `http`. Each request makes its own connection.
    pub(crate) fn local(&self, with_tls: bool) -> Result<Client, Fault> {
        cached(if with_tls { &self.0.local_tls } else { &self.0.local }, || {
            let config = if with_tls { self.tls()? } else { tls::config(Arc::new(RootCertStore::empty()))? };
            Ok(self.probing(config))
        })
    }

    /// Returns a client for probes of one URL that connects to these addresses, on the URL's port.
    ///
    /// # Errors
    /// If it is no URL with a host.
    pub(crate) fn local_at(&self, with_tls: bool, url: &str, addresses: &[SocketAddr]) -> Result<Client, Fault> {
        let url: reqwest::Url = url.parse().map_err(|error| Fault::new(format!("`{url}` is no URL: {error}")))?;
        let host = url.host_str().unwrap_or_default();
        let config = if with_tls { self.tls()? } else { tls::config(Arc::new(RootCertStore::empty()))? };
        cached(&OnceLock::new(), || Ok(self.probing(config).resolve_to_addrs(host, addresses)))
    }

    /// Returns a client for probes that trusts only the certificates of a PEM file.
    ///
    /// # Errors
    /// If the file has no certificate.
    pub(crate) fn local_trusting(&self, pem: &[u8]) -> Result<Client, Fault> {
        let config = tls::config(Arc::new(tls::roots_of(pem)?))?;
        cached(&OnceLock::new(), || Ok(self.probing(config)))
    }

    /// Returns a client for one service of the user's own network, which follows no redirects.
    ///
    /// # Errors
    /// If a file of `files` has no certificate or no key in PEM form.
    pub(crate) fn own_service(&self, files: &TlsMaterial, is_on_this_machine: bool) -> Result<Client, Fault> {
        let config = match (&files.ca, &files.identity) {
            (None, None) => self.tls()?,
            (ca, identity) => {
                let with = |pem: &Vec<u8>| tls::config_with(Arc::new(tls::roots_of(pem)?), identity.as_ref());
                ca.as_ref().map_or_else(|| tls::config_of_machine(identity.as_ref()), with)?
            }
        };
        cached(&OnceLock::new(), || {
            let builder = self.builder(config).redirect(Policy::none());
            Ok(if is_on_this_machine { builder.no_proxy() } else { builder })
        })
    }

    fn probing(&self, tls: ClientConfig) -> ClientBuilder {
        let builder = self.builder(tls).redirect(Policy::none()).no_proxy();
        builder.pool_max_idle_per_host(0).connect_timeout(self.0.probe_connect_timeout)
    }

    fn tls(&self) -> Result<ClientConfig, Fault> {
        if let Some(config) = self.0.tls.get() {
            return Ok(config.clone());
        }
        let config = tls::config_of_machine(None)?;
        Ok(self.0.tls.get_or_init(|| config).clone())
    }

    fn builder(&self, tls: ClientConfig) -> ClientBuilder {
        Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("glovo-bootstrap/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(self.resolver(false))
            // A URL's query may hold a signature, which must not be shown.
            .referer(false)
            .connect_timeout(self.0.connect_timeout)
            .read_timeout(self.0.stall_timeout)
    }

    /// Returns the failure that an error of a request or of a response's body means.
    pub(crate) fn explain(&self, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            return Failure::Permanent(Fault::new(root_cause(error)));
        }
        if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<NoThread>()) {
            return Failure::Permanent(error.fault());
        }
        let reason = self.reason(error);
        // The error's own host: a redirect may have led to another one, and S3 has one for each region.
        let host = error.url().and_then(reqwest::Url::host_str).unwrap_or("the server");
        if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref()) {
            return refused(host, error);
        }
        let proxy = error.url().filter(|_| error.is_connect()).and_then(|url| proxies().of(url.as_str()));
        if let Some(proxy) = proxy {
            // The reason would give the server's name for the proxy's.
            let reason = if error.is_dns() { root_cause(error) } else { reason };
            return Failure::transient(Fault::new(format!("connecting to the proxy {proxy}: {reason}")).hint(
                "check that the proxy answers; http_proxy, https_proxy or all_proxy in the environment names it; \
                 or add the host to no_proxy",
            ));
        }
        if error.is_connect() && error.url().is_some_and(|url| url.scheme() == "https") && has_ended(error) {
            return no_tls(host, "the server closed the connection");
        }
        Failure::transient(if error.is_dns() {
            Fault::new(reason).hint(format!(
                "check the host name, the name servers in /etc/resolv.conf ({}) and the VPC's DNS settings",
                crate::host::facts::name_servers()
            ))
        } else if error.is_connect() {
            Fault::new(format!("connecting to {host}: {reason}"))
                .hint("check security groups, network ACLs, routes and that the server runs")
        } else {
            Fault::new(reason)
        })
    }

    /// Returns an error in a few words: `connection refused`.
    pub(crate) fn reason(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return if error.is_connect() {
                "timed out".into()
            } else {
                format!("no bytes for {}", spoken(self.0.stall_timeout))
            };
        }
        if error.is_dns() {
            let host = error.url().and_then(reqwest::Url::host_str).unwrap_or_default();
            return format!("the name {host} can't be resolved: {}", root_cause(error));
        }
        match causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
            // The standard library's words for the kind are shorter than the system's for the number.
            Some(error) if let Some(number) = error.raw_os_error() => match error.kind().to_string() {
                kind if kind == "uncategorized error" => Errno::from_raw(number).desc().to_lowercase(),
                kind => kind,
            },
            _ => root_cause(error),
        }
    }
}

fn cached(cell: &OnceLock<Client>, build: impl FnOnce() -> Result<ClientBuilder, Fault>) -> Result<Client, Fault> {
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let client = build()?.build().map_err(|error| Fault::new("making an HTTP client").caused_by(error))?;
    Ok(cell.get_or_init(|| client).clone())
}

/// Returns an error and its causes, also the error inside an [`io::Error`], which [`Error::source`] skips.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// Returns the innermost cause. The outer ones only say that a request failed, and some contain the whole URL.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).skip(1).last().map_or_else(|| "the request failed".into(), ToString::to_string)
}

fn no_tls(host: &str, reason: &str) -> Failure {
    let fault = Fault::new(format!("TLS with {host} failed: {reason}"));
    Failure::transient(fault.hint("check that the server speaks TLS on this port (openssl s_client)"))
}

fn has_ended(error: &reqwest::Error) -> bool {
    let mut errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Returns the failure for a TLS error. It is temporary if a wrong clock may be the cause: NTP sets it after the boot.
fn refused(host: &str, error: &rustls::Error) -> Failure {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return no_tls(host, &error.to_string());
    };
    let (reason, may_pass) = tls::refusal(reason);
    let fault = Fault::new(format!("the certificate of {host} is not trusted: {reason}"));
    if may_pass {
        return Failure::transient(
            fault.hint("check this machine's clock (timedatectl); if it is right, the server needs a new certificate"),
        );
    }
    Failure::Permanent(fault.hint(
        "check this machine's root certificates (ca-certificates), and what the server presents (openssl s_client)",
    ))
}

/// The system's resolver. For downloads (`public`) it leaves out link-local addresses, to which a redirect could lead.
struct SystemResolver {
    public: bool,
    limit: Duration,
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { public, limit } = *self;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let look_up = blocking(move || (host.as_str(), 0).to_socket_addrs());
            let found = tokio::time::timeout(limit, look_up).await;
            let found = found.map_err(|_| format!("no answer within {}", spoken(limit)))???;
            let addresses: Vec<SocketAddr> = found.filter(|found| !public || !is_link_local(found.ip())).collect();
            if addresses.is_empty() {
                return Err(format!("{} has no address but link-local ones", name.as_str()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_for_the_metadata_service_has_no_address() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let names = SystemResolver { public: true, limit: Duration::from_secs(10) };
        let resolve = |name: &str| runtime.block_on(names.resolve(name.parse().unwrap()));
        // An address resolves to itself.
        assert!(resolve("169.254.169.254").is_err_and(|error| error.to_string().contains("link-local")));
        assert_eq!(resolve("192.0.2.1").unwrap().count(), 1);
    }
}
