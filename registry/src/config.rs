//! How a registry behaves, and bounds on what clients may make it do.

use std::sync::Arc;
use std::time::Duration;

use slipway_runtime::telemetry::http::Requests;

use crate::usage::UseObserver;

/// How a registry behaves.
#[derive(Clone, Default)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Sends clients that want a blob to the object store, by a URL that is
    /// good for this long, where the store has such URLs. The store must be
    /// within reach of every client then, BuildKit included. Without it, and
    /// with other stores, blobs pass through the registry.
    pub redirect_blobs: Option<Duration>,
    /// Counts requests.
    pub requests: Option<Requests>,
    /// Is told of every manifest that a client gets.
    pub observer: Option<Arc<dyn UseObserver>>,
}

impl From<Limits> for Options {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("redirect_blobs", &self.redirect_blobs)
            .finish_non_exhaustive()
    }
}

/// How long a URL of the object store is good, where nothing else is said.
pub const REDIRECT_TTL: Duration = Duration::from_secs(15 * 60);

/// Bounds. The defaults suit a worker and its BuildKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long an upload may rest between two requests before it is dropped.
    pub upload_idle: Duration,
    /// Uploads that may be open at once, over all organizations. Each can hold
    /// a part of the object store's (8 MiB on S3) in memory.
    pub open_uploads: usize,
    /// Largest blob in bytes; 80 GB is what S3 takes in parts of 8 MiB.
    pub blob_size: u64,
}

/// Largest manifest in bytes, as the specification recommends.
pub(crate) const MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// Advice to clients that send a blob in chunks: smaller ones are taken, but
/// cost a request each.
pub(crate) const CHUNK_ADVICE: u64 = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_idle: Duration::from_secs(15 * 60),
            open_uploads: 256,
            blob_size: 80_000_000_000,
        }
    }
}
