//! `kill -9` in the middle of a download, again and again. The next process requests no byte that is present, and every
//! byte is right.
//!
//! The kills are 5 MiB apart. `GLOVO_KILL_POINTS` sets their number; 200 of them need 1 GiB. The default is 20.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::fs::FileExt,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::sandbox::{Finished, Sandbox};

const POINTS: u64 = 20;
/// The bytes between two kills. A gibibyte has room for 200.
const STEP: u64 = (1 << 30) / 200;
/// The length of a chunk, and the position of the counts in a note, as in src/fetch/spool.rs.
const CHUNK: u64 = 8 << 20;
const COUNTS: usize = 4096;
/// The bytes that a connection may buffer on the server's side.
const SEND_BUFFER: usize = 128 << 10;

/// Returns the bytes of the body from an offset on. No two words of it are alike.
fn fill(offset: u64, bytes: &mut [u8]) {
    for (offset, byte) in (offset..).zip(bytes) {
        *byte = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[(offset % 8) as usize];
    }
}

/// Returns whether these bytes of a file are the body's.
fn is_right(file: &File, range: Range<u64>) -> bool {
    let (mut actual, mut expected) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = range.start;
    while at < range.end {
        let length = actual.len().min(usize::try_from(range.end - at).unwrap());
        fill(at, &mut expected[..length]);
        if file.read_exact_at(&mut actual[..length], at).is_err() || actual[..length] != expected[..length] {
            return false;
        }
        at += length as u64;
    }
    true
}

/// The bytes that were sent to one process.
#[derive(Debug, Default)]
struct Sent {
    connections: u64,
    open: u64,
    bytes: u64,
    spans: Vec<Range<u64>>,
}

/// A server of the body, which limits the speed of each connection. It tells processes apart by the query of the URL.
pub struct Origin {
    address: SocketAddr,
    total: u64,
    sent: Mutex<HashMap<u64, Sent>>,
    changed: Condvar,
}

impl Origin {
    pub fn start(total: u64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Arc::new(Self { address, total, sent: Mutex::default(), changed: Condvar::new() });
        let shared = origin.clone();
        drop(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = shared.clone();
                drop(std::thread::spawn(move || origin.serve(&stream)));
            }
        }));
        origin
    }

    pub fn url(&self, process: u64) -> String {
        format!("http://{}/body?{process}", self.address)
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<u64, Sent>> {
        self.sent.lock().unwrap()
    }

    fn note(&self, process: u64, what: impl FnOnce(&mut Sent)) {
        what(self.sent().entry(process).or_default());
        self.changed.notify_all();
    }

    /// Waits until a number of bytes were sent to a process, for a limited time.
    fn wait(&self, process: u64, bytes: u64, limit: Duration) {
        let missing = |sent: &mut HashMap<u64, Sent>| sent.get(&process).is_none_or(|sent| sent.bytes < bytes);
        drop(self.changed.wait_timeout_while(self.sent(), limit, missing).unwrap());
    }

    /// Returns the bytes that were sent to a process that has ended.
    fn take(&self, process: u64) -> Sent {
        let open = |sent: &mut HashMap<u64, Sent>| sent.get(&process).is_some_and(|sent| sent.open > 0);
        let mut sent = self.changed.wait_while(self.sent(), open).unwrap();
        sent.remove(&process).unwrap_or_default()
    }

    fn serve(&self, mut stream: &TcpStream) {
        setsockopt(stream, sockopt::SndBuf, &(SEND_BUFFER / 2)).unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let Some(line) = lines.next() else { return };
        let process: u64 = line.split(['?', ' ']).nth(2).unwrap().parse().unwrap();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes="));
        let (first, end) = range.map_or((0, self.total), |range| {
            let (first, last) = range.split_once('-').unwrap();
            (first.parse().unwrap(), last.parse::<u64>().map_or(self.total, |last| last + 1))
        });
        let head = match range {
            Some(_) => format!("206 Partial\r\ncontent-range: bytes {first}-{}/{}", end - 1, self.total),
            None => "200 OK".into(),
        };
        let head = format!(
            "HTTP/1.1 {head}\r\netag: \"body\"\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            end - first
        );
        if stream.write_all(head.as_bytes()).is_err() || line.starts_with("HEAD ") {
            return;
        }
        self.note(process, |sent| {
            sent.connections += 1;
            sent.open += 1;
        });
        let (mut at, mut piece) = (first, vec![0; 16 << 10]);
        while at < end {
            let length = piece.len().min(usize::try_from(end - at).unwrap());
            fill(at, &mut piece[..length]);
            if stream.write_all(&piece[..length]).is_err() {
                break;
            }
            self.note(process, |sent| sent.bytes += length as u64);
            at += length as u64;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.note(process, |sent| {
            sent.spans.push(first..at);
            sent.open -= 1;
        });
    }
}

/// Returns pseudo-random numbers that are the same in each test run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns the bytes in the directory that count: for each chunk, the number of its present bytes.
fn noted(sandbox: &Sandbox) -> Vec<u64> {
    let note = fs::read(sandbox.at("out/.body.part.map")).unwrap_or_default();
    let counts = note.get(COUNTS..).unwrap_or_default();
    counts.as_chunks::<8>().0.iter().map(|count| u64::from_le_bytes(*count)).collect()
}

fn ranges(counts: &[u64]) -> impl Iterator<Item = Range<u64>> {
    (0..).zip(counts).map(|(chunk, count)| chunk * CHUNK..chunk * CHUNK + count)
}

fn start(sandbox: &Sandbox, origin: &Origin, process: u64) -> Child {
    let mut command = sandbox.command(&["fetch", "--json", "--output-dir", "out", &origin.url(process)]);
    command.current_dir(&sandbox.path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_download_killed_repeatedly_requests_only_missing_bytes() {
    let points = std::env::var("GLOVO_KILL_POINTS").map_or(POINTS, |points| points.parse().unwrap());
    let total = points * STEP;
    let (sandbox, origin, mut chance) = (Sandbox::new(), Origin::start(total), Chance(points));
    let (mut there, mut sent, mut lost, mut connections) = (vec![], 0, 0, 0);
    // The largest buffers of both ends.
    let sizes = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    let underway = SEND_BUFFER as u64 + sizes.split_whitespace().last().unwrap().parse::<u64>().unwrap();
    let mut check = |process: u64, before: &[u64], after: &[u64]| {
        let got = origin.take(process);
        for range in ranges(before) {
            let again = got.spans.iter().find(|span| span.start < range.end && range.start < span.end);
            assert_eq!(again, None, "process {process} was sent bytes of {range:?} again");
        }
        let kept: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        assert!(kept <= got.bytes && got.bytes - kept <= got.connections * underway, "{process}: {kept} of {got:?}");
        (sent, lost, connections) = (sent + got.bytes, lost + got.bytes - kept, connections + got.connections);
    };
    for process in 0..points {
        // The kills spread over the remaining bytes. Now and then one comes at a random time, even before the first
        // byte.
        let bytes = (total - there.iter().sum::<u64>()) / (points - process + 1) * (20 + chance.below(160)) / 100;
        let limit = if process % 8 == 3 { Duration::from_millis(chance.below(400)) } else { Duration::from_mins(1) };
        let mut child = start(&sandbox, &origin, process);
        origin.wait(process, bytes, limit);
        child.kill().unwrap();
        let killed = child.wait_with_output().unwrap();
        assert_eq!(killed.status.code(), None, "it had ended: {:?}", Finished::from(killed));

        let now = noted(&sandbox);
        check(process, &there, &now);
        for (chunk, range) in ranges(&now).enumerate() {
            let old = there.get(chunk).copied().unwrap_or_default();
            assert!(range.end - range.start >= old, "process {process} forgot bytes of chunk {chunk}");
            if range.end - range.start > old {
                let part = File::open(sandbox.at("out/.body.part")).unwrap();
                assert!(is_right(&part, range.start + old..range.end), "process {process}, in {range:?}");
            }
        }
        there = now;
    }
    let resumed: u64 = there.iter().sum();
    let finished = Finished::from(start(&sandbox, &origin, points).wait_with_output().unwrap()).expect(0);
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["files"][0]["resumed"], resumed, "{report:#}");
    let mut whole = vec![CHUNK; usize::try_from(total / CHUNK).unwrap()];
    whole.push(total % CHUNK);
    check(points, &there, &whole);
    let body = File::open(sandbox.at("out/body")).unwrap();
    assert!(body.metadata().unwrap().len() == total && is_right(&body, 0..total));
    let left = fs::read_dir(sandbox.at("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left, ["body"]);
    assert_eq!(sent, total + lost);
    println!(
        "{points} kills of a download of {total} bytes: {sent} bytes sent by {connections} connections, {lost} of them \
         (1 in {}) under way when the process was killed",
        total / lost.max(1)
    );
}
