//! Whatever a server answers: what is published has the digest that was declared or, without one, is a body as it was
//! announced, from its first to its last byte.
//!
//! A server on the loopback interface answers what the fuzzer says, one connection after the other. A system on an
//! empty tree downloads from it. Where that fails, another system resumes what the first one has left. Bodies are short:
//! chunks are of 64 bytes where `cfg(fuzzing)` is set, so that these arrive in parts too.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{LazyLock, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};

use crate::{
    fetch::{pull::Download, source::Source},
    host::scratch::Scratch,
    value::Sha256,
};

/// What happens to one download.
#[derive(Debug, Arbitrary)]
struct Script {
    /// Whether its digest is declared: that of the first version. Then a server may answer anything at all.
    pinned: bool,
    answers: Vec<ScriptedAnswer>,
}

#[derive(Debug, Arbitrary)]
enum ScriptedAnswer {
    /// These bytes, which may be no valid answer.
    Raw(Vec<u8>),
    /// One of the two versions, as a whole.
    Whole(Manner),
    /// The bytes that were asked for, of one of the two versions.
    Part(Manner),
    /// A status with nothing to it; a redirect is to the same server.
    Other { code: u16, retry_after: Option<u16> },
}

/// How bytes are sent.
#[derive(Debug, Arbitrary)]
struct Manner {
    newer: bool,
    /// What is wrong or unusual, of eight numbers of which three mean nothing.
    fault: u8,
    /// By how much.
    amount: i8,
    /// Only so many bytes.
    cut: Option<u8>,
    /// And some that do not belong there.
    more: bool,
}

impl Manner {
    fn fault(&self) -> u8 {
        self.fault % 8
    }

    /// How far off a number is that this fault is about.
    fn off(&self, fault: u8) -> isize {
        if self.fault() == fault { self.amount.into() } else { 0 }
    }

    fn more(&self) -> &'static [u8] {
        if self.more { b"more" } else { b"" }
    }

    fn cut(&self, bytes: &mut Vec<u8>) {
        if let Some(cut) = self.cut {
            bytes.truncate(cut.into());
        }
    }
}

/// The two versions.
static VERSIONS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [(0..300u32).map(|at| (at * 7 % 251) as u8).collect(), (0..300u32).map(|at| (at * 11 % 241) as u8).collect()]
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
    answers: Vec<ScriptedAnswer>,
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

/// Plays one script.
pub fn check(bytes: &[u8]) {
    let Ok(script) = Script::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let Script { pinned, mut answers } = script;
    answers.truncate(12);
    answers.reverse();
    let number = {
        let mut stage = stage();
        *stage = Stage { number: stage.number + 1, pinned, answers, announced: vec![] };
        stage.number
    };
    let source: Source = format!("http://{}/{number}", *ADDRESS).parse().unwrap();
    let download = Download::new(source, pinned.then(|| Sha256::of(&VERSIONS[0])));
    let tree = Scratch::below(Path::new("/dev/shm"));
    for _ in 0..2 {
        let system = super::system(tree.path()).unwrap();
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
        let left = tree.names("/var/lib/glovo-bootstrap/staging");
        assert_eq!(left, [""; 0], "what was published left something behind");
        break;
    }
}

/// One request, one answer.
#[expect(clippy::disallowed_methods, reason = "a server that is slow")]
fn serve(mut stream: TcpStream) {
    _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let Some(request) = ReceivedRequest::read(&stream) else { return };
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
fn respond(stage: &mut Stage, request: &ReceivedRequest, answer: ScriptedAnswer) -> (Vec<u8>, bool) {
    match answer {
        // What no digest vouches for can't be told from the truth.
        ScriptedAnswer::Raw(_) if !stage.pinned => (vec![], false),
        ScriptedAnswer::Raw(bytes) => (harmless(bytes), false),
        ScriptedAnswer::Other { code, retry_after } => {
            let after = retry_after.map_or(String::new(), |after| format!("retry-after: {after}\r\n"));
            // A success has a body.
            let code = if code % 1000 / 100 == 2 { 500 } else { code % 1000 };
            let to = format!("/{}", stage.number);
            let head = format!("HTTP/1.1 {code:03} Status\r\n{after}location: {to}\r\ncontent-length: 0\r\n\r\n");
            (head.into_bytes(), false)
        }
        ScriptedAnswer::Whole(manner) => whole(stage, request, &manner),
        ScriptedAnswer::Part(manner) => part(stage, request, &manner),
    }
}

fn whole(stage: &mut Stage, request: &ReceivedRequest, manner: &Manner) -> (Vec<u8>, bool) {
    let body = &VERSIONS[usize::from(manner.newer)];
    let weak = if manner.fault() == 0 { "W/" } else { "" };
    let mut head = format!("HTTP/1.1 200 OK\r\netag: {weak}{}\r\nconnection: close\r\n", etag(manner.newer));
    let mut rest = vec![];
    match manner.fault() {
        1 => {
            head += "transfer-encoding: chunked\r\n";
            for chunk in body.chunks(usize::from(manner.amount.unsigned_abs()).max(1)) {
                rest.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
            }
            rest.extend(b"0\r\n\r\n");
            stage.announced.push(body.clone());
            manner.cut(&mut rest);
        }
        // As long as the connection.
        2 => {
            rest.extend_from_slice(body);
            stage.announced.push(body.clone());
        }
        _ => {
            let length = body.len().saturating_add_signed(manner.off(3));
            head += &format!("content-length: {length}\r\n");
            rest.extend_from_slice(body);
            // Bytes beyond the length belong to nothing; the server never sends the missing ones.
            if length <= body.len() {
                stage.announced.push(body[..length].to_vec());
                rest.extend(manner.more());
            }
            manner.cut(&mut rest);
        }
    }
    if request.is_head {
        rest.clear();
    }
    ([head.as_bytes(), b"\r\n", &rest].concat(), manner.fault() == 4)
}

fn part(stage: &Stage, request: &ReceivedRequest, manner: &Manner) -> (Vec<u8>, bool) {
    let body = &VERSIONS[usize::from(manner.newer)];
    let Some((first, last)) = request.range else { return (vec![], false) };
    let last = last.unwrap_or(body.len() - 1).min(body.len() - 1);
    if first > last {
        return (b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n".to_vec(), false);
    }
    // Whether a server that leaves its validator out sends the bytes of the one asked for is all a matter of trust.
    let is_trusted = stage.pinned || request.if_range.as_deref() == Some(etag(manner.newer));
    let etag =
        if manner.fault() == 0 && is_trusted { String::new() } else { format!("etag: {}\r\n", etag(manner.newer)) };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{etag}connection: close\r\ncontent-range: bytes {}-{}/{}\r\n\
         content-length: {}\r\n\r\n",
        first.saturating_add_signed(manner.off(1)),
        last.saturating_add_signed(manner.off(2)),
        body.len().saturating_add_signed(manner.off(3)),
        last + 1 - first
    );
    let mut rest = [&body[first..=last], manner.more()].concat();
    manner.cut(&mut rest);
    ([head.into_bytes(), rest].concat(), manner.fault() == 4)
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
struct ReceivedRequest {
    is_head: bool,
    number: Option<u64>,
    range: Option<(usize, Option<usize>)>,
    if_range: Option<String>,
}

impl ReceivedRequest {
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
