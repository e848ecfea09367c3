//! Disposing of a delivered message.
//!
//! Owns the ack protocol of JetStream; every word but one waits for the server's answer.
//! Invariant to remember, which no code here can enforce: an ack is no fence.
//! After the ack wait has passed the message is somebody else's, and an ack,
//! nak or term from here acts on that delivery.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Message, Request, Subject};
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
    let (position, reply) = (placed(&message)?, message.reply.clone()?);
    Some((message, position, Acker { bus: bus.clone(), reply }))
}

/// Reads where a message stands (ADR-15). The client library does so, too, but by way of
/// a calendar, and for that of a message with its context.
pub(crate) fn placed(message: &Message) -> Option<Position> {
    let tokens = message.reply.as_deref()?.strip_prefix("$JS.ACK.")?;
    // Servers of old say neither domain nor account.
    let unknown = if tokens.bytes().filter(|byte| *byte == b'.').count() < 8 { 2 } else { 4 };
    let mut tokens = tokens.split('.').skip(unknown);
    let mut number = || tokens.next()?.parse::<u64>().ok();
    Some(Position {
        delivered: number()?,
        stream_sequence: number()?,
        consumer_sequence: number()?,
        stored_at: Timestamp::from_nanosecond(number()?.into()).ok()?,
        pending: number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(reply: &str) -> Message {
        Message {
            subject: "a".into(),
            reply: Some(reply.into()),
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn where_a_message_stands_is_read_from_both_forms_of_its_reply() {
        for reply in [
            "$JS.ACK.KV_a.tail.2.17.5.1754000000000000001.9",
            "$JS.ACK._.hash.KV_a.tail.2.17.5.1754000000000000001.9",
            "$JS.ACK.hub.hash.KV_a.tail.2.17.5.1754000000000000001.9.token.more",
        ] {
            let read = placed(&delivered(reply)).expect(reply);
            let numbers = [read.delivered, read.stream_sequence, read.consumer_sequence];
            assert_eq!((numbers, read.pending), ([2, 17, 5], 9), "{reply}");
            assert_eq!(read.stored_at.as_nanosecond(), 1_754_000_000_000_000_001, "{reply}");
        }
        for other in ["", "a.b", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.1.x.3.4.5"] {
            assert!(placed(&delivered(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn what_nobody_takes_comes_ever_later() {
        let pauses =
            [1, 2, 3, 7, 8, 1_000].map(|delivered| pause_for_others(delivered).as_millis());
        assert_eq!(pauses, [250, 500, 1000, 16_000, 16_000, 16_000]);
    }
}
