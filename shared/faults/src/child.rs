//! A child process that does not outlive its parent.
//!
//! Owns: starting a program in a process group of its own, signalling the
//! group, and learning of its end.
//! Invariant: the group is killed when the guard is dropped, and by the kernel
//! when the parent dies without dropping anything. The process is reaped
//! only on drop, so its id cannot pass to a stranger that a signal then hits.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};

use rustix::process::{self as unix, Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

use crate::Output;

/// A running program: its process group, its output, its end.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    group: Pid,
    end: watch::Receiver<Option<ExitStatus>>,
    watcher: Option<JoinHandle<()>>,
    output: Output,
}

impl Child {
    /// Starts `command` in a new process group, with no input, and collects
    /// what it prints; the command's own settings of the three are replaced.
    ///
    /// # Errors
    /// What the operating system says if the program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start(command)
    }

    /// The same, but appends what the program prints to `log`; then there is
    /// nothing in [`output`](Self::output).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), or the file cannot be written.
    pub fn spawn_into(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdout(log.try_clone()?).stderr(log);
        Self::start(command)
    }

    fn start(mut command: Command) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        die_with_parent(&mut command);
        let mut process = spawn_from_lasting_thread(command)?;
        let group = Pid::from_child(&process);
        let out = process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let err = process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let pipes = out.into_iter().chain(err).collect();
        let (sender, end) = watch::channel(None);
        let watcher = thread::spawn(move || {
            sender.send_replace(wait_without_reaping(group));
        });
        Ok(Self { process, group, end, watcher: Some(watcher), output: Output::drain(pipes) })
    }

    /// The process id, which is also the id of its process group.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the program has printed and prints.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Stops the whole group where it stands (SIGSTOP); its sockets stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused group go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the group to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// What Ctrl-C does (SIGINT to the group).
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Kills the group without warning (SIGKILL) and waits until the program is dead.
    pub async fn kill9(&self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }

    /// Waits until the program has ended. May be called again: the answer stays.
    pub async fn wait(&self) -> ExitStatus {
        let mut end = self.end.clone();
        let status = end.wait_for(Option::is_some).await;
        status.ok().and_then(|status| *status).expect("the watcher reports an end before it ends")
    }

    /// How the program ended, or `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.end.borrow()
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal, and nothing else can fail: the
        // group is ours, and its id is held until the drop.
        let _ = unix::kill_process_group(self.group, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("last lines of process {}:\n{}", self.id(), self.output.tail(60));
        }
    }
}

#[expect(unsafe_code, reason = "the only door to the kernel's parent-death signal")]
fn die_with_parent(command: &mut Command) {
    let parent = unix::getpid();
    // SAFETY: both calls are plain system calls, which are allowed between
    // fork and exec; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            unix::set_parent_process_death_signal(Some(Signal::KILL))?;
            if unix::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
            }
        });
    }
}

type Order = (Command, mpsc::Sender<io::Result<std::process::Child>>);

/// The kernel sends the parent-death signal when the *thread* that started the
/// child ends, and a runtime's or test's thread may end early; so all children are
/// started by one thread that lasts as long as the process.
fn spawn_from_lasting_thread(command: Command) -> io::Result<std::process::Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The one who ordered waits for the answer below.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).expect("the spawner lasts as long as its sender");
    result.recv().expect("the spawner answers every order")
}

fn wait_without_reaping(pid: Pid) -> Option<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = loop {
        match unix::waitid(WaitId::Pid(pid), options) {
            Ok(status) => break status?,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    };
    // The wait status as the kernel packs it: the code in the second byte, or
    // the signal in the first.
    let code = status.exit_status().map(|code| code << 8);
    code.or(status.terminating_signal()).map(ExitStatus::from_raw)
}

#[cfg(test)]
mod tests;
