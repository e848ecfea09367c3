//! The queue of jobs of each region and class.
//!
//! Owns publishing a job once per attempt, taking one job per free slot, and
//! purging what nobody took. Refuses to decide about retries: that is for the
//! records, and the queue only wakes. Invariant: a worker holds at most as many
//! undisposed deliveries as it has calls of [`Puller::next`] or [`Taker::next`] behind it.

mod puller;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind, PurgeError};
use serde::Serialize;
use slipway_domain::spec::JobKind;
use slipway_domain::{AttemptNumber, Class, JobId, Region};

pub use puller::{Delivery, Puller, Taker};

use crate::connection::Bus;
use crate::publish::{self, Outgoing, is_passing};
use crate::{payload, topology};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the queue did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The message does not serialize.
    #[error("cannot encode the message of job `{job}`")]
    Encode {
        /// The job.
        job: JobId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The message is not known to be in the queue.
    #[error("job `{job}` was not published")]
    Publish {
        /// The job.
        job: JobId,
        /// The last failure.
        #[source]
        source: publish::Error,
    },
    /// The job's messages may still be in the queue.
    #[error("the messages of job `{job}` were not purged")]
    Purge {
        /// The job.
        job: JobId,
        /// What the client saw.
        #[source]
        source: PurgeError,
    },
    /// The queue did not tell whether it holds a job.
    #[error("cannot look up job `{job}` in its queue")]
    LookUp {
        /// The job.
        job: JobId,
        /// What the client saw.
        #[source]
        source: BoxError,
    },
    /// The consumer did not tell how much there is to do.
    #[error("cannot count the jobs of region `{region}`, class `{class}`")]
    Count {
        /// The region.
        region: Region,
        /// The class.
        class: Class,
        /// What the client saw.
        #[source]
        source: ConsumerError,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Encode { .. } => false,
            Self::Publish { source, .. } => source.is_retryable(),
            Self::Purge { .. } | Self::LookUp { .. } => true,
            Self::Count { source, .. } => match source.kind() {
                ConsumerErrorKind::JetStream(error) => is_passing(error.error_code().0),
                ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => true,
                _ => false,
            },
        }
    }
}

/// How much a class of a region has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Messages that nobody was given yet.
    pub waiting: u64,
    /// Messages delivered and not yet disposed of.
    pub delivered: u64,
    /// Free slots that wait for a message.
    pub idle_slots: u64,
}

/// The queues of all regions.
#[derive(Debug, Clone)]
pub struct JobQueue {
    bus: Bus,
}

impl Bus {
    /// The queues of jobs.
    #[must_use]
    pub fn jobs(&self) -> JobQueue {
        JobQueue { bus: self.clone() }
    }
}

impl JobQueue {
    /// Puts a job's message into the queue of its region and class. Calling it
    /// again for the same attempt changes nothing (within ten minutes, or while
    /// the message waits); a new attempt is a new message.
    ///
    /// # Errors
    /// [`Error::Encode`], or [`Error::Publish`] after about one request time-out
    /// of repeated tries; then it may be in the queue or not.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        region: &Region,
        class: Class,
        kind: JobKind,
        job: JobId,
        attempt: AttemptNumber,
        message: &T,
    ) -> Result<(), Error> {
        let payload = payload::encode(message).map_err(|source| Error::Encode { job, source })?;
        let subject = topology::job_subject(region, class, kind, &job);
        let message = Outgoing::new(subject, payload, &format!("{job}/{attempt}"));
        let deadline = publish::deadline(&self.bus);
        match message.send_until(&self.bus, Some(deadline)).await {
            Ok(stored) => {
                if stored.duplicate {
                    tracing::debug!(job.id = %job, %attempt, "the attempt was published before");
                }
                Ok(())
            }
            Err(source) => Err(Error::Publish { job, source }),
        }
    }

    /// Puts the message of an attempt into the queue once more, although it was
    /// published before: the queue lost it, as [`JobQueue::holds`] showed.
    ///
    /// # Errors
    /// As [`JobQueue::publish`].
    pub async fn publish_again<T: Serialize + ?Sized>(
        &self,
        region: &Region,
        class: Class,
        kind: JobKind,
        job: JobId,
        message: &T,
    ) -> Result<(), Error> {
        let payload = payload::encode(message).map_err(|source| Error::Encode { job, source })?;
        let subject = topology::job_subject(region, class, kind, &job);
        let id = format!("{job}/again/{:032x}", rand::random::<u128>());
        let message = Outgoing::new(subject, payload, &id);
        let deadline = publish::deadline(&self.bus);
        let sent = message.send_until(&self.bus, Some(deadline)).await;
        sent.map(|_| ()).map_err(|source| Error::Publish { job, source })
    }

    /// Whether the queue holds a message of the job, delivered or not.
    ///
    /// # Errors
    /// [`Error::LookUp`].
    pub async fn holds(
        &self,
        region: &Region,
        class: Class,
        kind: JobKind,
        job: JobId,
    ) -> Result<bool, Error> {
        let failed = |source: BoxError| Error::LookUp { job, source };
        let stream = self.bus.context().get_stream_no_info(topology::jobs_stream(region)).await;
        let stream = stream.map_err(|error| failed(error.into()))?;
        let subject = topology::job_subject(region, class, kind, &job);
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(_) => Ok(true),
            Err(error) if crate::bucket::is_no_message(&error) => Ok(false),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Removes every message of a job and says how many there were. One that
    /// was delivered already may still be on its way into a worker.
    ///
    /// # Errors
    /// [`Error::Purge`].
    pub async fn purge(&self, region: &Region, job: JobId) -> Result<u64, Error> {
        let (stream, filter) = (topology::jobs_stream(region), topology::job_filter(region, &job));
        let purged = purge(&self.bus, &stream, filter, None).await;
        purged.map_err(|source| Error::Purge { job, source })
    }

    /// How much there is to do.
    ///
    /// # Errors
    /// [`Error::Count`].
    pub async fn pending(&self, region: &Region, class: Class) -> Result<Pending, Error> {
        let (stream, name) = (topology::jobs_stream(region), topology::jobs_consumer(class));
        let consumer: PullConsumer = self
            .bus
            .context()
            .get_consumer_from_stream(name, stream)
            .await
            .map_err(|source| Error::Count { region: region.clone(), class, source })?;
        let info = consumer.cached_info();
        Ok(Pending {
            waiting: info.num_pending,
            delivered: info.num_ack_pending as u64,
            idle_slots: info.num_waiting as u64,
        })
    }

    /// Takes jobs of one region and class. Asks the server nothing until
    /// [`Puller::next`] is called.
    #[must_use]
    pub fn puller(&self, region: &Region, class: Class) -> Puller {
        Puller::new(&self.bus, region, class)
    }
}

/// Removes the messages of `stream` that match `filter`, up to and including
/// sequence `last` if there is one.
pub(crate) async fn purge(
    bus: &Bus,
    stream: &str,
    filter: String,
    last: Option<u64>,
) -> Result<u64, PurgeError> {
    // Only the name is checked here, and ours are valid.
    let stream = bus.context().get_stream_no_info(stream).await.map_err(|error| {
        PurgeError::with_source(async_nats::jetstream::stream::PurgeErrorKind::Request, error)
    })?;
    let purge = stream.purge().filter(filter);
    Ok(match last {
        Some(last) => purge.sequence(last + 1).await?.purged,
        None => purge.await?.purged,
    })
}
