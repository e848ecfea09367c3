//! One message into a stream, with the server's word that it is stored.
//!
//! Owns the request/reply form of a JetStream publish and the sorting of its
//! outcomes. Refuses to publish without waiting for the answer: the server drops
//! such messages under load and only logs it. Invariant: every message has an
//! id, and repeats of one message carry the same one.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request, header};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::connection::Bus;
use crate::trace;

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is missing or has no leader; nothing was stored.
    #[error("no stream takes messages on `{subject}`")]
    NoStream {
        /// Where the message was published.
        subject: String,
    },
    /// No answer came in time: the message may be stored or not. A missing
    /// permission looks like this, too, and is logged when the server says so.
    #[error("no answer to the message on `{subject}`: it may be stored or not")]
    Ambiguous {
        /// Where the message was published.
        subject: String,
        /// What the client saw.
        #[source]
        source: async_nats::RequestError,
    },
    /// The expected revision is not the current one; nothing was stored.
    #[error("the last message on `{subject}` is not the expected one")]
    WrongSequence {
        /// Where the message was published.
        subject: String,
    },
    /// The message cannot be sent at all, for example since it is too large.
    #[error("the message on `{subject}` cannot be sent")]
    Unsendable {
        /// Where the message was published.
        subject: String,
        /// What the client saw.
        #[source]
        source: async_nats::RequestError,
    },
    /// The server refused; nothing was stored.
    #[error("the server refused the message on `{subject}`: {description} ({code})")]
    Refused {
        /// Where the message was published.
        subject: String,
        /// JetStream's error code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
}

impl Error {
    /// Whether the same message, with the same id, may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NoStream { .. } | Self::Ambiguous { .. } => true,
            Self::WrongSequence { .. } | Self::Unsendable { .. } => false,
            Self::Refused { code, .. } => is_passing(*code),
        }
    }
}

/// Codes that say "not now": no leader, overload, a batch cut off, a full queue.
pub(crate) const fn is_passing(code: u64) -> bool {
    matches!(
        code,
        10004
            | 10006
            | 10007
            | 10008
            | 10009
            | 10041
            | 10077
            | 10118
            | 10158
            | 10163
            | 10167
            | 10176
            | 10194
            | 10210
    )
}

/// A message on its way into a stream.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    /// A message with its id and, if one is in scope, the trace it belongs to.
    pub(crate) fn new(subject: String, payload: Bytes, message_id: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message_id);
        trace::attach(&mut headers);
        Self { subject, headers, payload }
    }

    /// Publishes once and waits for the answer.
    pub(crate) async fn send(&self, bus: &Bus) -> Result<Stored, Error> {
        let request = Request::new()
            .headers(self.headers.clone())
            .payload(self.payload.clone())
            .timeout(Some(bus.request_timeout()));
        let answer = bus.client().send_request(self.subject.clone(), request).await;
        parse(&self.subject, &answer.map_err(|source| self.failed(source))?.payload)
    }

    /// Publishes until the server has it, pausing longer and longer. Ends early
    /// with an error that repeating cannot cure, or the last one at `deadline`.
    /// Without a deadline it also waits for the connection, since the client would
    /// keep a copy of every try until it is back.
    pub(crate) async fn send_until(
        &self,
        bus: &Bus,
        deadline: Option<Instant>,
    ) -> Result<Stored, Error> {
        let mut backoff = Backoff::repeating();
        loop {
            if deadline.is_none() {
                bus.connected().await;
            }
            let error = match self.send(bus).await {
                Ok(stored) => return Ok(stored),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            let pause = backoff.pause();
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                return Err(error);
            }
            tracing::debug!(subject = %self.subject, %error, "publishing again");
            tokio::time::sleep(pause).await;
        }
    }

    fn failed(&self, source: async_nats::RequestError) -> Error {
        let subject = self.subject.clone();
        match source.kind() {
            RequestErrorKind::NoResponders => Error::NoStream { subject },
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Error::Unsendable { subject, source }
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                Error::Ambiguous { subject, source }
            }
        }
    }
}

/// The server's word that a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its position in the stream.
    pub(crate) sequence: u64,
    /// Whether an earlier message with the same id was stored instead.
    pub(crate) duplicate: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Reads the answer to a publish on `subject`.
pub(crate) fn parse(subject: &str, payload: &[u8]) -> Result<Stored, Error> {
    let subject = subject.to_owned();
    match serde_json::from_slice(payload) {
        Ok(Answer { error: None, seq, duplicate }) => Ok(Stored { sequence: seq, duplicate }),
        Ok(Answer { error: Some(error), .. }) if matches!(error.err_code, 10071 | 10164) => {
            Err(Error::WrongSequence { subject })
        }
        Ok(Answer { error: Some(error), .. }) => {
            let AnswerError { err_code: code, description } = error;
            Err(Error::Refused { subject, code, description })
        }
        Err(error) => {
            let description = format!("not an answer of JetStream: {error}");
            Err(Error::Refused { subject, code: 0, description })
        }
    }
}

/// Until when an operation that somebody waits for is repeated.
pub(crate) fn deadline(bus: &Bus) -> Instant {
    Instant::now() + bus.request_timeout() + Duration::from_secs(2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_may_be_done_about_them() {
        let stored = parse("s", br#"{"stream":"A","seq":7,"duplicate":true}"#).unwrap();
        assert_eq!(stored, Stored { sequence: 7, duplicate: true });
        let conflict =
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}"#;
        assert!(matches!(parse("s", conflict), Err(Error::WrongSequence { .. })));
        let not_now = br#"{"error":{"code":503,"err_code":10008,"description":"unavailable"}}"#;
        assert!(parse("s", not_now).unwrap_err().is_retryable());
        let never = br#"{"error":{"code":400,"err_code":10166,"description":"ttl disabled"}}"#;
        assert!(!parse("s", never).unwrap_err().is_retryable());
        assert!(!parse("s", b"hello").unwrap_err().is_retryable());
    }
}
