//! Descriptors: media type, digest and size of some content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, MediaType, Platform};

/// Points at content (OCI image specification, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else the content may be fetched; used by foreign layers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What the content runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of artifact that the content is, in an index of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
}

impl Descriptor {
    /// A descriptor with the three required members only.
    #[must_use]
    pub const fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: None,
            annotations: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// Describes `content`, which is in memory.
    #[must_use]
    pub fn of(media_type: MediaType, content: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(content), content.len() as u64)
    }

    /// Whether this is the in-toto attestation that BuildKit puts beside an
    /// image in its index: no image, though it has the form of a manifest.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotations.as_ref().is_some_and(|annotations| {
            annotations
                .get("vnd.docker.reference.type")
                .is_some_and(|kind| kind == "attestation-manifest")
        })
    }
}
