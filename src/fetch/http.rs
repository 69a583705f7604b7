//! `https` and `http` sources.

use std::time::SystemTime;

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE, RETRY_AFTER},
};

use crate::{
    aws::s3::{Answer, Promise},
    error::Fault,
    net::{
        Network,
        range::Range,
        redirect,
        retry::{Failure, retry_after},
    },
};

/// Requests the bytes of a URL: all of them, or a part of the promised body.
pub(super) async fn get(network: &Network, url: &str, part: Option<(Range, &Promise)>) -> Result<Answer, Failure> {
    let response = request(network, Method::GET, url, part).await?;
    let headers = response.headers();
    match (response.status(), part) {
        (StatusCode::OK, _) => {
            let (total, etag) = (response.content_length(), strong_etag(headers));
            let promise = Promise { total, etag, ..Promise::default() };
            Ok(Answer::Whole(response, promise))
        }
        (StatusCode::PARTIAL_CONTENT, Some((range, promise))) => {
            let sent = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("none");
            let etag = strong_etag(headers);
            if !range.is_answered_by(sent, promise.total) {
                let asked = range.header();
                return Ok(Answer::Changed(Fault::new(format!(
                    "the server sent Content-Range {} for {asked}",
                    sent.escape_debug()
                ))));
            }
            if etag.is_some() && etag != promise.etag {
                return Ok(Answer::Changed(Fault::new("the server has other bytes now")));
            }
            Ok(Answer::Part(response))
        }
        (StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED, Some(_)) => {
            Ok(Answer::Changed(Fault::new("the server no longer has the bytes of the first part")))
        }
        _ => Err(refused(url, &response)),
    }
}

/// Requests the strong `ETag` of a URL.
pub(super) async fn etag(network: &Network, url: &str) -> Result<Option<String>, Failure> {
    let response = request(network, Method::HEAD, url, None).await?;
    match response.status() {
        StatusCode::OK => Ok(strong_etag(response.headers())),
        _ => Err(refused(url, &response)),
    }
}

async fn request(
    network: &Network,
    method: Method,
    url: &str,
    part: Option<(Range, &Promise)>,
) -> Result<Response, Failure> {
    let clients = &network.clients;
    let client = if part.is_some() { clients.parts() } else { clients.download() };
    let client = client.map_err(Failure::Permanent)?;
    let url = url.parse::<Url>().map_err(|error| Failure::Permanent(Fault::new(error.to_string())))?;
    let mut asked = vec![url.clone()];
    let mut next = url;
    loop {
        // The bytes as stored: a digest is of the file, and unpacking has no limit.
        let mut request = client.request(method.clone(), next).header(ACCEPT_ENCODING, "identity");
        if let Some((range, promise)) = part {
            request = request.header(RANGE, range.header());
            // If the bytes have changed, the server sends all of them with a 200: RFC 9110 section 13.1.5.
            request = request.header(IF_RANGE, promise.etag.as_deref().unwrap_or_default());
        }
        let response = request.send().await.map_err(|error| clients.explain(&error))?;
        match redirect::next(&asked, &response)? {
            None => return Ok(response),
            Some(url) => {
                asked.push(url.clone());
                next = url;
            }
        }
    }
}

/// Returns the failure that a status other than 200 means.
fn refused(url: &str, response: &Response) -> Failure {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("an unknown status");
    let host = |url: &Url| url.host_str().map(str::to_owned);
    let last = host(response.url()).filter(|last| url.parse().ok().and_then(|url| host(&url)).as_ref() != Some(last));
    let server = last.map_or_else(|| "the server".to_owned(), |last| format!("after a redirect, {last}"));
    let fault = Fault::new(format!("{server} answered {} {reason}", status.as_u16()));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {}
        status if status.is_server_error() => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Failure::Permanent(
                fault.hint("it is not public; the signature of a presigned URL may have expired"),
            );
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Failure::Permanent(fault.hint("check the URL: was this version published?"));
        }
        _ => return Failure::Permanent(fault),
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Failure::Transient(fault, after.and_then(|value| retry_after(value, SystemTime::now())))
}

/// Returns the `ETag` if it is a strong one. A weak one does not promise the same bytes: RFC 9110 section 8.8.3.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    (!etag.starts_with("W/")).then(|| etag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: reqwest::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_weak_etag_is_no_promise_of_the_same_bytes() {
        assert_eq!(strong_etag(&headers(ETAG, "\"a\"")).unwrap(), "\"a\"");
        assert_eq!(strong_etag(&headers(ETAG, "W/\"a\"")), None);
        assert_eq!(strong_etag(&HeaderMap::new()), None);
    }
}
