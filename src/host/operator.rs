//! Programs that a person on this machine has chosen in their own settings. They get that person's environment and
//! terminal, unlike the [programs](super::command) that steps start.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::calls;
use crate::stop::TICK;

/// The longest output of each stream that is kept.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// The result of such a program.
pub(crate) struct OperatorProgram {
    pub(crate) status: ExitStatus,
    /// The first 64 KiB of its standard output, which may be secret.
    pub(crate) stdout: Vec<u8>,
    /// The first 64 KiB of its standard error; empty if that is the user's terminal.
    pub(crate) stderr: String,
}

/// Ends such a program when it is dropped: its caller no longer waits.
#[derive(Default)]
pub(crate) struct OperatorGuard(Arc<Mutex<Following>>);

/// The program as it is followed.
#[derive(Default)]
enum Following {
    #[default]
    NotStarted,
    Running(Pid),
    Ended,
}

/// Splits a command line into words as AWS's own tools split it: by a shell's quotes and backslashes, and nothing else.
/// Python's `shlex.split`, which botocore calls, is the model. `None` if a quote or a backslash has no end.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('"'), '\\') => {
                let next = characters.next()?;
                let kept = word.get_or_insert_default();
                kept.extend((!matches!(next, '"' | '\\')).then_some('\\'));
                kept.push(next);
            }
            (None, '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, '"' | '\'') => {
                quote = Some(character);
                _ = word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Returns a guard, and the function that runs a program, given with its arguments, to its end.
///
/// # Errors
/// The function's, if the program cannot be started.
pub(crate) fn operator_program(
    argv: Vec<String>,
) -> (OperatorGuard, impl FnOnce() -> io::Result<OperatorProgram> + Send) {
    let guard = OperatorGuard::default();
    let following = guard.0.clone();
    (guard, move || run(&argv, &following))
}

impl Drop for OperatorGuard {
    fn drop(&mut self) {
        let mut following = lock(&self.0);
        if let Following::Running(pid) = *following {
            _ = kill(pid, Signal::SIGKILL);
        }
        *following = Following::Ended;
    }
}

fn lock(following: &Mutex<Following>) -> MutexGuard<'_, Following> {
    following.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(argv: &[String], following: &Mutex<Following>) -> io::Result<OperatorProgram> {
    let mut child = start(argv, following)?;
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from))?;
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from))?;
    let status = loop {
        let mut now = lock(following);
        if let Some(status) = calls::try_wait(&mut child)? {
            // From now on, the pid may be that of another program.
            *now = Following::Ended;
            break status;
        }
        drop(now);
        let streams: Vec<&File> = [&stdout, &stderr].iter().filter_map(|stream| stream.file.as_ref()).collect();
        if streams.is_empty() {
            std::thread::park_timeout(TICK);
        }
        let mut ready: Vec<_> = streams.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
        // After an interrupted poll, the loop calls again.
        _ = poll(&mut ready, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO));
        stdout.take();
        stderr.take();
    };
    // What the program has started may hold the streams open. All that the program itself has written is there.
    stdout.take();
    stderr.take();
    Ok(OperatorProgram { status, stdout: stdout.kept, stderr: String::from_utf8_lossy(&stderr.kept).into_owned() })
}

fn start(argv: &[String], following: &Mutex<Following>) -> io::Result<Child> {
    let mut now = lock(following);
    if matches!(*now, Following::Ended) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "it was stopped"));
    }
    let (name, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    // In this process's group, it can ask on the terminal, and Ctrl-C reaches it.
    let child = std::process::Command::new(name)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(if io::stderr().is_terminal() { Stdio::inherit() } else { Stdio::piped() })
        .spawn()?;
    *now = Following::Running(Pid::from_raw(child.id().cast_signed()));
    Ok(child)
}

/// A stream of the program: its beginning is kept, and the rest is dropped.
struct Stream {
    /// `None` at the end of the stream.
    file: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(stream: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(stream) = &stream {
            _ = fcntl(stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { file: stream.map(File::from), kept: vec![] })
    }

    /// Reads what is there.
    fn take(&mut self) {
        let mut buffer = [0; 16 << 10];
        // A program that never stops printing must not delay the check of its end.
        for _ in 0..16 {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut buffer) {
                Ok(read) if read > 0 => {
                    let room = MAX_OUTPUT_BYTES.saturating_sub(self.kept.len());
                    self.kept.extend(&buffer[..read.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.file = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_words_that_python_finds() {
        // Each line with what shlex.split of Python 3.11 returns.
        for (line, split) in [
            ("", Some(&[][..])),
            (" a\tb\n", Some(&["a", "b"])),
            ("a'b c'\"d e\"f", Some(&["ab cd ef"])),
            ("'' \"\"", Some(&["", ""])),
            (r#"a\ b "\"\\\$\n" '\'"#, Some(&["a b", r#""\\$\n"#, r"\"])),
            ("a #b;c|$d>e*", Some(&["a", "#b;c|$d>e*"])),
            ("'a", None),
            ("\"a", None),
            ("a\\", None),
        ] {
            assert_eq!(words(line), split.map(|words| words.iter().map(|word| (*word).to_owned()).collect()), "{line}");
        }
    }
}
