//! The machine's console. EC2 shows its last lines, also if no login is possible.

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

/// Limits the wait for a console that has no reader.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes to the console. Without a writable console it does nothing.
pub fn print(text: &str) {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(mut console) = OpenOptions::new().write(true).custom_flags(flags.bits()).open("/dev/console") else {
        return;
    };
    let end = Instant::now() + WRITE_TIMEOUT;
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
