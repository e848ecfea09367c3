//! What JetStream alone takes: the floor beside which a load test shows the
//! figures of a whole system.
//!
//! Owns streams of its own, set up as a region's are (storage, replicas,
//! duplicate window, consumer), and the bare operations on them. Refuses
//! anything that protects a job: no leases, no patience, no second try. Invariant:
//! each operation returns when the server said that it is stored, so the floor
//! is as durable as the system beside it.

use async_nats::header;
use async_nats::jetstream::context::DeleteStreamError;
use bytes::Bytes;
use tokio::time::Instant;

use crate::ack::{self, Acker};
use crate::connection::Bus;
use crate::publish::{self, Outgoing};
use crate::pull::{InFlight, Lost, Pull, Pulled};
use crate::topology::floor::{self as names, CONSUMER, Part};
use crate::{AckError, ensure};

/// A floor could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("cannot delete stream `{stream}`: delete it by hand")]
pub struct RemoveError {
    /// Its name.
    pub stream: String,
    /// What the server said.
    #[source]
    pub source: DeleteStreamError,
}

/// Streams to measure with; clones share them.
#[derive(Debug, Clone)]
pub struct Floor {
    bus: Bus,
    run: String,
}

/// Takes messages off the queue, one at a time.
pub struct Taker {
    bus: Bus,
    pull: Pull,
}

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The number that it was published under.
    pub number: u64,
    /// When it was there.
    pub at: Instant,
    acker: Acker,
}

impl Taken {
    /// Takes it out of the queue, and returns when the server confirmed.
    ///
    /// # Errors
    /// It did not.
    pub async fn ack(&self) -> Result<(), AckError> {
        self.acker.ack().await
    }
}

impl Floor {
    /// Creates the streams, on `replicas` servers. [`Floor::remove`] them.
    ///
    /// # Errors
    /// The first that could not be created.
    pub async fn create(bus: &Bus, replicas: usize) -> Result<Self, ensure::Error> {
        let floor = Self { bus: bus.clone(), run: format!("{:016x}", rand::random::<u64>()) };
        let created = floor.ensure(replicas).await;
        if created.is_err() {
            // What is there already is empty; its name says what it was for.
            let _removed = floor.remove().await;
        }
        created.map(|()| floor)
    }

    async fn ensure(&self, replicas: usize) -> Result<(), ensure::Error> {
        for part in Part::ALL {
            let config = names::config(&self.run, part, replicas);
            self.bus.ensure_stream(config).await?;
        }
        let queue = names::stream(&self.run, Part::Queue);
        self.bus.ensure_consumer(&queue, names::consumer_config()).await
    }

    /// Puts a message on the queue.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn publish(&self, number: u64, payload: &Bytes) -> Result<(), publish::Error> {
        let id = format!("{number}/queue");
        self.outgoing(Part::Queue, number, payload, &id).send(&self.bus).await.map(|_| ())
    }

    /// Appends an event; `word` tells those of one number apart.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn event(
        &self,
        number: u64,
        word: &str,
        payload: &Bytes,
    ) -> Result<(), publish::Error> {
        let id = format!("{number}/{word}");
        self.outgoing(Part::Events, number, payload, &id).send(&self.bus).await.map(|_| ())
    }

    /// Writes the value of `number` by compare-and-set; 0 expects none. Returns
    /// the new revision.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn put(
        &self,
        number: u64,
        payload: &Bytes,
        revision: u64,
    ) -> Result<u64, publish::Error> {
        let id = format!("{number}/value/{revision}");
        let mut message = self.outgoing(Part::Values, number, payload, &id);
        message.headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        message.send(&self.bus).await.map(|stored| stored.sequence)
    }

    /// One more that takes from the queue.
    #[must_use]
    pub fn taker(&self) -> Taker {
        let queue = names::stream(&self.run, Part::Queue);
        let pull = Pull::new(&self.bus, &queue, CONSUMER, 1, InFlight::Keep);
        Taker { bus: self.bus.clone(), pull }
    }

    /// Deletes the streams.
    ///
    /// # Errors
    /// The first that is still there, if it ever was.
    pub async fn remove(&self) -> Result<(), RemoveError> {
        let mut outcome = Ok(());
        for part in Part::ALL {
            let stream = names::stream(&self.run, part);
            if let Err(source) = self.bus.context().delete_stream(&stream).await {
                outcome = outcome.and(Err(RemoveError { stream, source }));
            }
        }
        outcome
    }

    fn outgoing(&self, part: Part, number: u64, payload: &Bytes, id: &str) -> Outgoing {
        let subject = names::subject(&self.run, part, number);
        Outgoing::new(subject, payload.clone(), id)
    }
}

impl Taker {
    /// Waits for the next message; `None` when there will be none, since the
    /// streams or the connection are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Taken> {
        loop {
            let message = match self.pull.next().await {
                Pulled::Message(message) => message,
                Pulled::Lost(Lost::Reconnected | Lost::Silent) => continue,
                Pulled::Lost(Lost::Gone | Lost::Ended(_) | Lost::Closed) => return None,
            };
            let at = Instant::now();
            let Some((message, _, acker)) = ack::position(&self.bus, message) else { continue };
            let number = message.subject.rsplit('.').next().and_then(|last| last.parse().ok());
            let Some(number) = number else { continue };
            return Some(Taken { number, at, acker });
        }
    }
}
