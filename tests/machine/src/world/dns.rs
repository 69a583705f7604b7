//! The subnet's name server: every host of the world is at the router, and no other name exists.

use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::fault::Fault;
use super::{ROUTER, Request, State};

const NAME_ERROR: u8 = 3;
const TYPE_A: u16 = 1;

pub(super) async fn serve(state: Arc<State>) -> Result<()> {
    let socket = UdpSocket::bind((ROUTER, 53)).await?;
    let listener = TcpListener::bind((ROUTER, 53)).await?;
    let of_streams = Arc::clone(&state);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            if let Some(reply) = reply(&state, &buffer[..length]) {
                let _ = socket.send_to(&reply, client).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(Arc::clone(&of_streams), stream));
        }
    });
    Ok(())
}

/// RFC 1035, section 4.2.2: each message behind its length. An error ends the connection.
async fn converse(state: Arc<State>, mut stream: TcpStream) -> Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        let Some(reply) = reply(&state, &query) else { return Ok(()) };
        stream.write_u16(reply.len().try_into()?).await?;
        stream.write_all(&reply).await?;
    }
}

/// RFC 1035, section 4: a header of 12 bytes, then the question: labels, type, class.
fn reply(state: &State, query: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while let length @ 1.. = usize::from(*query.get(at)?) {
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let question = query.get(12..at + 5)?;
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let name = labels.join(".");

    let known = state.knows(&name);
    let fault = state.faults.next(&format!("DNS {name}"));
    let code = match fault {
        Some(Fault::ResponseCode(code)) => code,
        _ if known => 0,
        _ => NAME_ERROR,
    };
    let request =
        Request { method: "DNS".into(), host: name, path: String::new(), status: code.into(), agent: String::new() };
    state.note(request);
    if matches!(fault, Some(Fault::Drop)) {
        return None;
    }

    // A known name without an address of the asked type has an empty answer, which is not an error.
    let truncated = matches!(fault, Some(Fault::Truncate(_)));
    let addresses = u8::from(code == 0 && kind == TYPE_A && !truncated);
    let (response, recursion_desired, authoritative) = (0x80, query[2] & 1, 0x04);
    let flags = [response | authoritative | recursion_desired | u8::from(truncated) << 1, 0x80 | code];
    let counts = [0, 1, 0, addresses, 0, 0, 0, 0];
    let mut reply = [&query[..2], &flags, &counts, question].concat();
    if addresses == 1 {
        let (name_of_question, type_a_class_in, ttl, length) = ([0xc0, 12], [0, 1, 0, 1], [0, 0, 0, 60], [0, 4]);
        for part in [&name_of_question[..], &type_a_class_in, &ttl, &length, &ROUTER.octets()] {
            reply.extend_from_slice(part);
        }
    }
    Some(reply)
}
