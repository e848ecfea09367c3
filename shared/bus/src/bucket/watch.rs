//! Following a bucket.
//!
//! Owns turning a bucket's stream into changes, and the mark at which the first
//! state is complete. Relies on one value per key: reading the stream from a
//! revision on is all that changed since. Invariant: applying the changes in
//! order to an empty map gives the bucket, and clearing the map at every
//! [`Change::Reset`] keeps it so over restarts and lost data.

use async_nats::{HeaderMap, Message, header};
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Bucket, Entry, Error, KV_OPERATION};
use crate::ack::Position;
use crate::tail::{Source, Step, Tail};
use crate::topology;

/// Entries asked for at a time: very many, since a view starts with all of them, and
/// the server does nothing between two requests.
const BATCH: usize = 5000;

/// What happened in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A value was written.
    Put(Entry),
    /// The value under a key is gone. Also comes for keys that the watcher never
    /// saw a value of.
    Deleted {
        /// The key.
        key: String,
        /// The revision of the deletion.
        revision: u64,
        /// Why.
        reason: DeleteReason,
    },
    /// Everything that was there when the watch began has been handed out; at
    /// once for an empty bucket. Comes again after each [`Change::Reset`].
    Ready,
    /// The server lost data, or the watch was cut off for so long that
    /// deletions may have been missed. Forget everything: the whole bucket
    /// follows, then [`Change::Ready`].
    Reset,
}

/// Why a value is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteReason {
    /// Somebody deleted it.
    Deleted,
    /// Its time-to-live ran out.
    Expired,
    /// An operator removed it from the stream.
    Removed,
}

/// Reads why a message stands for the absence of a value; `None` for a value.
pub(super) fn delete_reason(headers: &HeaderMap) -> Option<DeleteReason> {
    if let Some(operation) = headers.get(KV_OPERATION) {
        return (operation.as_str() != "PUT").then_some(DeleteReason::Deleted);
    }
    match headers.get(header::NATS_MARKER_REASON)?.as_str() {
        "MaxAge" => Some(DeleteReason::Expired),
        _ => Some(DeleteReason::Removed),
    }
}

/// A watch on a bucket; it goes on by itself over reconnects and restarts.
pub struct Watch {
    tail: Tail,
    prefix: String,
}

impl Bucket {
    /// Follows the whole bucket. `from` is the last revision already known (of
    /// any key): only later changes follow. It must not be older than the
    /// bucket's [`marker_ttl`](crate::topology::BucketName::marker_ttl), or
    /// deletions may be missing; with `None` the watch starts with everything.
    #[must_use]
    pub fn watch(&self, from: Option<u64>) -> Watch {
        // Without a filter the server needs to compare nothing.
        self.watch_filtered(String::new(), from)
    }

    /// Follows the keys that match `filter`, for example `worker.>`.
    #[must_use]
    pub fn watch_keys(&self, filter: &str, from: Option<u64>) -> Watch {
        self.watch_filtered(topology::key_subject(&self.name, filter), from)
    }

    fn watch_filtered(&self, filter: String, from: Option<u64>) -> Watch {
        let source = Source {
            stream: topology::bucket_stream(&self.name),
            filter,
            batch: BATCH,
            // Half, since clocks and retries take their share.
            stale_after: Some(self.name.marker_ttl() / 2),
        };
        Watch {
            tail: Tail::new(&self.bus, source, from.unwrap_or(0)),
            prefix: topology::key_subject(&self.name, ""),
        }
    }
}

impl Watch {
    /// Since when the bucket is heard without interruption; `None` while it is not,
    /// and before the first call of [`next`](Self::next). What expired while it was
    /// not heard may have done so only because nobody could write.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Option<Instant>> {
        self.tail.contact()
    }

    /// The next change. Waits for as long as it takes, whatever happens to the
    /// server meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the bucket does not exist when the watch begins.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            let step = self.tail.next().await.map_err(|error| Error::Unavailable {
                bucket: self.prefix.clone(),
                source: Box::new(error),
            })?;
            match step {
                Step::CaughtUp => return Ok(Change::Ready),
                Step::Reset => return Ok(Change::Reset),
                Step::Message(message, position) => {
                    if let Some(change) = self.change(message, position) {
                        return Ok(change);
                    }
                }
            }
        }
    }

    /// The changes as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Change, Error>> + Send {
        futures::stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(change) => Some((Ok(change), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn change(&self, message: Message, position: Position) -> Option<Change> {
        let key = message.subject.as_str().strip_prefix(&self.prefix)?.to_owned();
        let revision = position.stream_sequence;
        let reason = message.headers.as_ref().and_then(delete_reason);
        Some(match reason {
            Some(reason) => Change::Deleted { key, revision, reason },
            None => Change::Put(Entry {
                key,
                value: message.payload,
                revision,
                written_at: position.stored_at,
            }),
        })
    }
}
