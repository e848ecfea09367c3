//! What a child process prints, line by line.
//!
//! Owns: draining the pipes, so that no child ever blocks on a full one, and
//! waiting for a line as an event.
//! Invariant: lines of one pipe keep their order; those of standard output and
//! standard error are joined in the order of arrival.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::watch;

/// The lines that a [`Child`](crate::Child) has printed so far, from both pipes.
#[derive(Clone, Debug)]
pub struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    lines: usize,
    open_pipes: usize,
}

/// The child closed its output before the wanted line came.
#[derive(Debug)]
pub struct Ended {
    /// Everything that the child printed.
    pub printed: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the output ended before the line came; it was:\n{}", self.printed)
    }
}

impl std::error::Error for Ended {}

impl Output {
    /// Drains `pipes` until they end, each on a thread of its own.
    pub(crate) fn drain(pipes: Vec<Box<dyn Read + Send>>) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let start = Progress { lines: 0, open_pipes: pipes.len() };
        let (sender, progress) = watch::channel(start);
        let sender = Arc::new(sender);
        for pipe in pipes {
            let (lines, sender) = (Arc::clone(&lines), Arc::clone(&sender));
            thread::spawn(move || drain_one(pipe, &lines, &sender));
        }
        Self { lines, progress }
    }

    /// The lines so far, without their ends.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first line, already printed or still to come, that `wanted` accepts.
    ///
    /// # Errors
    /// [`Ended`] if the child closes its output without printing such a line.
    pub async fn line(&self, wanted: impl Fn(&str) -> bool) -> Result<String, Ended> {
        let mut progress = self.progress.clone();
        let mut seen = 0;
        loop {
            let now = *progress.borrow_and_update();
            let lines = self.lines();
            if let Some(line) = lines.iter().skip(seen).find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            seen = now.lines;
            if now.open_pipes == 0 || progress.changed().await.is_err() {
                return Err(Ended { printed: lines.join("\n") });
            }
        }
    }

    /// The last `count` lines, for the message of a failed test.
    pub(crate) fn tail(&self, count: usize) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

fn drain_one(
    pipe: Box<dyn Read + Send>,
    lines: &Mutex<Vec<String>>,
    sender: &watch::Sender<Progress>,
) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        sender.send_modify(|progress| progress.lines += 1);
        line.clear();
    }
    sender.send_modify(|progress| progress.open_pipes -= 1);
}
