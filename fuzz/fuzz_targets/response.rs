//! Whatever a server answers: what is published has the digest that was declared or, without one, is a body as it was
//! announced, from its first to its last byte.
//!
//! A server on the loopback interface answers what the fuzzer says, one connection after the other; a system on an
//! empty tree downloads from it, and where that fails another one takes up what the first has left. Bodies are short:
//! chunks are of 64 bytes where `cfg(fuzzing)` is set, so that these arrive in parts too.

#![no_main]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{LazyLock, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use arbitrary::Arbitrary;
use glovo_bootstrap::{
    system::fetch::{Download, fuzz},
    value::Sha256,
};
use libfuzzer_sys::fuzz_target;

/// What happens to one download.
#[derive(Debug, Arbitrary)]
struct Script {
    /// Whether its digest is declared: that of the first version. Then a server may answer anything at all.
    pinned: bool,
    answers: Vec<Answer>,
}

#[derive(Debug, Arbitrary)]
enum Answer {
    /// These bytes, whatever they mean.
    Raw(Vec<u8>),
    /// One of the two versions, as a whole.
    Whole { newer: bool, framing: Framing, weak: bool, cut: Option<u16>, slow: bool, more: Vec<u8> },
    /// The bytes that were asked for, of one of the two versions, and what is said of them.
    Part { newer: bool, untold: bool, off: [i8; 3], cut: Option<u16>, slow: bool, more: Vec<u8> },
    /// A status with nothing to it.
    Status { code: u16, retry_after: Option<u16> },
    /// To the same server.
    Redirect,
}

#[derive(Debug, Arbitrary)]
enum Framing {
    /// With a length, so far off.
    Length(i8),
    Chunked(u8),
    /// As long as the connection.
    Close,
}

/// The two versions.
static VERSIONS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [(0..300u32).map(|at| (at * 7 % 251) as u8).collect(), (0..310u32).map(|at| (at * 11 % 241) as u8).collect()]
});

fn etag(newer: bool) -> &'static str {
    if newer { "\"newer\"" } else { "\"older\"" }
}

/// The download that is going on.
#[derive(Default)]
struct Stage {
    /// Its number: connections of an earlier one are not answered.
    number: u64,
    pinned: bool,
    answers: Vec<Answer>,
    /// What a client may take to be the whole.
    announced: Vec<Vec<u8>>,
}

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(Mutex::default);
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    _ = thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            _ = thread::spawn(move || serve(stream));
        }
    });
    address
});

fn stage() -> MutexGuard<'static, Stage> {
    STAGE.lock().unwrap()
}

fuzz_target!(|script: Script| {
    let Script { pinned, mut answers } = script;
    answers.truncate(12);
    answers.reverse();
    let number = {
        let mut stage = stage();
        *stage = Stage { number: stage.number + 1, pinned, answers, announced: vec![] };
        stage.number
    };
    let source = format!("http://{}/{number}", *ADDRESS).parse().unwrap();
    let download = Download { source, sha256: pinned.then(|| Sha256::of(&VERSIONS[0])) };
    let tree = Tree::new(number);
    for _ in 0..2 {
        let system = fuzz::system(&tree.0).unwrap();
        let Ok(fetched) = system.fetch(&download) else { continue };
        let mut bytes = vec![];
        _ = (&*fetched.file).read_to_end(&mut bytes).unwrap();
        assert_eq!(fetched.size, bytes.len() as u64);
        assert_eq!(fetched.sha256, Sha256::of(&bytes));
        if pinned {
            assert!(bytes == VERSIONS[0], "published {bytes:?}");
        } else {
            let stage = stage();
            assert!(stage.announced.contains(&bytes), "published {bytes:?}, not {:?}", stage.announced);
        }
        drop(fetched);
        let left = fs::read_dir(tree.0.join("var/lib/glovo-bootstrap/staging")).unwrap().count();
        assert_eq!(left, 0, "what was published left something behind");
        break;
    }
});

/// An empty directory, in memory.
struct Tree(PathBuf);

impl Tree {
    fn new(number: u64) -> Self {
        let path = PathBuf::from(format!("/dev/shm/fuzz-response-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// One request, one answer.
fn serve(mut stream: TcpStream) {
    _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let Some(request) = Request::read(&stream) else { return };
    let (pieces, slow) = {
        let mut stage = stage();
        if request.number != Some(stage.number) {
            return;
        }
        let Some(answer) = stage.answers.pop() else { return };
        respond(&mut stage, &request, answer)
    };
    let half = if slow { pieces.len() / 2 } else { pieces.len() };
    _ = stream.write_all(&pieces[..half]);
    if slow {
        thread::sleep(Duration::from_millis(4));
        _ = stream.write_all(&pieces[half..]);
    }
}

/// What is sent, and whether slowly.
fn respond(stage: &mut Stage, request: &Request, answer: Answer) -> (Vec<u8>, bool) {
    match answer {
        // What no digest vouches for can't be told from the truth.
        Answer::Raw(_) if !stage.pinned => (vec![], false),
        Answer::Raw(bytes) => (harmless(bytes), false),
        Answer::Status { code, retry_after } => {
            let after = retry_after.map_or(String::new(), |after| format!("retry-after: {after}\r\n"));
            // A success has a body.
            let code = if code % 1000 / 100 == 2 { 500 } else { code % 1000 };
            (format!("HTTP/1.1 {code:03} Status\r\n{after}content-length: 0\r\n\r\n").into_bytes(), false)
        }
        Answer::Redirect => {
            let target = format!("/{}", stage.number);
            (format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n").into_bytes(), false)
        }
        Answer::Whole { newer, framing, weak, cut, slow, more } => {
            let body = &VERSIONS[usize::from(newer)];
            let weak = if weak { "W/" } else { "" };
            let mut head = format!("HTTP/1.1 200 OK\r\netag: {weak}{}\r\nconnection: close\r\n", etag(newer));
            let mut rest = vec![];
            match framing {
                Framing::Length(off) => {
                    let length = body.len().saturating_add_signed(off.into());
                    head += &format!("content-length: {length}\r\n\r\n");
                    rest.extend_from_slice(body);
                    // Bytes beyond the length belong to nothing; missing ones are sent by nobody.
                    if length <= body.len() {
                        stage.announced.push(body[..length].to_vec());
                        rest.extend(more);
                    }
                }
                Framing::Chunked(size) => {
                    head += "transfer-encoding: chunked\r\n\r\n";
                    for chunk in body.chunks(usize::from(size).max(1)) {
                        rest.extend(
                            format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"),
                        );
                    }
                    rest.extend(b"0\r\n\r\n");
                    stage.announced.push(body.clone());
                }
                Framing::Close => {
                    head += "\r\n";
                    rest.extend_from_slice(body);
                    stage.announced.push(body.clone());
                }
            }
            if let Some(cut) = cut
                && !matches!(framing, Framing::Close)
            {
                rest.truncate(cut.into());
            }
            if request.is_head {
                rest.clear();
            }
            ([head.into_bytes(), rest].concat(), slow)
        }
        Answer::Part { newer, untold, off, cut, slow, more } => {
            let body = &VERSIONS[usize::from(newer)];
            let Some((first, last)) = request.range else { return (vec![], false) };
            let last = last.unwrap_or(body.len() - 1).min(body.len() - 1);
            if first > last {
                return (b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n".to_vec(), false);
            }
            // Whether a server that leaves its validator out sends the bytes of the one asked for is all a matter of trust.
            let untold = untold && (stage.pinned || request.if_range.as_deref() == Some(etag(newer)));
            let told = if untold { String::new() } else { format!("etag: {}\r\n", etag(newer)) };
            let [first_off, last_off, total_off] = off.map(isize::from);
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\n{told}connection: close\r\ncontent-range: bytes {}-{}/{}\r\n\
                 content-length: {}\r\n\r\n",
                first.saturating_add_signed(first_off),
                last.saturating_add_signed(last_off),
                body.len().saturating_add_signed(total_off),
                last + 1 - first
            );
            let mut rest = [&body[first..=last], &more].concat();
            if let Some(cut) = cut {
                rest.truncate(cut.into());
            }
            ([head.into_bytes(), rest].concat(), slow)
        }
    }
}

/// Bytes that lead nowhere else: nothing is to be sent beyond this machine.
fn harmless(mut bytes: Vec<u8>) -> Vec<u8> {
    let word = b"location";
    for at in 0..bytes.len().saturating_sub(word.len() - 1) {
        if bytes[at..at + word.len()].eq_ignore_ascii_case(word) {
            bytes[at] = b'x';
        }
    }
    bytes
}

/// What is known of a request.
#[derive(Default)]
struct Request {
    is_head: bool,
    number: Option<u64>,
    range: Option<(usize, Option<usize>)>,
    if_range: Option<String>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut request = Self::default();
        let mut lines = BufReader::new(stream).lines();
        let line = lines.next()?.ok()?;
        request.is_head = line.starts_with("HEAD ");
        request.number = line.split(' ').nth(1)?.trim_start_matches('/').parse().ok();
        loop {
            let line = lines.next()?.ok()?;
            match line.split_once(": ") {
                None => return Some(request),
                Some(("range", value)) => {
                    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                    request.range = Some((first.parse().ok()?, last.parse().ok()));
                }
                Some(("if-range", value)) => request.if_range = Some(value.to_owned()),
                Some(_) => {}
            }
        }
    }
}
