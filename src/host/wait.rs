//! Waits for another process, a service or a device. A long one is told: in the log, and in `status` while it lasts.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Host, root::Root, state};
use crate::{redaction, value::spoken, visible};

/// The time after which a wait is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// The state file of the wait that is told.
const FILE: &str = "waiting.json";

/// A wait in progress. It is told when it has become long.
pub struct LongWait<'a> {
    host: &'a Host,
    began: Instant,
    told: Option<String>,
}

/// A wait that is told, for `status`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ToldWait {
    /// The process that waits. One that was killed leaves its file.
    pid: u32,
    /// What it waits for, and how long, in words.
    text: String,
}

impl Host {
    /// Begins a wait.
    pub fn begin_wait(&self) -> LongWait<'_> {
        LongWait { host: self, began: self.stop.now(), told: None }
    }
}

impl LongWait<'_> {
    /// Shows what the wait is for: as progress, and once by a line that stays. The wait ends after `limit` or at a deadline.
    pub fn show(&mut self, what: &str, limit: Option<Duration>) {
        self.host.progress(what);
        self.tell(what, limit);
    }

    /// Like [`LongWait::show`], but leaves the progress to the caller.
    pub fn tell(&mut self, what: &str, limit: Option<Duration>) {
        if self.host.stop.now().duration_since(self.began) < TOLD_AFTER || self.told.as_deref() == Some(what) {
            return;
        }
        let left = [limit, self.host.stop.deadlines.left()].into_iter().flatten().min();
        let left = left.map(|left| format!(", for up to {}", spoken(Duration::from_secs(left.as_secs()))));
        let line = format!("{what}{}", left.unwrap_or_default());
        let text = visible::line(&redaction::shown(&line)).into_owned();
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
        let text = format!("{text}, since {}", now.unwrap_or_default());
        if let Err(error) = state::write(self.host.root(), FILE, &ToldWait { pid: std::process::id(), text }) {
            tracing::debug!("`status` does not show the wait: {error:#}");
        }
        // The line comes last: who reads it finds the wait in `status`.
        if self.told.replace(what.to_owned()).is_none() {
            self.host.tell_wait(&line);
        }
    }
}

impl Drop for LongWait<'_> {
    fn drop(&mut self) {
        // Another process may tell a wait of its own by now.
        if self.told.is_some()
            && of(self.host.root(), std::process::id()).is_some()
            && let Err(error) = state::path(FILE).and_then(|path| self.host.root().remove(&path))
        {
            tracing::debug!("`status` still shows the wait: {error:#}");
        }
    }
}

/// Returns what a process waits for, in words; `None` if it does not wait, or not yet for long.
pub fn of(root: &Root, pid: u32) -> Option<String> {
    state::read::<ToldWait>(root, FILE).filter(|told| told.pid == pid).map(|told| told.text)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn a_long_wait_is_told_once_and_kept_while_it_lasts() {
        let tree = Scratch::new();
        let host = tree.host();
        let lines = Rc::new(RefCell::new(vec![]));
        let (kept, reader) = (lines.clone(), tree.host());
        host.on_wait(move |line| {
            let told = of(reader.root(), std::process::id());
            assert!(told.is_some(), "who reads the line finds it in `status`, too");
            kept.borrow_mut().push(line.to_owned());
        });
        let of_this = || of(host.root(), std::process::id());
        let limit = Some(Duration::from_secs(90));
        let mut wait = host.begin_wait();
        wait.show("waiting for a", limit);
        assert_eq!((lines.borrow().len(), of_this()), (0, None));
        host.stop.advance(TOLD_AFTER);
        wait.show("waiting for a", limit);
        wait.show("waiting for b", limit);
        assert_eq!(*lines.borrow(), ["waiting for a, for up to 1 min 30 s"]);
        let told = of_this().unwrap();
        assert!(told.starts_with("waiting for b, for up to 1 min 30 s, since 20"), "{told}");
        assert_eq!(of(host.root(), 1), None, "another process");
        drop(wait);
        assert_eq!(of_this(), None);
        // Another process tells a wait meanwhile.
        let mut wait = host.begin_wait();
        host.stop.advance(TOLD_AFTER);
        wait.show("waiting for c", limit);
        state::write(host.root(), FILE, &ToldWait { pid: 1, text: "of 1".into() }).unwrap();
        drop(wait);
        assert_eq!(of(host.root(), 1).as_deref(), Some("of 1"));
    }
}
