//! The background thread: a tokio runtime on one thread, and tasks that end when nobody waits for them.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use tokio::{runtime, sync::oneshot, task::AbortHandle};

use super::Origins;
use crate::error::Fault;

/// The thread. Dropped, it ends at once with everything it was doing.
pub(crate) struct Worker {
    runtime: runtime::Handle,
    origins: Arc<Origins>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Until what was being done has cleaned up behind itself: the process may end with this.
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(origins: Origins) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of the downloads")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            _ = runtime.block_on(stopped);
            // Doesn't wait for a name that is being looked up.
            runtime.shutdown_background();
        };
        let thread = spawn("downloads", run).map_err(|error| error.fault())?;
        Ok(Self { runtime: handle, origins: Arc::new(origins), stop: Some(stop), thread: Some(thread) })
    }

    /// What its tasks share.
    pub(crate) fn origins(&self) -> Arc<Origins> {
        self.origins.clone()
    }

    /// Starts work in the background.
    pub(crate) fn run<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Task<T>
    where
        T: Send + 'static,
        E: Into<anyhow::Error>,
    {
        let (sender, result) = mpsc::channel();
        // The receiver is gone where no caller waits any more.
        let work = async move { _ = sender.send(work.await.map_err(Into::into)) };
        Task { result, abort: self.runtime.spawn(work).abort_handle() }
    }
}

/// Runs what blocks on a thread of its own.
///
/// # Errors
/// If the system has no thread left. (tokio's own `spawn_blocking` panics then.)
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NoThread> {
    let (sender, result) = oneshot::channel();
    // The receiver is gone where no caller waits any more.
    _ = spawn("blocking", move || _ = sender.send(work()))?;
    result.await.map_err(|error| NoThread(io::Error::other(error)))
}

/// The system has no thread left, or ended one.
#[derive(Debug)]
pub(crate) struct NoThread(io::Error);

impl NoThread {
    /// What a person can do about it.
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

/// Work in the background. Dropped, the work is abandoned.
pub(crate) struct Task<T> {
    /// Where its result arrives.
    pub(crate) result: mpsc::Receiver<Result<T>>,
    abort: AbortHandle,
}

impl<T> Task<T> {
    /// Whether its result is there.
    pub(crate) fn has_ended(&self) -> bool {
        self.abort.is_finished()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
