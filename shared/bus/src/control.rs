//! Words from the scheduler to one worker.
//!
//! Owns core NATS messages, which reach whoever listens at that moment and are
//! never stored. They only make a worker look sooner: what must not be missed
//! stands in its leases.

use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_domain::{Region, WorkerId};

use crate::connection::Bus;
use crate::payload::{self, Poison};
use crate::topology;
use crate::trace::{self, TraceParent};

/// Why a word was not sent or nobody can listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The message does not serialize.
    #[error("cannot encode the control message `{verb}`")]
    Encode {
        /// The verb.
        verb: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The message was not sent.
    #[error("control message `{verb}` to worker `{worker}` was not sent")]
    Publish {
        /// The verb.
        verb: String,
        /// The worker.
        worker: WorkerId,
        /// What the client saw.
        #[source]
        source: async_nats::PublishError,
    },
    /// The subscription was not made.
    #[error("cannot listen to control messages for worker `{worker}`")]
    Subscribe {
        /// The worker.
        worker: WorkerId,
        /// What the client saw.
        #[source]
        source: async_nats::SubscribeError,
    },
}

impl Error {
    /// Whether the same call may succeed later. The client buffers while it is
    /// disconnected, so an error means that it is closed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}

/// Control of all workers.
#[derive(Debug, Clone)]
pub struct Control {
    bus: Bus,
}

impl Bus {
    /// Words to workers.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { bus: self.clone() }
    }
}

/// A word received.
#[derive(Debug)]
pub struct ControlDelivery<T> {
    /// The last token of the subject.
    pub verb: String,
    /// The message, if it can be read.
    pub payload: Result<T, Poison>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

/// A worker's ear.
pub struct ControlSubscription {
    messages: async_nats::Subscriber,
}

impl Control {
    /// Sends a word. That it was sent says nothing about anybody hearing it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        region: &Region,
        worker: &WorkerId,
        verb: &str,
        message: &T,
    ) -> Result<(), Error> {
        let encoded = payload::encode(message);
        let payload = encoded.map_err(|source| Error::Encode { verb: verb.to_owned(), source })?;
        let mut headers = async_nats::HeaderMap::new();
        trace::attach(&mut headers);
        let subject = topology::control_subject(region, worker, verb);
        let sent = self.bus.client().publish_with_headers(subject, headers, payload).await;
        sent.map_err(|source| Error::Publish {
            verb: verb.to_owned(),
            worker: worker.clone(),
            source,
        })
    }

    /// Listens to all words for a worker, also after reconnects. The server
    /// learns of it a moment after this returns.
    ///
    /// # Errors
    /// [`Error::Subscribe`].
    pub async fn subscribe(
        &self,
        region: &Region,
        worker: &WorkerId,
    ) -> Result<ControlSubscription, Error> {
        let subject = topology::control_subject(region, worker, ">");
        let client = self.bus.client();
        let messages = client
            .subscribe(subject)
            .await
            .map_err(|source| Error::Subscribe { worker: worker.clone(), source })?;
        if let Err(error) = client.flush().await {
            tracing::debug!(%error, "the subscription is sent when NATS is back");
        }
        Ok(ControlSubscription { messages })
    }
}

impl ControlSubscription {
    /// The next word; `None` once the bus is closed. Cancel-safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<ControlDelivery<T>> {
        let message = self.messages.next().await?;
        let verb = message.subject.splitn(5, '.').last().unwrap_or_default().to_owned();
        Some(ControlDelivery {
            verb,
            payload: payload::decode(&message.subject, &message.payload),
            trace: trace::extract(message.headers.as_ref()),
        })
    }
}
