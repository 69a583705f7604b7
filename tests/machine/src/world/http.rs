//! One HTTP server for all hosts: it selects the host by address and `Host`, injects faults, and records each request.

use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use s3s::service::S3Service;
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;

use super::fault::Fault;
use super::{METADATA, Request, State, files, imds, relay};

pub(super) type Answer = Response<Full<Bytes>>;

/// An answer with this status and body.
pub(super) fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status.try_into().expect("a status");
    answer
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) state: Arc<State>,
    pub(super) s3: S3Service,
}

impl Server {
    pub(super) async fn listen(&self, address: Ipv4Addr, port: u16, tls: Option<TlsAcceptor>) -> Result<()> {
        let listener = TcpListener::bind((address, port)).await.with_context(|| format!("{address}:{port}"))?;
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (server.clone(), tls.clone());
                // The client reports a failed handshake or a broken connection.
                tokio::spawn(async move {
                    match tls {
                        None => server.converse(address, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.converse(address, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(())
    }

    async fn converse<S>(&self, address: Ipv4Addr, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let service = service_fn(|request| self.serve(address, request));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    /// Answers one request; an error ends the connection.
    async fn serve(&self, address: Ipv4Addr, request: hyper::Request<Incoming>) -> Result<Response<Cut>> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut note = Request {
            method: request.method().to_string(),
            host: header(header::HOST).split(':').next().unwrap_or_default().to_ascii_lowercase(),
            path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            status: 0,
            agent: header(header::USER_AGENT).to_owned(),
        };
        let fault = self.state.faults.next(&note.line());
        if let Some(Fault::Delay(delay)) = fault {
            sleep(delay).await;
        }
        let answer = match &fault {
            Some(Fault::Drop | Fault::ResponseCode(_)) => Err(anyhow::anyhow!("dropped")),
            Some(Fault::Answer { status, headers, body }) => {
                let mut answer = answer(*status, body.clone());
                for (name, value) in headers {
                    answer.headers_mut().insert(*name, value.parse()?);
                }
                Ok(answer)
            }
            _ => self.route(address, &note.host, request).await,
        };
        note.status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        self.state.note(note);
        Ok(Cut::answer(answer?, fault.as_ref()).await)
    }

    async fn route(&self, address: Ipv4Addr, host: &str, request: hyper::Request<Incoming>) -> Result<Answer> {
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
        if address == METADATA {
            return Ok(imds::answer(&self.state, &request, &path));
        }
        if !host.ends_with(".amazonaws.com") {
            return Ok(files::get(&self.state, request.method(), request.headers(), host, &path));
        }
        let emulator = *self.state.emulator.lock().unwrap();
        if let (Some(port), true) = (emulator, relay::SERVICES.iter().any(|service| host.starts_with(service))) {
            return relay::relay(port, request).await;
        }
        let answer =
            hyper::service::Service::call(&self.s3, request).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    }
}

/// A body that may break off before the length its head has promised.
pub(super) struct Cut {
    bytes: Option<Bytes>,
    missing: u64,
    /// What is silent before it breaks off: long for a stall; never zero, so that the bytes before are sent.
    silence: Pin<Box<Sleep>>,
}

impl Cut {
    async fn answer(answer: Answer, fault: Option<&Fault>) -> Response<Cut> {
        let (head, body) = answer.into_parts();
        let Ok(body) = body.collect().await;
        let mut bytes = body.to_bytes();
        let promised = bytes.len();
        let mut silence = Duration::from_millis(50);
        match fault {
            Some(Fault::Truncate(length)) => bytes.truncate(*length),
            Some(Fault::Stall(length)) => {
                bytes.truncate(*length);
                silence = Duration::from_secs(3600);
            }
            Some(Fault::Corrupt) => {
                let mut flipped = bytes.to_vec();
                if let Some(byte) = flipped.last_mut() {
                    *byte ^= 1;
                }
                bytes = flipped.into();
            }
            _ => {}
        }
        let missing = (promised - bytes.len()) as u64;
        Response::from_parts(head, Cut { bytes: Some(bytes), missing, silence: Box::pin(sleep(silence)) })
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let cut = self.get_mut();
        if let Some(bytes) = cut.bytes.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if cut.missing == 0 {
            return Poll::Ready(None);
        }
        cut.silence.as_mut().poll(context).map(|()| Some(Err(std::io::Error::other("cut"))))
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.bytes.as_ref().map_or(0, Bytes::len) as u64;
        SizeHint::with_exact(left + self.missing)
    }
}

/// The certificate that the base's trust store vouches for.
pub(super) fn tls(dir: &Path) -> Result<TlsAcceptor> {
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
