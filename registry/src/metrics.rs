//! Counts of what the registry did.

use std::sync::atomic::{AtomicU64, Ordering};

/// The registry's counters, since its start.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) blobs_received: Counter,
    pub(crate) blobs_sent: Counter,
    pub(crate) blobs_redirected: Counter,
    pub(crate) blobs_mounted: Counter,
    pub(crate) manifests_received: Counter,
    pub(crate) manifests_sent: Counter,
    pub(crate) uploads_refused: Counter,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of blobs that clients sent, whatever became of them.
    pub bytes_received: u64,
    /// Bytes of blobs that went to clients.
    pub bytes_sent: u64,
    /// Blobs that arrived whole and right.
    pub blobs_received: u64,
    /// Blobs, or parts of them, that clients asked for and got.
    pub blobs_sent: u64,
    /// Blobs that clients were sent to the object store for.
    pub blobs_redirected: u64,
    /// Blobs that were linked from another repository instead of sent.
    pub blobs_mounted: u64,
    /// Manifests that were stored.
    pub manifests_received: u64,
    /// Manifests that clients got.
    pub manifests_sent: u64,
    /// Uploads whose content was not what it claimed to be.
    pub uploads_refused: u64,
}

impl Metrics {
    /// Reads all counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            blobs_received: self.blobs_received.get(),
            blobs_sent: self.blobs_sent.get(),
            blobs_redirected: self.blobs_redirected.get(),
            blobs_mounted: self.blobs_mounted.get(),
            manifests_received: self.manifests_received.get(),
            manifests_sent: self.manifests_sent.get(),
            uploads_refused: self.uploads_refused.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
