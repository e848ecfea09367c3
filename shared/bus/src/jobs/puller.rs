//! Taking jobs, one per free slot.
//!
//! Owns the rule that a worker never holds a job that it is not free to work on:
//! one request for one message, made when a slot asks. Nothing is fetched ahead,
//! since a job fetched ahead waits behind a busy worker while others idle.

use std::time::Duration;

use serde::de::DeserializeOwned;
use slipway_domain::{Class, JobId, Region};
use tokio::time::sleep;

use crate::ack::{self, Acker};
use crate::backoff::Backoff;
use crate::connection::Bus;
use crate::payload::{self, Poison};
use crate::pull::{InFlight, Lost, Pull, Pulled, hand_back};
use crate::trace::{self, TraceParent};
use crate::{AckError, topology};

/// A taker of jobs of one region and class; clones take independently.
#[derive(Debug, Clone)]
pub struct Puller {
    bus: Bus,
    stream: String,
    consumer: &'static str,
}

/// A job, delivered to this worker and nobody else until
/// [`JOB_ACK_WAIT`](crate::topology::JOB_ACK_WAIT) has passed. Claim it, then
/// ack it: an ack is no fence, the claim is.
#[derive(Debug)]
pub struct Delivery<T> {
    /// The job, by the subject.
    pub job: JobId,
    /// The message, if it can be read; end it with [`Delivery::term`] if not.
    pub payload: Result<T, Poison>,
    /// How often it was delivered, from 1.
    pub delivered: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    acker: Acker,
}

impl Puller {
    pub(super) fn new(bus: &Bus, region: &Region, class: Class) -> Self {
        let (stream, consumer) = (topology::jobs_stream(region), topology::jobs_consumer(class));
        Self { bus: bus.clone(), stream, consumer }
    }

    /// Waits for a job for one free slot; `None` once `cancelled` completes. A
    /// worker with several free slots calls it once for each, at the same time
    /// or one after the other.
    ///
    /// End it through `cancelled`, which hands back a job that is on its way:
    /// the job of a dropped call is idle until its ack wait has passed.
    pub async fn next<T: DeserializeOwned>(
        &self,
        cancelled: impl Future<Output = ()>,
    ) -> Option<Delivery<T>> {
        let mut taker = self.taker();
        // Cancel-safe: a job that arrived stays with the taker.
        tokio::select! {
            () = cancelled => {}
            delivery = taker.next() => return Some(delivery),
        }
        taker.give_up().await;
        None
    }

    /// One who takes job after job by the same subscription. Asks the server nothing
    /// until [`Taker::next`] is called.
    #[must_use]
    pub fn taker(&self) -> Taker {
        let pull = Pull::new(&self.bus, &self.stream, self.consumer, 1, InFlight::Keep);
        Taker { puller: self.clone(), pull, backoff: Backoff::reopening() }
    }
}

/// Takes jobs one at a time. What it asks for stays asked for while nobody waits: end it
/// through [`Taker::give_up`], or a job that comes is idle until its ack wait has passed.
pub struct Taker {
    puller: Puller,
    pull: Pull,
    backoff: Backoff,
}

impl Taker {
    /// Waits for a job, for which it asks unless it did. Cancel-safe: what arrives
    /// meanwhile is there on the next call.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Delivery<T> {
        let Puller { bus, stream, .. } = &self.puller;
        loop {
            match self.pull.next().await {
                Pulled::Message(message) => {
                    self.backoff.reset();
                    if let Some((message, position, acker)) = ack::position(bus, message) {
                        let Some(job) = topology::job_of(&message.subject) else {
                            // Boxed: what hardly ever happens need not make room in every slot.
                            Box::pin(refuse(&message.subject, &acker)).await;
                            continue;
                        };
                        return Delivery {
                            job,
                            payload: payload::decode(&message.subject, &message.payload),
                            delivered: position.delivered,
                            trace: trace::extract(message.headers.as_ref()),
                            acker,
                        };
                    }
                    tracing::warn!(%stream, "a message that no consumer delivered");
                }
                Pulled::Lost(Lost::Reconnected) => {}
                Pulled::Lost(lost) => {
                    let pause = self.backoff.pause();
                    tracing::warn!(%stream, %lost, ?pause, "asking for a job again");
                    sleep(pause).await;
                }
            }
        }
    }

    /// Asks for nothing any more, until the next call, and hands back a job that is on
    /// its way.
    pub async fn give_up(&mut self) {
        let in_flight = self.pull.give_up().await;
        hand_back(&self.puller.bus, in_flight).await;
    }
}

/// Ends a message that was published past the scheme of subjects.
async fn refuse(subject: &str, acker: &Acker) {
    tracing::error!(%subject, "a message on a subject without a job is thrown away");
    if let Err(error) = acker.term("the subject names no job").await {
        tracing::debug!(%error, "the message will come again");
    }
}

impl<T> Delivery<T> {
    /// Takes the message out of the queue for good; returns when the server
    /// confirmed. Whoever claimed the job calls it, and so does whoever found
    /// that there is nothing to do.
    ///
    /// # Errors
    /// If not confirmed, the message may come again.
    pub async fn ack(&self) -> Result<(), AckError> {
        self.acker.ack().await
    }

    /// Puts the message back, to be delivered after `delay`.
    ///
    /// # Errors
    /// If not confirmed, it comes again after its ack wait.
    pub async fn nak(&self, delay: Duration) -> Result<(), AckError> {
        self.acker.nak(delay).await
    }

    /// Puts the message back for other workers, to be delivered soon and then ever
    /// later: this one does not know its form.
    ///
    /// # Errors
    /// If not confirmed, it comes again after its ack wait.
    pub async fn pass_on(&self) -> Result<(), AckError> {
        self.acker.pass_on(self.delivered).await
    }

    /// Takes the message out of the queue since nobody can ever work on it.
    ///
    /// # Errors
    /// If not confirmed, the message may come again.
    pub async fn term(&self, reason: &str) -> Result<(), AckError> {
        self.acker.term(reason).await
    }
}
