//! The network: HTTP clients, TLS, redirects, proxies, and the one retry loop. Knows no AWS and no downloads.

pub mod client;
pub mod clock;
pub mod proxy;
pub mod redirect;
pub mod retry;
pub mod tls;
