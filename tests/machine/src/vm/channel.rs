//! A conversation in JSON over a Unix socket that qemu offers: with qemu itself (QMP), or with the agent in the guest.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How often a question is sent again, in case the receiver missed it.
const RESEND_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Channel {
    stream: BufReader<UnixStream>,
    /// What of a line has arrived.
    line: Vec<u8>,
    syncs: u64,
}

impl Channel {
    pub(super) fn connect(socket: &Path) -> io::Result<Channel> {
        Ok(Channel { stream: BufReader::new(UnixStream::connect(socket)?), line: Vec::new(), syncs: 0 })
    }

    /// Waits until the agent in the guest listens, and passes over what it has said before.
    pub(super) fn sync(&mut self, deadline: Instant) -> Result<()> {
        while Instant::now() < deadline {
            self.syncs += 1;
            // 0xff makes it drop an incomplete command; it sends 0xff before its answer.
            self.stream.get_mut().write_all(b"\xff")?;
            self.send("guest-sync-delimited", &json!({ "id": self.syncs }))?;
            let again = deadline.min(Instant::now() + RESEND_INTERVAL);
            while let Some(reply) = self.next(again)? {
                if reply["return"] == self.syncs {
                    return Ok(());
                }
            }
        }
        bail!("the agent in the guest does not listen")
    }

    /// A command's return value.
    pub(super) fn call(&mut self, command: &str, arguments: &Value, deadline: Instant) -> Result<Value> {
        self.send(command, arguments)?;
        while let Some(mut reply) = self.next(deadline)? {
            if let Some(error) = reply.get("error") {
                bail!("{command}: {error}");
            }
            // Greetings and events may come before the answer.
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
        }
        bail!("{command}: no answer")
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        self.stream.get_mut().write_all(text.as_bytes()).with_context(|| command.to_owned())
    }

    /// The next message, if there is one before the deadline.
    fn next(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            match self.stream.read_until(b'\n', &mut self.line) {
                Ok(0) => bail!("the machine is off"),
                Ok(_) => {
                    let line = std::mem::take(&mut self.line);
                    let from = line.iter().rposition(|byte| *byte == 0xff).map_or(0, |at| at + 1);
                    // A message that a reboot has cut off is dropped.
                    if let Ok(message) = serde_json::from_slice(&line[from..]) {
                        return Ok(Some(message));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
