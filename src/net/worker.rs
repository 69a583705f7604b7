//! The background thread: a tokio runtime on one thread. A task ends when its caller no longer waits.

use std::{
    cell::OnceCell,
    error::Error,
    fmt,
    future::Future,
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use tokio::{runtime, sync::oneshot, task::AbortHandle};

use crate::{
    error::Fault,
    stop::{Stop, TICK},
};

/// The number of checks for a signal between two calls of `watch`.
const TICKS_PER_LOOK: u32 = 5;

/// Runs tasks in the background, on a thread that starts with the first of them.
#[derive(Default)]
pub(crate) struct Worker(OnceCell<RuntimeThread>);

impl Worker {
    /// Starts work in the background.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(crate) fn start<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<Task<T>>
    where
        T: Send + 'static,
        E: Into<anyhow::Error>,
    {
        let (sender, result) = mpsc::channel();
        // The receiver is gone if no caller waits for the result.
        let work = self.spawn(async move { _ = sender.send(work.await.map_err(Into::into)) })?;
        Ok(Task { result, work })
    }

    /// Starts work in the background that tells its result itself.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<RunningWork> {
        Ok(RunningWork(self.thread()?.runtime.spawn(work).abort_handle()))
    }

    /// Starts work in the background that saves later work time. Without a thread left, it is not done.
    pub(crate) fn prepare(&self, work: impl FnOnce() + Send + 'static) {
        if let Ok(thread) = self.thread() {
            drop(thread.runtime.spawn(async move { work() }));
        }
    }

    fn thread(&self) -> Result<&RuntimeThread> {
        if let Some(thread) = self.0.get() {
            return Ok(thread);
        }
        let thread = RuntimeThread::start()?;
        Ok(self.0.get_or_init(|| thread))
    }

    /// Runs work in the background and waits for its result.
    ///
    /// # Errors
    /// That of the work; also if a signal or a deadline ends the wait and, with it, the work.
    pub(crate) fn run<T, E>(&self, stop: &Stop, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<anyhow::Error>,
    {
        self.start(work)?.wait(stop, || Ok(()))
    }
}

/// The thread. When dropped, it ends at once and abandons its tasks.
struct RuntimeThread {
    runtime: runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Waits until the abandoned tasks have cleaned up, because the process may end next.
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl RuntimeThread {
    fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of the downloads")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            _ = runtime.block_on(stopped);
            // This does not wait for the lookup of a name.
            runtime.shutdown_background();
        };
        let thread = spawn("downloads", run).map_err(|error| error.fault())?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

/// Runs a blocking function on a thread of its own.
///
/// # Errors
/// If the system has no thread left. (tokio's own `spawn_blocking` panics then.)
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NoThread> {
    let (sender, result) = oneshot::channel();
    // The receiver is gone if no caller waits for the result.
    _ = spawn("blocking", move || _ = sender.send(work()))?;
    result.await.map_err(|error| NoThread(io::Error::other(error)))
}

/// The error that the system cannot start a thread.
#[derive(Debug)]
pub(crate) struct NoThread(io::Error);

impl NoThread {
    /// Returns the error with a hint.
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(self.to_string())
            .hint("raise the limit of processes (ulimit -u, TasksMax= of the unit), or end some of them")
    }
}

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start a thread: {}", self.0)
    }
}

impl Error for NoThread {}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, NoThread> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(NoThread)
}

/// Work in the background. When dropped, the work is abandoned.
pub(crate) struct RunningWork(AbortHandle);

impl Drop for RunningWork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Work in the background whose result is waited for. When dropped, the work is abandoned.
pub(crate) struct Task<T> {
    /// The receiver of its result.
    result: mpsc::Receiver<Result<T>>,
    work: RunningWork,
}

impl<T> Task<T> {
    /// Returns whether its result has arrived.
    pub(crate) fn has_ended(&self) -> bool {
        self.work.0.is_finished()
    }

    /// Waits for the result, and calls `watch` four times a second.
    ///
    /// # Errors
    /// That of the work; also if a signal, a deadline or `watch` ends the wait.
    pub(crate) fn wait(&self, stop: &Stop, mut watch: impl FnMut() -> Result<()>) -> Result<T> {
        for tick in 0u32.. {
            if tick.is_multiple_of(TICKS_PER_LOOK) {
                watch()?;
            }
            match self.result.recv_timeout(TICK) {
                Ok(Ok(result)) => return Ok(result),
                // A signal may have come before the failure: Ctrl-C, and then the end of the input. Only this thread is
                // certain to have handled it.
                Ok(Err(error)) => return Err(stop.interrupt.check().err().unwrap_or(error)),
                Err(RecvTimeoutError::Timeout) => stop.check()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Fault::new("internal error: the background thread of the network stopped").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, class};

    #[test]
    fn a_failure_after_a_signal_is_the_signals() {
        let (worker, stop) = (Worker::default(), Stop::default());
        let interrupt = stop.interrupt.clone();
        let ended = async move {
            interrupt.raise(2);
            Err::<(), Fault>(Fault::new("the input has ended"))
        };
        assert_eq!(class(&worker.run(&stop, ended).unwrap_err()), Class::Interrupted(2));
    }
}
