//! Counts of what the registry did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::metrics::Meter;

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

/// Each counter's name and meaning, for scrapers.
type Shown = (&'static str, &'static str, fn(&Counts) -> u64);

const SHOWN: [Shown; 9] = [
    ("slipway.registry.received.bytes", "Bytes of blobs that clients sent", |c| c.bytes_received),
    ("slipway.registry.sent.bytes", "Bytes of blobs that went to clients", |c| c.bytes_sent),
    ("slipway.registry.blobs.received", "Blobs that arrived", |c| c.blobs_received),
    ("slipway.registry.blobs.sent", "Blobs, or parts of them, that clients got", |c| c.blobs_sent),
    (
        "slipway.registry.blobs.redirected",
        "Blobs for which clients were sent to the object store",
        |c| c.blobs_redirected,
    ),
    ("slipway.registry.blobs.mounted", "Blobs that were linked instead of sent", |c| {
        c.blobs_mounted
    }),
    ("slipway.registry.manifests.received", "Manifests that were stored", |c| c.manifests_received),
    ("slipway.registry.manifests.sent", "Manifests that clients got", |c| c.manifests_sent),
    ("slipway.registry.uploads.refused", "Uploads that were not what they claimed to be", |c| {
        c.uploads_refused
    }),
];

impl Metrics {
    /// Shows all counters in `meter`.
    pub fn observe(self: &Arc<Self>, meter: &Meter) {
        for (name, text, read) in SHOWN {
            let metrics = Arc::clone(self);
            let counter = meter.u64_observable_counter(name).with_description(text);
            let _registered = counter
                .with_callback(move |observer| observer.observe(read(&metrics.counts()), &[]))
                .build();
        }
    }

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
