//! Several keys of one bucket, changed together or not at all.
//!
//! Owns the atomic batch (ADR-50) on a bucket's stream. Invariant: readers and
//! watchers never see a part of a batch, and its revisions follow one another.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Request, header};
use bytes::Bytes;
use futures::future::try_join_all;
use serde::Serialize;
use tokio::time::Instant;

use super::{Bucket, Error, Last, expect, unique_id};
use crate::backoff::Backoff;
use crate::payload;
use crate::publish::{self, Outgoing};

/// More is refused by the server.
const MOST: usize = 1000;
/// The level at which servers know batches; older ones would store the messages
/// one by one.
const API_LEVEL: &str = "2";

/// What must be under a key for the batch to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No value: never written, deleted or expired.
    Absent,
    /// The value of this revision.
    Revision(u64),
    /// Whatever.
    Any,
}

#[derive(Debug, Clone)]
struct Write {
    key: String,
    /// `None` deletes.
    value: Option<(Bytes, Option<Duration>)>,
    expected: Expected,
}

/// Changes to be made together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys it changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Writes `value` under `key`.
    ///
    /// # Errors
    /// [`Error::Encode`] if the value does not serialize.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        key: impl Into<String>,
        value: &T,
        expected: Expected,
    ) -> Result<&mut Self, Error> {
        self.put_with_ttl(key, value, expected, None)
    }

    /// Writes `value` under `key`, to expire after `ttl` (rounded up to whole
    /// seconds) unless written again.
    ///
    /// # Errors
    /// [`Error::Encode`] if the value does not serialize.
    pub fn put_with_ttl<T: Serialize + ?Sized>(
        &mut self,
        key: impl Into<String>,
        value: &T,
        expected: Expected,
        ttl: Option<Duration>,
    ) -> Result<&mut Self, Error> {
        let key = key.into();
        match payload::encode(value) {
            Ok(value) => {
                self.writes.push(Write { key, value: Some((value, ttl)), expected });
                Ok(self)
            }
            Err(source) => Err(Error::Encode { key, source }),
        }
    }

    /// Deletes what is under `key`.
    pub fn delete(&mut self, key: impl Into<String>, expected: Expected) -> &mut Self {
        self.writes.push(Write { key: key.into(), value: None, expected });
        self
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |reason| Err(Error::InvalidBatch { reason });
        if self.writes.is_empty() {
            return invalid("it is empty");
        }
        if self.writes.len() > MOST {
            return invalid("it changes more than 1000 keys");
        }
        let mut keys = HashSet::new();
        if !self.writes.iter().all(|write| keys.insert(&write.key)) {
            return invalid("it names a key twice");
        }
        Ok(())
    }

    fn keys(&self) -> String {
        let keys: Vec<_> = self.writes.iter().map(|write| write.key.as_str()).collect();
        keys.join(", ")
    }
}

impl Bucket {
    /// Writes all of `batch` or nothing; the revisions are in its order.
    ///
    /// # Errors
    /// [`Error::Conflict`] if one key is not as expected. [`Error::Ambiguous`]
    /// if no answer came and the first key does not tell, either.
    pub async fn commit(&self, batch: &Batch) -> Result<Vec<u64>, Error> {
        batch.check()?;
        let expected = try_join_all(batch.writes.iter().map(|write| self.revision_for(write)));
        let expected = expected.await?;
        let deadline = publish::deadline(&self.bus);
        let mut backoff = Backoff::repeating();
        loop {
            let messages = self.messages(batch, &expected)?;
            let id = messages.id.clone();
            let error = match self.send(messages).await {
                Ok(last) => return Ok(revisions(last, batch.len())),
                Err(error) => error,
            };
            match error {
                publish::Error::Ambiguous { .. } => return self.resolve(batch, &id, error).await,
                error if error.is_retryable() => {
                    let pause = backoff.pause();
                    if Instant::now() + pause >= deadline {
                        return Err(self.write_error(&batch.keys(), error));
                    }
                    tokio::time::sleep(pause).await;
                }
                error => return Err(self.write_error(&batch.keys(), error)),
            }
        }
    }

    /// The revision that the server is told to expect. Only "absent" has to be
    /// looked up, since the server does not take a marker for absence.
    async fn revision_for(&self, write: &Write) -> Result<Option<u64>, Error> {
        match write.expected {
            Expected::Any => Ok(None),
            Expected::Revision(revision) => Ok(Some(revision)),
            Expected::Absent => match self.last(&write.key).await? {
                Last::Nothing => Ok(Some(0)),
                Last::Marker(revision) => Ok(Some(revision)),
                Last::Value(_) => Err(self.conflict(&write.key)),
            },
        }
    }

    fn messages(&self, batch: &Batch, expected: &[Option<u64>]) -> Result<Messages, Error> {
        let id = unique_id();
        let mut list = Vec::with_capacity(batch.len());
        for (index, (write, expected)) in batch.writes.iter().zip(expected).enumerate() {
            let mut message = match &write.value {
                Some((value, ttl)) => self.value_message(&write.key, value.clone(), *ttl)?,
                None => self.delete_message(&write.key)?,
            };
            let headers = &mut message.headers;
            headers.insert(header::NATS_BATCH_ID, id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, (index + 1).to_string());
            headers.insert(header::NATS_REQUIRED_API_LEVEL, API_LEVEL);
            if let Some(revision) = expected {
                expect(headers, *revision);
            }
            if index + 1 == batch.len() {
                headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
            }
            list.push(message);
        }
        Ok(Messages { id, list })
    }

    /// Sends a batch; returns the sequence of its last message. The first is
    /// answered at once, which tells a server that cannot do this; the last is
    /// answered when all are stored.
    async fn send(&self, messages: Messages) -> Result<u64, publish::Error> {
        let count = messages.list.len();
        let mut last = 0;
        for (index, message) in messages.list.into_iter().enumerate() {
            if index + 1 == count {
                last = message.send(&self.bus).await?.sequence;
            } else if index == 0 {
                self.open_batch(&message).await?;
            } else {
                let Outgoing { subject, headers, payload } = message;
                let sent =
                    self.bus.client().publish_with_headers(subject.clone(), headers, payload);
                if sent.await.is_err() {
                    // The client is closed; the batch is never committed.
                    return Err(publish::Error::NoStream { subject });
                }
            }
        }
        Ok(last)
    }

    async fn open_batch(&self, first: &Outgoing) -> Result<(), publish::Error> {
        let request = Request::new()
            .headers(first.headers.clone())
            .payload(first.payload.clone())
            .timeout(Some(self.bus.request_timeout()));
        match self.bus.client().send_request(first.subject.clone(), request).await {
            Ok(answer) if answer.payload.is_empty() => Ok(()),
            Ok(answer) => publish::parse(&first.subject, &answer.payload).map(|_| ()),
            // Without a commit nothing is ever stored.
            Err(_) => Err(publish::Error::NoStream { subject: first.subject.clone() }),
        }
    }

    /// Finds out whether a batch was written whose commit was not answered: its
    /// id is stored with each message.
    async fn resolve(
        &self,
        batch: &Batch,
        id: &str,
        error: publish::Error,
    ) -> Result<Vec<u64>, Error> {
        let ambiguous = |error| Err(self.write_error(&batch.keys(), error));
        let Some(first) = batch.writes.first() else { return ambiguous(error) };
        let (subject, stream) = (self.subject(&first.key)?, self.stream().await?);
        let Ok(message) = stream.get_last_raw_message_by_subject(&subject).await else {
            return ambiguous(error);
        };
        if batch_id(&message) == Some(id) {
            let last = message.sequence + batch.len() as u64 - 1;
            return Ok(revisions(last, batch.len()));
        }
        ambiguous(error)
    }
}

struct Messages {
    id: String,
    list: Vec<Outgoing>,
}

fn batch_id(message: &StreamMessage) -> Option<&str> {
    message.headers.get(header::NATS_BATCH_ID).map(|id| id.as_str())
}

/// A batch is stored without anything in between.
fn revisions(last: u64, count: usize) -> Vec<u64> {
    let count = count as u64;
    (last + 1 - count.min(last)..=last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_end_with_the_one_acknowledged() {
        assert_eq!(revisions(7, 3), [5, 6, 7]);
        assert_eq!(revisions(1, 1), [1]);
    }

    #[test]
    fn batches_that_the_server_would_refuse_are_refused_here() {
        assert!(Batch::new().check().is_err());
        let mut twice = Batch::new();
        twice.delete("a", Expected::Any).delete("a", Expected::Revision(1));
        assert!(twice.check().is_err());
        let mut large = Batch::new();
        for n in 0..=MOST {
            large.delete(format!("k{n}"), Expected::Any);
        }
        assert!(large.check().is_err());
    }
}
