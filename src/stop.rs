//! The signals and deadlines that end a wait early.

use std::{
    cell::{Ref, RefCell},
    io::BufRead,
    os::fd::AsFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use signal_hook::{consts, flag};

use crate::{
    error::{Class, Fault},
    value::spoken,
};

/// The interrupt of the process, for code that prints and has no other access to it.
static FIRST: OnceLock<Interrupt> = OnceLock::new();

/// Returns whether a signal has asked the process to stop.
pub fn is_asked() -> bool {
    FIRST.get().is_some_and(|interrupt| interrupt.check().is_err())
}

/// The time between two checks for a signal during a wait.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// The signal that has asked the process to stop, if any. The threads of the downloads share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Installs the signal handlers.
    ///
    /// SIGTERM and SIGINT ask the run to stop. SIGHUP (a closed terminal, a lost SSH connection) and SIGXFSZ (a file-size
    /// limit, which also returns `EFBIG`) must not kill it. They get handlers, because children would inherit ignored
    /// signals.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        _ = FIRST.set(interrupt.clone());
        for signal in [consts::SIGTERM, consts::SIGINT] {
            let number = usize::try_from(signal).unwrap_or_default();
            _ = flag::register_usize(signal, interrupt.0.clone(), number).context("installing a signal handler")?;
        }
        for signal in [consts::SIGHUP, consts::SIGXFSZ] {
            _ = flag::register(signal, Arc::default()).context("installing a signal handler")?;
        }
        Ok(interrupt)
    }

    /// Runs `work` although a signal has asked to stop, for cleaning up. Another signal stops `work` too.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        let asked = self.0.swap(0, Ordering::Relaxed);
        let result = work();
        _ = self.0.compare_exchange(0, asked, Ordering::Relaxed, Ordering::Relaxed);
        result
    }

    /// Acts as if a signal had arrived.
    #[cfg(test)]
    pub(crate) fn raise(&self, signal: usize) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// Reads the line that a person types.
    ///
    /// # Errors
    /// If a signal asks to stop. It may arrive together with the end of the input, which is no answer.
    pub fn read_line(&self, input: &mut (impl BufRead + AsFd)) -> Result<String> {
        let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        let mut is_ready = false;
        while !is_ready {
            self.check()?;
            // If a signal interrupts the call, the check above fails.
            is_ready = poll(&mut [PollFd::new(input.as_fd(), PollFlags::POLLIN)], tick).is_ok_and(|ready| ready > 0);
        }
        let mut line = String::new();
        _ = input.read_line(&mut line).context("reading the answer")?;
        self.check()?;
        Ok(line)
    }

    /// Fails if a signal has asked the run to stop.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => {
                let signal = i32::try_from(signal).unwrap_or_default();
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                Err(Fault::new(format!("stopped by {name}")).class(Class::Interrupted(signal)).into())
            }
        }
    }
}

/// Returns the name of signal n for the exit code 128 + n.
pub fn signal_of(exit_code: u8) -> Option<&'static str> {
    Signal::try_from(i32::from(exit_code) - 128).ok().map(Signal::as_str)
}

/// The deadlines in force, outermost first: the step's, the resource's, an operation's.
#[derive(Debug, Default)]
pub struct Deadlines(RefCell<Vec<Deadline>>);

#[derive(Debug)]
struct Deadline {
    at: Instant,
    limit: Duration,
    what: String,
}

impl Deadlines {
    /// Runs `work` under an additional deadline. If `limit` is `None`, there is no additional one.
    pub fn within<T>(&self, limit: Option<Duration>, what: &str, work: impl FnOnce() -> T) -> T {
        let Some(limit) = limit else { return work() };
        self.0.borrow_mut().push(Deadline { at: Instant::now() + limit, limit, what: what.to_owned() });
        let result = work();
        _ = self.0.borrow_mut().pop();
        result
    }

    /// Runs `work` under this deadline instead of the others, to find out why they have passed.
    pub fn instead<T>(&self, limit: Duration, what: &str, work: impl FnOnce() -> T) -> T {
        let others = self.0.take();
        let result = self.within(Some(limit), what, work);
        _ = self.0.replace(others);
        result
    }

    /// Fails if a deadline will pass within `wait`, before `what` is due.
    pub fn allow(&self, wait: Duration, what: &str) -> Result<()> {
        let Some(deadline) = self.first() else { return Ok(()) };
        let left = deadline.at.saturating_duration_since(Instant::now());
        if wait < left || left.is_zero() {
            return Ok(());
        }
        let (whose, left) = (&deadline.what, spoken(left));
        Err(Fault::new(format!("{whose} has {left} left, but {what} is due in {}", spoken(wait)))
            .hint("set a longer `timeout`")
            .transient()
            .into())
    }

    /// Returns the time until the first deadline, if there is one.
    pub fn left(&self) -> Option<Duration> {
        self.first().map(|deadline| deadline.at.saturating_duration_since(Instant::now()))
    }

    /// Returns the first deadline for a log: `service app.service, 1 min 40 s`.
    pub fn in_words(&self) -> String {
        self.first().map_or("none".into(), |first| format!("{}, {}", first.what, spoken(first.limit)))
    }

    /// Fails if a deadline has passed.
    pub fn check(&self) -> Result<()> {
        let Some(passed) = self.first().filter(|deadline| deadline.at <= Instant::now()) else { return Ok(()) };
        Err(Fault::new(format!("{} timed out after {}", passed.what, spoken(passed.limit)))
            .hint("fix the cause of the wait, which is shown above, or set a longer `timeout`")
            .transient()
            .into())
    }

    /// Moves all deadlines to this time from now, so that tests need not wait.
    #[cfg(test)]
    pub(crate) fn leave(&self, left: Duration) {
        self.0.borrow_mut().iter_mut().for_each(|deadline| deadline.at = Instant::now() + left);
    }

    fn first(&self) -> Option<Ref<'_, Deadline>> {
        Ref::filter_map(self.0.borrow(), |all| all.iter().min_by_key(|deadline| deadline.at)).ok()
    }
}

/// The signal and the deadlines that end a wait early.
#[derive(Debug, Default)]
pub struct Stop {
    /// The signal. Threads share it.
    pub interrupt: Interrupt,
    /// The deadlines in force.
    pub deadlines: Deadlines,
    /// How far this clock is ahead of the machine's, so that tests need not wait.
    #[cfg(test)]
    ahead: std::cell::Cell<Duration>,
}

impl Stop {
    /// Makes a stop with this signal and without deadlines.
    pub fn new(interrupt: Interrupt) -> Self {
        Self { interrupt, ..Self::default() }
    }

    /// Returns the time.
    pub fn now(&self) -> Instant {
        let now = Instant::now();
        #[cfg(test)]
        let now = now + self.ahead.get();
        now
    }

    /// Sets the clock of [`Stop::now`] ahead.
    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.set(self.ahead.get() + by);
    }

    /// Fails if a signal or a deadline asks to stop.
    pub fn check(&self) -> Result<()> {
        self.interrupt.check()?;
        self.deadlines.check()
    }

    /// Waits for a time. Fails at a signal or a deadline.
    #[allow(clippy::disallowed_methods, reason = "the one place that sleeps")]
    pub fn wait(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::fd::{BorrowedFd, OwnedFd},
    };

    use super::*;

    /// A terminal at which Ctrl-C arrives together with the end of the input.
    struct CtrlC(OwnedFd, Interrupt);

    impl AsFd for CtrlC {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Read for CtrlC {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            self.1.raise(2);
            Ok(0)
        }
    }

    impl BufRead for CtrlC {
        fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
            self.read(&mut []).map(|_| &[][..])
        }

        fn consume(&mut self, _: usize) {}
    }

    #[test]
    fn ctrl_c_with_the_end_of_the_input_is_no_answer() {
        let interrupt = Interrupt::default();
        // The other end is closed, so that it is ready.
        let mut input = CtrlC(nix::unistd::pipe().unwrap().0, interrupt.clone());
        let error = interrupt.read_line(&mut input).unwrap_err();
        assert_eq!((error.to_string().as_str(), crate::error::exit_code(&error)), ("stopped by SIGINT", 130));
    }

    #[test]
    fn the_nearest_deadline_counts_and_ends_with_its_work() {
        let deadlines = Deadlines::default();
        deadlines.within(Some(Duration::from_mins(10)), "step a", || {
            assert!(deadlines.check().is_ok());
            deadlines.within(Some(Duration::ZERO), "resource b", || {
                let error = deadlines.check().unwrap_err();
                assert_eq!(error.to_string(), "resource b timed out after 0 ms");
                assert_eq!(crate::error::exit_code(&error), 75);
            });
            assert!(deadlines.check().is_ok());
            assert!(deadlines.allow(Duration::from_mins(9), "it").is_ok());
            let error = deadlines.allow(Duration::from_mins(11), "it").unwrap_err();
            assert!(error.to_string().ends_with(" left, but it is due in 11 min 00 s"), "{error}");
        });
        assert!(deadlines.allow(Duration::MAX, "it").is_ok());
    }
}
