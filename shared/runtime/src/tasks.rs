//! Tasks and shutdown.
//!
//! Every task of a process hangs on one [`Tasks`]: it is named, it sees the
//! shutdown, and the process waits for it. A process stops in two steps: it may
//! *drain*, which ends what begins new work, and then it shuts down. Invariants:
//! what is shut down drains, too; after [`Tasks::shut_down`] returned, either all
//! tasks have ended or the grace period is over.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The tasks of a process. Clones share them.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    draining: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Default for Tasks {
    fn default() -> Self {
        let shutdown = CancellationToken::new();
        // A child, so that the shutdown is the end of new work, too.
        let draining = shutdown.child_token();
        Self { tracker: TaskTracker::new(), shutdown, draining, failed: Arc::default() }
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when nothing new is to begin: at the shutdown,
    /// or some time before it, while what runs is finished.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// The token that is cancelled when the process is to stop.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Starts a task in a span of its name. Dropping the handle does not end it.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // A root of its own: who started a task says little about what it does.
        let span = tracing::debug_span!(parent: None, "task", task.name = name);
        self.tracker.spawn(task.instrument(span))
    }

    /// Starts a task without which the process is of no use: if it ends, or
    /// panics, before the shutdown, the process stops, and
    /// [`Tasks::have_failed`] says so.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = self.spawn(name, task);
        let tasks = self.clone();
        self.spawn(name, async move {
            let ended = handle.await;
            if tasks.shutdown.is_cancelled() && ended.is_ok() {
                return;
            }
            tracing::error!(task.name = name, ?ended, "an essential task ended");
            tasks.failed.store(true, Ordering::Relaxed);
            tasks.shutdown.cancel();
        });
    }

    /// Whether an essential task ended too early.
    #[must_use]
    pub fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Tells every task to stop and waits for them, at most `grace`. Returns
    /// whether all ended.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// SIGINT and SIGTERM, one after the other.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on; none that comes later is missed.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// The next signal, by its name.
    pub async fn next(&mut self) -> &'static str {
        // Cancel-safe: both are signal streams, which lose nothing when dropped.
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Resolves on SIGINT or SIGTERM, and says which.
///
/// # Errors
/// The signal handlers cannot be installed.
pub async fn termination() -> std::io::Result<&'static str> {
    Ok(Signals::listen()?.next().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_tells_tasks_and_waits_for_them() {
        let tasks = Tasks::new();
        let token = tasks.shutdown().clone();
        tasks.spawn("waiter", async move { token.cancelled().await });
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_process_drains_before_it_shuts_down_or_with_it() {
        let tasks = Tasks::new();
        tasks.draining().cancel();
        assert!(!tasks.shutdown().is_cancelled());
        let tasks = Tasks::new();
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
        assert!(tasks.draining().is_cancelled());
    }

    #[tokio::test]
    async fn the_death_of_an_essential_task_stops_the_process() {
        let tasks = Tasks::new();
        tasks.spawn_essential("fragile", async { panic!("on purpose") });
        tasks.shutdown().cancelled().await;
        assert!(tasks.have_failed());

        let tasks = Tasks::new();
        let token = tasks.shutdown().clone();
        tasks.spawn_essential("steady", async move { token.cancelled().await });
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
        assert!(!tasks.have_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_shutdown_is_not_waited_for_for_ever() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending::<()>());
        assert!(!tasks.shut_down(Duration::from_secs(5)).await);
    }
}
