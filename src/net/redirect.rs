//! The rules for following redirects.

use std::net::{IpAddr, Ipv6Addr};

use reqwest::{Response, Url, header::LOCATION};

use super::retry::Failure;
use crate::error::Fault;

/// The most redirects of one request. A longer chain is taken for a loop.
const MAX_REDIRECTS: usize = 10;
/// The metadata service's address in IPv6, of a private and not the link-local range.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns the target of a redirect; `None` if the response is not one. `previous` are the URLs that were requested,
/// the last one with this response.
///
/// The HTTP client does not follow redirects itself: its errors would name the first host, whichever one failed.
///
/// # Errors
/// If the origin must not redirect there.
pub(crate) fn next(previous: &[Url], response: &Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let location = location.to_str().ok().and_then(|location| response.url().join(location).ok());
    let reason = match location {
        None => "the server redirects to something that is not a URL".to_owned(),
        Some(mut url) => match refusal(previous, &url) {
            Some(reason) => reason,
            // The client would send a name and password that the origin made up.
            None if url.set_username("").and_then(|()| url.set_password(None)).is_ok() => return Ok(Some(url)),
            None => "the server redirects to a URL without a server".to_owned(),
        },
    };
    Err(Failure::Permanent(Fault::new(reason).hint("declare the URL that it leads to, if it is right")))
}

/// Returns the reason why a redirect is not followed; `None` if it may be.
fn refusal(previous: &[Url], next: &Url) -> Option<String> {
    if previous.len() > MAX_REDIRECTS {
        return Some(format!("more than {MAX_REDIRECTS} redirects"));
    }
    if !matches!(next.scheme(), "https" | "http") {
        return Some(format!("refusing the redirect to {}", next.scheme()));
    }
    // An attacker on the way could answer a plaintext request in place of the origin.
    if next.scheme() != "https" && previous.last().is_some_and(|url| url.scheme() == "https") {
        return Some(format!("refusing the redirect from https to {}", next.scheme()));
    }
    let host = next.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    // Otherwise an origin could make this program download the instance's credentials into a file.
    if address.is_ok_and(is_link_local) {
        return Some(format!("refusing the redirect to the link-local address {host}"));
    }
    None
}

/// Returns whether an address is link-local, like that of the instance metadata service.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address == METADATA_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(previous: &str, next: &str) -> Option<String> {
        refusal(&[previous.parse().unwrap()], &next.parse().unwrap())
    }

    #[test]
    fn a_redirect_to_plaintext_is_refused_and_one_to_tls_is_not() {
        assert_eq!(refused("https://a/x", "http://a/x").unwrap(), "refusing the redirect from https to http");
        assert_eq!(refused("http://a/x", "https://b/x"), None);
        assert_eq!(refused("http://a/x", "http://b/x"), None);
        assert_eq!(refused("http://a/x", "ftp://b/x").unwrap(), "refusing the redirect to ftp");
    }

    #[test]
    fn every_step_of_a_redirect_is_compared_with_the_one_before() {
        let urls = ["http://a/x", "https://b/x", "http://c/x"].map(|url| url.parse::<Url>().unwrap());
        assert_eq!(refusal(&urls[..2], &urls[2]).unwrap(), "refusing the redirect from https to http");
        assert_eq!(refusal(&urls[..1], &urls[1]), None);
    }

    #[test]
    fn a_redirect_to_the_metadata_service_is_refused_however_it_is_written() {
        for host in ["169.254.169.254", "2852039166", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"] {
            let reason = refused("http://a/", &format!("http://{host}/latest/meta-data/"));
            assert!(reason.is_some_and(|reason| reason.contains("link-local")), "{host}");
        }
    }

    #[test]
    fn ten_redirects_are_followed() {
        let url: Url = "http://a/".parse().unwrap();
        assert_eq!(refusal(&vec![url.clone(); 10], &url), None);
        assert_eq!(refusal(&vec![url.clone(); 11], &url).unwrap(), "more than 10 redirects");
    }
}
