//! The logs of jobs, in chunks.
//!
//! Owns storing chunks and reading a job's chunks in order, from the first on,
//! by any number of readers. Knows nothing of what is in them. Invariant: a
//! reader gets every chunk once and in the order of storing, over reconnects and
//! restarts of the server, unless it is told [`Item::Reset`].

mod short;

use async_nats::jetstream::stream::PurgeError;
use bytes::Bytes;
use futures::Stream;
use slipway_domain::{JobId, Region, WorkerId};

use crate::connection::Bus;
use crate::publish::{self, Outgoing};
use crate::tail::{self, Source, Step, Tail};
use crate::{jobs, topology};

/// Chunks asked for at a time; they are up to a megabyte each.
const BATCH: usize = 32;

/// Why a log was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refuses the chunk, and would again.
    #[error("a chunk of the log of job `{job}` was not published")]
    Publish {
        /// The job.
        job: JobId,
        /// The failure.
        #[source]
        source: publish::Error,
    },
    /// The region has no log stream.
    #[error("the log of job `{job}` cannot be read")]
    Read {
        /// The job.
        job: JobId,
        /// The failure.
        #[source]
        source: tail::Error,
    },
    /// Nobody said what the stream holds.
    #[error("no answer to a request for the log of job `{job}`")]
    NoAnswer {
        /// The job.
        job: JobId,
    },
    /// The log may still be there.
    #[error("the log of job `{job}` was not purged")]
    Purge {
        /// The job.
        job: JobId,
        /// What the client saw.
        #[source]
        source: PurgeError,
    },
}

pub use crate::tail::Error as ReadError;

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Publish { source, .. } => source.is_retryable(),
            Self::Read { .. } => false,
            Self::NoAnswer { .. } | Self::Purge { .. } => true,
        }
    }
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Who wrote it.
    pub worker: WorkerId,
    /// Its place in the stream; grows from chunk to chunk, with gaps.
    pub stream_seq: u64,
    /// What was written.
    pub bytes: Bytes,
}

/// What following a log yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next chunk.
    Chunk(Chunk),
    /// All that was there when the reading began was handed out; what comes
    /// from now on is live.
    CaughtUp,
    /// The server lost data: what follows begins at the beginning again.
    Reset,
}

/// The logs of all regions.
#[derive(Debug, Clone)]
pub struct Logs {
    bus: Bus,
}

impl Bus {
    /// The logs of jobs.
    #[must_use]
    pub fn logs(&self) -> Logs {
        Logs { bus: self.clone() }
    }
}

impl Logs {
    /// Stores a chunk and returns when it is stored, trying until it is;
    /// dropping the future gives up. `message_id` names the chunk, so that a
    /// repeat within ten minutes is not stored again.
    ///
    /// # Errors
    /// Only what no repetition can cure, such as a chunk above the server's
    /// `max_payload` (1 MiB unless configured).
    pub async fn publish_chunk(
        &self,
        region: &Region,
        worker: &WorkerId,
        job: JobId,
        bytes: Bytes,
        message_id: &str,
    ) -> Result<(), Error> {
        let message = Outgoing::new(topology::log_subject(region, worker, &job), bytes, message_id);
        match message.send_until(&self.bus, None).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Publish { job, source }),
        }
    }

    /// Reads a job's log from the first chunk on, and never ends by itself.
    #[must_use]
    pub fn follow(&self, region: &Region, job: JobId) -> LogReader {
        let source = Source {
            stream: topology::logs_stream(region),
            filter: topology::log_filter(region, &job),
            batch: BATCH,
            stale_after: None,
        };
        LogReader { tail: Tail::new(&self.bus, source, 0), job }
    }

    /// Reads a job's log as it is now.
    ///
    /// # Errors
    /// [`Error::Read`] if the region has no log stream.
    pub async fn read_all(&self, region: &Region, job: JobId) -> Result<Vec<Chunk>, Error> {
        let mut reader = self.follow(region, job);
        let mut chunks = Vec::new();
        loop {
            match reader.next().await? {
                Item::Chunk(chunk) => chunks.push(chunk),
                Item::Reset => chunks.clear(),
                Item::CaughtUp => return Ok(chunks),
            }
        }
    }

    /// Removes a job's log and says how many chunks it had.
    ///
    /// # Errors
    /// [`Error::Purge`].
    pub async fn purge(&self, region: &Region, job: JobId) -> Result<u64, Error> {
        let (stream, filter) = (topology::logs_stream(region), topology::log_filter(region, &job));
        let purged = jobs::purge(&self.bus, &stream, filter, None).await;
        purged.map_err(|source| Error::Purge { job, source })
    }

    /// Removes a job's chunks up to `last`, a [`Chunk::stream_seq`], and says how
    /// many there were. What was stored later stays.
    ///
    /// # Errors
    /// [`Error::Purge`].
    pub async fn purge_to(&self, region: &Region, job: JobId, last: u64) -> Result<u64, Error> {
        let (stream, filter) = (topology::logs_stream(region), topology::log_filter(region, &job));
        let purged = jobs::purge(&self.bus, &stream, filter, Some(last)).await;
        purged.map_err(|source| Error::Purge { job, source })
    }
}

/// A reader of one log.
pub struct LogReader {
    tail: Tail,
    job: JobId,
}

impl LogReader {
    /// The next item, however long it takes and whatever happens to the server
    /// meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Read`] if the region has no log stream.
    pub async fn next(&mut self) -> Result<Item, Error> {
        loop {
            let step = self.tail.next().await;
            match step.map_err(|source| Error::Read { job: self.job, source })? {
                Step::CaughtUp => return Ok(Item::CaughtUp),
                Step::Reset => return Ok(Item::Reset),
                Step::Message(message, position) => {
                    let Some((worker, _)) = topology::worker_and_job(&message.subject) else {
                        continue;
                    };
                    let stream_seq = position.stream_sequence;
                    return Ok(Item::Chunk(Chunk { worker, stream_seq, bytes: message.payload }));
                }
            }
        }
    }

    /// The items as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Item, Error>> + Send {
        futures::stream::unfold(Some(self), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Ok(item) => Some((Ok(item), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
