//! What can go wrong at the object store, told apart by what a caller does
//! about it.

use slipway_oci::Mismatch;

use crate::ObjectKey;

/// An error of any type, as sources are kept.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An operation on the object store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names no store that can be opened.
    #[error("object store `{url}` cannot be opened")]
    Open {
        /// The configured URL, without credentials.
        url: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// There is no such object.
    #[error("object `{0}` does not exist")]
    NotFound(Box<ObjectKey>),
    /// The object has no byte in the range asked for.
    #[error("object `{key}` of {size} bytes has nothing in the range")]
    Range {
        /// The object.
        key: Box<ObjectKey>,
        /// Its size in bytes.
        size: u64,
    },
    /// The object is larger than the caller takes into memory.
    #[error("object `{key}` of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The object.
        key: Box<ObjectKey>,
        /// Its size in bytes.
        size: u64,
        /// What the caller takes.
        limit: u64,
    },
    /// The content was not what was promised; nothing became visible.
    #[error("content for `{key}` was refused")]
    Mismatch {
        /// Where it would have gone.
        key: Box<ObjectKey>,
        /// What was wrong with it.
        #[source]
        source: Mismatch,
    },
    /// The content broke off at its source; nothing became visible.
    #[error("content for `{key}` broke off")]
    Body {
        /// Where it would have gone.
        key: Box<ObjectKey>,
        /// The source's error.
        #[source]
        source: BoxError,
    },
    /// The store did not answer as it should; the same call may work later.
    #[error("object store failed to {operation} `{path}`")]
    Unavailable {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The object's path, or the listed folder's.
        path: String,
        /// The store's error.
        #[source]
        source: BoxError,
    },
    /// The store will not do this however often it is asked: no permission, no
    /// bucket, not supported.
    #[error("object store refuses to {operation} `{path}`")]
    Refused {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The object's path, or the listed folder's.
        path: String,
        /// The store's error.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call may succeed later without anyone's doing. A body
    /// that broke off counts: its sender can send it again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Body { .. } => true,
            Self::Open { .. }
            | Self::NotFound(_)
            | Self::Range { .. }
            | Self::TooLarge { .. }
            | Self::Mismatch { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Sorts an error of a read: absence is the object's.
    pub(crate) fn read(
        operation: &'static str,
        key: &ObjectKey,
        source: object_store::Error,
    ) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound(key.clone().into()),
            other => Self::sort(operation, key.to_string(), other),
        }
    }

    /// Sorts an error of a write or a list: absence is the bucket's.
    pub(crate) fn sort(operation: &'static str, path: String, source: object_store::Error) -> Self {
        match source {
            object_store::Error::Generic { .. } | object_store::Error::JoinError { .. } => {
                Self::Unavailable { operation, path, source: source.into() }
            }
            other => Self::Refused { operation, path, source: other.into() },
        }
    }
}
