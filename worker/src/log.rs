//! The log of an attempt: numbered, batched, and stored before anything that
//! follows from it.
//!
//! One chunk is in flight at a time, and what accumulates meanwhile goes into
//! the next one: chunks are stored in order, and batches grow with the load. Before
//! a chunk is closed it waits a moment for more, since what a step says comes in
//! bursts, and a message costs the same whatever is in it.
//! Memory is bounded: who writes faster than the stream takes has to wait.

mod buffer;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_bus::{Bus, logs};
use slipway_domain::log::{LogSource, Step};
use slipway_domain::{Attempt, JobId, LogEvent, Region, WorkerId};
use slipway_runtime::Tasks;
use tokio::task::JoinHandle;

use buffer::{Buffer, Chunk, Entries};

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
#[derive(Debug)]
pub struct LogSink {
    buffer: Arc<Buffer>,
}

impl Clone for LogSink {
    fn clone(&self) -> Self {
        Self::of(&self.buffer)
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        self.buffer.leave();
    }
}

impl LogSink {
    fn of(buffer: &Arc<Buffer>) -> Self {
        buffer.join();
        Self { buffer: buffer.clone() }
    }

    /// Appends a line.
    pub async fn line(&self, source: LogSource, text: String) {
        self.lines(|lines| lines.add(source, &text)).await;
    }

    /// Appends the lines that `write` adds, which came together: they wait for
    /// room once, and are copied nowhere but into what is stored.
    pub async fn lines(&self, write: impl FnOnce(&mut Lines<'_, '_>)) {
        self.buffer.has_room().await;
        self.buffer.append(Timestamp::now(), |entries| write(&mut Lines { entries }));
    }

    /// Appends a sign of progress.
    pub async fn step(&self, step: Step) {
        self.buffer.has_room().await;
        self.buffer.append(Timestamp::now(), |entries| entries.event(LogEvent::Step(step)));
    }

    /// Appends a sign of progress if there is room for it at once: who reads
    /// it is as well served by the next one.
    pub fn hint(&self, step: Step) {
        let event = LogEvent::Step(step);
        self.buffer.try_append(Timestamp::now(), |entries| entries.event(event));
    }

    /// A log that nobody stores, and where its entries come out.
    #[cfg(test)]
    pub(crate) fn channel() -> (Self, tests::Heard) {
        let buffer = Arc::new(Buffer::new(slipway_domain::AttemptNumber::FIRST));
        (Self::of(&buffer), tests::Heard::new(buffer))
    }
}

/// Where lines are added that came together.
pub struct Lines<'a, 'b> {
    entries: &'a mut Entries<'b>,
}

impl Lines<'_, '_> {
    /// Adds one.
    pub fn add(&mut self, source: LogSource, text: &str) {
        self.entries.line(source, text);
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
        let buffer = Arc::new(Buffer::new(address.attempt.number));
        let sink = LogSink::of(&buffer);
        let task = tasks.spawn("log", write(bus.logs(), address, Stored(buffer)));
        (sink, Self { task })
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

/// The side of the one who stores: when that one is gone, nobody waits for room.
#[derive(Debug)]
struct Stored(Arc<Buffer>);

impl Drop for Stored {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Stored {
    /// The next chunk, after it had a moment to fill; `None` at the end of the log.
    async fn next(&self) -> Option<Chunk> {
        if !self.0.begun().await {
            return None;
        }
        // Full or not, it goes.
        let _is_full = tokio::time::timeout(LINGER, self.0.full()).await;
        self.0.take()
    }
}

async fn write(
    logs: slipway_bus::Logs,
    address: Address,
    entries: Stored,
) -> Result<(), logs::Error> {
    while let Some(Chunk { first, bytes }) = entries.next().await {
        let id = format!("{}/{}/{first}", address.job, address.attempt.nonce);
        logs.publish_chunk(&address.region, &address.worker, address.job, bytes, &id).await?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use slipway_domain::{AttemptNumber, LogEntry};
    use tokio::time::Instant;

    use super::buffer::CHUNK;
    use super::*;

    /// What was written to a log.
    #[derive(Debug)]
    pub(crate) struct Heard {
        stored: Stored,
        entries: VecDeque<LogEntry>,
    }

    impl Heard {
        pub(super) fn new(buffer: Arc<Buffer>) -> Self {
            Self { stored: Stored(buffer), entries: VecDeque::new() }
        }

        /// The next entry; `None` when every sink is gone.
        pub(crate) async fn recv(&mut self) -> Option<(Timestamp, LogEvent)> {
            self.entry().await.map(|entry| (entry.time, entry.event))
        }

        async fn entry(&mut self) -> Option<LogEntry> {
            if self.entries.is_empty() && self.stored.0.begun().await {
                self.entries = entries(&self.stored.0.take()?).into();
            }
            self.entries.pop_front()
        }
    }

    fn entries(chunk: &Chunk) -> Vec<LogEntry> {
        let lines = chunk.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_within_a_moment_shares_a_chunk() {
        let (sink, heard) = LogSink::channel();
        let line = |text: &str| sink.line(LogSource::Stdout, text.to_owned());
        line("1").await;
        let later = async {
            line("2").await;
            tokio::time::sleep(LINGER / 2).await;
            line("3").await;
            tokio::time::sleep(LINGER).await;
            line("4").await;
        };
        let (chunk, ()) = tokio::join!(heard.stored.next(), later);
        assert_eq!(entries(&chunk.unwrap()).len(), 3);
        // The end of the log does not wait.
        drop(sink);
        let begun = Instant::now();
        let chunk = heard.stored.next().await.unwrap();
        assert_eq!((entries(&chunk).len(), begun.elapsed()), (1, Duration::ZERO));
        assert!(heard.stored.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_chunk_does_not_wait() {
        let (sink, heard) = LogSink::channel();
        sink.line(LogSource::Stdout, "x".repeat(CHUNK)).await;
        sink.line(LogSource::Stdout, "more".to_owned()).await;
        let begun = Instant::now();
        assert_eq!(entries(&heard.stored.next().await.unwrap()).len(), 1);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(entries(&heard.stored.next().await.unwrap()).len(), 1);
        assert_eq!(begun.elapsed(), LINGER);
    }

    #[tokio::test]
    async fn entries_are_numbered_without_gaps_over_chunks() {
        let (sink, mut heard) = LogSink::channel();
        let other = sink.clone();
        let write = async {
            for n in 0..60 {
                let text = format!("{n} {}", "x".repeat(10_000));
                other.lines(|lines| lines.add(LogSource::Stdout, &text)).await;
            }
            drop((sink, other));
        };
        let read = async {
            let mut numbers = vec![];
            while let Some(entry) = heard.entry().await {
                assert_eq!(entry.seq.attempt(), AttemptNumber::FIRST);
                numbers.push(entry.seq.n());
            }
            numbers
        };
        let ((), numbers) = tokio::join!(write, read);
        assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_faster_than_is_stored_waits_and_loses_nothing() {
        let (sink, heard) = LogSink::channel();
        let (mut written, mut stored) = (0, 0);
        let text = "x".repeat(64 << 10);
        let write = async |written: &mut usize| {
            loop {
                sink.line(LogSource::Stdout, text.clone()).await;
                *written += 1;
            }
        };
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, write(&mut written)).await.unwrap_err();
        assert!((8..64).contains(&written), "{written} lines of 64 KiB waited");
        // A sign of progress is not worth waiting for.
        sink.hint(Step {
            step: 1,
            name: String::new(),
            status: slipway_domain::log::StepStatus::Running,
            part: None,
            current: None,
            total: None,
        });
        // Room is used as soon as there is some.
        stored += entries(&heard.stored.next().await.unwrap()).len();
        tokio::time::timeout(hour, write(&mut written)).await.unwrap_err();
        drop(sink);
        while let Some(chunk) = heard.stored.next().await {
            stored += entries(&chunk).len();
        }
        assert_eq!(stored, written);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_log_that_is_given_up() {
        let (sink, heard) = LogSink::channel();
        let write = async {
            for _ in 0..1000 {
                sink.line(LogSource::Stdout, "x".repeat(10_000)).await;
            }
        };
        let give_up = async {
            tokio::task::yield_now().await;
            drop(heard);
        };
        tokio::join!(write, give_up);
    }
}
