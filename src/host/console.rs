//! The machine's console, whose last lines can be read from outside, also when nobody can log in.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// A serial line that nobody reads must not hold anybody up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes to the console, if there is one that may be written to.
pub fn print(text: &str) {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(mut console) = OpenOptions::new().write(true).custom_flags(flags.bits()).open("/dev/console") else {
        return;
    };
    let end = Instant::now() + PATIENCE;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match console.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let mut ready = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
                if left.is_zero() || poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)).is_err()
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
