//! A child process that is started again when it dies, and never outlives us.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::time::Instant;

/// First pause before a dead child is started again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived this long is healthy: the pauses begin anew.
const HEALTHY: Duration = Duration::from_secs(20);

/// A program to keep alive.
#[derive(Debug)]
pub struct Child {
    /// What it is called in messages.
    pub name: String,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    started: Instant,
    pause: Duration,
    due: Option<Instant>,
}

impl Child {
    /// Starts a program; what it prints is appended to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        name: impl Into<String>,
        program: PathBuf,
        args: Vec<String>,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut child = Self {
            name: name.into(),
            program,
            args,
            log,
            process: None,
            started: Instant::now(),
            pause: FIRST_PAUSE,
            due: None,
        };
        child.spawn()?;
        Ok(child)
    }

    /// Where its output is.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write `{}`", self.log.display()))?;
        let errors = log.try_clone().context("cannot share a log file")?;
        let mut command = Command::new(&self.program);
        // A group of its own: Ctrl-C reaches us alone, and we stop in order.
        command.args(&self.args).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        die_with_parent(&mut command);
        let process = command.spawn();
        self.process = Some(process.with_context(|| format!("cannot start {}", self.name))?);
        self.started = Instant::now();
        self.due = None;
        Ok(())
    }

    /// Waits until the child is dead; returns at once if it is.
    ///
    /// # Errors
    /// The operating system cannot tell.
    pub async fn died(&mut self) -> anyhow::Result<ExitStatus> {
        match &mut self.process {
            Some(process) => process.wait().await.with_context(|| format!("lost {}", self.name)),
            None => std::future::pending().await,
        }
    }

    /// Completes when something was done: the child died and a restart is due
    /// later, or it was started again. Cancel-safe.
    pub async fn keep_alive(&mut self) {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
            match self.spawn() {
                Ok(()) => eprintln!("slipway dev: {} was started again", self.name),
                Err(error) => {
                    eprintln!("slipway dev: {error:#}");
                    self.due = Some(Instant::now() + LAST_PAUSE);
                }
            }
            return;
        }
        let ended = match self.died().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        self.process = None;
        if self.started.elapsed() >= HEALTHY {
            self.pause = FIRST_PAUSE;
        }
        eprintln!("slipway dev: {} ended ({ended}), see {}", self.name, self.log.display());
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let id = self.process.as_ref().and_then(Process::id);
        if let Some(pid) = id.and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have died by itself in this moment.
            let _gone = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has stopped, and kills it after `grace`.
    pub async fn stopped(&mut self, grace: Duration) {
        let Some(process) = &mut self.process else { return };
        if tokio::time::timeout(grace, process.wait()).await.is_err() {
            eprintln!("slipway dev: {} does not stop and is killed", self.name);
            // What cannot be killed is dead.
            let _dead = process.kill().await;
        }
        self.process = None;
    }
}

#[expect(unsafe_code, reason = "the only door to the kernel's parent-death signal")]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: both calls are plain system calls, which are allowed between fork
    // and exec; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}
