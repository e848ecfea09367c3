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
        let mut cancelled = std::pin::pin!(cancelled);
        let mut pull = Pull::new(&self.bus, &self.stream, self.consumer, 1, InFlight::Keep);
        let mut backoff = Backoff::reopening();
        loop {
            // Both are cancel-safe: a message that arrived stays in `pull`.
            let pulled = tokio::select! {
                () = &mut cancelled => {
                    let in_flight = pull.give_up().await;
                    hand_back(&self.bus, in_flight).await;
                    return None;
                }
                pulled = pull.next() => pulled,
            };
            match pulled {
                Pulled::Message(message) => {
                    if let Some((message, position, acker)) = ack::position(&self.bus, message) {
                        let Some(job) = topology::job_of(&message.subject) else {
                            // Boxed: what hardly ever happens need not make room in every slot.
                            Box::pin(refuse(&message.subject, &acker)).await;
                            continue;
                        };
                        return Some(Delivery {
                            job,
                            payload: payload::decode(&message.subject, &message.payload),
                            delivered: position.delivered,
                            trace: trace::extract(message.headers.as_ref()),
                            acker,
                        });
                    }
                    tracing::warn!(stream = %self.stream, "a message that no consumer delivered");
                }
                Pulled::Lost(Lost::Reconnected) => {}
                Pulled::Lost(lost) => {
                    let pause = backoff.pause();
                    tracing::warn!(stream = %self.stream, %lost, ?pause, "asking for a job again");
                    tokio::select! {
                        () = &mut cancelled => return None,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
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
