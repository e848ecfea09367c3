//! What workers report on their jobs.
//!
//! Owns getting an event into its region's stream whatever it takes, and handing
//! each to one scheduler replica until it is acked. Order is kept per worker as
//! published, but a redelivery comes later, and two replicas work at the same
//! time: receivers go by what the event says, not by when it came.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_domain::{JobId, Region, WorkerId};
use tokio::time::sleep;

use crate::ack::{self, Acker};
use crate::backoff::Backoff;
use crate::connection::Bus;
use crate::payload::{self, Poison};
use crate::publish::{self, Outgoing};
use crate::pull::{InFlight, Lost, Pull, Pulled, hand_back};
use crate::tail::{self, Source, Step, Tail};
use crate::trace::{self, TraceParent};
use crate::{AckError, topology};

/// Events asked for at a time: enough to hide the round trip, few enough that a
/// replica which stalls does not hold many back.
const BATCH: usize = 32;
/// Events asked for at a time by those who read all of them.
const READ_BATCH: usize = 500;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an event is not in the stream, or cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event does not serialize.
    #[error("cannot encode an event of job `{job}`")]
    Encode {
        /// The job.
        job: JobId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The stream did not tell what it holds.
    #[error("cannot look up the events of job `{job}`")]
    LookUp {
        /// The job.
        job: JobId,
        /// What the client saw.
        #[source]
        source: BoxError,
    },
    /// There is nothing to read.
    #[error("cannot read the events of region `{region}`")]
    Read {
        /// The region.
        region: Region,
        /// Why not.
        #[source]
        source: tail::Error,
    },
    /// The server refuses it, and would again.
    #[error("an event of job `{job}` was not published")]
    Publish {
        /// The job.
        job: JobId,
        /// The failure.
        #[source]
        source: publish::Error,
    },
}

impl Error {
    /// Only a look-up: a publication is retried before an error is returned.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Encode { .. } | Self::Read { .. } => false,
            Self::LookUp { .. } => true,
            Self::Publish { source, .. } => source.is_retryable(),
        }
    }
}

/// Events as they are published; see [`Events::overhear`].
pub struct Overheard {
    messages: async_nats::Subscriber,
}

impl Overheard {
    /// The next event that can be read; `None` when the connection is closed.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let message = self.messages.next().await?;
            if let Ok(event) = payload::decode(&message.subject, &message.payload) {
                return Some(event);
            }
        }
    }
}

/// The events of all regions.
#[derive(Debug, Clone)]
pub struct Events {
    bus: Bus,
}

impl Bus {
    /// The events of workers.
    #[must_use]
    pub fn events(&self) -> Events {
        Events { bus: self.clone() }
    }
}

impl Events {
    /// Publishes an event and returns when it is stored, trying until it is;
    /// dropping the future gives up. `message_id` names the event, so that a
    /// repeat within ten minutes is not stored again.
    ///
    /// # Errors
    /// Only what no repetition can cure.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        region: &Region,
        worker: &WorkerId,
        job: JobId,
        event: &T,
        message_id: &str,
    ) -> Result<(), Error> {
        let payload = payload::encode(event).map_err(|source| Error::Encode { job, source })?;
        let subject = topology::event_subject(region, worker, &job);
        let message = Outgoing::new(subject, payload, message_id);
        match message.send_until(&self.bus, None).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Publish { job, source }),
        }
    }

    /// Hears the events of all regions as they are published, and takes them from
    /// nobody. For onlookers: what comes while nobody listens, or faster than it
    /// is read, is lost.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn overhear(&self) -> Result<Overheard, async_nats::SubscribeError> {
        let messages = self.bus.client().subscribe(topology::EVENTS_FILTER).await?;
        Ok(Overheard { messages })
    }

    /// The last event that a worker published on a job, whether it was consumed
    /// or not; `None` if there is none, or none that can be read.
    ///
    /// # Errors
    /// [`Error::LookUp`].
    pub async fn last<T: DeserializeOwned>(
        &self,
        region: &Region,
        worker: &WorkerId,
        job: JobId,
    ) -> Result<Option<T>, Error> {
        self.last_on(region, topology::event_subject(region, worker, &job), job).await
    }

    /// The last event that anybody published on a job, as [`Events::last`].
    ///
    /// # Errors
    /// [`Error::LookUp`].
    pub async fn last_of<T: DeserializeOwned>(
        &self,
        region: &Region,
        job: JobId,
    ) -> Result<Option<T>, Error> {
        self.last_on(region, topology::event_filter(region, &job), job).await
    }

    async fn last_on<T: DeserializeOwned>(
        &self,
        region: &Region,
        subject: String,
        job: JobId,
    ) -> Result<Option<T>, Error> {
        let failed = |source: BoxError| Error::LookUp { job, source };
        let stream = self.bus.context().get_stream_no_info(topology::events_stream(region)).await;
        let stream = stream.map_err(|error| failed(error.into()))?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(payload::decode(&subject, &message.payload).ok()),
            Err(error) if crate::bucket::is_no_message(&error) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Reads every event of a region that the stream still holds, in the order in
    /// which they were stored, consumed or not, and takes none of them from anybody.
    /// What cannot be read as a `T` is left out.
    ///
    /// # Errors
    /// [`Error::Read`] if the region has no event stream.
    pub async fn read_all<T: DeserializeOwned>(&self, region: &Region) -> Result<Vec<T>, Error> {
        let source = Source {
            stream: topology::events_stream(region),
            filter: topology::events_filter(region),
            batch: READ_BATCH,
            stale_after: None,
        };
        let mut tail = Tail::new(&self.bus, source, 0);
        let mut events = Vec::new();
        loop {
            let step = tail.next().await;
            match step.map_err(|source| Error::Read { region: region.clone(), source })? {
                Step::CaughtUp => return Ok(events),
                Step::Reset => events.clear(),
                Step::Message(message, _) => {
                    events.extend(payload::decode(&message.subject, &message.payload).ok());
                }
            }
        }
    }

    /// Takes events of a region. All takers, in all replicas, share them.
    #[must_use]
    pub fn consume(&self, region: &Region) -> EventConsumer {
        let stream = topology::events_stream(region);
        let name = topology::EVENTS_CONSUMER;
        let pull = Pull::new(&self.bus, &stream, name, BATCH, InFlight::Keep);
        EventConsumer { bus: self.bus.clone(), stream, pull, backoff: Backoff::reopening() }
    }
}

/// A taker of events.
pub struct EventConsumer {
    bus: Bus,
    stream: String,
    pull: Pull,
    backoff: Backoff,
}

/// An event, this replica's until [`EVENT_ACK_WAIT`](crate::topology::EVENT_ACK_WAIT)
/// has passed since it was fetched, up to a batch before it is returned here.
#[derive(Debug)]
pub struct EventDelivery<T> {
    /// Who published it, as the server's permissions vouch for.
    pub worker: WorkerId,
    /// The job, by the subject.
    pub job: JobId,
    /// The event, if it can be read; end it with [`EventDelivery::term`] if not.
    pub payload: Result<T, Poison>,
    /// Its place in the stream.
    pub sequence: u64,
    /// How often it was delivered, from 1.
    pub delivered: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    acker: Acker,
}

impl EventConsumer {
    /// The next event, however long it takes and whatever happens to the server
    /// meanwhile. Cancel-safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> EventDelivery<T> {
        loop {
            match self.pull.next().await {
                Pulled::Message(message) => {
                    self.backoff.reset();
                    let Some((message, position, acker)) = ack::position(&self.bus, message) else {
                        tracing::warn!(stream = %self.stream, "a message that no consumer delivered");
                        continue;
                    };
                    let Some((worker, job)) = topology::worker_and_job(&message.subject) else {
                        refuse(&message.subject, &acker).await;
                        continue;
                    };
                    return EventDelivery {
                        worker,
                        job,
                        payload: payload::decode(&message.subject, &message.payload),
                        sequence: position.stream_sequence,
                        delivered: position.delivered,
                        trace: trace::extract(message.headers.as_ref()),
                        acker,
                    };
                }
                Pulled::Lost(Lost::Reconnected) => {}
                Pulled::Lost(lost) => {
                    let pause = self.backoff.pause();
                    tracing::warn!(stream = %self.stream, %lost, ?pause, "asking for events again");
                    sleep(pause).await;
                }
            }
        }
    }

    /// Stops, and hands back what was fetched and not returned, so that another
    /// replica has it at once.
    pub async fn stop(mut self) {
        let in_flight = self.pull.give_up().await;
        hand_back(&self.bus, in_flight).await;
    }
}

/// Ends a message that was published past the scheme of subjects.
async fn refuse(subject: &str, acker: &Acker) {
    tracing::warn!(%subject, "an event on a subject without worker and job");
    if let Err(error) = acker.term("subject names no worker and job").await {
        tracing::debug!(%error, "the event will come again");
    }
}

impl<T> EventDelivery<T> {
    /// Done with. Nobody waits until the server knows: a crash could undo that
    /// anyway, and the event comes again. What it causes must bear repeating.
    ///
    /// # Errors
    /// The connection is closed; the event will come again.
    pub async fn ack(&self) -> Result<(), AckError> {
        self.acker.ack_unconfirmed().await
    }

    /// To be delivered again after `delay`.
    ///
    /// # Errors
    /// If not confirmed, it comes again after its ack wait.
    pub async fn nak(&self, delay: Duration) -> Result<(), AckError> {
        self.acker.nak(delay).await
    }

    /// To be delivered again, soon and then ever later, to another replica: this one
    /// does not know its form yet.
    ///
    /// # Errors
    /// If not confirmed, it comes again after its ack wait.
    pub async fn pass_on(&self) -> Result<(), AckError> {
        self.acker.pass_on(self.delivered).await
    }

    /// Never to be delivered again, for `reason`.
    ///
    /// # Errors
    /// If not confirmed, the event may come again.
    pub async fn term(&self, reason: &str) -> Result<(), AckError> {
        self.acker.term(reason).await
    }
}
