//! Bounds on what clients may make the registry do.

use std::time::Duration;

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

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_idle: Duration::from_secs(15 * 60),
            open_uploads: 256,
            blob_size: 80_000_000_000,
        }
    }
}
