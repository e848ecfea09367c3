//! Records under keys, changed by compare-and-set.
//!
//! Owns the key-value layout (ADR-8) on streams with one value per key, and the
//! rules about answers that never came. Refuses reads that may be stale as a
//! default: [`Bucket::get`] asks the leader. Invariants: a write with a
//! time-to-live never loses it; "absent" means that there is no value, whether
//! the key was never there, was deleted, or expired; of two writers that expect
//! the same revision one gets [`Error::Conflict`].
//!
//! # Answers that never came
//! Every write has an id of its own and is repeated with it until an answer
//! comes or about one request time-out has passed, so that a lost answer does
//! not turn into a conflict with oneself. If none comes at all the result is
//! [`Error::Ambiguous`]: the value may be written, now or a moment later. Read
//! the key, compare with what was to be written (an attempt's nonce, an id), and
//! try again under the revision found.

mod batch;
mod error;
mod watch;

use std::time::Duration;

use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind, Stream};
use async_nats::{HeaderMap, HeaderName, header, jetstream};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use batch::{Batch, Expected};
pub use error::Error;
pub use watch::{Change, DeleteReason, Watch};

use crate::backoff::Backoff;
use crate::connection::Bus;
use crate::payload;
use crate::publish::{self, Outgoing};
use crate::topology::{self, BucketName};

/// A name, since one that is text is parsed whenever it is looked for.
pub(crate) const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const NO_MESSAGE_FOUND: u64 = 10037;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, JSON as written.
    pub value: Bytes,
    /// What to expect when changing it. Grows with every write to the bucket.
    pub revision: u64,
    /// When it was written, by the server's clock.
    pub written_at: Timestamp,
}

impl Entry {
    /// The value.
    ///
    /// # Errors
    /// [`Error::Decode`] if it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read(|value| serde_json::from_slice(value))
    }

    /// What `read` makes of the value.
    ///
    /// # Errors
    /// [`Error::Decode`] if it makes nothing of it.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Error> {
        read(&self.value).map_err(|source| Error::Decode {
            key: self.key.clone(),
            revision: self.revision,
            source,
        })
    }
}

/// What lies under a key.
enum Last {
    Nothing,
    /// A deletion or expiry, with the revision that a new value must expect.
    Marker(u64),
    Value(Entry),
}

/// A bucket. Opening one asks the server nothing.
#[derive(Debug, Clone)]
pub struct Bucket {
    bus: Bus,
    name: BucketName,
}

impl Bus {
    /// The bucket of this name.
    #[must_use]
    pub fn bucket(&self, name: &BucketName) -> Bucket {
        Bucket { bus: self.clone(), name: name.clone() }
    }
}

impl Bucket {
    /// The value under `key` as of now: whatever was acknowledged before this
    /// call is in it. Costs a round trip to the leader.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] or [`Error::Unavailable`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        match self.last(key).await? {
            Last::Nothing | Last::Marker(_) => Ok(None),
            Last::Value(entry) => Ok(Some(entry)),
        }
    }

    /// The value under `key` from whichever replica answers: cheaper, and maybe
    /// older than one's own last write. Not a basis for decisions.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] or [`Error::Unavailable`].
    pub async fn get_any(&self, key: &str) -> Result<Option<Entry>, Error> {
        use jetstream::stream::DirectGetErrorKind;
        let subject = self.subject(key)?;
        let stream = self.stream().await?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) if is_marker(&message.headers) => Ok(None),
            Ok(message) => Ok(Some(entry(key, message))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unavailable(error)),
        }
    }

    /// Writes `value` if there is none, and returns its revision. With `ttl`
    /// (rounded up to whole seconds) it expires unless it is written again.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there is a value; otherwise see [`Error`].
    pub async fn create<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<u64, Error> {
        let message = self.put_message(key, value, ttl)?;
        match self.write(key, message.clone(), Some(0)).await {
            Err(Error::Conflict { .. }) => {}
            written => return written,
        }
        // Something is there; a marker of what once was is no value.
        match self.last(key).await? {
            Last::Marker(revision) => self.write(key, message, Some(revision)).await,
            Last::Nothing => self.write(key, message, Some(0)).await,
            Last::Value(_) => Err(self.conflict(key)),
        }
    }

    /// Writes `value` if `revision` is the current one, and returns the new
    /// revision. The time-to-live is that of this write: without `ttl` the value
    /// stays for ever, whatever it had before.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; otherwise see [`Error`].
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, Error> {
        self.write(key, self.put_message(key, value, ttl)?, Some(revision)).await
    }

    /// Writes `value` whatever is there, and returns its revision.
    ///
    /// # Errors
    /// See [`Error`]; never a conflict.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<u64, Error> {
        self.write(key, self.put_message(key, value, ttl)?, None).await
    }

    /// Deletes the value if `revision` is the current one. Watchers learn of it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; otherwise see [`Error`].
    pub async fn delete(&self, key: &str, revision: u64) -> Result<(), Error> {
        self.write(key, self.delete_message(key)?, Some(revision)).await.map(|_| ())
    }

    fn subject(&self, key: &str) -> Result<String, Error> {
        if is_key(key) {
            Ok(topology::key_subject(&self.name, key))
        } else {
            Err(Error::InvalidKey { key: key.to_owned() })
        }
    }

    fn put_message<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<Outgoing, Error> {
        let value = payload::encode(value)
            .map_err(|source| Error::Encode { key: key.to_owned(), source })?;
        self.value_message(key, value, ttl)
    }

    fn value_message(
        &self,
        key: &str,
        payload: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Outgoing, Error> {
        let mut message = Outgoing::new(self.subject(key)?, payload, &unique_id());
        if let Some(ttl) = ttl {
            set_ttl(&mut message.headers, ttl);
        }
        Ok(message)
    }

    fn delete_message(&self, key: &str) -> Result<Outgoing, Error> {
        let mut message = Outgoing::new(self.subject(key)?, Bytes::new(), &unique_id());
        message.headers.insert(KV_OPERATION, "DEL");
        set_ttl(&mut message.headers, self.name.marker_ttl());
        Ok(message)
    }

    async fn write(
        &self,
        key: &str,
        mut message: Outgoing,
        expected: Option<u64>,
    ) -> Result<u64, Error> {
        if let Some(revision) = expected {
            expect(&mut message.headers, revision);
        }
        let deadline = publish::deadline(&self.bus);
        let mut backoff = Backoff::repeating();
        let mut unanswered = None;
        loop {
            let error = match message.send(&self.bus).await {
                Ok(stored) => return Ok(stored.sequence),
                Err(error) => error,
            };
            let passing = error.is_retryable();
            let conflict = matches!(error, publish::Error::WrongSequence { .. });
            let worst = match unanswered.take() {
                Some(unanswered) if conflict => {
                    return self.resolve_write(key, &message, unanswered).await;
                }
                // What may have been written is not undone by a later failure.
                Some(unanswered) => unanswered,
                None => error,
            };
            let pause = backoff.pause();
            if !passing || Instant::now() + pause >= deadline {
                return Err(self.write_error(key, worst));
            }
            if matches!(worst, publish::Error::Ambiguous { .. }) {
                unanswered = Some(worst);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// A repeated write that conflicts may conflict with its own first try: the
    /// server looks at the expected revision before it looks at the id. But it
    /// stores the id.
    async fn resolve_write(
        &self,
        key: &str,
        message: &Outgoing,
        unanswered: publish::Error,
    ) -> Result<u64, Error> {
        let id = |headers: &HeaderMap| {
            headers.get(header::NATS_MESSAGE_ID).map(|id| id.as_str().to_owned())
        };
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&message.subject).await {
            Ok(last) if id(&last.headers) == id(&message.headers) => Ok(last.sequence),
            Err(error) if !is_no_message(&error) => Err(self.write_error(key, unanswered)),
            Ok(_) | Err(_) => Err(self.conflict(key)),
        }
    }

    fn write_error(&self, key: &str, error: publish::Error) -> Error {
        let (bucket, key) = (self.name.to_string(), key.to_owned());
        match error {
            publish::Error::WrongSequence { .. } => Error::Conflict { bucket, key },
            publish::Error::Ambiguous { .. } => {
                Error::Ambiguous { bucket, key, source: Box::new(error) }
            }
            error if error.is_retryable() => Error::Unavailable { bucket, source: Box::new(error) },
            error => Error::Refused { bucket, key, source: Box::new(error) },
        }
    }

    fn conflict(&self, key: &str) -> Error {
        Error::Conflict { bucket: self.name.to_string(), key: key.to_owned() }
    }

    fn unavailable(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Unavailable { bucket: self.name.to_string(), source: Box::new(source) }
    }

    async fn stream(&self) -> Result<Stream<()>, Error> {
        let stream = topology::bucket_stream(&self.name);
        let stream = self.bus.context().get_stream_no_info(stream).await;
        stream.map_err(|error| self.unavailable(error))
    }

    /// What the leader holds under `key`, asked again while it has no leader.
    async fn last(&self, key: &str) -> Result<Last, Error> {
        let subject = self.subject(key)?;
        let stream = self.stream().await?;
        let deadline = publish::deadline(&self.bus);
        let mut backoff = Backoff::repeating();
        loop {
            let error = match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) if is_marker(&message.headers) => {
                    return Ok(Last::Marker(message.sequence));
                }
                Ok(message) => return Ok(Last::Value(entry(key, message))),
                Err(error) => error,
            };
            if is_no_message(&error) {
                return Ok(Last::Nothing);
            }
            let pause = backoff.pause();
            if Instant::now() + pause >= deadline {
                return Err(self.unavailable(error));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether the leader answered that there is no message on a subject.
pub(crate) fn is_no_message(error: &LastRawMessageError) -> bool {
    match error.kind() {
        LastRawMessageErrorKind::NoMessageFound => true,
        LastRawMessageErrorKind::JetStream(error) => error.error_code().0 == NO_MESSAGE_FOUND,
        _ => false,
    }
}

/// The server takes more, but some clients and the dot rules do not (ADR-8).
fn is_key(key: &str) -> bool {
    let token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_=/".contains(&c))
    };
    key.split('.').all(token)
}

/// Ids only have to differ; they need no order and no secrecy.
fn unique_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn expect(headers: &mut HeaderMap, revision: u64) {
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
}

/// The server counts whole seconds, and takes 0 for "never".
fn set_ttl(headers: &mut HeaderMap, ttl: Duration) {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", seconds.max(1)));
}

fn is_marker(headers: &HeaderMap) -> bool {
    watch::delete_reason(headers).is_some()
}

fn entry(key: &str, message: jetstream::message::StreamMessage) -> Entry {
    let written_at = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos());
    Entry {
        key: key.to_owned(),
        value: message.payload,
        revision: message.sequence,
        written_at: written_at.unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_the_server_would_lose_are_refused() {
        for good in ["a", "job.018f", "name.x.bXk_-", "sha256-ab/c="] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a*", ">", "a b", "sha256:ab", "ü"] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn a_time_to_live_is_rounded_up_to_seconds() {
        for (millis, header) in [(1, "1s"), (1000, "1s"), (1001, "2s"), (0, "1s")] {
            let mut headers = HeaderMap::new();
            set_ttl(&mut headers, Duration::from_millis(millis));
            assert_eq!(headers.get(header::NATS_MESSAGE_TTL).map(|v| v.as_str()), Some(header));
        }
    }
}
