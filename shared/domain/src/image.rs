//! What a finished job produced.

use serde::{Deserialize, Serialize};
use slipway_oci::Digest;

/// The image of an active snapshot, as it lies in its region's object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the image config.
    pub config_digest: Digest,
    /// Compressed size in bytes: config and layers, as listed in the manifest.
    pub size: u64,
    /// The image's entrypoint, inherited ones included; empty if it has none.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The image's command, inherited ones included; empty if it has none.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Number of layers.
    pub layers: u32,
    /// Steps that BuildKit took from its cache.
    #[serde(default)]
    pub cached_steps: u32,
    /// Steps in all.
    #[serde(default)]
    pub total_steps: u32,
}
