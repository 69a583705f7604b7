//! Faults that tests inject into the world's answers.

use std::sync::Mutex;
use std::time::Duration;

use regex_lite::Regex;

/// A fault of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead, with these headers and body.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// The right answer, but late.
    Delay(Duration),
    /// The right head, then only so many bytes of the body; then the connection ends. A name server says that its
    /// answer is too long for a datagram.
    Truncate(usize),
    /// The right head, then so many bytes of the body; then silence.
    Stall(usize),
    /// The right answer, with one bit of its body flipped.
    Corrupt,
    /// The connection ends without an answer. A name server says nothing.
    Drop,
    /// A name server answers with this response code (2: SERVFAIL).
    ResponseCode(u8),
}

impl Fault {
    /// This status with an empty body.
    pub fn status(status: u16) -> Fault {
        Fault::Answer { status, headers: Vec::new(), body: Vec::new() }
    }
}

struct Armed {
    pattern: Regex,
    left: usize,
    fault: Fault,
}

#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Armed>>);

impl Faults {
    pub(super) fn add(&self, pattern: &str, times: usize, fault: Fault) {
        let pattern = Regex::new(pattern).expect("a fault's pattern");
        self.0.lock().unwrap().push(Armed { pattern, left: times, fault });
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Takes the fault for this request, if there is one.
    pub(super) fn next(&self, line: &str) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap();
        let armed = faults.iter_mut().find(|armed| armed.left > 0 && armed.pattern.is_match(line))?;
        armed.left -= 1;
        Some(armed.fault.clone())
    }
}
