//! What a program prints, while it runs.

use std::{
    collections::VecDeque,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{host::calls::repeat, redaction, stop::TICK};

/// Limits the standard output that is kept for parsing. The rest is dropped.
const MAX_STDOUT_BYTES: usize = 4 << 20;
/// Limits the end of each stream that is kept for the error message.
const MAX_TAIL_BYTES: usize = 8 << 10;
/// Limits a line that is shown as progress.
const MAX_PROGRESS_BYTES: usize = 4 << 10;
/// Programs print encoded data in lines of 60, 64 or 76 columns.
const MIN_ENCODED_BYTES: usize = 48;

/// A reader of a program's output streams that does not block and keeps bounded parts of them.
pub(super) struct OutputReader {
    streams: [Option<std::fs::File>; 2],
    stdout: Vec<u8>,
    /// The last bytes of each stream. A long output on one does not displace that of the other.
    tails: [VecDeque<u8>; 2],
    line: Vec<u8>,
    is_line_cut: bool,
    /// Whether the last line may be a part of encoded data of several lines.
    was_encoded: bool,
    /// The time until the next check of a program that has closed its output.
    pause: Duration,
}

impl OutputReader {
    pub(super) fn new(streams: [Option<OwnedFd>; 2]) -> Result<Self> {
        for stream in streams.iter().flatten() {
            _ = repeat(|| fcntl(stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))).context("reading a program's output")?;
        }
        let streams = streams.map(|stream| stream.map(std::fs::File::from));
        Ok(Self {
            streams,
            stdout: vec![],
            tails: Default::default(),
            line: vec![],
            is_line_cut: false,
            was_encoded: false,
            pause: Duration::from_micros(50),
        })
    }

    /// Reads the available output. Waits at most `patience` for the first byte. `progress` gets each line, and whether it
    /// was cut.
    pub(super) fn pump(&mut self, patience: Duration, progress: &dyn Fn(&str, bool)) {
        let mut ready: Vec<PollFd<'_>> =
            self.streams.iter().flatten().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
        if ready.is_empty() {
            // Most programs end right after they close their output. The others are checked less and less often.
            std::thread::sleep(patience.min(self.pause));
            self.pause = (self.pause * 2).min(TICK);
            return;
        }
        // After an interrupted poll, the caller's loop calls again.
        _ = poll(&mut ready, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO));
        let mut buffer = [0; 16 << 10];
        for index in 0..self.streams.len() {
            // A program that never stops printing must not delay the check of the deadline.
            for _ in 0..16 {
                let Some(stream) = &mut self.streams[index] else { break };
                match stream.read(&mut buffer) {
                    Ok(0) => self.streams[index] = None,
                    Ok(read) => self.take(index, &buffer[..read], progress),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => self.streams[index] = None,
                }
            }
        }
    }

    fn take(&mut self, index: usize, bytes: &[u8], progress: &dyn Fn(&str, bool)) {
        if index == 0 {
            let room = MAX_STDOUT_BYTES.saturating_sub(self.stdout.len());
            self.stdout.extend(&bytes[..bytes.len().min(room)]);
        }
        let tail = &mut self.tails[index];
        tail.extend(&bytes[bytes.len().saturating_sub(MAX_TAIL_BYTES)..]);
        drop(tail.drain(..tail.len().saturating_sub(MAX_TAIL_BYTES)));
        // Progress shows the last whole line of each piece. A line without an end is cut.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_PROGRESS_BYTES.saturating_sub(self.line.len());
            self.is_line_cut |= piece.len() > room;
            self.line.extend(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.show(progress);
            }
        }
    }

    /// Shows the line as progress, unless it is a part of encoded data. A secret in two lines is found in neither.
    fn show(&mut self, progress: &dyn Fn(&str, bool)) {
        let is_long = self.was_encoded || self.line.trim_ascii().len() >= MIN_ENCODED_BYTES;
        self.was_encoded = is_long && redaction::is_encoded(&self.line);
        if !self.was_encoded {
            progress(String::from_utf8_lossy(&self.line).trim_end(), self.is_line_cut);
        }
        self.line.clear();
        self.is_line_cut = false;
    }

    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(super) fn tail(&self) -> String {
        let [stdout, stderr] = self.tails.each_ref().map(|tail| tail.iter().skip(broken(tail)));
        let bytes: Vec<u8> = stdout.chain(b"\n").chain(stderr).copied().collect();
        // Progress output overwrites its line with `\r`; show each version as a line.
        String::from_utf8_lossy(&bytes).replace('\r', "\n")
    }
}

/// Returns the number of bytes at the start of a tail that may be the end of a secret whose start was dropped. Encoded
/// data continues in the next line.
fn broken(tail: &VecDeque<u8>) -> usize {
    if tail.len() < MAX_TAIL_BYTES {
        return 0;
    }
    let bytes: Vec<u8> = tail.iter().copied().collect();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().map_or(0, <[u8]>::len);
    let rest: usize = lines.take_while(|line| redaction::is_encoded(line)).map(<[u8]>::len).sum();
    (first + rest).min(redaction::longest_bytes())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn reader() -> OutputReader {
        OutputReader::new([None, None]).unwrap()
    }

    /// Returns the lines that are shown as progress, and whether each was cut.
    fn progress(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let (shown, mut reader) = (RefCell::new(vec![]), reader());
        for piece in pieces {
            reader.take(0, piece, &|line, is_cut| shown.borrow_mut().push((line.to_owned(), is_cut)));
        }
        shown.into_inner()
    }

    #[test]
    fn a_line_is_cut_also_where_blanks_are_at_the_cut() {
        let blanks = vec![b' '; MAX_PROGRESS_BYTES];
        assert_eq!(
            progress(&[b"a b\n", b"short", &blanks, b"rest\n"]),
            [("a b".into(), false), ("short".into(), true)]
        );
    }

    #[test]
    fn encoded_data_of_several_lines_is_no_progress() {
        let long = "YWFh".repeat(16) + "\n";
        let shown = progress(&[b"begin\n", long.as_bytes(), b"YWE=\n", b"at the end\n", b"done\n"]);
        assert_eq!(shown.iter().map(|(line, _)| &**line).collect::<Vec<_>>(), ["begin", "at the end", "done"]);
    }

    #[test]
    fn the_end_of_encoded_data_whose_start_was_dropped_is_left_out() {
        redaction::learn_file("zq0123456789ABCDEFGH".repeat(3).as_bytes());
        let mut reader = reader();
        let encoded = format!("{0}\n{0}\nKLMN==\n", "YWFh".repeat(16));
        let end = format!("at the end{}\n", " -".repeat(MAX_TAIL_BYTES));
        // The tail begins in the first line of the encoded data.
        let end = encoded.clone() + &end[..MAX_TAIL_BYTES - encoded.len() + 40];
        reader.take(0, end.as_bytes(), &|_, _| {});
        assert!(reader.tail().starts_with("at the end"), "{}", reader.tail());
    }
}
