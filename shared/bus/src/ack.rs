//! Disposing of a delivered message.
//!
//! Owns the ack protocol of JetStream; every word but one waits for the server's answer.
//! Invariant to remember, which no code here can enforce: an ack is no fence.
//! After the ack wait has passed the message is somebody else's, and an ack,
//! nak or term from here acts on that delivery.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Message, Request, Subject, jetstream};
use bytes::Bytes;
use jiff::Timestamp;

use crate::connection::Bus;

/// Pause before a message that is for others is delivered again; doubles each time.
const OTHERS: Duration = Duration::from_millis(250);
/// The longest such pause.
const OTHERS_MAX: Duration = Duration::from_secs(16);

/// The server did not confirm; the message may be delivered again.
#[derive(Debug, thiserror::Error)]
#[error("the server did not confirm `{word}` for a delivered message")]
pub struct Error {
    /// What was asked: `ack`, `nak` or `term`.
    pub word: &'static str,
    /// What the client saw.
    #[source]
    pub source: async_nats::RequestError,
}

impl Error {
    /// Whether asking again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.source.kind(),
            RequestErrorKind::TimedOut | RequestErrorKind::NoResponders | RequestErrorKind::Other
        )
    }
}

/// The right to dispose of one delivered message.
#[derive(Debug)]
pub(crate) struct Acker {
    bus: Bus,
    reply: Subject,
}

impl Acker {
    /// Done: it is never delivered again. Returns when the server knows.
    pub(crate) async fn ack(&self) -> Result<(), Error> {
        self.say("ack", Bytes::from_static(b"+ACK")).await
    }

    /// Done, as far as the server hears of it: nobody waits for its answer. For what
    /// may come again without harm.
    pub(crate) async fn ack_unconfirmed(&self) -> Result<(), Error> {
        let said = self.bus.client().publish(self.reply.clone(), Bytes::from_static(b"+ACK")).await;
        said.map_err(|_| Error { word: "ack", source: RequestErrorKind::Other.into() })
    }

    /// Not now: it is delivered again after `delay`.
    pub(crate) async fn nak(&self, delay: Duration) -> Result<(), Error> {
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.say("nak", format!("-NAK {{\"delay\":{nanos}}}").into()).await
    }

    /// Not for this receiver: to be delivered again soon, to whoever asks then, and
    /// ever later, so that a message nobody can take costs little.
    pub(crate) async fn pass_on(&self, delivered: u64) -> Result<(), Error> {
        self.nak(pause_for_others(delivered)).await
    }

    /// Never again, and `reason` goes into the server's advisory.
    pub(crate) async fn term(&self, reason: &str) -> Result<(), Error> {
        self.say("term", format!("+TERM {reason}").into()).await
    }

    async fn say(&self, word: &'static str, payload: Bytes) -> Result<(), Error> {
        let request = Request::new().payload(payload).timeout(Some(self.bus.request_timeout()));
        let answer = self.bus.client().send_request(self.reply.clone(), request).await;
        answer.map(|_| ()).map_err(|source| Error { word, source })
    }
}

fn pause_for_others(delivered: u64) -> Duration {
    let doublings = delivered.saturating_sub(1).min(16);
    OTHERS.saturating_mul(1 << doublings).min(OTHERS_MAX)
}

/// Where a delivered message stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    /// Its place in the stream.
    pub(crate) stream_sequence: u64,
    /// Its place among this consumer's deliveries, from 1 without gaps.
    pub(crate) consumer_sequence: u64,
    /// How often it was delivered, from 1.
    pub(crate) delivered: u64,
    /// How many messages follow it, at the time of delivery.
    pub(crate) pending: u64,
    /// When the server stored it.
    pub(crate) stored_at: Timestamp,
}

/// Reads the reply subject of a message delivered by a consumer; `None` for a
/// message that did not come from one.
pub(crate) fn position(bus: &Bus, message: Message) -> Option<(Message, Position, Acker)> {
    let (_, message, position) = placed(bus.context().clone(), message);
    let reply = message.reply.clone()?;
    Some((message, position?, Acker { bus: bus.clone(), reply }))
}

/// Reads where a message stands that nobody acks. The library's way to read it wants a
/// context, which is lent: a copy for each of very many messages takes its time.
pub(crate) fn placed(
    context: jetstream::Context,
    message: Message,
) -> (jetstream::Context, Message, Option<Position>) {
    let message = jetstream::Message { message, context };
    let position = message.info().ok().and_then(|info| {
        Some(Position {
            stream_sequence: info.stream_sequence,
            consumer_sequence: info.consumer_sequence,
            delivered: u64::try_from(info.delivered).ok()?,
            pending: info.pending,
            stored_at: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok()?,
        })
    });
    let jetstream::Message { message, context } = message;
    (context, message, position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_comes_ever_later() {
        let pauses =
            [1, 2, 3, 7, 8, 1_000].map(|delivered| pause_for_others(delivered).as_millis());
        assert_eq!(pauses, [250, 500, 1000, 16_000, 16_000, 16_000]);
    }
}
