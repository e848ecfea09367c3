//! One process that is killed and started again.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipway_faults::{Child, TcpProxy};
use tokio::time::Instant;

/// Pause before a process that ended by itself is started again.
const AGAIN: Duration = Duration::from_millis(500);

/// A process, or the place of one.
#[derive(Debug)]
pub(crate) struct Process {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    proxy: Option<TcpProxy>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Arc<Child>>,
    /// Whether it shall run.
    wanted: bool,
    again: Option<Instant>,
}

impl Process {
    pub(crate) fn new(
        program: PathBuf,
        args: Vec<String>,
        log: PathBuf,
        proxy: Option<TcpProxy>,
    ) -> Self {
        Self { program, args, log, proxy, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to NATS.
    pub(crate) fn proxy(&self) -> Option<&TcpProxy> {
        self.proxy.as_ref()
    }

    /// Sees to it that it runs.
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut state = self.state();
        state.wanted = true;
        if state.child.as_ref().is_some_and(|child| child.status().is_none()) {
            return Ok(());
        }
        let command = super::command(&self.program, &self.args);
        state.child = Some(Arc::new(Child::spawn_into(command, &self.log)?));
        state.again = None;
        Ok(())
    }

    /// Says how it ended, if it did though it shall run; starts it again a little later.
    pub(crate) fn tend(&self) -> Option<String> {
        let mut state = self.state();
        if !state.wanted {
            return None;
        }
        if let Some(status) = state.child.as_ref().and_then(|child| child.status()) {
            state.child = None;
            state.again = Some(Instant::now() + AGAIN);
            return Some(status.to_string());
        }
        let due = state.again.is_some_and(|at| Instant::now() >= at);
        drop(state);
        if due && let Err(error) = self.run() {
            tracing::warn!(%error, program = %self.program.display(), "not started again");
        }
        None
    }

    /// Takes it out of the care of [`tend`](Self::tend).
    fn take(&self) -> Option<Arc<Child>> {
        let mut state = self.state();
        state.wanted = false;
        state.again = None;
        state.child.take()
    }

    /// Kills it without warning.
    pub(crate) async fn kill(&self) {
        if let Some(child) = self.take() {
            child.kill9().await;
        }
    }

    /// Asks it to stop, and kills it after `grace`.
    pub(crate) async fn stop(&self, grace: Duration) {
        let Some(child) = self.take() else { return };
        // It may be stopped by a pause that nobody would end now.
        child.resume();
        child.terminate();
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            child.kill9().await;
        }
    }

    /// Stops it where it stands, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        if let Some(child) = &self.state().child {
            if frozen { child.pause() } else { child.resume() }
        }
    }

    /// Ends all that was done to it but its death.
    pub(crate) fn heal(&self) {
        self.freeze(false);
        if let Some(proxy) = &self.proxy {
            proxy.resume();
            proxy.delay(Duration::ZERO);
        }
    }
}
