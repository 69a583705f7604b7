//! An HTTP server whose answers a test writes byte for byte.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// `GET /path HTTP/1.1`
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    /// The bytes of the body, if the request gives its length.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the requested path and query.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The bytes to send, and what follows them.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Close,
    Stall,
    Drip,
    Slow,
}

impl Reply {
    /// Returns a reply of these bytes, after which the connection ends.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Close }
    }

    /// Returns a whole response.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            _ = write!(head, "{name}: {value}\r\n");
        }
        Self::raw([head.as_bytes(), b"\r\n", body].concat())
    }

    /// Returns a response with status 200.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &[], body)
    }

    /// Sends nothing more after it, but keeps the connection open.
    pub(crate) fn then_stall(self) -> Self {
        Self { then: Then::Stall, ..self }
    }

    /// Sends only the first bytes of the body.
    pub(crate) fn cut(mut self, at: usize) -> Self {
        let head = self.bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        self.bytes.truncate(head + at);
        self
    }

    /// Sends a little now, and the rest after other connections have come.
    pub(crate) fn slow(self) -> Self {
        Self { then: Then::Slow, ..self }
    }

    /// Sends the body a byte at a time, slowly.
    pub(crate) fn then_drip(self) -> Self {
        Self { then: Then::Drip, ..self }
    }
}

/// The server, until the test's process ends.
pub(crate) struct Server {
    scheme: &'static str,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<Request>,
    abandoned: usize,
}

impl Server {
    /// Starts a server that answers by the number of the request (from 0) and the request. A connection has one
    /// request.
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::behind("http", |stream| stream, answer)
    }

    /// Starts a server that gives these replies in turn, and then repeats the last one.
    pub(crate) fn replies(replies: Vec<Reply>) -> Self {
        Self::start(move |number, _| replies[number.min(replies.len() - 1)].clone())
    }

    /// Starts a server that answers on the stream that `layer` makes of a connection.
    pub(crate) fn behind<S: Read + Write>(
        scheme: &'static str,
        layer: impl Fn(TcpStream) -> S + Send + Sync + 'static,
        answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { scheme, address: listener.local_addr().unwrap(), seen: Arc::default() };
        let shared = Arc::new((server.seen.clone(), layer, answer));
        _ = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                _ = std::thread::spawn(move || {
                    let (seen, layer, answer) = &*shared;
                    serve(&mut layer(paced(stream.unwrap())), seen, answer);
                });
            }
        });
        server
    }

    /// Returns the URL of a path, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen().requests.clone()
    }

    /// Returns the number of connections, with or without a request.
    pub(crate) fn connections(&self) -> usize {
        self.seen().connections
    }

    /// Returns the number of connections that the client closed before the end of the response.
    pub(crate) fn abandoned(&self) -> usize {
        self.seen().abandoned
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// A stream whose reads time out, which paces a slow body.
fn paced(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

#[expect(clippy::disallowed_methods, reason = "a server that is slow")]
fn serve(stream: &mut (impl Read + Write), seen: &Mutex<Seen>, answer: &impl Fn(usize, &Request) -> Reply) {
    seen.lock().unwrap().connections += 1;
    let Some(request) = read(stream) else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.requests.push(request.clone());
        seen.requests.len() - 1
    };
    let reply = answer(number, &request);
    let pieces = if reply.then == Then::Slow { reply.bytes.len() / 64 } else { reply.bytes.len() };
    for piece in reply.bytes.chunks(pieces.max(1)) {
        if stream.write_all(piece).and_then(|()| stream.flush()).is_err() {
            return;
        }
        if reply.then == Then::Slow {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if matches!(reply.then, Then::Stall | Then::Drip) {
        while !is_closed(stream) && (reply.then == Then::Stall || stream.write_all(b".").is_ok()) {}
        seen.lock().unwrap().abandoned += 1;
    }
}

/// Returns whether the client has closed the connection.
fn is_closed(stream: &mut impl Read) -> bool {
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let mut request = Request::default();
    let mut reader = BufReader::new(Patient(stream));
    loop {
        let mut line = String::new();
        _ = reader.read_line(&mut line).ok()?;
        let line = line.strip_suffix("\r\n")?;
        match line.split_once(": ") {
            _ if line.is_empty() => break,
            _ if request.line.is_empty() => request.line = line.into(),
            Some((name, value)) => request.headers.push((name.into(), value.into())),
            None => return None,
        }
    }
    request.body = vec![0; request.header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// A reader that ignores the pace.
struct Patient<'a, R>(&'a mut R);

impl<R: Read> Read for Patient<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}
