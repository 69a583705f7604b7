//! Requests that have a token instead of a signature, and whose answers are JSON.

use std::{fmt, time::SystemTime};

use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::{
    aws::{
        answer::text,
        refusal::{NotDone, Refusal},
        sender::Sender,
    },
    error::Fault,
    net::{Network, retry::Failure},
};

/// A request. Its headers and its body hold secrets, so it has no `Debug`.
pub(super) struct Exchange {
    /// The operation, for messages.
    pub(super) operation: &'static str,
    pub(super) url: Url,
    /// The header that holds a token or a proof.
    pub(super) header: Option<(&'static str, String)>,
    /// The body; without one, the request is a GET.
    pub(super) body: Option<Value>,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)
    }
}

impl Exchange {
    /// Sends the request, with the usual retries. The inner error is the service's refusal.
    ///
    /// # Errors
    /// If no answer comes, or one that cannot be read.
    pub(super) async fn send(&self, network: &Network) -> Result<Result<Value, Refusal>, Fault> {
        network.attempts().run(self, || self.attempt(network)).await
    }

    fn request(&self) -> Result<Request, Failure> {
        let method = if self.body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::new(method, self.url.clone());
        if let Some((name, value)) = &self.header {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Failure::Permanent(Fault::new("the token has characters that no header can have")))?;
            value.set_sensitive(true);
            _ = request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        if let Some(body) = &self.body {
            _ = request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }

    async fn attempt(&self, network: &Network) -> Result<Result<Value, Refusal>, Failure> {
        let sender = Sender::new(network.clients.clone());
        let refusal = match sender.send_once(self.request()?, self, SystemTime::now()).await {
            Ok(response) => {
                let body = text(response, |error| network.clients.explain(&error)).await?;
                // The words of a parser could quote a secret.
                let unreadable = |_| Failure::transient(Fault::new(format!("the answer to {self} is no JSON")));
                return serde_json::from_str(&body).map(Ok).map_err(unreadable);
            }
            Err(NotDone::Failed(failure)) => return Err(failure),
            Err(NotDone::Refused(refusal)) => refusal.of_login(),
        };
        if refusal.is_temporary() {
            let fault = Fault::new(format!("{self} was refused")).caused_by(refusal.clone());
            return Err(refusal.temporary(fault));
        }
        Ok(Err(refusal))
    }
}
