//! The log of an attempt: numbered, batched, and stored before anything that
//! follows from it.
//!
//! One chunk is in flight at a time, and what accumulates meanwhile goes into
//! the next one: chunks are stored in order, and batches grow with the load. Before
//! a chunk is closed it waits a moment for more, since what a step says comes in
//! bursts, and a message costs the same whatever is in it.
//! Memory is bounded: who writes faster than the stream takes has to wait.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use slipway_bus::{Bus, logs};
use slipway_domain::log::{LogSource, Step};
use slipway_domain::{Attempt, AttemptNumber, JobId, LogEntry, LogEvent, LogSeq, Region, WorkerId};
use slipway_runtime::Tasks;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Entries that wait to be stored, at most.
const WAITING: usize = 4096;
/// Bytes after which a chunk is closed; far below the server's 1 MiB, and a
/// single entry is never larger than the rest.
const CHUNK: usize = 256 << 10;

/// How long an entry waits for others to share its chunk.
const LINGER: Duration = Duration::from_millis(4);

/// Whose log it is.
#[derive(Debug, Clone)]
pub struct Address {
    /// The region of job and worker.
    pub region: Region,
    /// Who writes.
    pub worker: WorkerId,
    /// The job.
    pub job: JobId,
    /// The claim.
    pub attempt: Attempt,
}

/// Where an executor writes its log. Clones write to the same log.
#[derive(Debug, Clone)]
pub struct LogSink {
    entries: mpsc::Sender<(Timestamp, LogEvent)>,
}

impl LogSink {
    /// Appends a line.
    pub async fn line(&self, source: LogSource, text: String) {
        self.push(LogEvent::Line { source, text }).await;
    }

    /// Appends a sign of progress.
    pub async fn step(&self, step: Step) {
        self.push(LogEvent::Step(step)).await;
    }

    /// A log that nobody stores, and where its entries come out.
    #[cfg(test)]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<(Timestamp, LogEvent)>) {
        let (entries, receiver) = mpsc::channel(WAITING);
        (Self { entries }, receiver)
    }

    /// Appends a sign of progress if there is room for it at once: who reads
    /// it is as well served by the next one.
    pub fn hint(&self, step: Step) {
        let _no_room = self.entries.try_send((Timestamp::now(), LogEvent::Step(step)));
    }

    async fn push(&self, event: LogEvent) {
        // The writer is gone only when the attempt is.
        let _attempt_over = self.entries.send((Timestamp::now(), event)).await;
    }
}

/// The task that stores a log; it gives up when this is dropped.
#[derive(Debug)]
pub struct LogWriter {
    task: JoinHandle<Result<(), logs::Error>>,
}

impl LogWriter {
    /// Starts a log.
    #[must_use]
    pub fn start(bus: &Bus, address: Address, tasks: &Tasks) -> (LogSink, Self) {
        let (entries, receiver) = mpsc::channel(WAITING);
        let task = tasks.spawn("log", write(bus.logs(), address, receiver));
        (LogSink { entries }, Self { task })
    }

    /// Returns when everything is stored. Every sink must be dropped before.
    ///
    /// # Errors
    /// The stream refuses the log.
    pub async fn finish(mut self) -> Result<(), logs::Error> {
        match (&mut self.task).await {
            Ok(stored) => stored,
            // Only a shutdown aborts it; then nobody looks at this.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(
    logs: slipway_bus::Logs,
    address: Address,
    mut entries: mpsc::Receiver<(Timestamp, LogEvent)>,
) -> Result<(), logs::Error> {
    let mut numbered = Numbered { attempt: address.attempt.number, n: 0 };
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, WAITING).await > 0 {
        linger(&mut entries, &mut batch).await;
        for (first, bytes) in numbered.chunks(batch.drain(..)) {
            let id = format!("{}/{}/{first}", address.job, address.attempt.nonce);
            logs.publish_chunk(&address.region, &address.worker, address.job, bytes, &id).await?;
        }
    }
    Ok(())
}

/// Adds what comes within a moment; at once if nothing will come any more.
async fn linger(
    entries: &mut mpsc::Receiver<(Timestamp, LogEvent)>,
    batch: &mut Vec<(Timestamp, LogEvent)>,
) {
    let end = Instant::now() + LINGER;
    while batch.len() < WAITING {
        // Cancel-safe: what was received is in the batch.
        match tokio::time::timeout_at(end, entries.recv_many(batch, WAITING)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Numbers entries and packs them into chunks.
struct Numbered {
    attempt: AttemptNumber,
    n: u32,
}

impl Numbered {
    /// Chunks of JSON lines, each with the number of its first entry.
    fn chunks(
        &mut self,
        entries: impl Iterator<Item = (Timestamp, LogEvent)>,
    ) -> Vec<(LogSeq, Bytes)> {
        let mut chunks = vec![];
        let mut open = BytesMut::new();
        let mut first = LogSeq::ZERO;
        for (time, event) in entries {
            self.n += 1;
            let seq = LogSeq::new(self.attempt, self.n);
            if open.is_empty() {
                first = seq;
            }
            let entry = LogEntry { seq, time, event };
            serde_json::to_writer((&mut open).writer(), &entry).expect("an entry is plain data");
            open.put_u8(b'\n');
            if open.len() >= CHUNK {
                chunks.push((first, std::mem::take(&mut open).freeze()));
            }
        }
        if !open.is_empty() {
            chunks.push((first, open.freeze()));
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_within_a_moment_shares_a_chunk() {
        let (sink, mut entries) = LogSink::channel();
        let line = |text: &str| sink.line(LogSource::Stdout, text.to_owned());
        line("1").await;
        let mut batch = vec![];
        let later = async {
            line("2").await;
            tokio::time::sleep(LINGER / 2).await;
            line("3").await;
            tokio::time::sleep(LINGER).await;
            line("4").await;
        };
        entries.recv_many(&mut batch, WAITING).await;
        tokio::join!(linger(&mut entries, &mut batch), later);
        assert_eq!(batch.len(), 3);
        // The end of the log does not wait.
        drop(sink);
        batch.clear();
        entries.recv_many(&mut batch, WAITING).await;
        let begun = Instant::now();
        linger(&mut entries, &mut batch).await;
        assert_eq!((batch.len(), begun.elapsed()), (1, Duration::ZERO));
    }

    #[test]
    fn entries_are_numbered_without_gaps_over_chunks() {
        let mut numbered = Numbered { attempt: AttemptNumber::new(3), n: 0 };
        let line = |n: usize| {
            let text = format!("{n} {}", "x".repeat(10_000));
            (Timestamp::UNIX_EPOCH, LogEvent::Line { source: LogSource::Stdout, text })
        };
        let mut chunks = numbered.chunks((0..40).map(line));
        chunks.extend(numbered.chunks((40..60).map(line)));
        assert!(chunks.len() > 2);
        let entries: Vec<LogEntry> = chunks
            .iter()
            .flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n'))
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let numbers: Vec<u32> = entries.iter().map(|entry| entry.seq.n()).collect();
        assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
        assert!(chunks.iter().all(|(_, bytes)| bytes.len() < CHUNK + 20_000));
    }
}
