//! What can go wrong with a bucket, sorted by what may be done about it.

use crate::publish;

/// Why a key was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys are tokens of letters, digits, `-`, `_`, `=` and `/`, joined by dots.
    #[error("`{key}` cannot be a key")]
    InvalidKey {
        /// The offending key.
        key: String,
    },
    /// The batch is empty, too large, or names a key twice.
    #[error("the batch cannot be written: {reason}")]
    InvalidBatch {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The value does not serialize.
    #[error("cannot encode the value of `{key}`")]
    Encode {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The stored value is not what the reader expects.
    #[error("cannot decode revision {revision} of `{key}`")]
    Decode {
        /// The key.
        key: String,
        /// The revision.
        revision: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else wrote the key meanwhile; nothing was written.
    #[error("`{key}` in bucket `{bucket}` is not at the expected revision")]
    Conflict {
        /// The bucket.
        bucket: String,
        /// The key; for a batch its keys, since the server does not say which.
        key: String,
    },
    /// No answer came: written or not; see the module's words on this.
    #[error("`{key}` in bucket `{bucket}` may be written or not")]
    Ambiguous {
        /// The bucket.
        bucket: String,
        /// The key, or the keys of a batch.
        key: String,
        /// The last failure.
        #[source]
        source: Box<publish::Error>,
    },
    /// The bucket does not answer or is missing; nothing was written.
    #[error("bucket `{bucket}` is unavailable")]
    Unavailable {
        /// The bucket.
        bucket: String,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused; nothing was written, and repeating does not help.
    #[error("bucket `{bucket}` refused `{key}`")]
    Refused {
        /// The bucket.
        bucket: String,
        /// The key, or the keys of a batch.
        key: String,
        /// The failure.
        #[source]
        source: Box<publish::Error>,
    },
}

impl Error {
    /// Whether reading again and then trying again may succeed. A conflict is
    /// not: what to do depends on what the other writer wrote.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Ambiguous { .. } | Self::Unavailable { .. })
    }

    /// Whether somebody else wrote first.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}
