//! An HTTP server for one test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The header `Authorization`.
    pub authorization: String,
    /// The header `X-Amz-Target`, in which AWS's JSON services are told the operation.
    pub operation: String,
    /// The header `X-Amz-Expected-Bucket-Owner`.
    pub bucket_owner: String,
    /// The header in which a login has its token, or the proof that it holds a key.
    pub token: String,
    /// The header `Host`.
    pub host: String,
    /// The header `X-Glovo-Bootstrap-Probe`.
    pub probe: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A status and a body; given in parts, each is sent when the iterator yields it.
pub struct Reply {
    pub status: u16,
    pub length: usize,
    /// Further header lines, each with its end.
    pub headers: &'static str,
    pub parts: Box<dyn Iterator<Item = Vec<u8>>>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, length: body.len(), headers: "", parts: Box::new(std::iter::once(body)) }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// None: the connection is closed.
    pub fn none() -> Self {
        Self::new(0, "")
    }
}

/// The server, until the test's process ends.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts a server. Each connection has one request.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self { address: listener.local_addr().expect("an address"), requests: Arc::default() };
        let shared = Arc::new((server.requests.clone(), answer));
        drop(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                drop(std::thread::spawn(move || {
                    let (requests, answer) = &*shared;
                    let Some(request) = read(&stream) else { return };
                    requests.lock().unwrap().push(request.clone());
                    // A client that has closed the connection is no fault.
                    let _ = send(&stream, answer(&request));
                }));
            }
        }));
        server
    }

    /// Returns the URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Forgets the requests so far. The server itself stays until the test's process ends.
    pub fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }

    /// Returns the requested paths, sorted, because downloads run in parallel.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.requests().into_iter().map(|request| request.target).collect();
        paths.sort();
        paths
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        let _ = reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request { method: words.next()?, target: words.next()?, ..Request::default() };
    let mut length = 0;
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = value.into(),
            "x-amz-target" => request.operation = value.into(),
            "x-amz-expected-bucket-owner" => request.bucket_owner = value.into(),
            "x-amz-sso_bearer_token" | "dpop" => request.token = value.into(),
            "host" => request.host = value.into(),
            "x-glovo-bootstrap-probe" => request.probe = value.into(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn send(mut stream: &TcpStream, reply: Reply) -> std::io::Result<()> {
    let Reply { status, length, headers, parts } = reply;
    if status == 0 {
        return Ok(());
    }
    write!(stream, "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n")?;
    for part in parts {
        stream.write_all(&part)?;
    }
    Ok(())
}
