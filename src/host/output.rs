//! Printing to a reader that may be slow, blocked or closed.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};

use crate::stop::{self, TICK};

/// The time that a run waits for a reader. After that, output is dropped until the reader reads again.
pub const READER_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a reader has after a signal that ends the process.
const READER_TIMEOUT_AFTER_SIGNAL: Duration = Duration::from_secs(1);
/// A writable pipe accepts this many bytes without blocking: `PIPE_BUF`, pipe(7).
const PIECE_BYTES: usize = 4096;

/// The number of lines that were dropped since the last text that was read.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes a text to a descriptor.
///
/// Waits for the reader for at most `patience`. Without a `patience`, only a signal ends the wait. Errors are ignored:
/// a closed terminal must not end a run.
pub fn print(out: impl AsFd, text: &str, patience: Option<Duration>) {
    print_counting(&DROPPED, out, text, patience);
}

fn print_counting(count: &AtomicU64, out: impl AsFd, text: &str, patience: Option<Duration>) {
    let dropped = count.load(Ordering::Relaxed);
    let patience = if dropped > 0 { Some(Duration::ZERO) } else { patience };
    let note = format!("\n[{dropped} lines are missing here: the reader was blocked]\n");
    let is_told = dropped == 0 || write_all(&out, note.as_bytes(), patience).is_empty();
    let rest = if is_told { write_all(&out, text.as_bytes(), patience) } else { text.as_bytes() };
    count.store(lines(rest) + if is_told { 0 } else { dropped }, Ordering::Relaxed);
}

/// Returns the number of lines, a begun one included.
fn lines(text: &[u8]) -> u64 {
    text.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Returns what is left when the wait ends; nothing if all was written, or if an error prevents it.
fn write_all<'a>(out: &impl AsFd, mut rest: &'a [u8], patience: Option<Duration>) -> &'a [u8] {
    let mut stuck_since = None;
    while !rest.is_empty() {
        let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        let wait = if patience == Some(Duration::ZERO) { PollTimeout::ZERO } else { tick };
        if poll(&mut ready, wait).is_ok_and(|ready| ready > 0) {
            match write(out, &rest[..rest.len().min(PIECE_BYTES)]) {
                Ok(written) => {
                    rest = &rest[written..];
                    stuck_since = None;
                    continue;
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => return &[],
            }
        }
        let stuck_since: &mut Instant = stuck_since.get_or_insert_with(Instant::now);
        let asked = stop::is_asked().then_some(READER_TIMEOUT_AFTER_SIGNAL);
        if asked.into_iter().chain(patience).min().is_some_and(|limit| stuck_since.elapsed() >= limit) {
            return rest;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_printed_one_by_one_are_counted_once() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let count = AtomicU64::new(0);
        let print = |text: &str| print_counting(&count, &writer, text, Some(Duration::ZERO));
        // As many as the pipe holds, and one more.
        while count.load(Ordering::Relaxed) == 0 {
            print(&"x".repeat(PIECE_BYTES));
        }
        (0..99).for_each(|_| print("a line\n"));
        assert_eq!(count.load(Ordering::Relaxed), 100);
        let mut taken = vec![0; 1 << 20];
        let _ = nix::unistd::read(&reader, &mut taken).unwrap();
        print("the next line\n");
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let length = nix::unistd::read(&reader, &mut taken).unwrap();
        let told = String::from_utf8_lossy(&taken[..length]).into_owned();
        assert_eq!(told, "\n[100 lines are missing here: the reader was blocked]\nthe next line\n");
    }

    #[test]
    fn each_line_that_a_blocked_reader_misses_is_counted() {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        let table = "a line of the table\n".repeat(10_000);
        let rest = write_all(&writer, table.as_bytes(), Some(Duration::ZERO));
        // The pipe took some pieces. The line at their end is not whole.
        let taken = table.len() - rest.len();
        assert!(taken > 0 && taken.is_multiple_of(PIECE_BYTES), "{taken} bytes");
        assert_eq!(lines(rest), 10_000 - (taken / "a line of the table\n".len()) as u64);
    }
}
