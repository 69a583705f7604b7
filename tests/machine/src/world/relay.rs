//! Requests for AWS's services other than S3, handed on to an emulator that listens in this network.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::http::Answer;

/// The services, as the beginnings of their host names.
pub(super) const SERVICES: [&str; 3] = ["cloudformation.", "ssm.", "secretsmanager."];

pub(super) async fn relay(port: u16, request: hyper::Request<Incoming>) -> Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("the emulator")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer::from_parts(head, Full::new(body.collect().await?.to_bytes())))
}
