//! The proxies that the environment names: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in capitals too.
//! Downloads go through them by themselves; a package manager is told about them.

use std::{fmt, sync::LazyLock};

use hyper_util::client::proxy::matcher::Matcher;

use crate::environment;

/// The proxies of the environment. They may hold passwords, so the type has no `Debug`.
pub struct Proxies {
    matcher: Matcher,
    http: Option<String>,
    https: Option<String>,
    no: String,
}

/// The proxies of this process.
static PROXIES: LazyLock<Proxies> = LazyLock::new(|| Proxies::new(environment::even_empty));

/// Returns the proxies of this process's environment.
pub fn proxies() -> &'static Proxies {
    &PROXIES
}

impl Proxies {
    /// Reads the variables like reqwest and curl(1).
    fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |name: &str| variable(&name.to_ascii_uppercase()).or_else(|| variable(name));
        let proxy = |name| {
            let value = first(name).filter(|value| !value.is_empty()).or_else(|| first(environment::ALL_PROXY))?;
            let value = if value.contains("://") { value } else { format!("http://{value}") };
            Some(value).filter(|value| !value.ends_with("://"))
        };
        // In a CGI program, a client can set `HTTP_PROXY` by the request header `Proxy`.
        let is_cgi = variable(environment::REQUEST_METHOD).is_some();
        let (http, https) =
            if is_cgi { (None, None) } else { (proxy(environment::HTTP_PROXY), proxy(environment::HTTPS_PROXY)) };
        let no = first(environment::NO_PROXY).unwrap_or_default();
        let matcher = Matcher::builder().http(http.clone().unwrap_or_default());
        let matcher = matcher.https(https.clone().unwrap_or_default()).no(no.clone()).build();
        Self { matcher, http, https, no }
    }

    /// Returns the proxy for a URL, without its password.
    pub fn of(&self, url: &str) -> Option<String> {
        let proxy = self.matcher.intercept(&url.parse().ok()?)?;
        let (scheme, authority) = (proxy.uri().scheme_str()?, proxy.uri().authority()?);
        Some(format!("{scheme}://{authority}"))
    }

    /// Returns the proxy that a line names, without its password.
    pub fn named_in(&self, line: &str) -> Option<String> {
        let mut proxies =
            ["http://proxied.invalid/", "https://proxied.invalid/"].into_iter().filter_map(|url| self.of(url));
        proxies.find(|proxy| proxy.split_once("://").is_some_and(|(_, authority)| line.contains(host(authority))))
    }

    /// Returns the proxy of http URLs, with its password.
    pub fn http(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// Returns the proxy of https URLs, with its password.
    pub fn https(&self) -> Option<&str> {
        self.https.as_deref()
    }

    /// Returns the hosts and domains that `no_proxy` names; `*` stands for all.
    pub fn exceptions(&self) -> Vec<&str> {
        self.no.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect()
    }
}

/// Returns the host of `host:port`.
fn host(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Proxies::new(variable)
    }

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let proxies = proxies(&[
            ("http_proxy", "http://user:secret@proxy.test:3128/"),
            ("HTTPS_PROXY", "secure.test:8080"),
            ("no_proxy", "s3.test, .corp"),
        ]);
        for (url, proxy) in [
            ("http://origin.test/x", Some("http://proxy.test:3128")),
            ("https://origin.test/x", Some("http://secure.test:8080")),
            ("http://s3.test/x", None),
            ("http://bucket.s3.test/x", None),
            ("http://a.corp/x", None),
        ] {
            assert_eq!(proxies.of(url).as_deref(), proxy, "{url}");
        }
        assert_eq!(format!("{proxies:?}"), "Proxies { .. }");
    }

    #[test]
    fn proxies_are_read_as_curl_reads_them() {
        let given = |variables: &[(&str, &str)]| {
            let proxies = proxies(variables);
            [proxies.http(), proxies.https()].map(|proxy| proxy.map(str::to_owned))
        };
        let both = |http: &str, https: &str| [http, https].map(|proxy| Some(proxy.to_owned()));
        assert_eq!(given(&[]), [None, None]);
        let all = ("all_proxy", "http://p:1");
        assert_eq!(given(&[all]), both("http://p:1", "http://p:1"));
        assert_eq!(given(&[all, ("https_proxy", "q:2")]), both("http://p:1", "http://q:2"));
        assert_eq!(given(&[("HTTP_PROXY", "http://p:1"), ("REQUEST_METHOD", "GET")]), [None, None]);
        assert_eq!(given(&[("http_proxy", ""), ("https_proxy", "")]), [None, None]);
        assert_eq!(proxies(&[all, ("NO_PROXY", "a.test, .b.test,")]).exceptions(), ["a.test", ".b.test"]);
    }
}
